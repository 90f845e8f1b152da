//! Endpoints that lie: what they send is read once, and never by another request than the one it is for.

use std::cell::RefCell;
use std::rc::Rc;

use http::Request;
use http_body_util::Full;
use mesh_frames::{END_HEADERS, END_STREAM, Kind, PREFACE, frame, with_fields};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::spawn_local;

use crate::metrics::{bad_input, scrape};
use crate::server::{Answer, Client, read};
use crate::world::{CARTS, OUTSIDE, World, run};

const TARGET: &str = "10.96.0.2:80";

/// A server that answers each request's head by `says` whatever it is, and then ends the connection where `ends`.
async fn liar(says: Rc<RefCell<Vec<u8>>>, ends: bool) {
    let listener = TcpListener::bind((OUTSIDE, 8080)).await.expect("listen");
    spawn_local(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let says = says.clone();
            spawn_local(async move {
                let mut read = Vec::new();
                while stream.read_buf(&mut read).await.is_ok_and(|count| count > 0) {
                    let Some(end) = read.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { continue };
                    read.drain(..end + 4);
                    let answer = says.borrow().clone();
                    // Who has heard enough ends the connection.
                    if stream.write_all(&answer).await.is_err() || ends {
                        return;
                    }
                }
            });
        }
    });
}

/// What a client is told: the whole answer, or none where it broke off.
async fn ask(world: &World, method: &str) -> Option<Answer> {
    let mut client = Client::http1(world.tunnel(TARGET).await.expect("tunnel")).await;
    let request = Request::builder().method(method).uri("/").header("host", "outside").body(Full::default());
    read(client.send(request.expect("valid")).await.ok()?).await.ok()
}

#[test]
fn an_answer_that_is_none_is_a_bad_gateway() {
    run(async |world| {
        let says = Rc::new(RefCell::new(Vec::new()));
        liar(says.clone(), true).await;
        let long = "a".repeat(200_000);
        let many: String = (0..250).map(|index| format!("x-{index}: 1\r\n")).collect();
        let ok = |fields: &str| format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\nhello");
        let answers = [
            "garbage\r\n\r\n".to_owned(),
            "HTTP/2.0 200 OK\r\n\r\n".to_owned(),
            "HTTP/1.1 20 OK\r\n\r\n".to_owned(),
            "HTTP/1.1 abc OK\r\n\r\n".to_owned(),
            "HTTP/1.1 2000 OK\r\n\r\n".to_owned(),
            "HTTP/1.1 099 OK\r\n\r\n".to_owned(),
            ok("x: 1\r\n folded"),
            ok("x : 1"),
            ok("x: 1\0"),
            ok("content-length: 5\r\ncontent-length: 6"),
            ok("content-length: five"),
            ok("content-length: -5"),
            ok("transfer-encoding: chunked\r\ncontent-length: 5"),
            ok("transfer-encoding: gzip, chunked"),
            ok("transfer-encoding: gzip"),
            "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(),
            ok(&format!("x: {long}")),
            ok(&format!("x: {}", "a".repeat(70_000))),
            ok(&format!("x: {}\r\ny: {}", "a".repeat(40_000), "a".repeat(26_000))),
            ok(&many),
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n".to_owned(),
        ];
        for answer in &answers {
            says.replace(answer.clone().into_bytes());
            let told = ask(&world, "GET").await.expect("an answer of the waypoint's own");
            assert_eq!(told.status, 502, "{:?}", &answer[..answer.len().min(80)]);
        }
        let (_, lines) = scrape("/metrics").await;
        let reasons = ["malformed_head", "head_too_large", "framing", "upgrade"];
        let counted: f64 = reasons.iter().map(|reason| bad_input(&lines, "endpoint", reason)).sum();
        assert_eq!(counted, answers.len() as f64);
        assert_eq!(bad_input(&lines, "endpoint", "upgrade"), 1.0);
        assert_eq!(bad_input(&lines, "client", "malformed_head"), 0.0);
    });
}

#[test]
fn an_answer_that_ends_before_its_end_is_never_whole() {
    run(async |world| {
        let says = Rc::new(RefCell::new(Vec::new()));
        liar(says.clone(), true).await;
        for body in [
            "content-length: 9\r\n\r\nhello",
            "transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
            "transfer-encoding: chunked\r\n\r\n5\r\nhello",
            "transfer-encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n",
            "transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nt : 1\r\n\r\n",
            "transfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\nhello",
        ] {
            says.replace(format!("HTTP/1.1 200 OK\r\n{body}").into_bytes());
            assert!(ask(&world, "GET").await.is_none(), "{body:?} was taken for a whole answer");
        }
        // No head at all, or half of one: nothing has been answered.
        for head in ["", "HTTP/1.1 200 OK\r\ncontent-le"] {
            says.replace(head.as_bytes().to_vec());
            assert_eq!(ask(&world, "GET").await.expect("an answer").status, 503, "{head:?}");
        }
        let (_, lines) = scrape("/metrics").await;
        assert_eq!(bad_input(&lines, "endpoint", "malformed_body"), 6.0);
    });
}

