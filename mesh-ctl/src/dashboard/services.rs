//! What goes on at Services: rates by counters, and what waypoints and gateways say of shares and circuits. No clock, no I/O.

use std::collections::{BTreeMap, VecDeque};

use mesh_admin::{Bound, Traffic, WaypointCluster, WaypointRoute};

use super::view::{BoundView, CircuitView, EjectedView, ServiceView, ShareView, SplitView};
use crate::top::rates;

/// Seconds between the readings that rates are told of.
const WINDOW: f64 = 10.0;
/// Seconds after which who says nothing more is left out.
const STALE: f64 = 20.0;

/// Readings of one program's counters, by seconds.
#[derive(Debug, Default)]
pub(super) struct Readings(VecDeque<(f64, Traffic)>);

impl Readings {
    /// A program has told its counters.
    pub(super) fn add(&mut self, now: f64, traffic: Traffic) {
        self.0.push_back((now, traffic));
        // One that is older than the window stays: the window begins with it.
        while self.0.get(1).is_some_and(|second| second.0 + WINDOW <= now) {
            self.0.pop_front();
        }
    }

    fn ends(&self, now: f64) -> Option<rates::Sample<'_>> {
        let (first, last) = (self.0.front()?, self.0.back()?);
        let is_told = last.0 > first.0 && last.0 + STALE > now;
        is_told.then_some((&first.1, &last.1, last.0 - first.0))
    }
}

/// The Services of which anything is known, by namespace and name.
pub(super) fn services<'a>(
    readings: impl IntoIterator<Item = &'a Readings>,
    now: f64,
    told: &[(&[WaypointRoute], &[WaypointCluster])],
) -> Vec<ServiceView> {
    let mut found: BTreeMap<String, ServiceView> = BTreeMap::new();
    for rates in rates::between(readings.into_iter().filter_map(|readings| readings.ends(now))) {
        let name = format!("{}.{}", rates.service, rates.namespace);
        of(&mut found, &name).rates = Some(rates);
    }
    for split in splits(told.iter().flat_map(|(routes, _)| *routes)) {
        for name in hosts(&split) {
            of(&mut found, &name).splits.push(split.clone());
        }
    }
    for (host, circuit) in circuits(told.iter().flat_map(|(_, clusters)| *clusters)) {
        of(&mut found, &host).circuits.push(circuit);
    }
    found.into_values().collect()
}

fn of<'a>(found: &'a mut BTreeMap<String, ServiceView>, name: &str) -> &'a mut ServiceView {
    found.entry(name.to_owned()).or_insert_with(|| ServiceView { name: name.to_owned(), ..ServiceView::default() })
}

/// `NAME.NAMESPACE` of a host of a cluster's Service; another host as it is.
pub(super) fn short(host: &str) -> &str {
    host.split_once(".svc.").map_or(host, |(name, _)| name)
}

/// The host of `HOST:PORT` and what may follow.
fn host(place: &str) -> &str {
    let place = place.split_once(' ').map_or(place, |(place, _)| place);
    short(place.rsplit_once(':').map_or(place, |(host, _)| host))
}

/// The Services that a split is of: its parents.
fn hosts(split: &SplitView) -> Vec<String> {
    let mut hosts: Vec<String> = split.parents.iter().map(|parent| host(parent).to_owned()).collect();
    hosts.dedup();
    hosts
}

/// Rules that share requests out; replicas of a proxy have the same ones, which are added up.
fn splits<'a>(routes: impl Iterator<Item = &'a WaypointRoute>) -> Vec<SplitView> {
    let mut found: BTreeMap<(&str, &[String], &[String]), SplitView> = BTreeMap::new();
    for route in routes.filter(|route| route.backends.len() > 1) {
        let split = found.entry((&route.rule, &route.parents, &route.matches)).or_insert_with(|| SplitView {
            rule: route.rule.clone(),
            parents: route.parents.clone(),
            matches: route.matches.clone(),
            shares: Vec::new(),
        });
        for (index, backend) in route.backends.iter().enumerate() {
            match split.shares.get_mut(index) {
                Some(share) => {
                    (share.requests, share.errors) = (share.requests + backend.requests, share.errors + backend.errors)
                }
                None => split.shares.push(ShareView {
                    to: backend.to.clone(),
                    wanted: backend.wanted_percent,
                    seen: None,
                    requests: backend.requests,
                    errors: backend.errors,
                }),
            }
        }
    }
    let with_seen = |mut split: SplitView| {
        let all: u64 = split.shares.iter().map(|share| share.requests).sum();
        for share in &mut split.shares {
            share.seen = (all > 0).then(|| share.requests as f64 * 100.0 / all as f64);
        }
        split
    };
    found.into_values().map(with_seen).collect()
}

