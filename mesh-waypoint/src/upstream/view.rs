//! A cluster, for whoever looks in.

use std::{net::SocketAddr, sync::Arc};

use mesh_core::{Locality, Snapshot, Workload, l7::TrafficPolicy, locality::Reason};

use super::{
    ClusterKey, ClusterState, EndpointHealth, Names,
    settled::{FoundEndpoint, Settled},
};
use crate::listeners::Own;

/// What a snapshot says of a cluster, and what all threads know of its endpoints.
pub(crate) struct ClusterView {
    pub(crate) policy: TrafficPolicy,
    pub(crate) endpoints: Result<Vec<EndpointView>, mesh_core::Refusal>,
    /// The shares of the endpoints' parts; none where the first gets all and others stand in for it.
    pub(crate) shares: Vec<u32>,
    /// Why endpoints are told apart by where they are, where they are.
    pub(crate) reason: Option<Reason>,
}

/// An endpoint of it.
pub(crate) struct EndpointView {
    pub(crate) address: SocketAddr,
    pub(crate) workload: Option<Arc<Workload>>,
    pub(crate) locality: Locality,
    /// The part that it is of, by localities.
    pub(crate) part: u32,
    /// None where nothing was sent there yet.
    pub(crate) health: Option<EndpointHealth>,
}

impl ClusterView {
    /// None where the snapshot has no such cluster.
    pub(crate) fn of(
        key: &ClusterKey,
        snapshot: &Snapshot,
        (own, names): (&Own, &Names),
        state: Option<&ClusterState>,
    ) -> Option<Self> {
        let settled = Settled::of(key, snapshot, own, &|name| names.answer(name))?;
        let endpoints = settled.endpoints.map(|found| {
            let view = |found: FoundEndpoint| {
                let key = found.key();
                let health = state.and_then(|state| Some(state.used_endpoint(&key)?.health(state.now())));
                let FoundEndpoint { address, workload, locality, part, .. } = found;
                EndpointView { address, workload, locality, part, health }
            };
            found.into_iter().map(view).collect()
        });
        let Settled { policy, shares, reason, node_only, .. } = settled;
        Some(Self { policy, endpoints, shares, reason: reason.or(node_only.then_some(Reason::NodeOnly)) })
    }
}
