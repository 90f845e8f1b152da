//! A connection, or a stream of HTTP/2, that has stopped being HTTP's: its bytes, passed on both ways.

use std::{
    cell::Cell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{lease::Lease, ledger::Ledger, reply::Flag};
use crate::{
    duplex::{Duplex, carry},
    inbound::{Lifeless, Stalled},
    worker::Worker,
};

/// What carries the upstream's side.
pub(super) enum Upstream {
    /// The whole connection; none where it is broken.
    Http1(Option<Box<dyn Duplex>>),
    /// One stream.
    Http2(OnUpgrade),
}

impl Upstream {
    /// Its bytes; none where the connection breaks instead.
    async fn stream(self) -> Option<Box<dyn Duplex>> {
        match self {
            Self::Http1(stream) => stream,
            Self::Http2(upgrade) => Some(Box::new(TokioIo::new(upgrade.await.ok()?))),
        }
    }
}

/// What it has become. The exchange that it began with goes on as long as it does: it counts as a request under way, its
/// endpoint's connection as one in use, and it is told of at its end.
pub(crate) struct Other {
    upstream: Upstream,
    ledger: Rc<Ledger>,
    _lease: Lease,
}

impl Other {
    pub(super) const fn new(upstream: Upstream, lease: Lease, ledger: Rc<Ledger>) -> Self {
        Self { upstream, ledger, _lease: lease }
    }

    /// Passes bytes on both ways, until nothing has come for as long as a connection may be idle. While that goes on, the client's
    /// connection is in use.
    pub(crate) async fn carry(self, worker: &Worker, client: impl Duplex) {
        let ledger = &*self.ledger;
        let Some(upstream) = self.upstream.stream().await else {
            ledger.note_flag(Flag::UpstreamTermination);
            return;
        };
        let ended = Cell::new(false);
        let client = Side { stream: client, is_client: true, ledger, ended: &ended };
        let upstream = Side { stream: upstream, is_client: false, ledger, ended: &ended };
        let is_silent = tokio::select! {
            carried = carry(client, upstream, worker.shared.patience.idle, |count| ledger.flow.came(count)) => {
                carried.is_err_and(|error| error.kind() == io::ErrorKind::TimedOut)
            }
            // Whoever looks at the connection has told of it.
            _ = ledger.flow.cut() => false,
        };
        if is_silent {
            ledger.note_flag(Flag::StreamIdle);
            worker.shared.telemetry.own.lifeless(Lifeless::Stalled(Stalled::Quiet));
        }
    }
}

/// One of both sides: what it says is counted, and that it failed is noted.
struct Side<'a, S> {
    stream: S,
    is_client: bool,
    ledger: &'a Ledger,
    /// One of them has said all that it had to say: most protocols are over then, and how the other goes is its own affair.
    ended: &'a Cell<bool>,
}

impl<S> Side<'_, S> {
    fn told<T>(&self, done: io::Result<T>) -> io::Result<T> {
        if done.is_err() && !self.ended.get() {
            let flag = if self.is_client { Flag::DownstreamTermination } else { Flag::UpstreamTermination };
            self.ledger.note_flag(flag);
        }
        done
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Side<'_, S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let done = ready!(Pin::new(&mut self.stream).poll_read(cx, into));
        let count = into.filled().len() - before;
        if done.is_ok() && count == 0 {
            self.ended.set(true);
        }
        let total = if self.is_client { &self.ledger.sent } else { &self.ledger.received };
        total.set(total.get() + count as u64);
        Poll::Ready(self.told(done))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Side<'_, S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let done = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes));
        Poll::Ready(self.told(done))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = ready!(Pin::new(&mut self.stream).poll_flush(cx));
        Poll::Ready(self.told(done))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