#[test]
fn what_comes_after_an_answer_is_nobodys() {
    run(async |world| {
        let says = Rc::new(RefCell::new(Vec::new()));
        liar(says.clone(), false).await;
        let mut client = Client::http1(world.tunnel(TARGET).await.expect("tunnel")).await;
        let second = "HTTP/1.1 200 OK\r\nx-poison: 1\r\ncontent-length: 6\r\n\r\npoison";
        let honest = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";
        for (method, answer) in [
            ("GET", format!("{honest}{second}")),
            ("GET", format!("{honest}garbage")),
            ("HEAD", honest.to_owned()),
            ("HEAD", format!("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n{second}")),
            ("GET", format!("HTTP/1.1 204 No Content\r\n\r\n{second}")),
            ("GET", format!("HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n{second}")),
        ] {
            for round in 0..5 {
                says.replace(answer.clone().into_bytes());
                let request = Request::builder().method(method).uri("/").header("host", "outside");
                let first = client.ask(request.body(Full::default()).expect("valid")).await;
                assert!(!first.headers.contains_key("x-poison"), "{answer:?}");
                // The next request, of whomever, gets its own answer.
                says.replace(honest.as_bytes().to_vec());
                let next = client.get("/next").await;
                assert!(!next.headers.contains_key("x-poison"), "{method} {answer:?}, round {round}");
                assert_eq!((next.status, &next.body[..]), (200, &b"hello"[..]), "{method} {answer:?}, round {round}");
            }
        }
    });
}

#[test]
fn answers_that_say_nothing_yet_are_bounded() {
    run(async |world| {
        let says = Rc::new(RefCell::new(Vec::new()));
        liar(says.clone(), true).await;
        let early = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n";
        says.replace(format!("{}HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", early.repeat(3)).into_bytes());
        assert_eq!(ask(&world, "GET").await.expect("an answer").body, "hello", "a few are passed over");
        // A server that never comes to the point.
        says.replace(early.repeat(200_000).into_bytes());
        assert!(ask(&world, "GET").await.expect("an answer").status >= 502);
    });
}

#[test]
fn trailers_of_an_answer_say_nothing_of_it() {
    run(async |world| {
        let says = Rc::new(RefCell::new(Vec::new()));
        liar(says.clone(), true).await;
        let trailers =
            "x-good: 1\r\ncontent-length: 99\r\nset-cookie: a=b\r\nhost: evil\r\ntransfer-encoding: chunked\r\n";
        let names = "x-good, content-length, set-cookie, host, transfer-encoding";
        says.replace(
            format!("HTTP/1.1 200 OK\r\ntrailer: {names}\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n{trailers}\r\n")
                .into_bytes(),
        );
        let mut client = Client::http1(world.tunnel(TARGET).await.expect("tunnel")).await;
        let request = Request::get("/").header("host", "a").header("te", "trailers").header("connection", "te");
        let answer = client.ask(request.body(Full::default()).expect("valid")).await;
        assert_eq!(answer.body, "hello");
        let trailers = answer.trailers.expect("those that are some");
        assert_eq!(trailers.keys().map(http::HeaderName::as_str).collect::<Vec<_>>(), ["x-good"]);
    });
}

/// A server that answers each request by HTTP/2 with these frames, whatever it is; it knows its stream.
async fn liar_http2(says: Rc<RefCell<Says>>) {
    for cart in CARTS {
        let listener = TcpListener::bind((cart, 9595)).await.expect("listen");
        let says = says.clone();
        spawn_local(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let says = says.clone();
                spawn_local(async move {
                    let mut read = Vec::new();
                    stream.write_all(&frame(Kind::Settings, 0, 0, &[])).await.expect("settings");
                    while stream.read_buf(&mut read).await.is_ok_and(|count| count > 0) {
                        if read.starts_with(PREFACE) {
                            read.drain(..PREFACE.len());
                        }
                        while let Some((kind, flags, number, payload)) = next_frame(&mut read) {
                            let answer = match kind {
                                1 => says.borrow()(number),
                                4 if flags & 1 == 0 => frame(Kind::Settings, 1, 0, &[]),
                                6 if flags & 1 == 0 => frame(Kind::Ping, 1, 0, &payload),
                                _ => continue,
                            };
                            // Who has heard enough ends the connection.
                            if stream.write_all(&answer).await.is_err() {
                                return;
                            }
                        }
                    }
                });
            }
        });
    }
}

fn next_frame(read: &mut Vec<u8>) -> Option<(u8, u8, u32, Vec<u8>)> {
    let head = read.first_chunk::<9>()?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
    let (kind, flags) = (head[3], head[4]);
    let number = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
    if read.len() < 9 + length {
        return None;
    }
    let payload = read[9..9 + length].to_vec();
    read.drain(..9 + length);
    Some((kind, flags, number, payload))
}

/// What a server says on a stream.
type Says = Box<dyn Fn(u32) -> Vec<u8> + Send>;

