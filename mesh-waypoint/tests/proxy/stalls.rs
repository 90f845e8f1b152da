//! Clients that let the waypoint wait: limits of what moves, which slow clients keep, and of silence.

use std::time::Duration;

use http::Request;
use http_body_util::Full;
use mesh_frames::{
    END_HEADERS, END_STREAM, Kind, PREFACE, Wire, connect, field, frame, indexed, request, setting, with_fields,
};
use mesh_transport::hbone::TunnelStream;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::spawn_local;
use tokio::time::{Instant, interval, sleep};

use crate::gateway::{GATEWAY, gateway, get as fetch};
use crate::metrics::{bad_input, scrape, value};
use crate::server::{Client, serve};
use crate::world::{CARTS, OUTSIDE, WAYPOINT, World, run, run_program, run_with_flags};

const OF_HTTP1: &str = "10.96.0.2:80";
const OF_HTTP2: &str = "10.96.0.1:95";
const CANCEL: u32 = 8;
const CUT: &str = "mesh_waypoint_clients_cut_total";
const FLAGS: &[&str] = &["--idle-timeout", "8", "--stream-idle-timeout", "2"];
/// A port of a gateway, whose clients come without a tunnel.
const LISTENERS: &str = "{name: http, port: 8000, protocol: HTTP}";

async fn servers() {
    serve(OUTSIDE, 8080, false).await;
    for cart in CARTS {
        serve(cart, 9595, true).await;
    }
}

async fn wire<S: AsyncRead + AsyncWrite + 'static>(stream: S) -> Wire<S> {
    let (wire, listening) = Wire::open(stream).await.expect("preface");
    spawn_local(listening);
    wire
}

async fn http2(world: &World) -> Wire<TunnelStream> {
    wire(world.tunnel(OF_HTTP2).await.expect("tunnel")).await
}

/// One whose streams may send so many octets.
async fn windowed(world: &World, window: u32) -> Wire<TunnelStream> {
    let (mut wire, listening) = Wire::silent(world.tunnel(OF_HTTP2).await.expect("tunnel"));
    spawn_local(listening);
    wire.send(&[PREFACE, &frame(Kind::Settings, 0, 0, &setting(4, window))].concat()).await.expect("preface");
    wire
}

async fn outside() -> TcpStream {
    // The gateway takes connections once it has read what it is to listen at.
    assert_eq!(fetch("http://any.example:8000/", &[]).await.0, "200");
    TcpStream::connect((WAYPOINT, 8000)).await.expect("the gateway")
}

fn block(path: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    let usual = [(":method", "POST"), (":scheme", "http"), (":authority", "cart.shop"), (":path", path)];
    with_fields(&[&usual[..], fields].concat())
}

/// HEADERS of a request without a body.
fn headers(stream: u32, path: &str) -> Vec<u8> {
    frame(Kind::Headers, END_HEADERS | END_STREAM, stream, &block(path, &[]))
}

async fn http1_answer(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), request: &[u8]) -> String {
    stream.write_all(request).await.expect("write");
    let mut answer = Vec::new();
    // An end that is a reset is one.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

const HALF: &[u8] = b"POST /never HTTP/1.1\r\nhost: outside\r\ncontent-length: 10\r\n\r\nhalf";

#[test]
fn a_body_that_does_not_come_is_answered_in_its_place() {
    run_with_flags(FLAGS, "", async |world| {
        servers().await;
        let mut stream = world.tunnel(OF_HTTP1).await.expect("tunnel");
        let answer = http1_answer(&mut stream, HALF).await;
        assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("connection: close"), "{answer}");
        let chunked = b"POST /never HTTP/1.1\r\nhost: outside\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n";
        let mut stream = world.tunnel(OF_HTTP1).await.expect("tunnel");
        assert!(http1_answer(&mut stream, chunked).await.starts_with("HTTP/1.1 408"));
        let mut wire = http2(&world).await;
        let begun = frame(Kind::Headers, END_HEADERS, 1, &block("/never", &[("content-length", "10")]));
        wire.send(&[begun, frame(Kind::Data, 0, 1, b"half")].concat()).await.expect("write");
        let heard = wire.wait(|heard| heard.answers.get(&1).is_some_and(|answer| answer.ended)).await;
        assert_eq!(heard.answers[&1].status, 0, "408, which is in no table: {heard:?}");
        assert_eq!(value(CUT, &[("reason", "request_body")]).await, 3.0);
        let told = |log: &[String]| log.iter().filter(|line| line.contains("\"SI\"") && line.contains("408")).count();
        while told(&world.log.lock().expect("log")) < 3 {
            sleep(Duration::from_millis(10)).await;
        }
        // The connection is good for the next request.
        wire.send(&frame(Kind::Headers, END_HEADERS | END_STREAM, 3, &request("GET", &[]))).await.expect("write");
        let heard = wire.wait(|heard| heard.answers.get(&3).is_some_and(|answer| answer.ended)).await;
        assert_eq!(heard.answers[&3].status, 200, "{heard:?}");
    });
}

