//! The session as a byte stream, for HTTP.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::{Input, Session};
use crate::buffer::{Buffer, Sizing};
use crate::record::{HEADER, Keys, MAX_CONTENT, OVERHEAD, Opened, RecordError};
use crate::socket::{finish, write_now};

/// A full record on the wire.
const SLOT: usize = MAX_CONTENT + OVERHEAD;

/// TLS over TCP, as bytes.
pub struct TlsStream {
    socket: TcpStream,
    keys: Keys,
    input: Input,
    /// Of the input's start: plain bytes that were opened and not yet read, and what follows them of their record.
    plain: Option<Plain>,
    output: Option<Output>,
    sizing: Sizing,
    read_closed: bool,
    write_closed: bool,
}

struct Plain {
    content: std::ops::Range<usize>,
    length: usize,
}

/// Sealed bytes that the socket has not taken.
struct Output {
    buffer: Buffer,
    part: std::ops::Range<usize>,
}

impl From<Box<Session>> for TlsStream {
    fn from(session: Box<Session>) -> Self {
        Self {
            socket: session.socket,
            keys: session.keys.into_inner(),
            input: session.input,
            plain: None,
            output: None,
            sizing: Sizing::default(),
            read_closed: false,
            write_closed: false,
        }
    }
}

fn broken(error: RecordError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl TlsStream {
    /// Makes a reset the end of the stream.
    pub fn reset(&self) {
        // Where that fails, the peer reads an end without close_notify, which is none.
        let _ = self.socket.set_zero_linger();
    }

    /// Copies opened bytes out. False when there are none.
    fn take_plain(&mut self, into: &mut ReadBuf<'_>) -> bool {
        let Some(plain) = &mut self.plain else { return false };
        let bytes = &self.input.bytes()[plain.content.clone()];
        let count = bytes.len().min(into.remaining());
        into.put_slice(&bytes[..count]);
        plain.content.start += count;
        if plain.content.is_empty() {
            let length = plain.length;
            self.plain = None;
            self.input.consume(length);
        }
        count > 0
    }

    /// Opens records until there is data, the end, or nothing whole.
    fn open_next(&mut self) -> io::Result<Opened> {
        loop {
            match self.keys.open(self.input.bytes()).map_err(broken)? {
                Opened::Handled { length } => self.input.consume(length),
                Opened::Data { content, length } if content.is_empty() => {
                    self.input.consume(length);
                }
                opened => return Ok(opened),
            }
        }
    }

    fn poll_output(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(output) = &mut self.output {
            let slice = IoSlice::new(&output.buffer[output.part.clone()]);
            match write_now(&self.socket, &[slice])? {
                Some(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Some(count) => output.part.start += count,
                None => ready!(self.socket.poll_write_ready(cx))?,
            }
            if output.part.is_empty() {
                self.output = None;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Seals as much of `slices` as a buffer takes. Returns how much that was.
    fn seal(&mut self, slices: &[IoSlice<'_>]) -> Result<usize, RecordError> {
        let asked: usize = slices.iter().map(|slice| slice.len()).sum();
        let mut buffer = self.sizing.buffer();
        let mut end = 0;
        if let Some(update) = self.keys.key_update()? {
            buffer[..update.len()].copy_from_slice(&update);
            end = update.len();
        }
        let mut source = slices.iter().flat_map(|slice| slice.chunks(MAX_CONTENT));
        let (mut rest, mut taken): (&[u8], usize) = (&[], 0);
        while end + OVERHEAD < buffer.len() {
            let room = (buffer.len() - end).min(SLOT);
            let content = &mut buffer[end + HEADER..end + room - (OVERHEAD - HEADER)];
            let mut filled = 0;
            while filled < content.len() {
                if rest.is_empty() {
                    let Some(next) = source.next() else { break };
                    rest = next;
                    continue;
                }
                let count = rest.len().min(content.len() - filled);
                content[filled..filled + count].copy_from_slice(&rest[..count]);
                rest = &rest[count..];
                filled += count;
            }
            if filled == 0 {
                break;
            }
            let next = end + filled + OVERHEAD;
            self.keys.seal(&mut buffer[end..next])?;
            end = next;
            taken += filled;
        }
        self.sizing.learn(asked.min(self.sizing.capacity()), taken.max(1));
        self.output = Some(Output { buffer, part: 0..end });
        Ok(taken)
    }

    fn put(&mut self, record: &[u8]) {
        let mut buffer = Sizing::default().buffer();
        buffer[..record.len()].copy_from_slice(record);
        self.output = Some(Output { buffer, part: 0..record.len() });
    }
}

impl AsyncRead for TlsStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while !this.read_closed && buf.remaining() > 0 {
            if this.take_plain(buf) {
                return Poll::Ready(Ok(()));
            }
            match this.open_next()? {
                Opened::Data { content, length } => this.plain = Some(Plain { content, length }),
                Opened::Closed => this.read_closed = true,
                Opened::Incomplete | Opened::Handled { .. } => {
                    if ready!(this.input.poll_fill(&this.socket, cx))? == 0 {
                        // Without close_notify somebody may have cut the stream short.
                        return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                    }
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_output(cx))?;
        if slices.iter().all(|slice| slice.is_empty()) {
            return Poll::Ready(Ok(0));
        }
        let taken = self.seal(slices).map_err(broken)?;
        // What the socket does not take now goes with the next write or flush.
        if let Poll::Ready(Err(error)) = self.poll_output(cx) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(taken))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_output(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_output(cx))?;
        if !self.write_closed {
            self.write_closed = true;
            let record = self.keys.close_notify().map_err(broken)?;
            self.put(&record);
            ready!(self.poll_output(cx))?;
        }
        Poll::Ready(finish(&self.socket))
    }
}
