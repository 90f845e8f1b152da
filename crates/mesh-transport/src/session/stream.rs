//! The session as a byte stream, for HTTP.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::Session;
use super::byte_stream::{ByteStream, Came, broken};
use crate::socket::finish;

/// TLS over TCP, as bytes.
pub struct TlsStream {
    stream: ByteStream,
    read_closed: bool,
    write_closed: bool,
}

impl From<Box<Session>> for TlsStream {
    fn from(session: Box<Session>) -> Self {
        Self { stream: ByteStream::new(session, None), read_closed: false, write_closed: false }
    }
}

impl TlsStream {
    /// The connection's socket, to be looked at.
    #[must_use]
    pub fn socket(&self) -> &TcpStream {
        &self.stream.session().socket
    }

    /// Makes a reset the end of the stream.
    pub fn reset(&self) {
        // Where that fails, the peer reads an end without close_notify, which is none.
        let _ = self.stream.session().socket.set_zero_linger();
    }
}

impl AsyncRead for TlsStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while !this.read_closed && buf.remaining() > 0 {
            if this.stream.take_plain(buf) {
                return Poll::Ready(Ok(()));
            }
            match ready!(this.stream.poll_next(cx))? {
                Came::Data { content, length } => this.stream.keep_plain(content, length),
                Came::Closed => this.read_closed = true,
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
        self.stream.poll_write(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_output(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.stream.poll_output(cx))?;
        if !self.write_closed {
            self.write_closed = true;
            let record = self.stream.session().keys.borrow_mut().close_notify().map_err(broken)?;
            self.stream.put(&record);
        }
        ready!(self.stream.poll_output(cx))?;
        Poll::Ready(finish(&self.stream.session().socket))
    }
}
