//! Pods that have left by their label, for as long as something may be on its way to their listeners: connections that the kernel
//! has led there already, and tunnels of nodes that have not heard of it yet.

use std::{
    collections::BTreeMap,
    net::TcpListener,
    path::Path,
    time::{Duration, Instant},
};

use mesh_core::WorkloadUid;

use super::joined::Joined;
use crate::listeners::Role;

/// How long their listeners are served.
pub(super) const TIME: Duration = Duration::from_secs(2);

/// The pods that have just left.
#[derive(Default)]
pub(super) struct Lingering(BTreeMap<WorkloadUid, (Joined, Instant)>);

impl Lingering {
    /// Has a pod's listeners served a little longer.
    pub(super) fn add(&mut self, uid: WorkloadUid, joined: Joined, now: Instant) {
        self.0.insert(uid, (joined, now + TIME));
    }

    /// The listeners of a pod that joins again, with what waits in them.
    pub(super) fn take(&mut self, uid: &WorkloadUid, netns_cookie: u64) -> Vec<(Role, TcpListener)> {
        match self.0.remove(uid) {
            Some((joined, _)) if joined.pod.netns.cookie() == netns_cookie => joined.into_listeners(),
            // Of a sandbox that was replaced.
            _ => Vec::new(),
        }
    }

    /// Those that linger.
    pub(super) fn all(&self) -> impl Iterator<Item = &Joined> {
        self.0.values().map(|(joined, _)| joined)
    }

    /// Closes the listeners of those whose time is over, or whose sandbox is gone, which is told.
    pub(super) fn close_due(&mut self, now: Instant, proc: &Path, gone: impl Fn(&WorkloadUid)) {
        self.0.retain(|uid, (joined, until)| {
            let runs = joined.is_current(proc);
            let stays = runs && now < *until;
            if !stays {
                joined.drain.send_replace(true);
            }
            if !runs {
                gone(uid);
            }
            stays
        });
    }

    /// Closes them all.
    pub(super) fn close(&mut self) {
        for (_, (joined, _)) in std::mem::take(&mut self.0) {
            joined.drain.send_replace(true);
        }
    }
}