#[test]
fn a_response_that_nobody_takes_is_cut_off() {
    run_with_flags(FLAGS, "", async |world| {
        servers().await;
        let mut stream = world.tunnel(OF_HTTP1).await.expect("tunnel");
        stream.write_all(b"GET /endless HTTP/1.1\r\nhost: outside\r\n\r\n").await.expect("write");
        while value(CUT, &[("reason", "response")]).await < 1.0 {
            sleep(Duration::from_millis(50)).await;
        }
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        assert!(!rest.ends_with(b"0\r\n\r\n"), "half a response was taken for a whole one");
        let told = |log: &[String]| log.iter().any(|line| line.contains("/endless") && line.contains("\"SI\""));
        while !told(&world.log.lock().expect("log")) {
            sleep(Duration::from_millis(10)).await;
        }
        // By HTTP/2 the stream alone ends where nothing of it waits, and others do not notice. Frames of 16 KiB fill this window.
        let mut wire = windowed(&world, 32 << 10).await;
        wire.send(&headers(1, "/endless")).await.expect("write");
        let heard = wire.wait(|heard| heard.resets.contains_key(&1)).await;
        assert_eq!((heard.resets.get(&1), heard.answers[&1].octets), (Some(&CANCEL), 32 << 10), "{heard:?}");
        wire.send(&headers(3, "/")).await.expect("write");
        let heard = wire.wait(|heard| heard.answers.get(&3).is_some_and(|answer| answer.ended)).await;
        assert_eq!(heard.answers[&3].status, 200, "{heard:?}");
        assert_eq!(value(CUT, &[("reason", "response")]).await, 2.0);
    });
}

/// What waits behind a window cannot be taken back from there: no task is left that could be ended. Others on the connection end
/// first.
#[test]
fn what_nobody_takes_ends_its_connection_and_no_other_request() {
    run_with_flags(FLAGS, "", async |world| {
        servers().await;
        let mut wire = windowed(&world, 1).await;
        let grpc = [("content-type", "application/grpc"), ("te", "trailers")];
        wire.send(&frame(Kind::Headers, END_HEADERS, 1, &block("/echo", &grpc))).await.expect("write");
        wire.send(&[headers(3, "/"), headers(5, "/endless")].concat()).await.expect("write");
        let heard = wire.wait(|heard| heard.goaway.is_some()).await;
        assert!(!heard.ended && !heard.answers[&3].ended, "{heard:?}");
        let more = frame(Kind::WindowUpdate, 0, 1, &100_u32.to_be_bytes());
        wire.send(&[more, frame(Kind::Data, END_STREAM, 1, b"message")].concat()).await.expect("write");
        let heard = wire.ended().await;
        assert_eq!((heard.answers[&1].octets, heard.answers[&1].ended), (7, true), "{heard:?}");
        assert_eq!((heard.answers[&3].octets, heard.answers[&3].ended), (1, false), "{heard:?}");
        assert_eq!(value(CUT, &[("reason", "response")]).await, 2.0);
    });
}

