//! HTTP/2 frames (RFC 9113, section 4) written by hand, as no library would write them, and what a server answers.
#![forbid(unsafe_code)]

mod block;
mod heard;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::sync::watch;

pub use self::block::{field, indexed, request, with_fields};
pub use self::heard::{Answer, Heard};

/// What a client says first (RFC 9113, section 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The frame is the last of its stream.
pub const END_STREAM: u8 = 1;
/// SETTINGS or PING that answers another.
pub const ACK: u8 = 1;
/// No CONTINUATION follows.
pub const END_HEADERS: u8 = 4;
/// The first octet is the length of a padding.
pub const PADDED: u8 = 8;
/// Five octets of priority come before the block.
pub const PRIORITY: u8 = 32;
/// CANCEL (RFC 9113, section 7).
const CANCEL: [u8; 4] = [0, 0, 0, 8];

/// Frame types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A part of a body.
    Data = 0,
    /// A header block, or its beginning.
    Headers = 1,
    /// What nobody uses any more.
    Priority = 2,
    /// RST_STREAM: the end of a stream.
    Reset = 3,
    /// Parameters of the connection.
    Settings = 4,
    /// What only servers may send.
    PushPromise = 5,
    /// Asks whether the other is there.
    Ping = 6,
    /// The connection's end.
    GoAway = 7,
    /// More may be sent.
    WindowUpdate = 8,
    /// More of a header block.
    Continuation = 9,
    /// What no RFC knows.
    Unknown = 0x77,
}

/// One frame.
#[must_use]
pub fn frame(kind: Kind, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&length[1..], &[kind as u8, flags], &stream.to_be_bytes(), payload].concat()
}

/// A CONNECT that is as it should be.
#[must_use]
pub fn connect(stream: u32, authority: &str) -> Vec<u8> {
    let block = [field(b":method", b"CONNECT"), field(b":authority", authority.as_bytes())].concat();
    frame(Kind::Headers, END_HEADERS, stream, &block)
}

/// A request taken back.
#[must_use]
pub fn reset(stream: u32) -> Vec<u8> {
    frame(Kind::Reset, 0, stream, &CANCEL)
}

/// One parameter of SETTINGS.
#[must_use]
pub fn setting(name: u16, value: u32) -> Vec<u8> {
    [&name.to_be_bytes()[..], &value.to_be_bytes()].concat()
}

/// The connection cannot be used any more.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The server has ended it.
    #[error("the server has ended the connection")]
    Ended,
    /// It cannot be written to.
    #[error("writing frames: {0}")]
    Write(#[from] std::io::Error),
}

/// A connection after its preface.
#[derive(Debug)]
pub struct Wire<S> {
    write: WriteHalf<S>,
    heard: watch::Receiver<Heard>,
}

impl<S: AsyncRead + AsyncWrite> Wire<S> {
    /// Sends the preface and empty settings. What is returned beside the connection listens, and has to be run beside it.
    ///
    /// # Errors
    /// The stream cannot be written to.
    pub async fn open(stream: S) -> Result<(Self, impl Future<Output = ()> + use<S>), WireError> {
        let (mut wire, listening) = Self::silent(stream);
        wire.write.write_all(&[PREFACE, &frame(Kind::Settings, 0, 0, &[])].concat()).await?;
        wire.write.flush().await?;
        Ok((wire, listening))
    }

    /// The same without a word: the test writes the preface.
    pub fn silent(stream: S) -> (Self, impl Future<Output = ()> + use<S>) {
        let (read, write) = tokio::io::split(stream);
        let (hear, heard) = watch::channel(Heard::default());
        (Self { write, heard }, listen(read, hear))
    }

    /// Writes, unless the server has ended the connection.
    ///
    /// # Errors
    /// It has.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        let mut heard = self.heard.clone();
        tokio::select! {
            written = async { self.write.write_all(bytes).await?; self.write.flush().await } => Ok(written?),
            _ = heard.wait_for(|heard| heard.ended) => Err(WireError::Ended),
        }
    }

    /// Waits until the server has worked off everything so far.
    ///
    /// # Errors
    /// It has ended the connection.
    pub async fn settle(&mut self) -> Result<(), WireError> {
        let before = self.heard.borrow().pongs;
        self.send(&frame(Kind::Ping, 0, 0, &[7; 8])).await?;
        let heard = self.heard.wait_for(|heard| heard.pongs > before || heard.ended).await;
        let answered = heard.is_ok_and(|heard| heard.pongs > before);
        if answered { Ok(()) } else { Err(WireError::Ended) }
    }

    /// Waits until the server has said something, or has ended the connection; returns what it has said by then.
    pub async fn wait(&mut self, mut until: impl FnMut(&Heard) -> bool) -> Heard {
        // Who listened may be gone, and has said then that the connection has ended.
        let _ = self.heard.wait_for(|heard| heard.ended || until(heard)).await;
        self.heard()
    }

    /// Waits for the connection's end.
    pub async fn ended(&mut self) -> Heard {
        self.wait(|_| false).await
    }

    /// What the server has said so far.
    #[must_use]
    pub fn heard(&self) -> Heard {
        self.heard.borrow().clone()
    }
}

async fn listen<S: AsyncRead>(mut read: ReadHalf<S>, hear: watch::Sender<Heard>) {
    let mut head = [0; 9];
    while read.read_exact(&mut head).await.is_ok() {
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        if read.read_exact(&mut payload).await.is_err() {
            break;
        }
        let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
        hear.send_modify(|heard| heard.hear(head[3], head[4], stream, &payload));
    }
    hear.send_modify(|heard| heard.ended = true);
}
