//! One endpoint: where it is, how it is reached, and this thread's connections to it.

use std::{
    cell::Cell,
    net::SocketAddr,
    rc::Rc,
    sync::{Arc, atomic::Ordering},
};

use mesh_core::{NodeName, SpiffeId, Transport, Workload, WorkloadUid, l7::traffic::Origination};

use super::{
    line::Lines,
    state::{ClusterState, EndpointState},
};

/// What makes an endpoint the same as before. An address that another pod has taken is another endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct EndpointKey {
    address: SocketAddr,
    workload: Option<WorkloadUid>,
    mutual: Option<MutualTls>,
    origination: Option<Arc<Origination>>,
}

impl EndpointKey {
    pub(super) fn new(address: SocketAddr, workload: Option<&Workload>, transport: &Transport) -> Self {
        let mutual = match transport {
            Transport::Hbone { identity } => Some(MutualTls::Tunnel(identity.clone())),
            Transport::Sidecar { identity } => Some(MutualTls::Sidecar(identity.clone())),
            Transport::Waypoint { .. } | Transport::Plaintext(_) => None,
        };
        Self { address, workload: workload.map(|workload| workload.uid.clone()), mutual, origination: None }
    }

    /// The same with TLS that is begun to it.
    pub(super) fn with(self, origination: Option<Arc<Origination>>) -> Self {
        Self { origination, ..self }
    }

    /// An endpoint of which nothing but the address is known.
    #[cfg(test)]
    pub(super) fn plain(address: SocketAddr) -> Self {
        Self { address, workload: None, mutual: None, origination: None }
    }
}

/// The mesh's mTLS with an endpoint, and who has to be there.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum MutualTls {
    /// By a tunnel to its node.
    Tunnel(SpiffeId),
    /// With its own sidecar.
    Sidecar(SpiffeId),
}

/// One endpoint of a cluster.
pub(crate) struct Endpoint {
    pub(super) key: EndpointKey,
    /// The workload that it is, where known.
    pub(crate) workload: Option<Arc<Workload>>,
    /// What all threads know of it.
    pub(crate) state: Arc<EndpointState>,
    /// Its cluster.
    pub(crate) cluster: Arc<ClusterState>,
    /// Its share, in relation to the others'.
    pub(super) weight: Cell<u32>,
    /// This thread's connections to it.
    pub(crate) lines: Lines,
}

impl Endpoint {
    pub(super) fn new(key: EndpointKey, workload: Option<Arc<Workload>>, cluster: &Arc<ClusterState>) -> Rc<Self> {
        let state = cluster.endpoint(&key);
        let (weight, lines) = (Cell::new(1), Lines::to(state.clone()));
        Rc::new(Self { key, workload, state, cluster: cluster.clone(), weight, lines })
    }

    /// Where it listens.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.key.address
    }

    /// Whether it is on that node.
    pub(super) fn is_on(&self, node: &NodeName) -> bool {
        self.workload.as_ref().is_some_and(|workload| workload.node == *node)
    }

    /// Who has to be there, where it is reached by the mesh's mTLS.
    pub(crate) const fn identity(&self) -> Option<&SpiffeId> {
        match &self.key.mutual {
            Some(MutualTls::Tunnel(identity) | MutualTls::Sidecar(identity)) => Some(identity),
            None => None,
        }
    }

    /// The mesh's mTLS with it.
    pub(super) const fn mutual(&self) -> Option<&MutualTls> {
        self.key.mutual.as_ref()
    }

    /// The TLS that is begun to it.
    pub(super) const fn origination(&self) -> Option<&Arc<Origination>> {
        self.key.origination.as_ref()
    }

    /// Requests under way, over all threads.
    pub(super) fn active(&self) -> u32 {
        self.state.active.load(Ordering::Relaxed)
    }
}