#[test]
fn who_is_slow_and_moves_is_kept() {
    run_with_flags(FLAGS, "", async |world| {
        servers().await;
        let began = Instant::now();
        let long = Duration::from_secs(7);
        let mut pace = interval(Duration::from_millis(500));
        let mut up = world.tunnel(OF_HTTP1).await.expect("tunnel");
        let mut down = http2(&world).await;
        let parts = 16;
        let head = format!("POST /echo HTTP/1.1\r\nhost: outside\r\ncontent-length: {}\r\n\r\n", parts * 1024);
        up.write_all(head.as_bytes()).await.expect("write");
        down.send(&frame(Kind::Headers, END_HEADERS, 1, &block("/endless", &[]))).await.expect("write");
        let mut sent = 0;
        while sent < parts || began.elapsed() < long {
            pace.tick().await;
            if sent < parts {
                up.write_all(&[b'u'; 1024]).await.expect("the upload goes on");
                sent += 1;
            }
            let more = 1024_u32.to_be_bytes();
            let updates = [frame(Kind::WindowUpdate, 0, 0, &more), frame(Kind::WindowUpdate, 0, 1, &more)];
            down.send(&updates.concat()).await.expect("the download goes on");
        }
        let mut answer = Vec::new();
        while answer.iter().filter(|byte| **byte == b'u').count() < parts * 1024 {
            assert!(up.read_buf(&mut answer).await.expect("read") > 0, "the upload was cut off");
        }
        let heard = down.heard();
        assert!(heard.resets.is_empty() && !heard.ended && heard.answers[&1].octets > 65_535, "{heard:?}");
    });
}

/// gRPC's streams say something when there is something to say.
#[test]
fn a_stream_may_be_silent_for_long() {
    run_with_flags(FLAGS, "", async |world| {
        servers().await;
        let mut wire = http2(&world).await;
        let grpc = [("content-type", "application/grpc"), ("te", "trailers")];
        wire.send(&frame(Kind::Headers, END_HEADERS, 1, &block("/echo", &grpc))).await.expect("write");
        wire.send(&frame(Kind::Headers, END_HEADERS, 3, &block("/never", &[]))).await.expect("write");
        // The one that is no gRPC's has been silent for too long; so has, for its kind, the other not.
        let heard = wire.wait(|heard| heard.answers.get(&3).is_some_and(|answer| answer.ended)).await;
        assert!(!heard.resets.contains_key(&1), "{heard:?}");
        wire.send(&frame(Kind::Data, END_STREAM, 1, b"message")).await.expect("write");
        let heard = wire.wait(|heard| heard.answers.get(&1).is_some_and(|answer| answer.ended)).await;
        assert_eq!((heard.answers[&1].status, heard.answers[&1].octets), (200, 7), "{heard:?}");
        // Nor for ever.
        wire.send(&frame(Kind::Headers, END_HEADERS, 5, &block("/echo", &grpc))).await.expect("write");
        let heard = wire.wait(|heard| heard.resets.contains_key(&5)).await;
        assert_eq!(heard.resets.get(&5), Some(&CANCEL), "{heard:?}");
    });
}

#[test]
fn idle_connections_end_in_order_whatever_pings_they_send() {
    run_with_flags(&["--idle-timeout", "2"], "", async |world| {
        servers().await;
        let mut kept = world.tunnel(OF_HTTP1).await.expect("tunnel");
        let answer = http1_answer(&mut kept, b"GET / HTTP/1.1\r\nhost: outside\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let mut silent = world.tunnel(OF_HTTP1).await.expect("tunnel");
        assert_eq!(silent.read(&mut [0; 16]).await.unwrap_or_default(), 0, "one that never said a word");
        let mut wire = http2(&world).await;
        let mut pace = interval(Duration::from_millis(100));
        while wire.send(&frame(Kind::Ping, 0, 0, &[1; 8])).await.is_ok() {
            pace.tick().await;
        }
        let heard = wire.ended().await;
        assert_eq!(heard.goaway, Some(0), "{heard:?}");
        assert_eq!(value(CUT, &[("reason", "idle")]).await, 3.0);
    });
}

async fn upgraded(world: &World) -> TunnelStream {
    let mut stream = world.tunnel(OF_HTTP1).await.expect("tunnel");
    let request = b"GET /ws HTTP/1.1\r\nhost: outside\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
    stream.write_all(request).await.expect("write");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("the head of a response"));
    }
    assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    stream
}

