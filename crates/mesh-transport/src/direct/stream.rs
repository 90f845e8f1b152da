//! A direct tunnel as a byte stream, for who speaks a protocol over it instead of relaying it.

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::closing::Side;
use super::frame::{Frame, seal, split};
use super::{Closing, DirectTunnel, Home, reset};
use crate::session::{ByteStream, Came};

/// A direct tunnel's bytes. The end of reading is the far side's FIN; a reset is an error. Dropped after both directions
/// have ended, its connection is the next tunnel's; before, it is reset.
pub struct DirectStream {
    /// None only while it is dropped.
    tunnel: Option<(ByteStream, Home)>,
    closing: Rc<Closing>,
    read_closed: bool,
    write_closed: bool,
    /// The far side has reset it, or the connection broke.
    read_broken: bool,
    /// Nothing can be written. What the far side has said before may still be read: it may have said why.
    write_broken: bool,
}

impl From<DirectTunnel> for DirectStream {
    fn from(tunnel: DirectTunnel) -> Self {
        let DirectTunnel { session, closing, home } = tunnel;
        let stream = ByteStream::new(session, Some(Frame::Data as u8));
        Self {
            tunnel: Some((stream, home)),
            closing,
            read_closed: false,
            write_closed: false,
            read_broken: false,
            write_broken: false,
        }
    }
}

impl fmt::Debug for DirectStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (read_closed, write_closed) = (&self.read_closed, &self.write_closed);
        f.debug_struct("DirectStream")
            .field("read_closed", read_closed)
            .field("write_closed", write_closed)
            .finish_non_exhaustive()
    }
}

impl DirectStream {
    /// The connection's socket, to be looked at.
    pub(crate) fn socket(&self) -> Option<&TcpStream> {
        self.tunnel.as_ref().map(|(stream, _)| &*stream.session().socket)
    }

    /// Polls `io`, unless that side is broken or the tunnel ended from outside; remembers that it broke.
    fn poll_unbroken<T>(
        &mut self,
        cx: &mut Context<'_>,
        side: Side,
        io: impl FnOnce(&mut Self, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if self.closing.is_closed() {
            self.note_broken(Side::Read);
        }
        let is_broken = match side {
            Side::Read => self.read_broken,
            Side::Write => self.write_broken,
        };
        if is_broken {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let polled = io(self, cx);
        match &polled {
            Poll::Ready(Err(_)) => self.note_broken(side),
            Poll::Ready(Ok(_)) => {}
            Poll::Pending => self.closing.wake(side, cx.waker()),
        }
        polled
    }

    /// Nobody hears what is written to who cannot be read.
    fn note_broken(&mut self, side: Side) {
        self.write_broken = true;
        self.read_broken |= matches!(side, Side::Read);
    }

    fn stream(&mut self) -> io::Result<&mut ByteStream> {
        self.tunnel.as_mut().map(|(stream, _)| stream).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    fn poll_came(&mut self, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while !self.read_closed && into.remaining() > 0 {
            let stream = self.stream()?;
            if stream.take_plain(into) {
                return Poll::Ready(Ok(()));
            }
            let Came::Data { content, length } = ready!(stream.poll_next(cx))? else {
                // An end without FIN is no end.
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            };
            match split(&stream.input()[content.clone()]) {
                Ok((Frame::Data, _)) => stream.keep_plain(content.start + 1..content.end, length),
                Ok((Frame::Fin, [])) => {
                    stream.use_up(length);
                    self.read_closed = true;
                }
                Ok((Frame::Reset, _)) => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
                _ => return Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Sends FIN, once.
    fn poll_fin(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let is_first = !self.write_closed;
        let stream = self.stream()?;
        ready!(stream.poll_output(cx))?;
        if is_first {
            let fin = seal(stream.session(), Frame::Fin, &[]).map_err(io::Error::other)?;
            stream.put(&fin);
            self.write_closed = true;
        }
        self.stream()?.poll_output(cx)
    }
}

impl AsyncRead for DirectStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.read_closed {
            return Poll::Ready(Ok(()));
        }
        self.poll_unbroken(cx, Side::Read, |this, cx| this.poll_came(cx, into))
    }
}

impl AsyncWrite for DirectStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.write_closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        self.poll_unbroken(cx, Side::Write, |this, cx| this.stream()?.poll_write(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_unbroken(cx, Side::Write, |this, cx| this.stream()?.poll_output(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_unbroken(cx, Side::Write, Self::poll_fin)
    }
}

impl Drop for DirectStream {
    fn drop(&mut self) {
        let Some((stream, home)) = self.tunnel.take() else { return };
        let within_record = stream.has_output();
        if self.read_broken || self.write_broken {
            // Without this the peer would read an orderly end.
            let _ = stream.session().socket.set_zero_linger();
        } else if self.read_closed && self.write_closed && !within_record {
            home.give_back(stream.into_session());
        } else {
            reset(stream.into_session(), within_record);
        }
    }
}
