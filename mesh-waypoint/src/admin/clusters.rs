//! Where requests go: endpoints, who of them is left out and why, bounds and their use.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use mesh_admin::{Bound, ClusterEndpoint, ClusterPool, List, Selection, WaypointCluster};
use mesh_config::Config;
use mesh_core::{
    Snapshot,
    l7::{
        TrafficPolicy,
        traffic::{Algorithm, ConnectionPool, HashKey},
    },
    locality::Reason,
};

use super::{
    Admin,
    in_force::{attached, clusters},
};
use crate::upstream::{Cause, ClusterKey, ClusterState, ClusterView, EndpointHealth, EndpointView};

impl Admin {
    /// The configuration in force.
    pub(super) fn configuration(&self) -> Arc<Config> {
        self.shared.config.borrow().clone()
    }

    /// Where requests were sent, or may be.
    pub(super) fn clusters(&self, selection: &Selection) -> List<WaypointCluster> {
        let config = self.configuration();
        let snapshot = &*config.snapshot;
        let own = &self.shared.own.gateway;
        let used = self.shared.clusters.used();
        let attached = attached(snapshot, own, &self.shared.listeners.borrow());
        let mut keys = clusters(snapshot, own, &attached);
        keys.extend(used.keys().cloned());
        let named = keys.into_iter().map(|key| (namespace(&key, snapshot), key));
        let take = |(namespace, key): (String, ClusterKey)| self.cluster(namespace, &key, snapshot, &used);
        selection.take(named, |(namespace, _)| namespace, config.generation, take)
    }

    fn cluster(
        &self,
        namespace: String,
        key: &ClusterKey,
        snapshot: &Snapshot,
        used: &HashMap<ClusterKey, Arc<ClusterState>>,
    ) -> WaypointCluster {
        let state = used.get(key).map(|state| &**state);
        let view = ClusterView::of(key, snapshot, (&self.shared.own, &self.shared.names), state);
        let policy = view.as_ref().map(|view| view.policy.clone()).unwrap_or_default();
        let reason = view.as_ref().and_then(|view| view.reason);
        let (endpoints, refused) = match view.as_ref().map(|view| (&view.endpoints, view)) {
            None => (Vec::new(), Some("the configuration has no such destination".to_owned())),
            Some((Err(refusal), _)) => (Vec::new(), Some(refusal.to_string())),
            Some((Ok(endpoints), of)) => (endpoints.iter().map(|view| endpoint(view, of)).collect(), None),
        };
        WaypointCluster {
            namespace,
            name: key.to_string(),
            balancer: balancer(&policy),
            preferred_by: reason.map(|reason| reason.to_string()),
            endpoints,
            pool: pool(&policy, state),
            ejections: state.map_or(0, ClusterState::ejections),
            refused,
        }
    }
}

fn namespace(key: &ClusterKey, snapshot: &Snapshot) -> String {
    let namespace = match key {
        ClusterKey::Service { hostname, .. } => {
            snapshot.service_by_hostname(hostname).map(|service| service.namespace.clone())
        }
        ClusterKey::Address(address) => {
            snapshot.workload_by_address(address.ip()).map(|workload| workload.namespace.clone())
        }
    };
    namespace.map(|namespace| namespace.to_string()).unwrap_or_default()
}

fn endpoint(view: &EndpointView, of: &ClusterView) -> ClusterEndpoint {
    let health = view.health;
    let out_for = health.and_then(|health| health.out_for);
    let share = usize::try_from(view.part).ok().and_then(|part| of.shares.get(part)).copied();
    let has_priority = of.reason.is_some_and(|reason| reason != Reason::NodeOnly) && share.is_none();
    ClusterEndpoint {
        address: view.address,
        workload: view.workload.as_ref().map(|pod| format!("{}/{}", pod.namespace, pod.name)),
        locality: Some(&view.locality).filter(|locality| !locality.is_unknown()).map(ToString::to_string),
        priority: has_priority.then_some(view.part),
        share,
        health: match health {
            None => "unused",
            Some(EndpointHealth { cause: Some(Cause::PassedBy), .. }) => "passed by",
            Some(_) if out_for.is_some() => "ejected",
            Some(_) => "healthy",
        }
        .to_owned(),
        active: health.map_or(0, |health| health.active),
        errors_in_a_row: health.map_or(0, |health| health.errors_in_a_row),
        ejections: health.map_or(0, |health| health.ejections),
        ejected_for: health.and_then(|health| health.cause).map(|cause| cause_in_words(cause).to_owned()),
        returns_in_seconds: out_for.map(seconds),
    }
}

/// Why an endpoint is left out.
pub(super) const fn cause_in_words(cause: Cause) -> &'static str {
    match cause {
        Cause::PassedBy => "it does not answer at all",
        Cause::Errors => "too many 5xx in a row",
        Cause::GatewayErrors => "too many 502, 503, 504 or failed connections in a row",
        Cause::NoAnswers => "too many failures in a row to have an answer",
    }
}

/// In seconds, rounded up.
pub(super) fn seconds(left: Duration) -> u64 {
    u64::try_from(left.as_millis().div_ceil(1_000)).unwrap_or(u64::MAX)
}

fn pool(policy: &TrafficPolicy, state: Option<&ClusterState>) -> ClusterPool {
    let bound =
        |most: Option<u32>, used: fn(&ClusterState) -> &AtomicU32, over: fn(&ClusterState) -> &AtomicU64| Bound {
            used: state.map_or(0, |state| used(state).load(Ordering::Relaxed)),
            most,
            overflows: state.map_or(0, |state| over(state).load(Ordering::Relaxed)),
        };
    let most = |of: fn(&ConnectionPool) -> Option<u32>| policy.pool.as_ref().and_then(of);
    let requests = state.map_or(0, |state| state.requests.load(Ordering::Relaxed));
    let retries = policy.retries.map(|budget| budget.of(requests));
    ClusterPool {
        connections: bound(
            most(|pool| pool.max_connections),
            |state| &state.connections,
            |state| &state.overflows.connections,
        ),
        pending: bound(
            most(|pool| pool.max_pending_requests),
            |state| &state.pending,
            |state| &state.overflows.pending,
        ),
        requests: bound(most(|pool| pool.max_requests), |state| &state.requests, |state| &state.overflows.requests),
        retries: bound(
            retries.or_else(|| most(|pool| pool.max_retries)),
            |state| &state.retries,
            |state| &state.overflows.retries,
        ),
    }
}

fn balancer(policy: &TrafficPolicy) -> String {
    let Some(balancer) = &policy.load_balancer else { return "least request".to_owned() };
    let name = match &balancer.algorithm {
        Algorithm::LeastRequest => "least request".to_owned(),
        Algorithm::RoundRobin => "round robin".to_owned(),
        Algorithm::Random => "random".to_owned(),
        Algorithm::Passthrough => "as asked for".to_owned(),
        Algorithm::ConsistentHash(HashKey::Header(name)) => format!("hash of header {name}"),
        Algorithm::ConsistentHash(HashKey::Cookie { name, .. }) => format!("hash of cookie {name}"),
        Algorithm::ConsistentHash(HashKey::SourceAddress) => "hash of the client's address".to_owned(),
        Algorithm::ConsistentHash(HashKey::QueryParameter(name)) => format!("hash of parameter {name}"),
    };
    match balancer.warmup {
        Some(warmup) => format!("{name}, warm after {:?}", warmup.duration),
        None => name,
    }
}