/// Where a circuit is open, or a limit was met, by host; each proxy has circuits of its own.
fn circuits<'a>(clusters: impl Iterator<Item = &'a WaypointCluster>) -> impl Iterator<Item = (String, CircuitView)> {
    clusters.filter_map(|cluster| {
        let ejected = cluster.endpoints.iter().filter(|endpoint| matches!(&*endpoint.health, "ejected" | "passed by"));
        let ejected: Vec<_> = ejected
            .map(|endpoint| EjectedView {
                endpoint: endpoint.address.to_string(),
                pod: endpoint.workload.clone(),
                why: endpoint.ejected_for.clone(),
                returns_in_seconds: endpoint.returns_in_seconds,
            })
            .collect();
        let pool = &cluster.pool;
        let bounds = [
            ("connections", pool.connections),
            ("waiting requests", pool.pending),
            ("requests", pool.requests),
            ("retries", pool.retries),
        ];
        let bounds: Vec<_> = bounds.into_iter().filter(|(_, bound)| bound.most.is_some()).map(bound).collect();
        let is_open = !ejected.is_empty() || bounds.iter().any(|bound| bound.full);
        let has_news = is_open || cluster.ejections > 0 || !bounds.is_empty() || cluster.refused.is_some();
        has_news.then(|| {
            let circuit = CircuitView {
                cluster: cluster.name.clone(),
                open: is_open,
                endpoints: cluster.endpoints.len(),
                ejected,
                ejections: cluster.ejections,
                bounds,
                refused: cluster.refused.clone(),
            };
            (host(&cluster.name).to_owned(), circuit)
        })
    })
}

fn bound((name, bound): (&'static str, Bound)) -> BoundView {
    let most = bound.most.unwrap_or(u32::MAX);
    BoundView { name, used: bound.used, most, full: bound.used >= most, overflows: bound.overflows }
}

#[cfg(test)]
mod tests {
    use mesh_admin::{ClusterEndpoint, ClusterPool, RouteBackend, ServiceTraffic};

    use super::*;

    fn traffic(requests: u64) -> Traffic {
        let service =
            ServiceTraffic { namespace: "shop".into(), name: "cart".into(), requests, ..ServiceTraffic::default() };
        Traffic { services: vec![service] }
    }

    #[test]
    fn each_program_is_read_at_its_own_times_and_one_that_is_gone_is_left_out() {
        let (mut steady, mut gone) = (Readings::default(), Readings::default());
        for step in 0..20_u32 {
            steady.add(f64::from(step) * 2.0, traffic(u64::from(step) * 20));
        }
        gone.add(0.0, traffic(0));
        gone.add(4.0, traffic(40));
        let rate = |now| services([&steady, &gone], now, &[])[0].rates.as_ref().map(|rates| rates.requests_per_second);
        assert_eq!((rate(5.0), rate(38.0)), (Some(20.0), Some(10.0)));
        assert!(steady.0.len() <= 7, "{}", steady.0.len());
    }

    #[test]
    fn shares_of_replicas_are_added_up_and_belong_to_their_service() {
        let route = |requests: [u64; 2]| WaypointRoute {
            parents: vec!["cart.shop.svc.cluster.local:80".into()],
            namespace: "shop".into(),
            rule: "VirtualService shop/cart rule canary".into(),
            matches: Vec::new(),
            action: "forwarded".into(),
            with: Vec::new(),
            backends: [90, 10]
                .into_iter()
                .zip(requests)
                .map(|(weight, requests)| RouteBackend {
                    to: format!("v{weight}"),
                    weight,
                    wanted_percent: f64::from(weight),
                    seen_percent: None,
                    requests,
                    errors: 0,
                })
                .collect(),
            requests: 0,
            errors: 0,
        };
        let replicas = [[route([10, 10])], [route([50, 10])]];
        let told: Vec<_> = replicas.iter().map(|routes| (&routes[..], &[][..])).collect();
        let [service] = &services([], 0.0, &told)[..] else { panic!("one Service") };
        assert_eq!(service.name, "cart.shop");
        let shares: Vec<_> = service.splits[0].shares.iter().map(|share| (share.wanted, share.seen)).collect();
        assert_eq!(shares, [(90.0, Some(75.0)), (10.0, Some(25.0))]);
    }

    #[test]
    fn a_circuit_is_open_where_an_endpoint_is_out_or_a_bound_is_met() {
        let endpoint = |health: &str| ClusterEndpoint {
            address: ([10, 0, 0, 1], 80).into(),
            workload: Some("shop/cart-1".into()),
            locality: None,
            priority: None,
            share: None,
            health: health.into(),
            active: 0,
            errors_in_a_row: 0,
            ejections: 0,
            ejected_for: None,
            returns_in_seconds: Some(3),
        };
        let cluster = |name: &str, health: &str, used| WaypointCluster {
            namespace: "shop".into(),
            name: name.into(),
            balancer: String::new(),
            preferred_by: None,
            endpoints: vec![endpoint(health)],
            pool: ClusterPool {
                pending: Bound { used, most: (used > 0).then_some(2), overflows: 1 },
                ..ClusterPool::default()
            },
            ejections: 0,
            refused: None,
        };
        let clusters = [
            cluster("out.shop.svc.cluster.local:80 subset v1", "ejected", 0),
            cluster("full.shop.svc.cluster.local:80", "healthy", 2),
            cluster("half.shop.svc.cluster.local:80", "healthy", 1),
            cluster("well.shop.svc.cluster.local:80", "healthy", 0),
        ];
        let found = services([], 0.0, &[(&[], &clusters)]);
        let open: Vec<_> = found.iter().map(|service| (&*service.name, service.circuits[0].open)).collect();
        assert_eq!(open, [("full.shop", true), ("half.shop", false), ("out.shop", true)]);
        assert_eq!(found[2].circuits[0].ejected[0].pod.as_deref(), Some("shop/cart-1"));
    }
}
