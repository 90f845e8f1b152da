//! Misuse of `mesh-tunnel/1`, the protocol between two nodes of this mesh: frames in TLS records, one each.

use std::net::SocketAddr;

use anyhow::Result;
use clap::ValueEnum;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use crate::peer::{PATIENCE, how_refused};

/// The protocol's name in ALPN.
pub(crate) const ALPN: &[u8] = b"mesh-tunnel/1";

const REQUEST: u8 = 1;
const RESPONSE: u8 = 2;
const DATA: u8 = 3;
const FIN: u8 = 4;
const RESET: u8 = 5;

/// How to misuse it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Misuse {
    /// Not at all: one request for the target
    Good,
    /// A record that is no ciphertext of the connection's key
    BadTag,
    /// A record that claims more than a record may hold
    LongRecord,
    /// A record that is too short for a tag
    ShortRecord,
    /// A handshake record in plaintext
    PlainRecord,
    /// Half of a record, then TCP's end
    HalfRecord,
    /// A frame of no known type
    UnknownFrame,
    /// Bytes of an application before any request
    DataFirst,
    /// An answer, from the client
    Response,
    /// An end before any request
    FinFirst,
    /// A target that is none
    NoTarget,
    /// A target as long as a record
    LongTarget,
    /// A request of bytes that are no text
    NoText,
    /// A header without a value
    BrokenHeader,
    /// A second request while the first one's tunnel is open
    Nested,
    /// Bytes behind the end
    DataAfterFin,
    /// New keys, again and again
    KeyUpdates,
}

impl Misuse {
    /// Octets for the socket itself, past TLS.
    fn raw(self) -> Option<Vec<u8>> {
        let record = |kind: u8, length: u16, body: usize| {
            let [high, low] = length.to_be_bytes();
            [vec![kind, 3, 3, high, low], vec![0xa5; body]].concat()
        };
        match self {
            Self::BadTag => Some(record(23, 64, 64)),
            Self::LongRecord => Some(record(23, u16::MAX, 64)),
            Self::ShortRecord => Some(record(23, 3, 3)),
            Self::PlainRecord => Some(record(22, 64, 64)),
            Self::HalfRecord => Some(record(23, 1000, 500)),
            _ => None,
        }
    }

    /// Frames, the first octet of each its type.
    fn frames(self, target: SocketAddr) -> Vec<Vec<u8>> {
        let frame = |kind: u8, payload: &[u8]| [&[kind], payload].concat();
        let good = frame(REQUEST, target.to_string().as_bytes());
        match self {
            Self::UnknownFrame => vec![frame(99, b"x")],
            Self::DataFirst => vec![frame(DATA, b"GET / HTTP/1.1\r\n\r\n")],
            Self::Response => vec![frame(RESPONSE, b"200")],
            Self::FinFirst => vec![frame(FIN, b"")],
            Self::NoTarget => vec![frame(REQUEST, b"server.app:8080")],
            Self::LongTarget => vec![frame(REQUEST, &[b'1'; 16_000])],
            Self::NoText => vec![frame(REQUEST, &[0xff; 64])],
            Self::BrokenHeader => vec![frame(REQUEST, format!("{target}\nbaggage").as_bytes())],
            Self::Nested => vec![good.clone(), good],
            Self::DataAfterFin => vec![good, frame(FIN, b""), frame(DATA, b"x")],
            _ => vec![good],
        }
    }
}

/// Misuses it once and tells what the server did: its answers' statuses, and how it ended the connection.
pub(crate) async fn misuse(
    mut stream: TlsStream<TcpStream>,
    how: Misuse,
    target: SocketAddr,
    rounds: u32,
) -> Result<Value> {
    if how == Misuse::KeyUpdates {
        return key_updates(stream, rounds).await;
    }
    if let Some(bytes) = how.raw() {
        let socket = stream.get_mut().0;
        socket.write_all(&bytes).await?;
        if how == Misuse::HalfRecord {
            socket.shutdown().await?;
        }
    } else {
        for frame in how.frames(target) {
            // The server may have had enough.
            if stream.write_all(&frame).await.is_err() || stream.flush().await.is_err() {
                break;
            }
        }
    }
    let first = answer(&mut stream).await;
    let ended = match &first {
        // What the server keeps open is asked once more.
        Ok(Some(_)) if !matches!(how, Misuse::Good | Misuse::Nested | Misuse::DataAfterFin) => {
            stream.write_all(&[&[REQUEST], target.to_string().as_bytes()].concat()).await?;
            stream.flush().await?;
            answer(&mut stream).await
        }
        Ok(Some(_)) if how == Misuse::Good => Ok(None),
        Ok(Some(_)) => answer(&mut stream).await,
        _ => Ok(None),
    };
    Ok(json!({ "first": told(first), "then": told(ended) }))
}

/// The status of a RESPONSE, or the type of another frame; none at the end.
async fn answer(stream: &mut TlsStream<TcpStream>) -> Result<Option<String>> {
    let mut frame = vec![0; 1 << 14];
    let count = timeout(PATIENCE, stream.read(&mut frame)).await??;
    Ok(match &frame[..count] {
        [] => None,
        [RESPONSE, status @ ..] => Some(String::from_utf8_lossy(status).into_owned()),
        [RESET, ..] => Some("reset frame".to_owned()),
        [other, ..] => Some(format!("frame {other}")),
    })
}

fn told(answer: Result<Option<String>>) -> Value {
    match answer {
        Ok(Some(answer)) => json!(answer),
        Ok(None) => json!("end"),
        Err(error) => json!(how_refused(&error)),
    }
}

async fn key_updates(mut stream: TlsStream<TcpStream>, rounds: u32) -> Result<Value> {
    let mut done = 0;
    while done < rounds {
        let sent = async {
            let (_, tls) = stream.get_mut();
            for _ in 0..100 {
                tls.refresh_traffic_keys()?;
            }
            stream.flush().await?;
            Ok::<_, anyhow::Error>(())
        };
        if sent.await.is_err() {
            break;
        }
        done += 1;
    }
    Ok(json!({ "rounds": done, "first": told(answer(&mut stream).await) }))
}
