//! HTTP/2 frames (RFC 9113, section 4) written by hand, as no library would write them, over a good handshake.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::client::TlsStream;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;
/// CANCEL (RFC 9113, section 7).
const CANCEL: [u8; 4] = [0, 0, 0, 8];

/// Frame types.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Data = 0,
    Headers = 1,
    Reset = 3,
    Settings = 4,
    Ping = 6,
    WindowUpdate = 8,
    Continuation = 9,
}

/// One frame.
pub(crate) fn frame(kind: Kind, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&length[1..], &[kind as u8, flags], &stream.to_be_bytes(), payload].concat()
}

/// A field as HPACK's literal without indexing, with a new name (RFC 7541, section 6.2.2).
pub(crate) fn field(name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut block = vec![0];
    for text in [name, value] {
        push_length(&mut block, text.len());
        block.extend(text);
    }
    block
}

/// An integer with a prefix of seven bits (RFC 7541, section 5.1).
fn push_length(block: &mut Vec<u8>, length: usize) {
    let Some(mut rest) = length.checked_sub(127) else {
        return block.push(u8::try_from(length).unwrap_or(127));
    };
    block.push(127);
    while rest >= 128 {
        block.push(u8::try_from(rest % 128).unwrap_or(0) | 128);
        rest /= 128;
    }
    block.push(u8::try_from(rest).unwrap_or(0));
}

/// A CONNECT that is as it should be.
pub(crate) fn connect(stream: u32, authority: &str) -> Vec<u8> {
    let block = [field(b":method", b"CONNECT"), field(b":authority", authority.as_bytes())].concat();
    frame(Kind::Headers, END_HEADERS, stream, &block)
}

/// A request taken back.
pub(crate) fn reset(stream: u32) -> Vec<u8> {
    frame(Kind::Reset, 0, stream, &CANCEL)
}

/// What the server has said so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heard {
    /// HEADERS frames.
    answers: u64,
    /// RST_STREAM frames by error code.
    resets: BTreeMap<u32, u64>,
    goaway: Option<u32>,
    pub(crate) pongs: u64,
    ended: bool,
}

impl Heard {
    fn hear(&mut self, kind: u8, flags: u8, payload: &[u8]) {
        let code = |at: usize| {
            payload.get(at..at + 4).map_or(0, |code| u32::from_be_bytes([code[0], code[1], code[2], code[3]]))
        };
        match kind {
            1 => self.answers += 1,
            3 => *self.resets.entry(code(0)).or_default() += 1,
            6 if flags & ACK != 0 => self.pongs += 1,
            7 => self.goaway = Some(code(4)),
            _ => {}
        }
    }
}

/// A connection after its handshake and preface.
pub(crate) struct Wire {
    write: WriteHalf<TlsStream<TcpStream>>,
    heard: watch::Receiver<Heard>,
}

impl Wire {
    /// Sends the preface and empty settings, and listens from now on.
    pub(crate) async fn open(stream: TlsStream<TcpStream>) -> Result<Self> {
        let (read, mut write) = tokio::io::split(stream);
        let (hear, heard) = watch::channel(Heard::default());
        tokio::spawn(listen(read, hear));
        write.write_all(&[PREFACE, &frame(Kind::Settings, 0, 0, &[])].concat()).await?;
        write.flush().await?;
        Ok(Self { write, heard })
    }

    /// Writes, unless the server has ended the connection.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        let mut heard = self.heard.clone();
        tokio::select! {
            written = async { self.write.write_all(bytes).await?; self.write.flush().await } => Ok(written?),
            _ = heard.wait_for(|heard| heard.ended) => bail!("the server has ended the connection"),
        }
    }

    /// Waits until the server has worked off everything so far.
    pub(crate) async fn settle(&mut self) -> Result<()> {
        let before = self.heard.borrow().pongs;
        self.send(&frame(Kind::Ping, 0, 0, &[7; 8])).await?;
        let heard = self.heard.wait_for(|heard| heard.pongs > before || heard.ended).await?;
        if heard.ended { bail!("the server has ended the connection") } else { Ok(()) }
    }

    /// Waits for the connection's end.
    pub(crate) async fn ended(&mut self) -> Result<()> {
        self.heard.wait_for(|heard| heard.ended).await.context("nobody listens")?;
        Ok(())
    }

    /// What the server has said.
    pub(crate) fn report(&self) -> Value {
        let heard = self.heard.borrow();
        json!({ "answers": heard.answers, "resets": heard.resets, "goaway": heard.goaway, "ended": heard.ended })
    }
}

async fn listen(mut read: ReadHalf<TlsStream<TcpStream>>, hear: watch::Sender<Heard>) {
    let mut head = [0; 9];
    while read.read_exact(&mut head).await.is_ok() {
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        if read.read_exact(&mut payload).await.is_err() {
            break;
        }
        hear.send_modify(|heard| heard.hear(head[3], head[4], &payload));
    }
    hear.send_modify(|heard| heard.ended = true);
}
