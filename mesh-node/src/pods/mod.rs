//! The node's pods: where they run, which of them are enrolled, and what the daemon holds for each.

mod discovery;
mod enrolment;
mod existing;
mod joined;
mod repair;
mod roster;
mod sandbox;

use std::net::IpAddr;

use mesh_core::{SpiffeId, WorkloadUid};
use tokio::sync::watch;

pub use discovery::each_namespace;
pub use enrolment::{Enrolment, EnrolmentSettings};
pub use roster::{Roster, Waiting};

use crate::netns::NetNamespace;

/// One enrolled pod, as the proxies see it. It lives as long as the last of its connections.
#[derive(Debug)]
pub struct EnrolledPod {
    /// The pod's uid: what its tunnels are bound to, so that a reused address reaches no stale peer.
    pub uid: WorkloadUid,
    /// `namespace/name`, for logs.
    pub display_name: String,
    /// The pod's identity.
    pub identity: SpiffeId,
    /// The pod's own addresses.
    pub addresses: Vec<IpAddr>,
    /// Its network namespace.
    pub netns: NetNamespace,
    /// Becomes true when the pod leaves the mesh: listeners close, tunnels are told to go away.
    pub drain: watch::Receiver<bool>,
}

impl EnrolledPod {
    /// Whether `ip` is one of the pod's own addresses.
    #[must_use]
    pub fn owns(&self, ip: IpAddr) -> bool {
        self.addresses.contains(&ip.to_canonical())
    }
}
