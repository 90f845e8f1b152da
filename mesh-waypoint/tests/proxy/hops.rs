//! What is between two hops and goes no further: fields, expectations, trailers, and the order of answers.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::bad_requests::{TARGET, first_line, status};
use crate::server::serve;
use crate::world::{OUTSIDE, OUTSIDE_SERVICE, authorization, run, run_with};

#[test]
fn fields_that_connection_names_go_no_further_and_convince_nobody() {
    let policy = authorization(OUTSIDE_SERVICE, "ALLOW", "{when: [{key: 'request.headers[x-token]', values: [good]}]}");
    run_with(&policy, async |world| {
        let backend = serve(OUTSIDE, 8080, false).await;
        let fields = "te: trailers, deflate\r\nkeep-alive: 5\r\nproxy-connection: close\r\nproxy-authenticate: a\r\nupgrade-insecure-requests: 1";
        for (connection, expected) in [("x-token", "403"), ("keep-alive, X-Token", "403"), ("x-other", "200")] {
            let request = format!(
                "GET / HTTP/1.1\r\nhost: a\r\nx-token: good\r\nx-other: 1\r\n{fields}\r\nconnection: {connection}\r\n\r\n"
            );
            assert_eq!(status(&first_line(&world, request.as_bytes()).await), expected, "{connection}");
        }
        let seen = backend.seen.borrow();
        assert_eq!(seen.len(), 1);
        for name in ["x-other", "connection", "keep-alive", "proxy-connection", "transfer-encoding"] {
            assert!(!seen[0].headers.contains_key(name), "{name}");
        }
        assert_eq!(seen[0].headers.get("te").map(http::HeaderValue::as_bytes), Some(&b"trailers"[..]));
    });
}

#[test]
fn what_a_client_says_of_its_own_certificate_convinces_no_policy() {
    let policy = authorization(
        OUTSIDE_SERVICE,
        "ALLOW",
        "{when: [{key: 'request.headers[x-forwarded-client-cert]', values: ['*sa/boss']}]}",
    );
    run_with(&policy, async |world| {
        let backend = serve(OUTSIDE, 8080, false).await;
        let claim = "x-forwarded-client-cert: URI=spiffe://cluster.local/ns/bank/sa/boss";
        let request = format!("GET / HTTP/1.1\r\nhost: a\r\n{claim}\r\n\r\n");
        assert_eq!(status(&first_line(&world, request.as_bytes()).await), "403");
        assert!(backend.seen.borrow().is_empty());
    });
}

#[test]
fn who_waits_to_send_a_body_is_told_to_go_on_by_the_waypoint() {
    run(async |world| {
        let backend = serve(OUTSIDE, 8080, false).await;
        let mut stream = world.tunnel(TARGET).await.expect("tunnel");
        let request = "POST /echo HTTP/1.1\r\nhost: a\r\nexpect: 100-Continue\r\ncontent-length: 5\r\n\r\n";
        stream.write_all(request.as_bytes()).await.expect("write");
        let mut read = Vec::new();
        while !read.ends_with(b"\r\n\r\n") {
            assert!(stream.read_buf(&mut read).await.expect("read") > 0);
        }
        assert!(read.starts_with(b"HTTP/1.1 100"), "{}", String::from_utf8_lossy(&read));
        stream.write_all(b"hello").await.expect("write");
        while !read.ends_with(b"hello") {
            assert!(stream.read_buf(&mut read).await.expect("read") > 0, "{}", String::from_utf8_lossy(&read));
        }
        assert!(!backend.seen.borrow()[0].headers.contains_key("expect"));
    });
}

#[test]
fn an_expectation_that_nobody_knows_is_not_met() {
    run(async |world| {
        let backend = serve(OUTSIDE, 8080, false).await;
        let answer = first_line(&world, b"GET / HTTP/1.1\r\nhost: a\r\nexpect: tea\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 417"), "{answer}");
        assert!(backend.seen.borrow().is_empty());
    });
}

#[test]
fn requests_in_one_write_are_answered_in_their_order() {
    run(async |world| {
        let backend = serve(OUTSIDE, 8080, false).await;
        let mut stream = world.tunnel(TARGET).await.expect("tunnel");
        let first = "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nfirst";
        let second = "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n6\r\nsecond\r\n0\r\n\r\n";
        let third = "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\nconnection: close\r\n\r\nthird";
        let after = "GET /after HTTP/1.1\r\nhost: a\r\n\r\n";
        stream.write_all(format!("{first}{second}{third}{after}").as_bytes()).await.expect("write");
        let mut read = Vec::new();
        stream.read_to_end(&mut read).await.expect("read");
        let text = String::from_utf8_lossy(&read);
        let places =
            ["first", "second", "third"].map(|body| text.find(body).unwrap_or_else(|| panic!("{body}: {text}")));
        assert!(places.is_sorted(), "{text}");
        assert_eq!(backend.seen.borrow().len(), 3, "nothing comes after the last");
    });
}