/// A connection that carries nothing but a tunnel is in use.
#[test]
fn what_is_http_no_more_ends_when_it_is_silent_and_not_before() {
    run_with_flags(&["--idle-timeout", "2"], "", async |world| {
        servers().await;
        let mut other = upgraded(&world).await;
        let mut wire = http2(&world).await;
        wire.send(&connect(1, "cart.shop:95")).await.expect("write");
        let heard = wire.wait(|heard| heard.answers.contains_key(&1)).await;
        assert_eq!(heard.answers[&1].status, 200, "{heard:?}");
        let mut pace = interval(Duration::from_millis(500));
        for round in 1..=20 {
            pace.tick().await;
            other.write_all(b"x").await.expect("write");
            assert_eq!(other.read_u8().await.expect("an echo"), b'x');
            wire.send(&frame(Kind::Data, 0, 1, b"y")).await.expect("write");
            let heard = wire.wait(|heard| heard.answers[&1].octets == round).await;
            assert!(heard.goaway.is_none() && !heard.ended && heard.answers[&1].octets == round, "{heard:?}");
        }
        // Half-close is half-close.
        wire.send(&frame(Kind::Data, END_STREAM, 1, b"y")).await.expect("write");
        let heard = wire.wait(|heard| heard.answers[&1].ended).await;
        assert_eq!(heard.answers[&1].octets, 21, "{heard:?}");
        let mut half = upgraded(&world).await;
        half.write_all(b"bye").await.expect("write");
        half.shutdown().await.expect("half-close");
        let mut echo = Vec::new();
        half.read_to_end(&mut echo).await.expect("read");
        assert_eq!(echo, b"bye");
        assert_eq!(other.read(&mut [0; 16]).await.unwrap_or_default(), 0, "one that fell silent");
        assert_eq!(value(CUT, &[("reason", "quiet")]).await, 1.0);
    });
}

/// RFC 9113, section 3.4.
#[test]
fn a_preface_without_settings_is_no_http2() {
    run(async |world| {
        servers().await;
        let first = [
            frame(Kind::Ping, 0, 0, &[1; 8]),
            frame(Kind::Headers, END_HEADERS | END_STREAM, 1, &request("GET", &[])),
            frame(Kind::Settings, 1, 0, &[]),
            frame(Kind::Settings, 0, 1, &[]),
        ];
        for first in &first {
            let (mut wire, listening) = Wire::silent(world.tunnel(OF_HTTP2).await.expect("tunnel"));
            spawn_local(listening);
            let _ = wire.send(&[PREFACE, first].concat()).await;
            let heard = wire.ended().await;
            assert_eq!(heard.goaway, Some(1), "{first:?}: {heard:?}");
        }
        let (_, lines) = scrape("/metrics").await;
        assert_eq!(bad_input(&lines, "client", "http2"), first.len() as f64);
        // Nothing at all ends as well, if not at once.
        let (mut wire, listening) = Wire::silent(world.tunnel(OF_HTTP2).await.expect("tunnel"));
        spawn_local(listening);
        let began = Instant::now();
        wire.send(PREFACE).await.expect("write");
        wire.ended().await;
        assert!(began.elapsed() < Duration::from_secs(20), "it took {:?}", began.elapsed());
        // Padded blocks and indexed fields are fine, for comparison.
        let mut good = http2(&world).await;
        let fields = [indexed(2), indexed(6), field(b":authority", b"cart.shop"), indexed(4)].concat();
        good.send(&frame(Kind::Headers, END_HEADERS | END_STREAM, 1, &fields)).await.expect("write");
        let heard = good.wait(|heard| heard.answers.get(&1).is_some_and(|answer| answer.ended)).await;
        assert_eq!(heard.answers[&1].status, 200, "{heard:?}");
    });
}

#[test]
fn a_gateways_clients_have_the_same_limits() {
    run_program(GATEWAY, FLAGS, &gateway(LISTENERS), async |_world| {
        servers().await;
        let mut stream = outside().await;
        assert!(http1_answer(&mut stream, HALF).await.starts_with("HTTP/1.1 408"));
        let mut stream = outside().await;
        stream.write_all(b"GET /endless HTTP/1.1\r\nhost: outside\r\n\r\n").await.expect("write");
        while value(CUT, &[("reason", "response")]).await < 1.0 {
            sleep(Duration::from_millis(50)).await;
        }
        let mut wire = wire(outside().await).await;
        wire.send(&headers(1, "/endless")).await.expect("write");
        let heard = wire.ended().await;
        assert_eq!(heard.goaway, Some(0), "{heard:?}");
        let mut client = Client::http1(outside().await).await;
        let request = Request::get("/").header("host", "any.example").body(Full::default()).expect("valid");
        assert_eq!(client.ask(request).await.status, 200);
    });
}
