//! Carries one application connection to its far side and back, with TCP's own semantics.
//!
//! An end of stream stays a half-close, a reset stays a reset, a slow reader slows its writer, and no byte is lost or kept
//! beyond one buffer a direction. While nothing comes, no buffer is held.

mod direct;
mod h2;
mod records;
mod sidecar;
mod tcp;

use std::cell::Cell;
use std::future::{pending, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

use socket2::SockRef;
use tokio::net::TcpStream;

use crate::hbone::Tunnel;
use crate::sidecar::SidecarTls;

/// Bytes carried so far; may be read while the relay runs.
#[derive(Debug, Default)]
pub struct RelayCounters {
    /// From the application to the far side, in bytes.
    pub sent: AtomicU64,
    /// From the far side to the application, in bytes.
    pub received: AtomicU64,
}

/// Who looks at what passes, and neither holds nor changes it.
pub trait Watcher {
    /// Bytes from the application to the far side, in order.
    fn sent(&self, bytes: &[u8]);
    /// Bytes from the far side to the application, in order.
    fn received(&self, bytes: &[u8]);
}

/// What passes: counted, and shown to who looks.
#[derive(Clone, Copy)]
struct Passing<'a> {
    counters: &'a RelayCounters,
    watcher: Option<&'a dyn Watcher>,
}

impl Passing<'_> {
    fn show_sent(&self, bytes: &[u8]) {
        if let Some(watcher) = self.watcher {
            watcher.sent(bytes);
        }
    }

    fn show_received(&self, bytes: &[u8]) {
        if let Some(watcher) = self.watcher {
            watcher.received(bytes);
        }
    }
}

/// The side of a relay that is not the application's socket.
#[derive(Debug)]
pub enum Far {
    /// A tunnel through the mesh.
    Tunnel(Tunnel),
    /// Mutual TLS with a sidecar.
    Sidecar(SidecarTls),
    /// A plain connection.
    Plain(TcpStream),
}

impl From<Tunnel> for Far {
    fn from(tunnel: Tunnel) -> Self {
        Self::Tunnel(tunnel)
    }
}

impl From<SidecarTls> for Far {
    fn from(sidecar: SidecarTls) -> Self {
        Self::Sidecar(sidecar)
    }
}

impl From<TcpStream> for Far {
    fn from(stream: TcpStream) -> Self {
        Self::Plain(stream)
    }
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum End {
    /// Both sides finished.
    Closed,
    /// The application's side reset the connection; the far side was reset too.
    ResetByApp,
    /// The far side reset, or the tunnel broke; the application's side was reset too.
    ResetByFar,
}

impl End {
    /// A metric's or log's label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::ResetByApp => "reset_by_app",
            Self::ResetByFar => "reset_by_far",
        }
    }
}

/// What a connection came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// From the application to the far side, in bytes.
    pub sent: u64,
    /// From the far side to the application, in bytes.
    pub received: u64,
    /// How it ended.
    pub end: End,
}

/// Relays until both sides have finished or one has reset. Dropping the future resets both.
pub async fn relay(app: TcpStream, far: impl Into<Far>, counters: &RelayCounters) -> Outcome {
    relay_watched(app, far, counters, None).await
}

/// The same, where somebody may look at what passes.
pub async fn relay_watched(
    app: TcpStream,
    far: impl Into<Far>,
    counters: &RelayCounters,
    watcher: Option<&dyn Watcher>,
) -> Outcome {
    prepare(&app);
    let passing = Passing { counters, watcher };
    // Boxed, so that a connection costs what its own kind needs.
    let end = match far.into() {
        Far::Plain(far) => Box::pin(tcp::relay(&app, &far, passing)).await,
        Far::Sidecar(far) => Box::pin(sidecar::relay(&app, far, passing)).await,
        Far::Tunnel(Tunnel::Direct(far)) => Box::pin(direct::relay(&app, far, passing)).await,
        Far::Tunnel(Tunnel::H2(far)) => Box::pin(h2::relay(&app, far, passing)).await,
    };
    if end == End::Closed {
        conclude(&app);
    }
    Outcome { sent: counters.sent.load(Ordering::Relaxed), received: counters.received.load(Ordering::Relaxed), end }
}

/// Makes a reset the end of a socket that is cut, be it because this process is killed: nobody shall take half a stream for
/// a whole one.
fn prepare(socket: &TcpStream) {
    // What fails here makes an end less exact or a small write later, and no byte wrong.
    let _ = socket.set_nodelay(true);
    let _ = socket.set_zero_linger();
}

/// Both directions have carried their end of stream: what is still queued shall arrive.
fn conclude(socket: &TcpStream) {
    let _ = SockRef::from(socket).set_linger(None);
}

/// Which side of a relay broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Broken {
    App,
    Far,
}

impl From<Broken> for End {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::App => Self::ResetByApp,
            Broken::Far => Self::ResetByFar,
        }
    }
}

/// Which directions have carried their end of stream.
#[derive(Debug, Default)]
struct Finished {
    up: Cell<bool>,
    down: Cell<bool>,
}

/// One direction: marks that its end of stream was carried, and resolves only to what broke.
async fn until_broken(carried: impl Future<Output = Result<(), Broken>>, finished: &Cell<bool>) -> Broken {
    if let Err(broken) = carried.await {
        return broken;
    }
    finished.set(true);
    pending().await
}

/// Polls both directions and a watch for errors in one task, until both have finished or something broke.
///
/// The futures only ever resolve to what broke; after its end of stream a direction goes on watching for a reset.
async fn both(
    finished: &Finished,
    up: impl Future<Output = Broken>,
    down: impl Future<Output = Broken>,
    watch: impl Future<Output = Broken>,
) -> End {
    let (mut up, mut down, mut watch) = (pin!(up), pin!(down), pin!(watch));
    poll_fn(|cx| {
        for broken in [up.as_mut().poll(cx), down.as_mut().poll(cx), watch.as_mut().poll(cx)] {
            if let Poll::Ready(broken) = broken {
                return Poll::Ready(broken.into());
            }
        }
        if finished.up.get() && finished.down.get() {
            return Poll::Ready(End::Closed);
        }
        Poll::Pending
    })
    .await
}
