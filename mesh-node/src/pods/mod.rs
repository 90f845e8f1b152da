//! The node's pods: where they run, which of them are enrolled, and what the daemon holds for each.

mod discovery;
mod enrolment;
mod existing;
mod joined;
mod lingering;
mod outside;
mod repair;
mod roster;
mod sandbox;
mod starts;
mod succession;

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, RwLock},
};

use mesh_core::lock::UnpoisonedRwLock as _;
use mesh_core::{Snapshot, SpiffeId, Workload, WorkloadUid};
use tokio::sync::watch;

pub use discovery::{each_namespace, netns_inode};
pub use enrolment::{Enrolment, EnrolmentSettings};
pub use outside::Sandboxes;
pub use roster::{Roster, Waiting};
pub use starts::{Start, Verdict};
pub use succession::Order;

use crate::netns::NetNamespace;

/// The node's pods for those who ask.
pub struct PodsView {
    /// The enrolment loop's last comparison.
    pub roster: watch::Receiver<Roster>,
    /// Where they run.
    pub sandboxes: Sandboxes,
}

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
    pub addresses: PodAddresses,
    /// Its network namespace.
    pub netns: NetNamespace,
    /// Becomes true when the pod leaves the mesh: listeners close, tunnels are told to go away.
    pub drain: watch::Receiver<bool>,
}

/// The pods that are wholly in the mesh, by their network namespaces' cookies.
pub type Members = BTreeMap<u64, Arc<Workload>>;

/// Those of `pods` that the snapshot has in the mesh.
pub fn members<'a>(snapshot: &Snapshot, pods: impl IntoIterator<Item = &'a Arc<EnrolledPod>>) -> Members {
    let of_pod = |pod: &Arc<EnrolledPod>| {
        let workload = snapshot.workload_by_uid(&pod.uid).filter(|workload| workload.is_enrolled());
        Some((pod.netns.cookie(), workload?.clone()))
    };
    pods.into_iter().filter_map(of_pod).collect()
}

/// A pod's own addresses. The configuration may tell of them after the pod was enrolled: Kubernetes publishes them once
/// the sandbox runs.
#[derive(Debug)]
pub struct PodAddresses(RwLock<Arc<[IpAddr]>>);

impl PodAddresses {
    /// These, for now.
    #[must_use]
    pub fn new(addresses: &[IpAddr]) -> Self {
        Self(RwLock::new(addresses.into()))
    }

    /// What they are now.
    #[must_use]
    pub fn get(&self) -> Arc<[IpAddr]> {
        self.0.read_unpoisoned().clone()
    }

    /// Takes others in their place.
    pub fn set(&self, addresses: &[IpAddr]) {
        *self.0.write_unpoisoned() = addresses.into();
    }
}

impl EnrolledPod {
    /// Whether `ip` is one of the pod's own addresses.
    #[must_use]
    pub fn owns(&self, ip: IpAddr) -> bool {
        self.addresses.get().contains(&ip.to_canonical())
    }
}
