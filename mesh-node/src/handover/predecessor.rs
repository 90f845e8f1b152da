//! The side of the daemon that runs: it serves successors, one after the other, until one has taken over.

use std::{
    io,
    net::TcpListener,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{
    net::UnixListener,
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{
    HandoverOutcome, HandoverState,
    message::{Hello, Message},
    successor::Lifeline,
};
use crate::{
    bpf::KeptHook,
    node::Shared,
    packets::{self, Channel, ChannelError, MAX_DESCRIPTORS},
    pods::Order,
    telemetry::Metrics,
};

/// How long a successor may take to introduce itself.
const HELLO_TIME: Duration = Duration::from_secs(5);
/// How long it may take from its Hello to its Commit: it loads programs, attaches them, and gets certificates. Meanwhile
/// this daemon may hold still.
const SESSION_TIME: Duration = Duration::from_secs(45);
/// Pause after accept() failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Why a successor did not take over.
#[derive(Debug, thiserror::Error)]
enum SessionError {
    #[error(transparent)]
    Channel(#[from] ChannelError),
    #[error("declined: {0}")]
    Declined(String),
    #[error("it has not taken over within {} s", SESSION_TIME.as_secs())]
    TimedOut,
    #[error("it said {0:?} out of turn")]
    OutOfTurn(Message),
    #[error("this daemon is ending")]
    Ending,
}

/// The handover's socket could not be opened.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen on {path}, for handovers: {source}; it stands beside --admin-socket, in a directory that can be written to"
)]
pub struct HandoverSocketError {
    path: PathBuf,
    source: io::Error,
}

/// What the daemon that runs has to hand over.
pub struct Predecessor {
    hello: Hello,
    /// Its metrics and its readiness listener.
    endpoints: [OwnedFd; 2],
    orders: mpsc::Sender<Order>,
    state: Arc<HandoverState>,
    metrics: Arc<Metrics>,
    lifelines: Vec<Lifeline>,
}

/// What a daemon that has handed over keeps until it ends.
pub struct Released {
    /// The hook by which its late sockets are known for the daemon's. Without it the kernel would refuse their connections.
    _hook: KeptHook,
    /// Its end tells the successor of ours.
    _lifeline: Channel,
}

impl Predecessor {
    /// `lifelines` are of the daemons before this one.
    #[must_use]
    pub fn new(
        node: &str,
        endpoints: [OwnedFd; 2],
        orders: mpsc::Sender<Order>,
        shared: &Shared,
        lifelines: Vec<Lifeline>,
    ) -> Self {
        let (state, metrics) = (shared.handover.clone(), shared.telemetry.metrics.clone());
        Self { hello: Hello::of(node), endpoints, orders, state, metrics, lifelines }
    }

    /// Listens for successors at `path`, in the place of the daemon before.
    ///
    /// # Errors
    /// The path cannot be used.
    pub fn listen(path: &Path) -> Result<UnixListener, HandoverSocketError> {
        packets::listen_at(path).map_err(|source| HandoverSocketError { path: path.into(), source })
    }

    /// Serves until a successor has taken over: this daemon takes nothing new any more.
    pub async fn serve(self, listener: UnixListener) -> Released {
        loop {
            let channel = match Channel::accept(&listener).await {
                Ok(channel) => channel,
                Err(error) => {
                    tracing::warn!(%error, "successor not heard");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let session = timeout(SESSION_TIME, self.session(&channel)).await;
            let error = match session.unwrap_or(Err(SessionError::TimedOut)) {
                Ok(hook) => return Released { _hook: hook, _lifeline: channel },
                Err(error) => error,
            };
            self.state.set_lending_to(None);
            let declined = matches!(error, SessionError::Declined(_));
            self.metrics.succession.handover(if declined {
                HandoverOutcome::Declined
            } else {
                HandoverOutcome::Abandoned
            });
            tracing::warn!(%error, "a successor has not taken over: this daemon goes on");
            // Nobody hears it only when the daemon ends.
            let _ = self.orders.send(Order::Resume).await;
        }
    }

    async fn session(&self, channel: &Channel) -> Result<KeptHook, SessionError> {
        let first = timeout(HELLO_TIME, channel.receive()).await.map_err(|_| SessionError::TimedOut)??.0;
        let Message::Hello(hello) = first else { return Err(SessionError::OutOfTurn(first)) };
        if let Some(reason) = hello.objection(&self.hello) {
            channel.send(&Message::Declined { reason: reason.clone() }, &[]).await?;
            return Err(SessionError::Declined(reason));
        }
        let (pid, generation) = (self.hello.pid, self.state.generation());
        let endpoints = self.endpoints.each_ref().map(AsFd::as_fd);
        channel.send(&Message::Welcome { pid, generation }, &endpoints).await?;
        self.state.set_lending_to(Some(hello.pid));
        tracing::info!(successor = hello.pid, version = hello.version, "a successor prepares to take over");
        match channel.receive().await?.0 {
            Message::Lend => self.lend(channel).await?,
            other => return Err(SessionError::OutOfTurn(other)),
        }
        match channel.receive().await?.0 {
            Message::Commit => self.release(channel).await,
            other => Err(SessionError::OutOfTurn(other)),
        }
    }

    async fn lend(&self, channel: &Channel) -> Result<(), SessionError> {
        let listeners: Vec<TcpListener> = self.ask(Order::Lend).await?;
        let descriptors: Vec<BorrowedFd<'_>> = listeners.iter().map(AsFd::as_fd).collect();
        Ok(channel.send_all(&descriptors, |last| Message::Lent { last }).await?)
    }

    async fn release(&self, channel: &Channel) -> Result<KeptHook, SessionError> {
        let hook = self.ask(Order::Release).await?;
        let draining = self.lifelines.iter().filter(|lifeline| lifeline.is_held(&self.state));
        let (draining, sockets): (Vec<_>, Vec<_>) =
            draining.take(MAX_DESCRIPTORS).map(|lifeline| (lifeline.pid, lifeline.as_fd())).unzip();
        // A successor that is gone just now leaves nobody; who starts next finds the hooks and what was pinned.
        if let Err(error) = channel.send(&Message::Committed { draining }, &sockets).await {
            tracing::error!(%error, "the successor has gone with what it took over");
        }
        Ok(hook)
    }

    async fn ask<T>(&self, order: impl FnOnce(oneshot::Sender<T>) -> Order) -> Result<T, SessionError> {
        let (answer, answered) = oneshot::channel();
        self.orders.send(order(answer)).await.map_err(|_| SessionError::Ending)?;
        answered.await.map_err(|_| SessionError::Ending)
    }
}
