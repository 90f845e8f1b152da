//! Requests of HTTP/1 that are not as they should be, or that two servers could read in two ways.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::metrics::{bad_input, scrape};
use crate::server::{Backend, serve};
use crate::world::{OUTSIDE, World, run};

/// The Service outside.
pub(crate) const TARGET: &str = "10.96.0.2:80";

/// What the waypoint writes until it ends the connection.
async fn answer_to(world: &World, request: &[u8]) -> String {
    let mut stream = world.tunnel(TARGET).await.expect("tunnel");
    // It may answer, and stop reading, before all is written.
    let _ = stream.write_all(request).await;
    let mut read = Vec::new();
    // It may be a reset after the answer.
    let _ = stream.read_to_end(&mut read).await;
    String::from_utf8_lossy(&read).into_owned()
}

/// The first line of the answer, of a connection that may stay.
pub(crate) async fn first_line(world: &World, request: &[u8]) -> String {
    let mut stream = world.tunnel(TARGET).await.expect("tunnel");
    stream.write_all(request).await.expect("write");
    let mut read = Vec::new();
    while !read.contains(&b'\n') && stream.read_buf(&mut read).await.expect("read") > 0 {}
    String::from_utf8_lossy(&read).lines().next().unwrap_or_default().to_owned()
}

/// The status of an answer.
pub(crate) fn status(answer: &str) -> &str {
    answer.strip_prefix("HTTP/1.1 ").or(answer.strip_prefix("HTTP/1.0 ")).and_then(|rest| rest.get(..3)).unwrap_or("")
}

fn targets(backend: &Backend) -> Vec<String> {
    backend.seen.borrow().iter().map(|head| head.uri.to_string()).collect()
}

