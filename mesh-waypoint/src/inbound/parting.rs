//! The end of a client's connection: what is let go before the client has ended its own side is reset, and a reset overtakes what the
//! client has yet to read (RFC 9112, section 9.6).

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    task::spawn_local,
};

use crate::duplex::{self, Duplex};

/// How long a client may take to end its side of a connection that is over.
const PARTING: Duration = Duration::from_secs(5);

/// Ends our side and waits for the client to end its own.
pub(super) async fn part(stream: impl Duplex) {
    duplex::part(stream, PARTING).await;
}

/// A stream that is parted from where it is let go: HTTP/2 says last why it ends, and keeps its stream until then.
pub(super) struct Parting<S: Duplex + 'static>(Option<S>);

impl<S: Duplex + 'static> Parting<S> {
    pub(super) const fn of(stream: S) -> Self {
        Self(Some(stream))
    }

    fn poll<T>(&mut self, poll: impl FnOnce(Pin<&mut S>) -> Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        let gone = || Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        self.0.as_mut().map_or_else(gone, |stream| poll(Pin::new(stream)))
    }
}

impl<S: Duplex + 'static> Drop for Parting<S> {
    fn drop(&mut self) {
        if let Some(stream) = self.0.take() {
            spawn_local(part(stream));
        }
    }
}

impl<S: Duplex + 'static> AsyncRead for Parting<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.poll(|stream| stream.poll_read(cx, into))
    }
}

impl<S: Duplex + 'static> AsyncWrite for Parting<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll(|stream| stream.poll_write(cx, bytes))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(|stream| stream.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(|stream| stream.poll_shutdown(cx))
    }
}
