//! A tunnel as a byte stream, for who speaks a protocol over it instead of relaying it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::Reason;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::tunnel::{H2Tunnel, Tunnel};
use crate::buffer::Chunk;
use crate::direct::DirectStream;

/// Bytes of a write that go into one chunk.
const MAX_CHUNK: usize = 64 << 10;

/// A tunnel's bytes. The end of reading is the far side's FIN; a reset is an error, and dropping the stream before both
/// directions have ended resets it.
#[derive(Debug)]
pub enum TunnelStream {
    /// Of a tunnel that has its connection to itself.
    Direct(DirectStream),
    /// Of a stream of HTTP/2.
    H2(H2Stream),
}

impl From<Tunnel> for TunnelStream {
    fn from(tunnel: Tunnel) -> Self {
        match tunnel {
            Tunnel::Direct(tunnel) => Self::Direct(tunnel.into()),
            Tunnel::H2(tunnel) => Self::H2(tunnel.into()),
        }
    }
}

impl TunnelStream {
    /// What `look` finds at the socket of its connection, which other tunnels may share; none of what a server has over HTTP/2, or
    /// where it is gone.
    pub fn look_at_socket<T>(&self, look: impl FnOnce(&TcpStream) -> T) -> Option<T> {
        match self {
            Self::Direct(stream) => stream.socket().map(look),
            Self::H2(stream) => stream.tunnel.socket.upgrade().map(|socket| look(&socket)),
        }
    }
}

impl AsyncRead for TunnelStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Direct(stream) => Pin::new(stream).poll_read(cx, into),
            Self::H2(stream) => Pin::new(stream).poll_read(cx, into),
        }
    }
}

impl AsyncWrite for TunnelStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Direct(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::H2(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Direct(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::H2(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Direct(stream) => stream.is_write_vectored(),
            Self::H2(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Direct(stream) => Pin::new(stream).poll_flush(cx),
            Self::H2(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Direct(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::H2(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// The bytes of a tunnel that is a stream of HTTP/2.
#[derive(Debug)]
pub struct H2Stream {
    tunnel: H2Tunnel,
    /// What came and has not been read.
    input: Bytes,
    read_closed: bool,
    write_closed: bool,
}

impl From<H2Tunnel> for H2Stream {
    fn from(tunnel: H2Tunnel) -> Self {
        Self { tunnel, input: Bytes::new(), read_closed: false, write_closed: false }
    }
}

impl AsyncRead for H2Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while this.input.is_empty() && !this.read_closed {
            match ready!(this.tunnel.recv.poll_data(cx)) {
                Some(Ok(bytes)) => this.input = bytes,
                Some(Err(error)) => return Poll::Ready(Err(reset(error))),
                None => this.read_closed = true,
            }
        }
        let count = this.input.len().min(into.remaining());
        into.put_slice(&this.input[..count]);
        this.input.advance(count);
        if count > 0 {
            // The window opens for what was taken, so that a slow reader slows its writer down.
            this.tunnel.recv.flow_control().release_capacity(count).map_err(reset)?;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for H2Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let send = &mut self.tunnel.send;
        send.reserve_capacity(bytes.len().min(MAX_CHUNK));
        let capacity = match send.capacity() {
            0 => match ready!(send.poll_capacity(cx)) {
                Some(capacity) => capacity.map_err(reset)?,
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            },
            capacity => capacity,
        };
        let count = bytes.len().min(capacity);
        send.send_data(Chunk::copied(&bytes[..count]), false).map_err(reset)?;
        // What this stream does not use now, others of the connection may need.
        send.reserve_capacity(0);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The connection's own task sends what it was given.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.write_closed {
            self.write_closed = true;
            self.tunnel.send.send_data(Chunk::empty(), true).map_err(reset)?;
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for H2Stream {
    fn drop(&mut self) {
        // Whoever sent its last byte wants no more either: what still comes has nobody to read it.
        if !self.write_closed {
            self.tunnel.send.send_reset(Reason::CANCEL);
        }
    }
}

fn reset(error: h2::Error) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, error)
}