#[test]
fn a_head_that_is_no_head_is_refused_and_the_connection_ended() {
    run(async |world| {
        let backend = serve(OUTSIDE, 8080, false).await;
        let long = "a".repeat(70_000);
        let many: String = (0..250).map(|index| format!("x-{index}: 1\r\n")).collect();
        for (request, expected) in [
            // RFC 9112, section 2.2 and 5: lines, and fields.
            ("GET / HTTP/1.1\r\nhost: a\r\nx: 1\r\n folded\r\n\r\n".to_owned(), "400"),
            ("GET / HTTP/1.1\r\nhost: a\r\n\tx: 1\r\n\r\n".to_owned(), "400"),
            ("GET / HTTP/1.1\r\nhost : a\r\n\r\n".to_owned(), "400"),
            ("GET / HTTP/1.1\r\n host: a\r\n\r\n".to_owned(), "400"),
            ("GET / HTTP/1.1\r\nhost: a\r\nx: 1\rtransfer-encoding: chunked\r\n\r\n".to_owned(), "400"),
            ("GET / HTTP/1.1\rhost: a\r\n\r\n".to_owned(), "400"),
            ("GET / HTTP/1.1\r\nhost: a\r\nx: 1\0\r\n\r\n".to_owned(), "400"),
            ("GET / HTTP/1.1\r\nhost: a\r\nx\0y: 1\r\n\r\n".to_owned(), "400"),
            ("GET / HTTP/1.1\r\nhost: a\r\n: 1\r\n\r\n".to_owned(), "400"),
            ("GET / HTTP/1.1\r\nhost: a\r\nno colon\r\n\r\n".to_owned(), "400"),
            // Section 3: the first line.
            ("NO HTTP\r\n\r\n".to_owned(), "400"),
            ("GET /\r\nhost: a\r\n\r\n".to_owned(), "400"),
            ("GET  / HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(), "400"),
            ("GET / a HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(), "400"),
            ("GET / HTTP/1.2\r\nhost: a\r\n\r\n".to_owned(), "400"),
            ("GET / HTTP/3.0\r\nhost: a\r\n\r\n".to_owned(), "400"),
            ("GET / http/1.1\r\nhost: a\r\n\r\n".to_owned(), "400"),
            ("G(T / HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(), "400"),
            ("G\0T / HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(), "400"),
            ("GET /\0 HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(), "400"),
            ("GET /\x7f HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(), "400"),
            ("\x16\x03\x01\x02\0\x01\0\x01\r\n\r\n".to_owned(), "400"),
            // Bounds.
            (format!("GET /{long} HTTP/1.1\r\nhost: a\r\n\r\n"), "431"),
            (format!("GET / HTTP/1.1\r\nhost: a\r\nx: {long}\r\n\r\n"), "431"),
            (format!("GET / HTTP/1.1\r\nhost: a\r\nx: {long}"), "431"),
            (format!("GET / HTTP/1.1\r\nhost: a\r\n{many}\r\n"), "431"),
        ] {
            let answer = answer_to(&world, request.as_bytes()).await;
            assert_eq!(status(&answer), expected, "{:?}", &request[..request.len().min(80)]);
        }
        assert_eq!(targets(&backend), Vec::<String>::new());
        let (_, lines) = scrape("/metrics").await;
        assert_eq!(bad_input(&lines, "client", "malformed_head"), 22.0);
        assert_eq!(bad_input(&lines, "client", "head_too_large"), 4.0);
    });
}

#[test]
fn where_a_body_ends_has_one_reading_or_none() {
    run(async |world| {
        let backend = serve(OUTSIDE, 8080, false).await;
        let post = |fields: &str, body: &str| format!("POST /body HTTP/1.1\r\nhost: a\r\n{fields}\r\n\r\n{body}");
        for request in [
            post("content-length: 1\r\ncontent-length: 2", "ab"),
            post("content-length: 1, 2", "ab"),
            post("content-length: 1, 1", "a"),
            post("content-length: +1", "a"),
            post("content-length: -1", "a"),
            post("content-length: 0x1", "a"),
            post("content-length: 1 1", "a"),
            post("content-length:", "a"),
            post("content-length: 99999999999999999999", "a"),
            post("transfer-encoding: chunked, identity", "0\r\n\r\n"),
            post("transfer-encoding: identity", "a"),
            post("transfer-encoding: xchunked", "0\r\n\r\n"),
            post("transfer-encoding: \"chunked\"", "0\r\n\r\n"),
            post("transfer-encoding: gzip, chunked", "0\r\n\r\n"),
            post("transfer-encoding: gzip\r\ntransfer-encoding: chunked", "0\r\n\r\n"),
            post("transfer-encoding: chunked, chunked", "0\r\n\r\n"),
            post("transfer-encoding: chunked\r\ntransfer-encoding: chunked", "0\r\n\r\n"),
            "POST /body HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(),
            "GET /body HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(),
        ] {
            let answer = answer_to(&world, request.as_bytes()).await;
            assert!(["400", "501"].contains(&status(&answer)), "{request:?} {answer}");
        }
        assert_eq!(targets(&backend), Vec::<String>::new());
    });
}

/// RFC 9112, section 6.3: a length beside chunks means nothing; the connection ends after it, and what follows is nobody's request.
#[test]
fn a_length_beside_chunks_hides_no_second_request() {
    run(async |world| {
        let backend = serve(OUTSIDE, 8080, false).await;
        for fields in [
            "content-length: 6\r\ntransfer-encoding: chunked",
            "transfer-encoding: chunked\r\ncontent-length: 6",
            "content-length: 5\r\ntransfer-encoding: Chunked",
        ] {
            let hidden = "0\r\n\r\nGET /hidden HTTP/1.1\r\nhost: a\r\n\r\n";
            let answer =
                answer_to(&world, format!("POST / HTTP/1.1\r\nhost: a\r\n{fields}\r\n\r\n{hidden}").as_bytes()).await;
            assert!(["400", "200"].contains(&status(&answer)), "{answer}");
            assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
        }
        let seen = backend.seen.borrow();
        assert!(seen.iter().all(|head| head.uri.path() == "/"), "{seen:?}");
        let ambiguous = |head: &http::request::Parts| {
            head.headers.contains_key("content-length") && head.headers.contains_key("transfer-encoding")
        };
        assert!(!seen.iter().any(ambiguous), "{seen:?}");
    });
}

#[test]
fn chunks_that_are_none_end_the_connection_and_hide_nothing() {
    run(async |world| {
        let backend = serve(OUTSIDE, 8080, false).await;
        let long = "e".repeat(70_000);
        let trailers: String = (0..250).map(|index| format!("t-{index}: 1\r\n")).collect();
        for body in [
            "5\r\nhello",
            "g\r\nhello\r\n0\r\n\r\n",
            "-1\r\nhello\r\n0\r\n\r\n",
            "+5\r\nhello\r\n0\r\n\r\n",
            "0x5\r\nhello\r\n0\r\n\r\n",
            "5\rhello\r\n0\r\n\r\n",
            "5\nhello\r\n0\r\n\r\n",
            "5;a\nhello\r\n0\r\n\r\n",
            "5\r\nhello!\r\n0\r\n\r\n",
            "5\r\nhell\r\n0\r\n\r\n",
            "\r\n0\r\n\r\n",
            "ffffffffffffffffff\r\nhello\r\n0\r\n\r\n",
            "5 5\r\nhello\r\n0\r\n\r\n",
            &format!("5;{long}\r\nhello\r\n0\r\n\r\n"),
            &format!("0\r\nt: {long}\r\n\r\n"),
            &format!("0\r\n{trailers}\r\n"),
            "0\r\nt : 1\r\n\r\n",
            "0\r\nt: 1\r\n folded\r\n\r\n",
        ] {
            let hidden = "GET /hidden HTTP/1.1\r\nhost: a\r\n\r\n";
            let request = format!("POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{body}{hidden}");
            let mut stream = world.tunnel(TARGET).await.expect("tunnel");
            let _ = stream.write_all(request.as_bytes()).await;
            let _ = stream.shutdown().await;
            let mut read = Vec::new();
            let _ = stream.read_to_end(&mut read).await;
            let answer = String::from_utf8_lossy(&read).into_owned();
            // Either it is told, or the answer that was under way breaks off: the echo's last chunk does not come.
            let told = status(&answer) == "400";
            let broken_off = status(&answer) == "200" && !answer.ends_with("0\r\n\r\n");
            let shown = &body[..body.len().min(40)];
            assert!(told || broken_off || answer.is_empty(), "{shown:?}: {answer}");
        }
        let hidden = targets(&backend).iter().any(|target| target == "/hidden");
        assert!(!hidden, "{:?}", targets(&backend));
        let (_, lines) = scrape("/metrics").await;
        assert_eq!(bad_input(&lines, "client", "malformed_body"), 18.0);
    });
}

#[test]
fn good_chunks_pass_whatever_is_said_beside_them() {
    run(async |world| {
        let backend = serve(OUTSIDE, 8080, false).await;
        for body in [
            "5;a=b;c=\"d\"\r\nhello\r\n0\r\n\r\n",
            "00005\r\nhello\r\n000\r\n\r\n",
            "2\r\nhe\r\n3\r\nllo\r\n0\r\nt: 1\r\n\r\n",
        ] {
            let fields = "connection: close\r\ntransfer-encoding: chunked";
            let request = format!("POST /echo HTTP/1.1\r\nhost: a\r\n{fields}\r\n\r\n{body}");
            let answer = answer_to(&world, request.as_bytes()).await;
            assert_eq!(status(&answer), "200", "{answer}");
            assert!(answer.contains("llo\r\n") && answer.ends_with("0\r\n\r\n"), "{answer}");
        }
        // A body of GET that is chunked goes on as well: it is not left out in silence.
        let request = "GET /echo HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
        let answer = answer_to(&world, request.as_bytes()).await;
        assert!(answer.contains("hello"), "{answer}");
        assert_eq!(backend.seen.borrow().len(), 4);
    });
}

#[test]
fn whom_a_request_asks_has_one_reading() {
    run(async |world| {
        let backend = serve(OUTSIDE, 8080, false).await;
        for head in [
            "GET / HTTP/1.1",
            "GET / HTTP/1.1\r\nhost: a\r\nhost: a",
            "GET / HTTP/1.1\r\nhost: a\r\nhost: b",
            "GET / HTTP/1.1\r\nhost:",
            "GET / HTTP/1.1\r\nhost: a b",
            "GET / HTTP/1.1\r\nhost: a, b",
            "GET / HTTP/1.1\r\nhost: a/b",
            "GET / HTTP/1.1\r\nhost: a?b",
            "GET / HTTP/1.1\r\nhost: a#b",
            "GET / HTTP/1.1\r\nhost: user@a",
            "GET / HTTP/1.1\r\nhost: user:secret@a",
            "GET / HTTP/1.1\r\nhost: a:b",
            "GET / HTTP/1.1\r\nhost: a:99999",
            "GET / HTTP/1.1\r\nhost: a:80:80",
            "GET / HTTP/1.1\r\nhost: a%00b",
            "GET / HTTP/1.1\r\nhost: *",
            "GET / HTTP/1.1\r\nhost: [::1",
            "GET / HTTP/1.1\r\nhost: [a",
            "GET http://a/ HTTP/1.1",
            "GET http://a/ HTTP/1.1\r\nhost: b\r\nhost: c",
            "GET http://a/ HTTP/1.1\r\nhost: b c",
            "GET http://user@a/ HTTP/1.1\r\nhost: a",
            "GET http:///x HTTP/1.1\r\nhost: a",
            "GET ftp://a/ HTTP/1.1\r\nhost: a",
            "GET a:80 HTTP/1.1\r\nhost: a",
            "GET x HTTP/1.1\r\nhost: a",
            "CONNECT / HTTP/1.1\r\nhost: a",
            "CONNECT a HTTP/1.1\r\nhost: a",
        ] {
            let line = first_line(&world, format!("{head}\r\n\r\n").as_bytes()).await;
            assert!(status(&line).starts_with('4'), "{head:?} {line}");
        }
        assert_eq!(targets(&backend), Vec::<String>::new());
        let (_, lines) = scrape("/metrics").await;
        assert!(bad_input(&lines, "client", "host") >= 18.0, "{lines:?}");
        // RFC 9112, section 3.2.2: the absolute form says it, and Host is written anew.
        for (target, host, expected) in [
            ("http://one.example/x?y", "two.example", "one.example"),
            ("HTTP://ONE.example:80/x?y", "two.example", "ONE.example:80"),
            ("/x?y", "three.example.", "three.example"),
            ("/x?y", "[2001:db8::1]:80", "[2001:db8::1]:80"),
        ] {
            let line = first_line(&world, format!("GET {target} HTTP/1.1\r\nhost: {host}\r\n\r\n").as_bytes()).await;
            assert_eq!(status(&line), "200", "{target}");
            let seen = backend.seen.borrow();
            let last = seen.last().expect("seen");
            assert_eq!(
                (last.uri.to_string().as_str(), &last.headers["host"]),
                ("/x?y", &expected.parse().expect("valid"))
            );
        }
    });
}

#[test]
fn a_path_is_what_it_was_judged_as_or_refused() {
    run(async |world| {
        let backend = serve(OUTSIDE, 8080, false).await;
        for target in ["/%00", "/a%0ab", "/a%0Db", "/a%2", "/a%zz", "*", "/a%7f"] {
            let line = first_line(&world, format!("GET {target} HTTP/1.1\r\nhost: a\r\n\r\n").as_bytes()).await;
            assert_eq!(status(&line), "400", "{target}");
        }
        assert_eq!(targets(&backend), Vec::<String>::new());
        for (target, expected) in [
            ("/a/%2e%2e/b", "/b"),
            ("/a/.%2E/b", "/b"),
            ("/../../b", "/b"),
            ("/a\\..\\b", "/b"),
            ("//a", "//a"),
            ("/a%2fb", "/a%2Fb"),
            ("/a;x=1/b", "/a;x=1/b"),
            ("/a/..;/b", "/a/..;/b"),
            ("/%61", "/a"),
            ("/a?x=/../%2e", "/a?x=/../%2e"),
            ("/a#b", "/a"),
            ("http://a", "/"),
            ("http://a?x", "/?x"),
        ] {
            let line = first_line(&world, format!("GET {target} HTTP/1.1\r\nhost: a\r\n\r\n").as_bytes()).await;
            assert_eq!(status(&line), "200", "{target}");
            assert_eq!(targets(&backend).last().map(String::as_str), Some(expected), "{target}");
        }
        // RFC 9112, section 3.2.4.
        let line = first_line(&world, b"OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert_eq!(status(&line), "200");
        assert_eq!(targets(&backend).last().map(String::as_str), Some("*"));
    });
}

#[test]
fn a_method_of_odd_characters_is_a_method_and_no_more() {
    run(async |world| {
        let backend = serve(OUTSIDE, 8080, false).await;
        for method in ["M-SEARCH", "get", "A!#$%&'*+-.^_`|~9"] {
            let line = first_line(&world, format!("{method} / HTTP/1.1\r\nhost: a\r\n\r\n").as_bytes()).await;
            assert_eq!(status(&line), "200", "{method}");
            assert_eq!(backend.seen.borrow().last().expect("seen").method.as_str(), method);
        }
    });
}

#[test]
fn a_lone_line_feed_goes_on_as_a_whole_line_end() {
    run(async |world| {
        let backend = serve(OUTSIDE, 8080, false).await;
        // RFC 9112, section 2.2: a recipient may take it for one.
        let line = first_line(&world, b"GET /lf HTTP/1.1\nhost: a\nx-one: 1\n\n").await;
        assert_eq!(status(&line), "200");
        assert_eq!(backend.seen.borrow()[0].headers["x-one"], "1");
    });
}

#[test]
fn a_client_of_http_1_0_is_answered_and_let_go() {
    run(async |world| {
        let backend = serve(OUTSIDE, 8080, false).await;
        let answer = answer_to(&world, b"GET /old HTTP/1.0\r\n\r\n").await;
        assert_eq!(status(&answer), "200", "{answer}");
        assert!(!answer.to_lowercase().contains("transfer-encoding"), "HTTP/1.0 knows no chunks: {answer}");
        let answer = answer_to(&world, b"GET /trailers HTTP/1.0\r\nhost: a\r\n\r\n").await;
        assert!(answer.ends_with("\r\n\r\nmessage"), "{answer}");
        assert_eq!(backend.seen.borrow()[0].version, http::Version::HTTP_11, "what goes on is ours");
    });
}
