//! Keeps certificates ahead of their end, and of changes in whom to trust.

use std::collections::HashSet;
use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mesh_core::SpiffeId;
use mesh_core::lock::UnpoisonedMutex as _;
use tokio::task::JoinSet;

use super::Identities;
use super::entry::Entry;
use crate::trust::{PeerVerifier, TrustFeed};

/// Attempts that run at once.
const AT_ONCE: usize = 8;
/// The longest sleep, so that a clock that was set is noticed.
const LONGEST_SLEEP: Duration = Duration::from_secs(10);

impl Identities {
    /// Fetches what is held and missing, renews what is due, and follows the trust bundle. Runs until it is dropped.
    pub async fn run(&self) {
        let mut trust = self.0.trust.clone();
        let mut attempts = JoinSet::new();
        let mut busy = HashSet::new();
        loop {
            let peers = trust.borrow_and_update().clone();
            let sleep = self.start_due(&peers, &mut attempts, &mut busy);
            tokio::select! {
                () = tokio::time::sleep(sleep) => {}
                () = self.0.changed.notified() => {}
                () = changed(&mut trust) => {}
                Some(ended) = attempts.join_next() => match ended {
                    Ok(identity) => { busy.remove(&identity); }
                    // One that panicked has said so itself; its identity would stay busy for ever.
                    Err(_) => busy.clear(),
                },
            }
        }
    }

    /// Starts the attempts that are due, as many as may run, and returns how long nothing else is due.
    fn start_due(
        &self,
        peers: &Arc<PeerVerifier>,
        attempts: &mut JoinSet<SpiffeId>,
        busy: &mut HashSet<SpiffeId>,
    ) -> Duration {
        let now = SystemTime::now();
        let mut sleep = LONGEST_SLEEP;
        for (identity, entry) in self.all() {
            if busy.contains(&identity) {
                continue;
            }
            match entry.next_due(peers, now) {
                Some(next) => sleep = sleep.min(next.duration_since(now).unwrap_or(Duration::ZERO)),
                // The end of one that runs wakes us for the others.
                None if attempts.len() >= AT_ONCE => {}
                None => {
                    busy.insert(identity.clone());
                    attempts.spawn(self.clone().renew(identity, entry));
                }
            }
        }
        sleep
    }

    async fn renew(self, identity: SpiffeId, entry: Arc<Entry>) -> SpiffeId {
        let _one = entry.fetching.lock().await;
        let peers = self.0.trust.borrow().clone();
        // A connection that needed it may have been first.
        if entry.next_due(&peers, SystemTime::now()).is_none() {
            self.attempt(&identity, &entry).await;
        }
        identity
    }

    pub(super) fn all(&self) -> Vec<(SpiffeId, Arc<Entry>)> {
        self.0.entries.lock_unpoisoned().iter().map(|(identity, entry)| (identity.clone(), entry.clone())).collect()
    }
}

/// Waits for another trust bundle; for ever where none can come.
async fn changed(trust: &mut TrustFeed) {
    if trust.changed().await.is_err() {
        pending().await
    }
}
