//! The enrolment loop's part in handovers: how a daemon comes to be in charge of the node's pods, and how it gives them up.

use std::{collections::HashSet, net::TcpListener};

use mesh_config::Config;
use mesh_core::SpiffeId;
use tokio::sync::oneshot;

use super::enrolment::Enrolment;
use crate::{
    bpf::{EnrolError, KeptHook},
    handover::Inheritance,
};

/// What the enrolment loop is asked to do besides its own work.
pub enum Order {
    /// Hold still, and give duplicates of every pod's listeners.
    Lend(oneshot::Sender<Vec<TcpListener>>),
    /// Go on: the successor has gone.
    Resume,
    /// Give everything up that is new: the successor has it.
    Release(oneshot::Sender<KeptHook>),
    /// Take no new connections, and keep the listeners: a successor may come.
    Stop,
}

impl Enrolment {
    /// Joins the pods that should be in, with the listeners of the daemon before where it has lent any. Nothing is accepted,
    /// and nothing of the other daemon's removed.
    pub fn join_first(&mut self, config: &Config, inheritance: Inheritance) {
        self.inheritance = inheritance;
        let desired = self.desired(config);
        self.join_missing(&desired);
        // What belongs to no pod of ours is of no use.
        self.inheritance = Inheritance::default();
        self.keep_listeners();
        self.hold_certificates();
    }

    /// Detaches what other daemons have attached for the pods that are joined: this one is in charge.
    ///
    /// # Errors
    /// The BPF file system cannot be changed.
    pub fn take_charge(&mut self) -> Result<(), EnrolError> {
        let joined: Vec<u64> = self.joined.values().map(|joined| joined.pod.netns.cookie()).collect();
        self.datapath.take_charge(&joined)
    }

    /// Who the joined pods are, and those that have just left.
    #[must_use]
    pub fn identities(&self) -> HashSet<SpiffeId> {
        self.joined.values().chain(self.lingering.all()).map(|joined| joined.pod.identity.clone()).collect()
    }

    pub(super) fn lend(&self) -> Vec<TcpListener> {
        let listeners: Vec<_> = self.joined.values().flat_map(super::joined::Joined::duplicates).collect();
        tracing::info!(pods = self.joined.len(), listeners = listeners.len(), "listeners lent to a successor");
        listeners
    }

    /// A successor may have attached its hooks beside ours before it went.
    pub(super) fn resume(&mut self) {
        if let Err(error) = self.take_charge() {
            tracing::error!(%error, "what the successor has left is not wholly removed");
        }
    }

    /// Every pod's listeners accept no more, and its peers are told to go away.
    pub(super) fn drain(&mut self) {
        self.lingering.close();
        for joined in self.joined.values() {
            joined.drain.send_replace(true);
        }
    }

    /// Closes everything but what established connections need.
    pub(super) async fn release(mut self) -> KeptHook {
        self.drain();
        self.keeper.hand_over().await;
        self.datapath.release()
    }
}
