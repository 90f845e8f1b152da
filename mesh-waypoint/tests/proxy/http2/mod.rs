//! The rules of HTTP/2, by the sections of RFC 9113 that have them: what breaks one is answered as the RFC says, and nobody else's
//! connection notices.

mod malformed;

use std::rc::Rc;
use std::time::Duration;

use mesh_frames::{END_HEADERS, END_STREAM, Heard, Kind, PADDED, PRIORITY, Wire, frame, request, setting, with_fields};
use mesh_transport::hbone::TunnelStream;
use tokio::task::spawn_local;
use tokio::time::timeout;

use crate::metrics::{bad_input, scrape};
use crate::server::{Backend, Client, serve};
use crate::world::{CARTS, World, run};

/// The port that servers of HTTP/2 are behind, of which nothing is declared.
const TARGET: &str = "10.96.0.1:95";
/// Far above what any answer takes; a case that hangs is named then.
const PATIENCE: Duration = Duration::from_secs(5);
const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE_ERROR: u32 = 6;
const COMPRESSION_ERROR: u32 = 9;
const ENHANCE_YOUR_CALM: u32 = 11;

/// How the server has to take it. A malformed request may be answered before its stream ends (section 8.1.1), and is by 400
/// where the waypoint, and not its parser, has to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Taken {
    /// The connection ends with GOAWAY of one of these codes. The first is the RFC's; where the others are said instead, they are
    /// less exact (section 7: PROTOCOL_ERROR is for what has no more specific code, and no code means anything else to the peer).
    Connection(&'static [u32]),
    /// Stream 1 ends by one of these codes, and the connection goes on. Section 5.4.2 allows that the connection ends instead.
    Stream(&'static [u32]),
    /// Stream 1 is answered so.
    Status(u16),
    /// Nothing is wrong.
    Fine,
}

use Taken::{Connection, Fine, Status, Stream};

/// The rule, what is sent, and how it has to be taken.
type Case = (&'static str, Vec<Vec<u8>>, Taken);

/// h2 has no more exact code for what it cannot load.
const SIZE: &[u32] = &[FRAME_SIZE_ERROR, PROTOCOL_ERROR];

async fn wire(world: &World) -> Wire<TunnelStream> {
    let tunnel = world.tunnel(TARGET).await.expect("tunnel");
    let (wire, listening) = Wire::open(tunnel).await.expect("preface");
    spawn_local(listening);
    wire
}

async fn backends() -> Vec<Rc<Backend>> {
    let mut backends = Vec::new();
    for cart in CARTS {
        backends.push(serve(cart, 9595, true).await);
    }
    backends
}

/// Sends the frames on a connection of their own, and looks how they are taken; what is told is how they were taken otherwise.
async fn check(world: &World, frames: &[Vec<u8>], expected: &Taken) -> Result<(), String> {
    let mut wire = wire(world).await;
    // The server may have ended the connection before all is written.
    let _ = wire.send(&frames.concat()).await;
    let until = |heard: &Heard| match expected {
        Connection(_) => false,
        Stream(_) => heard.resets.contains_key(&1),
        Status(_) => heard.answers.get(&1).is_some_and(|answer| answer.ended),
        Fine => heard.pongs > 0,
    };
    if *expected == Fine {
        // What was not fine shows by the end of the connection.
        let _ = wire.settle().await;
    }
    let waited = timeout(PATIENCE, wire.wait(until)).await;
    let heard = waited.map_err(|_| format!("nothing has come of it: {:?}", wire.heard()))?;
    let reset = heard.resets.get(&1).copied();
    let is_so = match expected {
        Connection(codes) => heard.goaway.is_some_and(|code| codes.contains(&code)),
        Stream(codes) => reset.or(heard.goaway).is_some_and(|code| codes.contains(&code)),
        Status(status) => heard.answers.get(&1).is_some_and(|answer| answer.status == *status),
        Fine => (heard.goaway, reset, heard.ended) == (None, None, false),
    };
    if is_so { Ok(()) } else { Err(format!("{heard:?}")) }
}

async fn check_all(world: &World, cases: &[Case]) {
    let mut otherwise = Vec::new();
    for (name, frames, expected) in cases {
        if let Err(how) = check(world, frames, expected).await {
            otherwise.push(format!("{name}: {expected:?} expected, {how}"));
        }
    }
    assert!(otherwise.is_empty(), "{}", otherwise.join("\n"));
}

/// HEADERS that begin and end a request.
fn headers(stream: u32, block: &[u8]) -> Vec<u8> {
    frame(Kind::Headers, END_HEADERS | END_STREAM, stream, block)
}

/// HEADERS of a request with a body.
fn open(stream: u32) -> Vec<u8> {
    frame(Kind::Headers, END_HEADERS, stream, &request("POST", &[]))
}

fn get(stream: u32) -> Vec<u8> {
    headers(stream, &request("GET", &[]))
}

/// What is the same for frames of every type.
fn frames_at_large() -> Vec<Case> {
    let other = || frame(Kind::Unknown, 0xff, 1, b"whatever");
    vec![
        ("4.1: an unknown type is ignored", vec![other(), get(1)], Status(200)),
        ("4.1: unknown flags are ignored", vec![frame(Kind::Ping, 0x16, 0, &[0; 8])], Fine),
        (
            "4.1: the reserved bit is ignored",
            vec![frame(Kind::Headers, 5, 0x8000_0001, &request("GET", &[]))],
            Status(200),
        ),
        (
            "4.2: DATA over the limit",
            vec![open(1), frame(Kind::Data, 0, 1, &[0; 16_385])],
            Connection(&[FRAME_SIZE_ERROR]),
        ),
        (
            "4.2: HEADERS over the limit",
            vec![frame(Kind::Headers, 5, 1, &[0; 16_385])],
            Connection(&[FRAME_SIZE_ERROR]),
        ),
        (
            "4.3: a block that is no HPACK",
            vec![headers(1, &[0xff; 8])],
            Connection(&[COMPRESSION_ERROR, PROTOCOL_ERROR]),
        ),
        ("4.3: an index of no table", vec![headers(1, &[0xbf])], Connection(&[COMPRESSION_ERROR, PROTOCOL_ERROR])),
        (
            "4.3: a string longer than its block",
            vec![headers(1, &[0, 10, b'a'])],
            Connection(&[COMPRESSION_ERROR, PROTOCOL_ERROR]),
        ),
        (
            "RFC 7541, 5.2: a bad Huffman code",
            vec![headers(1, &[0, 1, b'a', 0x84, 0xff, 0xff, 0xff, 0xff])],
            Connection(&[COMPRESSION_ERROR, PROTOCOL_ERROR]),
        ),
        (
            "RFC 7541, 6.3: a table larger than allowed",
            vec![headers(1, &[0x3f, 0xff, 0xff, 0x7f])],
            Connection(&[COMPRESSION_ERROR, PROTOCOL_ERROR]),
        ),
    ]
}

/// DATA, HEADERS and PRIORITY.
fn frames_of_requests() -> Vec<Case> {
    vec![
        ("6.1: DATA on stream 0", vec![frame(Kind::Data, 0, 0, b"a")], Connection(&[PROTOCOL_ERROR])),
        (
            "6.1: a padding longer than the frame",
            vec![open(1), frame(Kind::Data, PADDED, 1, &[9, 0, 0])],
            Connection(&[PROTOCOL_ERROR]),
        ),
        ("6.1: a padding and no length", vec![open(1), frame(Kind::Data, PADDED, 1, &[])], Connection(SIZE)),
        ("6.2: HEADERS on stream 0", vec![get(0)], Connection(&[PROTOCOL_ERROR])),
        (
            "6.2: a padding longer than HEADERS",
            vec![frame(Kind::Headers, 5 | PADDED, 1, &[9, 0x82])],
            Connection(&[PROTOCOL_ERROR]),
        ),
        (
            "6.3: PRIORITY on stream 0",
            vec![frame(Kind::Priority, 0, 0, &[0, 0, 0, 3, 1])],
            Connection(&[PROTOCOL_ERROR]),
        ),
        ("6.3: PRIORITY of four octets", vec![open(1), frame(Kind::Priority, 0, 1, &[0, 0, 0, 3])], Stream(SIZE)),
        ("6.3: PRIORITY of an idle stream is fine", vec![frame(Kind::Priority, 0, 9, &[0, 0, 0, 3, 1])], Fine),
    ]
}

/// The other types.
fn frames_of_connections() -> Vec<Case> {
    vec![
        ("6.4: RST_STREAM on stream 0", vec![frame(Kind::Reset, 0, 0, &[0, 0, 0, 8])], Connection(&[PROTOCOL_ERROR])),
        (
            "6.4: RST_STREAM of an idle stream",
            vec![frame(Kind::Reset, 0, 1, &[0, 0, 0, 8])],
            Connection(&[PROTOCOL_ERROR]),
        ),
        ("6.4: RST_STREAM of three octets", vec![open(1), frame(Kind::Reset, 0, 1, &[0, 0, 8])], Connection(SIZE)),
        (
            "6.6: PUSH_PROMISE of a client",
            vec![open(1), frame(Kind::PushPromise, END_HEADERS, 1, &[0, 0, 0, 2, 0x82])],
            Connection(&[PROTOCOL_ERROR]),
        ),
        ("6.7: PING on a stream", vec![frame(Kind::Ping, 0, 1, &[0; 8])], Connection(&[PROTOCOL_ERROR])),
        ("6.7: PING of six octets", vec![frame(Kind::Ping, 0, 0, &[0; 6])], Connection(SIZE)),
        ("6.7: an answer to no PING is ignored", vec![frame(Kind::Ping, 1, 0, &[0; 8])], Fine),
        ("6.8: GOAWAY on a stream", vec![frame(Kind::GoAway, 0, 1, &[0; 8])], Connection(&[PROTOCOL_ERROR])),
        (
            "5.3: a stream that depends on itself",
            vec![frame(Kind::Headers, 5 | PRIORITY, 1, &[&[0, 0, 0, 1, 9][..], &request("GET", &[])].concat())],
            Stream(&[PROTOCOL_ERROR]),
        ),
        (
            "5.3: PRIORITY of a stream on itself",
            vec![open(1), frame(Kind::Priority, 0, 1, &[0, 0, 0, 1, 9])],
            Stream(&[PROTOCOL_ERROR]),
        ),
    ]
}

#[test]
fn frames_of_the_wrong_size_or_place_end_what_they_are_about() {
    run(async |world| {
        backends().await;
        check_all(&world, &[frames_at_large(), frames_of_requests(), frames_of_connections()].concat()).await;
        assert_eq!(Client::http2(world.tunnel(TARGET).await.expect("tunnel")).await.get("/").await.status, 200);
        let (_, lines) = scrape("/metrics").await;
        assert!(bad_input(&lines, "client", "http2") >= 20.0, "{}", bad_input(&lines, "client", "http2"));
    });
}

#[test]
fn settings_and_windows_have_bounds() {
    run(async |world| {
        backends().await;
        let settings = |name, value| frame(Kind::Settings, 0, 0, &setting(name, value));
        let size: &[u32] = &[FRAME_SIZE_ERROR, PROTOCOL_ERROR];
        let window = |stream, by: u32| frame(Kind::WindowUpdate, 0, stream, &by.to_be_bytes());
        check_all(
            &world,
            &[
                ("6.5: an unknown parameter is ignored", vec![settings(0x77, 1)], Fine),
                ("6.5: SETTINGS on a stream", vec![frame(Kind::Settings, 0, 1, &[])], Connection(&[PROTOCOL_ERROR])),
                ("6.5: an answer with a payload", vec![frame(Kind::Settings, 1, 0, &setting(1, 1))], Connection(size)),
                ("6.5: five octets", vec![frame(Kind::Settings, 0, 0, &[0; 5])], Connection(size)),
                ("6.5.2: ENABLE_PUSH of two", vec![settings(2, 2)], Connection(&[PROTOCOL_ERROR])),
                (
                    "6.5.2: a window over the most",
                    vec![settings(4, 0x8000_0000)],
                    Connection(&[FLOW_CONTROL_ERROR, PROTOCOL_ERROR]),
                ),
                ("6.5.2: a frame smaller than the least", vec![settings(5, 16_383)], Connection(&[PROTOCOL_ERROR])),
                ("6.5.2: a frame larger than the most", vec![settings(5, 0x0100_0000)], Connection(&[PROTOCOL_ERROR])),
                ("6.9: an increment of zero for the connection", vec![window(0, 0)], Connection(&[PROTOCOL_ERROR])),
                ("6.9: an increment of zero for a stream", vec![open(1), window(1, 0)], Stream(&[PROTOCOL_ERROR])),
                ("6.9: three octets", vec![frame(Kind::WindowUpdate, 0, 0, &[0, 0, 1])], Connection(size)),
                ("6.9: of an idle stream", vec![window(1, 1)], Connection(&[PROTOCOL_ERROR])),
                (
                    "6.9.1: the connection's window overflows",
                    vec![window(0, 0x7fff_ffff)],
                    Connection(&[FLOW_CONTROL_ERROR]),
                ),
                (
                    "6.9.1: a stream's window overflows",
                    vec![open(1), window(1, 0x7fff_ffff)],
                    Stream(&[FLOW_CONTROL_ERROR]),
                ),
                (
                    "6.9.2: a window overflows by SETTINGS",
                    vec![open(1), window(1, 0x7000_0000), settings(4, 0x7fff_ffff)],
                    Connection(&[FLOW_CONTROL_ERROR]),
                ),
                (
                    "6.9.1: more than the window lets",
                    vec![open(1), frame(Kind::Data, 0, 1, &[0; 16_384]).repeat(80)],
                    Stream(&[FLOW_CONTROL_ERROR]),
                ),
            ],
        )
        .await;
    });
}

#[test]
fn streams_begin_in_order_and_are_over_when_they_are_over() {
    run(async |world| {
        backends().await;
        let block = request("GET", &[]);
        let half = &block[..block.len() / 2];
        let begun = || frame(Kind::Headers, END_STREAM, 1, half);
        let rest = |flags, stream| frame(Kind::Continuation, flags, stream, &block[half.len()..]);
        check_all(
            &world,
            &[
                ("6.10: a block in two frames", vec![begun(), rest(END_HEADERS, 1)], Status(200)),
                ("5.1.1: a stream of even number", vec![get(2)], Connection(&[PROTOCOL_ERROR])),
                (
                    "5.1.1: a number smaller than the last",
                    vec![get(5), get(3)],
                    Connection(&[PROTOCOL_ERROR, STREAM_CLOSED]),
                ),
                ("5.1: DATA of an idle stream", vec![frame(Kind::Data, 0, 1, b"a")], Connection(&[PROTOCOL_ERROR])),
                (
                    "5.1: DATA after the end",
                    vec![get(1), frame(Kind::Data, 0, 1, b"a")],
                    Stream(&[STREAM_CLOSED, PROTOCOL_ERROR]),
                ),
                ("5.1: HEADERS after the end", vec![get(1), get(1)], Stream(&[STREAM_CLOSED, PROTOCOL_ERROR])),
                (
                    "5.1: CONTINUATION after the end",
                    vec![get(1), rest(END_HEADERS, 1)],
                    Connection(&[PROTOCOL_ERROR, STREAM_CLOSED]),
                ),
                ("6.10: CONTINUATION of nothing", vec![rest(END_HEADERS, 1)], Connection(&[PROTOCOL_ERROR])),
                (
                    "6.10: CONTINUATION of another stream",
                    vec![begun(), rest(END_HEADERS, 3)],
                    Connection(&[PROTOCOL_ERROR]),
                ),
                ("6.10: CONTINUATION on stream 0", vec![begun(), rest(END_HEADERS, 0)], Connection(&[PROTOCOL_ERROR])),
                (
                    "6.2: another frame within a block",
                    vec![begun(), frame(Kind::Ping, 0, 0, &[0; 8])],
                    Connection(&[PROTOCOL_ERROR]),
                ),
                ("6.2: HEADERS within a block", vec![begun(), get(3)], Connection(&[PROTOCOL_ERROR])),
                (
                    "6.10: CONTINUATION after a whole block",
                    vec![open(1), rest(END_HEADERS, 1)],
                    Connection(&[PROTOCOL_ERROR]),
                ),
            ],
        )
        .await;
    });
}

#[test]
fn floods_are_stopped_or_cost_nothing() {
    run(async |world| {
        backends().await;
        let calm = || Connection(&[ENHANCE_YOUR_CALM, PROTOCOL_ERROR, COMPRESSION_ERROR]);
        let begun = || frame(Kind::Headers, 0, 1, &request("GET", &[]));
        let filler = |size: usize| mesh_frames::field(b"a", &vec![b'b'; size]);
        let resets: Vec<Vec<u8>> =
            (0..2_000).flat_map(|index| [get(2 * index + 1), mesh_frames::reset(2 * index + 1)]).collect();
        let zeroes: Vec<Vec<u8>> = (0..2_000)
            .flat_map(|index| [open(2 * index + 1), frame(Kind::WindowUpdate, 0, 2 * index + 1, &[0; 4])])
            .collect();
        check_all(
            &world,
            &[
                (
                    "CONTINUATION without end",
                    vec![begun(), frame(Kind::Continuation, 0, 1, &filler(8_000)).repeat(1_000)],
                    calm(),
                ),
                (
                    "empty CONTINUATION without end",
                    vec![begun(), frame(Kind::Continuation, 0, 1, &[]).repeat(10_000)],
                    calm(),
                ),
                ("streams that are reset at once", resets, calm()),
                ("streams that we are made to reset", zeroes, calm()),
                ("empty DATA without end", vec![open(1), frame(Kind::Data, 0, 1, &[]).repeat(100_000)], calm()),
                ("PING, and its answers read", vec![frame(Kind::Ping, 0, 0, &[1; 8]).repeat(10_000)], Fine),
                (
                    "SETTINGS, and their answers read",
                    vec![frame(Kind::Settings, 0, 0, &setting(4, 65_536)).repeat(10_000)],
                    Fine,
                ),
            ],
        )
        .await;
        assert_eq!(Client::http2(world.tunnel(TARGET).await.expect("tunnel")).await.get("/").await.status, 200);
    });
}

#[test]
fn a_head_larger_than_announced_is_refused_by_itself() {
    run(async |world| {
        backends().await;
        let mut wire = wire(&world).await;
        let filler: Vec<u8> = (0..5).flat_map(|_| mesh_frames::field(b"x", &[b'b'; 15_000])).collect();
        let block = [request("GET", &[]), filler].concat();
        let mut parts = block.chunks(16_000);
        let mut frames = frame(Kind::Headers, END_STREAM, 1, parts.next().expect("a block"));
        let rest: Vec<&[u8]> = parts.collect();
        for (index, part) in rest.iter().enumerate() {
            let flags = if index + 1 == rest.len() { END_HEADERS } else { 0 };
            frames.extend(frame(Kind::Continuation, flags, 1, part));
        }
        wire.send(&frames).await.expect("write");
        let heard = wire.wait(|heard| heard.answers.contains_key(&1) || heard.resets.contains_key(&1)).await;
        assert_eq!(heard.answers.get(&1).map(|answer| answer.status), Some(0), "431, which is in no table: {heard:?}");
        wire.send(&get(3)).await.expect("write");
        let heard = wire.wait(|heard| heard.answers.get(&3).is_some_and(|answer| answer.ended)).await;
        assert_eq!(heard.answers.get(&3).map(|answer| answer.status), Some(200), "{heard:?}");
    });
}
