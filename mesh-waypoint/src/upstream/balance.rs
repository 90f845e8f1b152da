//! Which endpoint a request gets.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    net::SocketAddr,
    rc::Rc,
    time::Duration,
};

use mesh_core::{
    NodeName,
    l7::traffic::{Algorithm, TrafficPolicy},
    locality::rendezvous,
};

use super::endpoint::Endpoint;

/// What a request asks of the choice.
#[derive(Debug, Default)]
pub(crate) struct Wish {
    /// What consistent hashing goes by.
    pub(crate) hash: Option<u64>,
    /// The address that its client asked for, where that is the endpoint.
    pub(crate) asked: Option<SocketAddr>,
    /// The endpoint that its session is with.
    pub(crate) kept: Option<SocketAddr>,
    /// The node that its client is on, where the cluster serves no other.
    pub(crate) node: Option<NodeName>,
    /// Endpoints that it was with already.
    pub(crate) avoid: Vec<SocketAddr>,
}

/// How requests are spread.
#[derive(Clone, Copy)]
pub(super) struct Spread<'a> {
    pub(super) policy: &'a TrafficPolicy,
    /// Whether endpoints have different shares.
    pub(super) is_weighted: bool,
}

/// Picks one of `endpoints` by the policy. `turn` is where round robin is. None where there are none.
pub(super) fn pick(
    endpoints: &[Rc<Endpoint>],
    spread: Spread<'_>,
    wish: &Wish,
    turn: &mut usize,
    now: u64,
) -> Option<Rc<Endpoint>> {
    let first = endpoints.first()?;
    if endpoints.len() == 1 {
        return Some(first.clone());
    }
    if wish.avoid.is_empty() && !first.cluster.has_left_out(now) {
        return by_algorithm(endpoints, spread, wish, turn, now);
    }
    let healthy: Vec<_> = endpoints.iter().filter(|endpoint| !endpoint.state.is_left_out(now)).cloned().collect();
    let least = spread.policy.outlier.as_ref().map_or(0, |outlier| outlier.min_health_percent as usize);
    // Too few are left to carry the load of all: better ill ones than none.
    let panics = healthy.is_empty() || healthy.len() * 100 < endpoints.len() * least;
    let candidates = if panics { endpoints } else { &healthy[..] };
    let fresh: Vec<_> =
        candidates.iter().filter(|endpoint| !wish.avoid.contains(&endpoint.address())).cloned().collect();
    by_algorithm(if fresh.is_empty() { candidates } else { &fresh }, spread, wish, turn, now)
}

fn by_algorithm(
    endpoints: &[Rc<Endpoint>],
    Spread { policy, is_weighted }: Spread<'_>,
    wish: &Wish,
    turn: &mut usize,
    now: u64,
) -> Option<Rc<Endpoint>> {
    let balancer = policy.load_balancer.as_ref();
    let algorithm = balancer.map_or(&Algorithm::LeastRequest, |balancer| &balancer.algorithm);
    let picked = match algorithm {
        Algorithm::ConsistentHash(_) => {
            let hash = wish.hash.unwrap_or_else(|| fastrand::u64(..));
            let claim = |endpoint: &Endpoint| rendezvous(hash, endpoint.address(), endpoint.weight.get().into());
            return endpoints.iter().max_by(|a, b| claim(a).total_cmp(&claim(b))).cloned();
        }
        Algorithm::LeastRequest if is_weighted => {
            let (first, second) = (by_weight(endpoints), by_weight(endpoints));
            if second.active() < first.active() { second } else { first }
        }
        _ if is_weighted => by_weight(endpoints),
        Algorithm::RoundRobin => {
            *turn = turn.wrapping_add(1);
            &endpoints[*turn % endpoints.len()]
        }
        Algorithm::Random | Algorithm::Passthrough => &endpoints[fastrand::usize(..endpoints.len())],
        Algorithm::LeastRequest => less_busy(endpoints),
    };
    let Some(warmup) = balancer.and_then(|balancer| balancer.warmup) else { return Some(picked.clone()) };
    let share = |endpoint: &Endpoint| warmup.share(Duration::from_millis(endpoint.state.age(now)));
    if fastrand::f64() < share(picked) {
        return Some(picked.clone());
    }
    // A new endpoint gives the rest of its share away.
    let warm: Vec<_> = endpoints.iter().filter(|endpoint| share(endpoint) >= 1.0).collect();
    let other = if warm.is_empty() { picked } else { warm[fastrand::usize(..warm.len())] };
    Some(other.clone())
}

/// One at random, each by its share.
fn by_weight(endpoints: &[Rc<Endpoint>]) -> &Rc<Endpoint> {
    let all: u64 = endpoints.iter().map(|endpoint| u64::from(endpoint.weight.get())).sum();
    let mut rest = fastrand::u64(..all.max(1));
    let found = endpoints.iter().find(|endpoint| match rest.checked_sub(endpoint.weight.get().into()) {
        Some(less) => {
            rest = less;
            false
        }
        None => true,
    });
    found.unwrap_or(&endpoints[0])
}

/// Of two at random the one with fewer requests under way.
fn less_busy(endpoints: &[Rc<Endpoint>]) -> &Rc<Endpoint> {
    let first = fastrand::usize(..endpoints.len());
    // Never the same twice.
    let others = endpoints.len().saturating_sub(1).max(1);
    let second = (first + 1 + fastrand::usize(..others)) % endpoints.len();
    let (first, second) = (&endpoints[first], &endpoints[second]);
    if second.active() < first.active() { second } else { first }
}

/// What consistent hashing goes by, as [`Wish::hash`] has it: requests and connections of one client go to one endpoint.
pub(crate) fn hash_of(key: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::{ClusterKey, SharedClusters, endpoint::EndpointKey};

    #[test]
    fn who_does_not_answer_is_passed_by_as_long_as_another_does() {
        let clusters = SharedClusters::default();
        let state = clusters.state(&ClusterKey::Address(([10, 0, 0, 1], 80).into()));
        let at = |index: u8| Endpoint::new(EndpointKey::plain(([10, 1, 0, index], 80).into()), None, &state);
        let endpoints = [at(0), at(1)];
        let policy = TrafficPolicy::default();
        let spread = Spread { policy: &policy, is_weighted: false };
        let picked = || {
            let pick =
                || pick(&endpoints, spread, &Wish::default(), &mut 0, state.now()).expect("one of them").address();
            // None of two is missed so often, but for once in 2^100.
            (0..100).map(|_| pick()).collect::<std::collections::BTreeSet<_>>().len()
        };
        assert_eq!(picked(), 2);
        assert!(state.pass_by(&endpoints[0].state));
        assert_eq!(picked(), 1);
        assert!(state.pass_by(&endpoints[1].state));
        assert_eq!(picked(), 2, "better one that may not answer than none");
        endpoints[0].state.answered();
        assert_eq!(picked(), 1);
        endpoints[1].state.answered();
        assert_eq!(picked(), 2);
    }
}
