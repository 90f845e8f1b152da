//! A cluster, for whoever looks in.

use std::{net::SocketAddr, sync::Arc};

use mesh_core::{Snapshot, Workload, l7::TrafficPolicy};

use super::{
    ClusterKey, ClusterState, EndpointHealth, Names,
    settled::{Found, Settled},
};

/// What a snapshot says of a cluster, and what all threads know of its endpoints.
pub(crate) struct ClusterView {
    pub(crate) policy: TrafficPolicy,
    pub(crate) endpoints: Result<Vec<EndpointView>, mesh_core::Refusal>,
}

/// An endpoint of it.
pub(crate) struct EndpointView {
    pub(crate) address: SocketAddr,
    pub(crate) workload: Option<Arc<Workload>>,
    /// None where nothing was sent there yet.
    pub(crate) health: Option<EndpointHealth>,
}

impl ClusterView {
    /// None where the snapshot has no such cluster.
    pub(crate) fn of(
        key: &ClusterKey,
        snapshot: &Snapshot,
        (own_namespace, names): (&str, &Names),
        state: Option<&ClusterState>,
    ) -> Option<Self> {
        let settled = Settled::of(key, snapshot, own_namespace, &|name| names.answer(name))?;
        let endpoints = settled.endpoints.map(|found| {
            let view = |found: Found| {
                let key = found.key();
                let health = state.and_then(|state| Some(state.used_endpoint(&key)?.health(state.now())));
                EndpointView { address: found.address, workload: found.workload, health }
            };
            found.into_iter().map(view).collect()
        });
        Some(Self { policy: settled.policy, endpoints })
    }
}