/// These frames.
fn says(frames: &[(Kind, u8, Vec<u8>)]) -> Says {
    let frames = frames.to_vec();
    Box::new(move |stream| {
        frames.iter().flat_map(|(kind, flags, payload)| frame(*kind, *flags, stream, payload)).collect()
    })
}

/// Lies, and what the client is told: a status, or that the answer broke off.
fn lies() -> Vec<(&'static str, Says, Option<u16>)> {
    let head = |fields: &[(&str, &str)]| with_fields(&[&[(":status", "200")], fields].concat());
    let whole = END_HEADERS | END_STREAM;
    let body = || (Kind::Data, END_STREAM, b"hello".to_vec());
    let sized = |length: &str| (Kind::Headers, END_HEADERS, head(&[("content-length", length)]));
    let open = || (Kind::Headers, END_HEADERS, head(&[]));
    let reset = |code: u8| (Kind::Reset, 0, vec![0, 0, 0, code]);
    let large = |size: usize| {
        let block = head(&[("x", &"a".repeat(size))]);
        let parts: Vec<_> = block.chunks(16_000).map(<[u8]>::to_vec).collect();
        let last = parts.len() - 1;
        let kind = |index: usize| if index == 0 { Kind::Headers } else { Kind::Continuation };
        let flags =
            |index: usize| (if index == 0 { END_STREAM } else { 0 }) | (if index == last { END_HEADERS } else { 0 });
        parts.into_iter().enumerate().map(|(index, part)| (kind(index), flags(index), part)).collect::<Vec<_>>()
    };
    vec![
        ("as it should be", says(&[sized("5"), body()]), Some(200)),
        ("shorter than its length", says(&[sized("9"), body()]), None),
        ("longer than its length", says(&[sized("2"), body()]), None),
        ("a length that is none", says(&[sized("five"), body()]), Some(502)),
        ("no status", says(&[(Kind::Headers, whole, with_fields(&[("x", "1")]))]), Some(502)),
        ("a field of HTTP/1", says(&[(Kind::Headers, whole, head(&[("connection", "close")]))]), Some(502)),
        ("a field in capitals", says(&[(Kind::Headers, whole, head(&[("X-A", "1")]))]), Some(502)),
        ("a reset in its place", says(&[reset(2)]), Some(503)),
        ("a reset after its head", says(&[open(), reset(2)]), None),
        (
            "a reset within its body that says no error",
            says(&[open(), (Kind::Data, 0, b"he".to_vec()), reset(0)]),
            None,
        ),
        (
            "trailers with a status, which is passed over",
            says(&[open(), (Kind::Data, 0, b"hello".to_vec()), (Kind::Headers, whole, head(&[]))]),
            Some(200),
        ),
        ("a head of 70,000 octets", says(&large(70_000)), Some(502)),
        ("a body before its head", says(&[body(), open()]), Some(502)),
    ]
}

#[test]
fn endpoints_that_lie_by_http2_are_found_out() {
    run(async |world| {
        let lie = Rc::new(RefCell::new(says(&[])));
        liar_http2(lie.clone()).await;
        let mut otherwise = Vec::new();
        for (name, answer, expected) in lies() {
            drop(lie.replace(answer));
            let mut client = Client::http2(world.tunnel("10.96.0.1:95").await.expect("tunnel")).await;
            let request = Request::get("/").body(Full::default()).expect("valid");
            let told = match client.send(request).await {
                Ok(head) => read(head).await.ok().map(|answer| answer.status),
                // The reset has overtaken the head.
                Err(_) => None,
            };
            if told != expected {
                otherwise.push(format!("{name}: {told:?}, expected {expected:?}"));
            }
        }
        assert!(otherwise.is_empty(), "{}", otherwise.join("\n"));
    });
}

/// Heads that are none yet: passed over as they come, and kept nowhere.
#[test]
fn answers_that_say_nothing_yet_by_http2_take_no_memory() {
    run(async |world| {
        let early = || (Kind::Headers, END_HEADERS, with_fields(&[(":status", "103"), ("link", "</a>")]));
        let head = (Kind::Headers, END_HEADERS, with_fields(&[(":status", "200")]));
        let body = (Kind::Data, END_STREAM, b"hello".to_vec());
        let lie = Rc::new(RefCell::new(says(&[early(), early(), head.clone(), body.clone()])));
        liar_http2(lie.clone()).await;
        let ask = async || {
            let mut client = Client::http2(world.tunnel("10.96.0.1:95").await.expect("tunnel")).await;
            client.ask(Request::get("/").body(Full::default()).expect("valid")).await.status
        };
        assert_eq!(ask().await, 200, "a few are passed over");
        let before = world.peak();
        let many: Vec<_> = (0..300_000).map(|_| early()).chain([head, body]).collect();
        drop(lie.replace(says(&many)));
        let status = ask().await;
        assert!(status == 200 || status >= 502, "{status}");
        let more = world.peak() - before;
        assert!(more < 48 << 10, "{more} KiB");
    });
}
