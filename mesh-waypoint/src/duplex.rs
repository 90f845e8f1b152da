//! Byte streams both ways, whatever is below them.

use std::{
    cell::Cell,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, Bytes};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf, copy_bidirectional},
    time::{sleep, timeout},
};
use tokio_util::io::InspectReader;

/// A byte stream both ways.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Duplex for T {}

/// A stream of which the first bytes have been read.
pub(crate) struct Prefixed<S> {
    read: Bytes,
    stream: S,
}

impl<S> Prefixed<S> {
    /// The stream from before `read` was read of it.
    pub(crate) const fn new(read: Bytes, stream: S) -> Self {
        Self { read, stream }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Prefixed<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.read.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, into);
        }
        let count = self.read.len().min(into.remaining());
        into.put_slice(&self.read[..count]);
        self.read.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Prefixed<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Ends our side and waits for the other to end its own, so long at most: what is let go before that is reset.
pub(crate) async fn part(mut stream: impl Duplex, limit: Duration) {
    let parting = async {
        stream.shutdown().await?;
        let mut rest = [0; 1024];
        while stream.read(&mut rest).await? > 0 {}
        Ok::<_, io::Error>(())
    };
    // Whoever has gone already needs no end of stream, and who says nothing more is not waited for.
    let _ = timeout(limit, parting).await;
}

/// Passes bytes on both ways, half-close as half-close, until both have ended. `came` is told how many came.
///
/// # Errors
/// One of them failed, or nothing came from either for so long.
pub(crate) async fn carry(
    mut one: impl Duplex,
    mut other: impl Duplex,
    idle: Option<Duration>,
    came: impl Fn(usize),
) -> io::Result<()> {
    let total = Cell::new(0_u64);
    let note = |count: usize| {
        total.set(total.get() + count as u64);
        came(count);
    };
    let mut one = InspectReader::new(&mut one, |bytes: &[u8]| note(bytes.len()));
    let mut other = InspectReader::new(&mut other, |bytes: &[u8]| note(bytes.len()));
    let silent = async {
        let Some(limit) = idle else { return std::future::pending().await };
        let mut before = u64::MAX;
        while before != total.get() {
            before = total.get();
            sleep(limit).await;
        }
    };
    tokio::select! {
        carried = copy_bidirectional(&mut one, &mut other) => carried.map(drop),
        () = silent => Err(io::ErrorKind::TimedOut.into()),
    }
}
