//! What an endpoint's HTTP/2 connection begins with: its settings, which say whether streams of it may be another protocol's.

use std::{
    cell::Cell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::Notify,
};

/// A frame's length, type, flags and stream (RFC 9113, section 4.1).
const FRAME_HEAD: usize = 9;

/// Whether a server's first frame, which is SETTINGS (RFC 9113, section 3.4), has come.
#[derive(Debug, Default)]
pub(crate) struct Greeting {
    is_over: Cell<bool>,
    over: Notify,
}

impl Greeting {
    /// Resolves once it has come, or never will.
    pub(crate) async fn over(&self) {
        while !self.is_over.get() {
            self.over.notified().await;
        }
    }

    fn end(&self) {
        self.is_over.set(true);
        self.over.notify_waiters();
    }
}

/// A stream of which it is told when the first frame has been read.
pub(super) struct Greeted<S> {
    stream: S,
    greeting: Rc<Greeting>,
    head: [u8; FRAME_HEAD],
    read: usize,
}

impl<S> Greeted<S> {
    pub(super) const fn new(stream: S, greeting: Rc<Greeting>) -> Self {
        Self { stream, greeting, head: [0; FRAME_HEAD], read: 0 }
    }

    /// Whoever waits has its turn when the connection has looked at what it has read: all are on one thread.
    fn note(&mut self, octets: &[u8]) {
        for (place, octet) in self.head.iter_mut().skip(self.read).zip(octets) {
            *place = *octet;
        }
        self.read += octets.len();
        let [first, second, third, ..] = self.head;
        let length = u32::from_be_bytes([0, first, second, third]) as usize;
        let is_whole = self.read >= FRAME_HEAD && self.read - FRAME_HEAD >= length;
        if is_whole || octets.is_empty() {
            self.greeting.end();
        }
    }
}

impl<S> Drop for Greeted<S> {
    fn drop(&mut self) {
        self.greeting.end();
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Greeted<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, into))?;
        if !self.greeting.is_over.get() {
            self.note(&into.filled()[before..]);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Greeted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn settings_have_come_once_their_frame_is_whole() {
        // SETTINGS with one parameter of six octets.
        let frame = [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 1];
        let greeting = Rc::<Greeting>::default();
        let mut stream = Greeted::new(&frame[..], greeting.clone());
        for read in 1..=frame.len() {
            stream.read_u8().await.expect("an octet");
            assert_eq!(greeting.is_over.get(), read == frame.len(), "after {read} octets");
        }
        let gone = Rc::<Greeting>::default();
        drop(Greeted::new(&frame[..], gone.clone()));
        gone.over().await;
    }
}
