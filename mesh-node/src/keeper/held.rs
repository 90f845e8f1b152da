//! The daemon's side: what its keeper shall hold.

use std::{
    collections::HashSet,
    io,
    net::TcpListener,
    os::fd::{AsFd as _, OwnedFd},
    time::Duration,
};

use rustix::net::sockopt;
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{Message, RESTARTS};
use crate::{
    handover::Inheritance,
    packets::{Channel, ChannelError},
};

/// Changes that may wait to be told; what does not fit is told after the next comparison.
const WAITING: usize = 1024;
/// How long a keeper may take for an answer.
const ANSWER_TIME: Duration = Duration::from_secs(5);

/// What a keeper should have and has not.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// The conversation broke off.
    #[error("the process that keeps listeners over a crash is of no use: {0}")]
    Channel(#[from] ChannelError),
    /// It hangs, or says something else than it should.
    #[error("the process that keeps listeners over a crash has not told what it has")]
    Silent,
}

/// A change to what is kept.
enum Change {
    Keep(u64, TcpListener),
    Forget(u64),
    HandedOver(oneshot::Sender<()>),
}

/// What the keeper of this daemon is told; nothing where it has none.
#[derive(Default)]
pub struct Keeper {
    /// How often it has started this daemon again.
    restarts: u64,
    told: HashSet<u64>,
    changes: Option<mpsc::Sender<Change>>,
}

impl Keeper {
    /// Takes back what the keeper has, where this daemon has one; in a runtime.
    ///
    /// # Errors
    /// There is one, and it does not answer.
    pub async fn take_back() -> Result<(Self, Inheritance), KeeperError> {
        let mut inheritance = Inheritance::default();
        let Some(restarts) = std::env::var(RESTARTS).ok().and_then(|restarts| restarts.parse().ok()) else {
            return Ok((Self::default(), inheritance));
        };
        let socket: OwnedFd = io::stdin().as_fd().try_clone_to_owned().map_err(ChannelError::from)?;
        let channel = Channel::passed_on(socket)?;
        let lent = timeout(ANSWER_TIME, lend(&channel)).await.map_err(|_| KeeperError::Silent)??;
        let told = lent.iter().filter_map(|socket| sockopt::socket_cookie(socket).ok()).collect();
        lent.into_iter().for_each(|socket| inheritance.add(socket));
        let (changes, changed) = mpsc::channel(WAITING);
        tokio::spawn(tell(channel, changed));
        Ok((Self { restarts, told, changes: Some(changes) }, inheritance))
    }

    /// How often the keeper has started this daemon again.
    #[must_use]
    pub const fn restarts(&self) -> u64 {
        self.restarts
    }

    /// Has the keeper hold these, by their sockets' cookies, and nothing else.
    pub fn hold<'a>(&mut self, listeners: impl Iterator<Item = (u64, &'a TcpListener)>) {
        let Some(changes) = &self.changes else { return };
        let mut gone = self.told.clone();
        for (socket, listener) in listeners {
            if gone.remove(&socket) || self.told.contains(&socket) {
                continue;
            }
            // Without a descriptor, or room, it is tried again after the next comparison.
            let Ok(duplicate) = listener.try_clone() else { continue };
            if changes.try_send(Change::Keep(socket, duplicate)).is_ok() {
                self.told.insert(socket);
            }
        }
        for socket in gone {
            if changes.try_send(Change::Forget(socket)).is_ok() {
                self.told.remove(&socket);
            }
        }
    }

    /// Has it keep nothing, and not start this daemon again while another one is in charge.
    pub async fn hand_over(&mut self) {
        let Some(changes) = self.changes.take() else { return };
        let (sender, sent) = oneshot::channel();
        let told = timeout(ANSWER_TIME, async {
            changes.send(Change::HandedOver(sender)).await.ok()?;
            sent.await.ok()
        });
        if !matches!(told.await, Ok(Some(()))) {
            tracing::error!("the process above this daemon does not know that another one takes over");
        }
    }
}

async fn lend(channel: &Channel) -> Result<Vec<OwnedFd>, KeeperError> {
    channel.send(&Message::Lend, &[]).await?;
    let mut lent = Vec::new();
    loop {
        let (message, sockets) = channel.receive().await?;
        let Message::Lent { last } = message else { return Err(KeeperError::Silent) };
        lent.extend(sockets);
        if last {
            return Ok(lent);
        }
    }
}

/// Tells the keeper of changes, until it is gone.
async fn tell(channel: Channel, mut changes: mpsc::Receiver<Change>) {
    while let Some(change) = changes.recv().await {
        let told = match &change {
            Change::Keep(socket, listener) => {
                channel.send(&Message::Keep { socket: *socket }, &[listener.as_fd()]).await
            }
            Change::Forget(socket) => channel.send(&Message::Forget { socket: *socket }, &[]).await,
            Change::HandedOver(_) => channel.send(&Message::HandedOver, &[]).await,
        };
        if let Err(error) = told {
            return tracing::error!(%error, "no process keeps the listeners over a crash any more");
        }
        if let Change::HandedOver(sent) = change {
            // Who waits no more needs no answer.
            let _ = sent.send(());
        }
    }
}
