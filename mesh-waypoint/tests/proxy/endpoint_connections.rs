//! Connections of HTTP/1.1 to endpoints: kept, noticed as closed, heard early, and broken with the request that they are for.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;

use crate::metrics::{bad_input, scrape};
use crate::server::{Answer, Client, read};
use crate::world::{OUTSIDE, World, run};

const TARGET: &str = "10.96.0.2:80";
const HELLO: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";

/// Counts connections, each of which is handled so.
async fn listen(handle: impl AsyncFn(TcpStream) -> std::io::Result<()> + 'static) -> Rc<Cell<usize>> {
    let listener = TcpListener::bind((OUTSIDE, 8080)).await.expect("listen");
    let (count, handle) = (Rc::new(Cell::new(0)), Rc::new(handle));
    let counted = count.clone();
    spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counted.set(counted.get() + 1);
            let handle = handle.clone();
            spawn_local(async move { handle(stream).await });
        }
    });
    count
}

/// Reads a head, and gives what follows it.
async fn head(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut read = Vec::new();
    loop {
        if let Some(end) = read.windows(4).position(|octets| octets == b"\r\n\r\n") {
            return Ok(read.split_off(end + 4));
        }
        if stream.read_buf(&mut read).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
}

async fn client(world: &World) -> Client {
    Client::http1(world.tunnel(TARGET).await.expect("tunnel")).await
}

fn post(body: Bytes) -> Request<Full<Bytes>> {
    Request::post("/").header("host", "a").body(Full::new(body)).expect("valid")
}

async fn hello(client: &mut Client) -> Answer {
    let answer = client.get("/").await;
    assert_eq!((answer.status, &answer.body[..]), (200, &b"hello"[..]));
    answer
}

#[test]
fn a_connection_is_kept_where_the_endpoint_keeps_it() {
    run(async |world| {
        let says = Rc::new(RefCell::new(String::new()));
        let said = says.clone();
        let connections = listen(async move |mut stream| {
            loop {
                head(&mut stream).await?;
                let answer = said.borrow().clone();
                stream.write_all(answer.as_bytes()).await?;
            }
        })
        .await;
        let mut client = client(&world).await;
        for (answer, expected) in [
            (HELLO.to_owned(), 1),
            (HELLO.replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n"), 5),
            (HELLO.replace("1.1", "1.0"), 5),
            (HELLO.replace("1.1", "1.0").replace("\r\n\r\n", "\r\nconnection: keep-alive\r\n\r\n"), 1),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n".to_owned(), 1),
            (format!("HTTP/1.1 100 Continue\r\n\r\n{HELLO}"), 1),
        ] {
            // What was kept by the case before is gone with this.
            says.replace(HELLO.replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n"));
            hello(&mut client).await;
            says.replace(answer.clone());
            let before = connections.get();
            for _ in 0..5 {
                hello(&mut client).await;
            }
            assert_eq!(connections.get() - before, expected, "{answer:?}");
        }
    });
}

#[test]
fn a_kept_connection_that_the_endpoint_has_ended_is_not_used() {
    run(async |world| {
        let connections = listen(async |mut stream| {
            head(&mut stream).await?;
            stream.write_all(HELLO.as_bytes()).await?;
            stream.shutdown().await
        })
        .await;
        let mut client = client(&world).await;
        for _ in 0..50 {
            hello(&mut client).await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(connections.get(), 50);
    });
}

#[test]
fn a_head_and_a_short_body_leave_at_once() {
    run(async |world| {
        let whole = Rc::new(Cell::new(0));
        let seen = whole.clone();
        listen(async move |mut stream| {
            let mut room = vec![0; 64 << 10];
            loop {
                let count = stream.read(&mut room).await?;
                if count == 0 {
                    return Ok(());
                }
                assert!(room[..count].ends_with(b"short"), "{:?}", String::from_utf8_lossy(&room[..count]));
                seen.set(seen.get() + 1);
                stream.write_all(HELLO.as_bytes()).await?;
            }
        })
        .await;
        let mut client = client(&world).await;
        for _ in 0..5 {
            assert_eq!(client.ask(post(Bytes::from_static(b"short"))).await.status, 200);
        }
        assert_eq!(whole.get(), 5);
    });
}

#[test]
fn an_answer_before_the_requests_end_is_passed_on_and_the_rest_is_sent() {
    run(async |world| {
        const LENGTH: usize = 4 << 20;
        let heard = Rc::new(Cell::new(0));
        let hearing = heard.clone();
        listen(async move |mut stream| {
            let rest = head(&mut stream).await?;
            stream.write_all(HELLO.as_bytes()).await?;
            hearing.set(rest.len());
            tokio::time::sleep(Duration::from_millis(50)).await;
            let mut room = vec![0; 64 << 10];
            while hearing.get() < LENGTH {
                match stream.read(&mut room).await? {
                    0 => return Ok(()),
                    count => hearing.set(hearing.get() + count),
                }
            }
            std::future::pending().await
        })
        .await;
        // It is there until all is heard: a client that goes once it is answered takes what it has not sent with it.
        let mut client = client(&world).await;
        let answer = client.ask(post(Bytes::from(vec![b'a'; LENGTH]))).await;
        assert_eq!((answer.status, &answer.body[..]), (200, &b"hello"[..]));
        while heard.get() < LENGTH {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
}

#[test]
fn who_takes_no_more_of_a_request_may_say_why() {
    run(async |world| {
        listen(async |mut stream| {
            head(&mut stream).await?;
            let answer = "HTTP/1.1 413 Too Large\r\nconnection: close\r\ncontent-length: 2\r\n\r\nno";
            stream.write_all(answer.as_bytes()).await?;
            // What is not read would make a reset of the end, which may overtake the answer.
            let mut room = vec![0; 64 << 10];
            for _ in 0..4 {
                if stream.read(&mut room).await? == 0 {
                    return Ok(());
                }
            }
            stream.shutdown().await?;
            while stream.read(&mut room).await? > 0 {}
            Ok(())
        })
        .await;
        for _ in 0..5 {
            let answer = client(&world).await.ask(post(Bytes::from(vec![b'a'; 4 << 20]))).await;
            assert_eq!((answer.status, &answer.body[..]), (413, &b"no"[..]));
        }
    });
}

#[test]
fn a_request_that_nobody_waits_for_ends_its_connection() {
    run(async |world| {
        let (begun, ended) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        let (beginning, ending) = (begun.clone(), ended.clone());
        listen(async move |mut stream| {
            head(&mut stream).await?;
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello").await?;
            beginning.set(beginning.get() + 1);
            let mut room = [0; 64];
            while stream.read(&mut room).await.is_ok_and(|count| count > 0) {}
            ending.set(ending.get() + 1);
            Ok(())
        })
        .await;
        let mut tunnel = world.tunnel(TARGET).await.expect("tunnel");
        tunnel.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("write");
        while begun.get() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(ended.get(), 0);
        drop(tunnel);
        while ended.get() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
}

#[test]
fn large_answers_come_whole_however_they_are_framed() {
    run(async |world| {
        let body: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_be_bytes).collect();
        let (mut chunks, served) = (Vec::new(), Rc::new(RefCell::new(Vec::new())));
        for (index, part) in body.chunks(70_001).enumerate() {
            let extension = if index % 3 == 0 { ";a=b" } else { "" };
            chunks.extend_from_slice(format!("{:X}{extension}\r\n", part.len()).as_bytes());
            chunks.extend_from_slice(part);
            chunks.extend_from_slice(b"\r\n");
        }
        chunks.extend_from_slice(b"0\r\n\r\n");
        let answers = served.clone();
        listen(async move |mut stream| {
            head(&mut stream).await?;
            let answer: Vec<u8> = answers.borrow().clone();
            stream.write_all(&answer).await?;
            stream.shutdown().await
        })
        .await;
        for (fields, octets) in [
            (format!("content-length: {}\r\n", body.len()), &body),
            (String::new(), &body),
            ("transfer-encoding: chunked\r\n".to_owned(), &chunks),
        ] {
            served.replace([format!("HTTP/1.1 200 OK\r\n{fields}\r\n").as_bytes(), octets].concat());
            let request = Request::get("/").header("host", "a").body(Full::default()).expect("valid");
            let answer = read(client(&world).await.send(request).await.expect("a head")).await.expect("a body");
            assert!(answer.body == body, "{fields:?}: {} octets", answer.body.len());
        }
        let (_, lines) = scrape("/metrics").await;
        assert_eq!(bad_input(&lines, "endpoint", "malformed_body"), 0.0);
    });
}
