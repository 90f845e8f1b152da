//! The side of the daemon that starts.

use std::{
    collections::HashMap,
    io,
    net::TcpListener,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    sync::Arc,
    time::Duration,
};

use tokio::time::timeout;

use super::{
    HandoverState,
    message::{Hello, Message},
};
use crate::{
    listeners::Role,
    netns,
    packets::{Channel, ChannelError},
};

/// How long the running daemon may take for an answer; it is one that hangs otherwise.
const ANSWER_TIME: Duration = Duration::from_secs(10);

/// The running daemon could not be taken over from.
#[derive(Debug, thiserror::Error)]
pub enum SuccessionError {
    /// The conversation broke off.
    #[error("the daemon that runs cannot be taken over from: {0}")]
    Channel(#[from] ChannelError),
    /// It hangs.
    #[error("the daemon that runs has not answered within {} s", ANSWER_TIME.as_secs())]
    TimedOut,
    /// It said something else than it should.
    #[error("the daemon that runs said {0} out of turn")]
    OutOfTurn(String),
    /// It will not.
    #[error("the daemon that runs does not hand over: {0}")]
    Declined(String),
}

/// A running daemon that is willing to hand over.
pub struct Succession {
    channel: Channel,
    pid: u32,
    generation: u64,
    endpoints: Vec<TcpListener>,
}

/// The pods' listeners of the daemon before, by their namespaces' cookies.
#[derive(Debug, Default)]
pub struct Inheritance(HashMap<u64, Vec<(Role, TcpListener)>>);

/// The socket of an earlier daemon that carries connections still; its end is that daemon's.
#[derive(Clone, Debug)]
pub struct Lifeline {
    pub(super) pid: u32,
    channel: Arc<Channel>,
}

impl Succession {
    /// Asks the daemon whose admin API is at `admin_socket`, if there is one; waits for the end of one that does not hand over.
    /// `None`: this daemon starts without one, and the reason is in the log.
    pub async fn begin(admin_socket: &Path, node: &str) -> Option<Self> {
        loop {
            match Self::ask(&super::socket_path(admin_socket), node).await {
                Ok(succession) => {
                    tracing::info!(predecessor = succession.pid, "a daemon runs, and hands over");
                    return Some(succession);
                }
                Err(SuccessionError::Channel(ChannelError::Io(error)))
                    if [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused].contains(&error.kind()) =>
                {
                    tracing::info!("no daemon runs: this one starts anew");
                    return None;
                }
                Err(error @ SuccessionError::Declined(_)) => {
                    tracing::warn!(%error, "this daemon waits until that one has ended");
                    super::until_vacant(admin_socket, 1).await;
                }
                Err(error) => {
                    tracing::warn!(%error, "this daemon starts anew");
                    return None;
                }
            }
        }
    }

    async fn ask(path: &Path, node: &str) -> Result<Self, SuccessionError> {
        let channel = Channel::connect(path)?;
        channel.send(&Message::Hello(Hello::of(node)), &[]).await?;
        match answer(&channel).await? {
            (Message::Welcome { pid, generation }, sockets) => {
                let endpoints = sockets.into_iter().map(TcpListener::from).collect();
                Ok(Self { channel, pid, generation, endpoints })
            }
            (Message::Declined { reason }, _) => Err(SuccessionError::Declined(reason)),
            (other, _) => Err(SuccessionError::OutOfTurn(format!("{other:?}"))),
        }
    }

    /// The metrics and readiness listeners of the daemon before.
    pub fn take_endpoints(&mut self) -> Vec<TcpListener> {
        std::mem::take(&mut self.endpoints)
    }

    /// Borrows the pods' listeners. From now on the running daemon holds still: it should not take long to [`Self::commit`].
    ///
    /// # Errors
    /// The running daemon is gone, or hangs.
    pub async fn borrow(&self) -> Result<Inheritance, SuccessionError> {
        self.channel.send(&Message::Lend, &[]).await?;
        let mut inheritance = Inheritance::default();
        loop {
            let (message, sockets) = answer(&self.channel).await?;
            let Message::Lent { last } = message else {
                return Err(SuccessionError::OutOfTurn(format!("{message:?}")));
            };
            sockets.into_iter().for_each(|socket| inheritance.add(socket));
            if last {
                return Ok(inheritance);
            }
        }
    }

    /// Takes over: when this returns, the daemon before takes nothing new any more.
    ///
    /// # Errors
    /// The daemon before is gone, or hangs.
    pub async fn commit(self, state: &HandoverState) -> Result<Vec<Lifeline>, SuccessionError> {
        let Self { channel, pid, generation, .. } = self;
        channel.send(&Message::Commit, &[]).await?;
        let (message, sockets) = answer(&channel).await?;
        let Message::Committed { draining } = message else {
            return Err(SuccessionError::OutOfTurn(format!("{message:?}")));
        };
        state.took_over(generation.saturating_add(1));
        let mut lifelines = vec![Lifeline { pid, channel: Arc::new(channel) }];
        for (pid, socket) in draining.into_iter().zip(sockets) {
            lifelines.push(Lifeline { pid, channel: Arc::new(Channel::passed_on(socket)?) });
        }
        lifelines.iter().for_each(|lifeline| state.begins_to_drain(lifeline.pid));
        tracing::info!(predecessor = pid, generation = state.generation(), "taken over: the daemon before drains");
        Ok(lifelines)
    }
}

async fn answer(channel: &Channel) -> Result<(Message, Vec<OwnedFd>), SuccessionError> {
    Ok(timeout(ANSWER_TIME, channel.receive()).await.map_err(|_| SuccessionError::TimedOut)??)
}

impl Inheritance {
    /// What a listener is, and whose, the kernel says. One that is nobody's closes.
    pub fn add(&mut self, socket: OwnedFd) {
        let listener = TcpListener::from(socket);
        match (netns::cookie_of(&listener), Role::of(&listener)) {
            (Ok(cookie), Some(role)) => self.0.entry(cookie).or_default().push((role, listener)),
            (Ok(_), None) => tracing::warn!(?listener, "the daemon before has lent what is no listener of a pod"),
            (Err(error), _) => tracing::warn!(%error, "a listener of the daemon before cannot be used"),
        }
    }

    /// The listeners in a namespace.
    pub fn take(&mut self, netns_cookie: u64) -> Vec<(Role, TcpListener)> {
        self.0.remove(&netns_cookie).unwrap_or_default()
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }
}

impl Lifeline {
    /// Waits for the earlier daemon's end, and tells of it.
    pub async fn follow(self, state: Arc<HandoverState>) {
        self.channel.closed().await;
        state.has_drained(self.pid);
        tracing::info!(predecessor = self.pid, "an earlier daemon has ended");
    }

    /// Whether the daemon has not ended yet.
    pub(super) fn is_held(&self, state: &HandoverState) -> bool {
        state.draining().iter().any(|(pid, _)| *pid == self.pid)
    }
}

impl AsFd for Lifeline {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}
