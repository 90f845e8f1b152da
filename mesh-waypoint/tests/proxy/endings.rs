//! What clients are told when things end otherwise.

use std::time::Duration;

use http::Request;
use http_body_util::{BodyExt as _, Full};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::server::{Client, serve};
use crate::world::{OUTSIDE, run};

#[test]
fn an_upstream_that_cannot_be_asked_is_told_by_status_and_reason() {
    run(async |world| {
        let mut client = Client::http1(world.tunnel("10.96.0.3:80").await.expect("tunnel")).await;
        let answer = client.get("/").await;
        assert_eq!((answer.status, &answer.body[..]), (503, &b"no healthy upstream"[..]));
        // Endpoints whose nodes answer, and whose applications do not listen.
        let mut client = Client::http1(world.tunnel("10.96.0.1:80").await.expect("tunnel")).await;
        let answer = client.get("/").await;
        assert_eq!(answer.status, 503);
        assert!(String::from_utf8_lossy(&answer.body).contains("connection failure"), "{:?}", answer.body);
        assert_eq!(world.tunnels.borrow().len(), 3, "each endpoint was tried");
    });
}

#[test]
fn a_client_of_grpc_is_told_by_grpcs_status() {
    run(async |world| {
        let mut client = Client::http2(world.tunnel("10.96.0.3:80").await.expect("tunnel")).await;
        let request = Request::post("/a.B/C").header("content-type", "application/grpc").body(Full::default());
        let answer = client.ask(request.expect("valid")).await;
        assert_eq!((answer.status, &answer.headers["grpc-status"]), (200, &"14".parse().expect("valid")));
        assert_eq!(answer.headers["grpc-message"], "no healthy upstream");
    });
}

#[test]
fn half_a_response_is_never_taken_for_a_whole_one() {
    run(async |world| {
        let backend = serve(OUTSIDE, 8080, false).await;
        let mut client = Client::http1(world.tunnel("10.96.0.2:80").await.expect("tunnel")).await;
        let request = Request::get("/break").header("host", "outside").body(Full::default()).expect("valid");
        let mut body = client.send(request).await.expect("a head").into_body();
        let first = body.frame().await.expect("a frame").expect("whole");
        assert_eq!(first.into_data().expect("data"), "half");
        backend.break_off.notify_one();
        assert!(body.collect().await.is_err(), "the body broke off");
    });
}

#[test]
fn requests_with_two_readings_are_refused() {
    run(async |world| {
        let backend = serve(OUTSIDE, 8080, false).await;
        for request in [
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a b\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\r\nx: 1\r\n folded\r\n\r\n",
            "GET / HTTP/1.1\r\nhost : a\r\n\r\n",
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: +1\r\n\r\na",
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
            "NO HTTP\r\n\r\n",
        ] {
            let mut stream = world.tunnel("10.96.0.2:80").await.expect("tunnel");
            stream.write_all(request.as_bytes()).await.expect("write");
            let mut answer = [0; 12];
            stream.read_exact(&mut answer).await.expect("an answer");
            assert_eq!(&answer, b"HTTP/1.1 400", "{request:?}");
        }
        assert!(backend.seen.borrow().is_empty(), "{:?}", backend.seen.borrow());
        // A length beside chunks means nothing (RFC 9112, section 6.3): it does not go on.
        let mut stream = world.tunnel("10.96.0.2:80").await.expect("tunnel");
        let request = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n";
        stream.write_all(request.as_bytes()).await.expect("write");
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.expect("an answer");
        let seen = backend.seen.borrow();
        let ambiguous = seen
            .iter()
            .any(|head| head.headers.contains_key("content-length") && head.headers.contains_key("transfer-encoding"));
        assert!(!ambiguous, "{seen:?}");
    });
}

#[test]
fn a_client_that_goes_away_takes_its_request_with_it() {
    run(async |world| {
        let backend = serve(OUTSIDE, 8080, false).await;
        let mut stream = world.tunnel("10.96.0.2:80").await.expect("tunnel");
        stream.write_all(b"GET /never HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("write");
        while !backend.seen.borrow().iter().any(|head| head.uri.path() == "/never") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        drop(stream);
        let told = |log: &[String]| log.iter().any(|line| line.contains("/never") && line.contains("\"DC\""));
        while !told(&world.log.lock().expect("log")) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(backend.seen.borrow().iter().filter(|head| head.uri.path() == "/never").count(), 1);
    });
}

#[test]
fn what_is_under_way_ends_while_the_waypoint_drains() {
    run(async |mut world| {
        serve(OUTSIDE, 8080, false).await;
        assert_eq!(world.readiness().await.expect("an answer"), 200);
        let mut client = Client::http1(world.tunnel("10.96.0.2:80").await.expect("tunnel")).await;
        assert_eq!(client.get("/").await.status, 200);
        let mut slow = world.tunnel("10.96.0.2:80").await.expect("tunnel");
        slow.write_all(b"POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nha").await.expect("write");
        let mut read = Vec::new();
        while !read.ends_with(b"ha") {
            assert!(slow.read_buf(&mut read).await.expect("read") > 0);
        }
        world.terminate();
        while world.readiness().await.expect("an answer") != 503 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        slow.write_all(b"lf").await.expect("write");
        slow.read_to_end(&mut read).await.expect("read");
        assert!(read.ends_with(b"half"), "{}", String::from_utf8_lossy(&read));
        drop((slow, client));
        while world.ended().is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(world.ended(), Some(true));
    });
}
