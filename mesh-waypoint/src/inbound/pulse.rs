//! Whether a client's connection is alive: neither idle for too long, nor taking for ever over the head of a request.

use std::{
    cell::Cell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, MissedTickBehavior, interval},
};

/// How often it is looked.
const LOOK: Duration = Duration::from_secs(5);
/// How long the head of a request may take.
const HEAD: Duration = Duration::from_secs(15);
/// How long a connection may be without a request, as Envoy has it.
const IDLE: Duration = Duration::from_secs(3600);

/// What a connection did last. One timer each connection, looked at seldom, costs less than one for each request.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    /// Requests under way.
    active: Cell<usize>,
    /// Requests ever begun.
    begun: Cell<u64>,
    /// Bytes came since the last request began.
    head: Cell<bool>,
}

impl Pulse {
    /// A request begins; it is under way until what is returned is dropped.
    pub(super) fn begin(self: &Rc<Self>) -> Beat {
        self.active.set(self.active.get() + 1);
        self.begun.set(self.begun.get() + 1);
        self.head.set(false);
        Beat(self.clone())
    }

    /// Resolves when the connection has been idle, or at the head of one request, for too long.
    pub(super) async fn stopped(&self) {
        let mut ticks = interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut begun, mut since, mut in_head) = (self.begun.get(), Instant::now(), false);
        loop {
            ticks.tick().await;
            let head = self.active.get() == 0 && self.head.get();
            if self.active.get() > 0 || self.begun.get() != begun || head != in_head {
                (begun, since, in_head) = (self.begun.get(), Instant::now(), head);
            }
            if since.elapsed() >= if in_head { HEAD } else { IDLE } {
                return;
            }
        }
    }
}

/// A request under way.
#[derive(Debug)]
pub(crate) struct Beat(Rc<Pulse>);

impl Drop for Beat {
    fn drop(&mut self) {
        self.0.active.set(self.0.active.get() - 1);
    }
}

/// A stream whose reads are noted.
pub(super) struct Felt<S> {
    pub(super) stream: S,
    pub(super) pulse: Rc<Pulse>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Felt<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, into);
        if into.filled().len() > before {
            self.pulse.head.set(true);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Felt<S> {
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
