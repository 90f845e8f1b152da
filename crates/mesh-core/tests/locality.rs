//! Which endpoints a client gets by where they are.
#![allow(clippy::unwrap_used)]

mod workload;

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_core::l7::TrafficRule;
use mesh_core::l7::traffic::{LoadBalancer, OutlierDetection, TrafficPolicy};
use mesh_core::locality::{
    Candidates, Distribute, Failover, Hints, LocalityPattern, LocalitySetting, Nearest, Placement, Priority, Reason,
    candidates,
};
use mesh_core::policy::{ClientTlsRule, HostPattern};
use mesh_core::{
    Endpoint, EndpointTraits, LabelSet, Locality, Policies, PolicyName, Protocol, Refusal, Service, ServicePort,
    Snapshot, Workload, resolve,
};

/// Pods by node and locality; the client is on `a1`, in eu/a/1.
const PODS: [(&str, &str, &str); 6] = [
    ("same-node", "a1", "eu/a/1"),
    ("same-subzone", "a2", "eu/a/1"),
    ("same-zone", "a3", "eu/a/2"),
    ("same-region", "b1", "eu/b/1"),
    ("us", "u1", "us/a/1"),
    ("asia", "x1", "asia/a/1"),
];

fn pod(name: &str, node: &str, locality: &str, index: usize) -> Workload {
    let one = workload::workload("shop", name, &[&format!("10.0.0.{index}")]);
    let one = Workload { node: node.into(), locality: Arc::new(Locality::parse(locality)), ..one };
    of_tier(one, if name == "us" { "gold" } else { "tin" })
}

fn of_tier(one: Workload, tier: &str) -> Workload {
    workload::altered(one, |template| template.labels = LabelSet::from_iter([("tier", tier)]))
}

fn client(locality: &str) -> Workload {
    of_tier(pod("client", "a1", locality, 200), "gold")
}

struct World {
    placement: Placement,
    hints: Vec<Option<Hints>>,
    setting: Option<LocalitySetting>,
    outlier: bool,
    of_mesh: LocalitySetting,
    without: Vec<&'static str>,
    client: Workload,
}

impl Default for World {
    fn default() -> Self {
        let (hints, without) = (vec![None; PODS.len()], Vec::new());
        let (placement, setting, of_mesh) = (Placement::default(), None, LocalitySetting::default());
        Self { placement, hints, setting, outlier: false, of_mesh, without, client: client("eu/a/1") }
    }
}

impl World {
    fn snapshot(&self) -> Snapshot {
        let there = (1..).zip(PODS).zip(&self.hints).filter(|((_, (name, ..)), _)| !self.without.contains(name));
        let pods: Vec<_> = there
            .map(|((index, (name, node, locality)), hints)| (Arc::new(pod(name, node, locality, index)), hints.clone()))
            .collect();
        let endpoint = |(pod, hints): &(Arc<Workload>, Option<Hints>)| Endpoint {
            address: (pod.addresses[0], 8080).into(),
            workload: Some(pod.clone()),
            traits: hints.clone().map(|hints| Arc::new(EndpointTraits { hints: Some(hints), ..Default::default() })),
        };
        let port = ServicePort {
            name: None,
            port: 80,
            protocol: Protocol::Tcp,
            speaks: Default::default(),
            endpoints: pods.iter().map(endpoint).collect(),
        };
        let service = Service {
            namespace: "shop".into(),
            name: "cart".into(),
            hostname: "cart.shop.svc.cluster.local".into(),
            vips: vec!["10.96.0.1".parse().unwrap()],
            ports: vec![port],
            placement: self.placement,
            entry: None,
        };
        let workloads = pods.into_iter().map(|(pod, _)| pod).chain([Arc::new(self.client.clone())]);
        let balancer = self
            .setting
            .clone()
            .map(|setting| LoadBalancer { locality: Some(Arc::new(setting)), ..LoadBalancer::default() });
        let outlier = self.outlier.then(OutlierDetection::default);
        let policy = TrafficPolicy { load_balancer: balancer, outlier, ..TrafficPolicy::default() };
        let rule = ClientTlsRule {
            name: Arc::new(PolicyName { namespace: "shop".into(), name: "cart".into() }),
            host: HostPattern::Exact("cart.shop.svc.cluster.local".into()),
            exported_to: None,
            clients: None,
            tls: None,
            ports: BTreeMap::new(),
            traffic: Arc::new(TrafficRule { policy, ..TrafficRule::default() }),
        };
        let policies = Policies::build("istio-system".into(), Vec::new(), Vec::new(), vec![Arc::new(rule)]);
        Snapshot::build(workloads, [service]).with_policies(policies.with_locality(self.of_mesh.clone()))
    }

    /// Who is chosen, and why; each is found by `resolve` with what is said to lead to it.
    fn chosen(&self) -> (Vec<String>, Option<Reason>) {
        let snapshot = self.snapshot();
        let service = snapshot.service("shop", "cart").unwrap();
        let found = candidates(&snapshot, Some(&self.client), service, &service.ports[0], false);
        for (endpoint, random) in found.each() {
            let to = resolve(&snapshot, Some(&self.client), "10.96.0.1:80".parse().unwrap(), random).unwrap();
            assert_eq!(to.endpoint, endpoint.address);
            if random > 0 {
                assert_ne!(found.pick(random - 1).unwrap().address, endpoint.address, "it is the least");
            }
        }
        let names = found.each().into_iter().map(|(endpoint, _)| endpoint.workload.clone().unwrap().name.to_string());
        (names.collect(), found.reason().map(|(reason, _)| reason))
    }
}

fn nearest(nearest: Nearest) -> Placement {
    Placement { nearest: Some(nearest), ..Placement::default() }
}

fn check(world: World, expected: &[&str], reason: Option<Reason>) {
    let (names, why) = world.chosen();
    assert_eq!((names.iter().map(String::as_str).collect::<Vec<_>>(), why), (expected.to_vec(), reason));
}

const ALL: [&str; 6] = ["same-node", "same-subzone", "same-zone", "same-region", "us", "asia"];

#[test]
fn the_nearest_are_chosen_and_the_next_stand_in_for_them() {
    let cases: [(Nearest, &[&str], &[&str]); 8] = [
        (Nearest::Node, &[], &["same-node"]),
        (Nearest::Node, &["same-node"], &["same-subzone"]),
        (Nearest::Close, &[], &["same-node", "same-subzone"]),
        (Nearest::Close, &["same-node", "same-subzone"], &["same-zone"]),
        (Nearest::Zone, &[], &["same-node", "same-subzone", "same-zone"]),
        (Nearest::Zone, &["same-node", "same-subzone", "same-zone"], &["same-region"]),
        (Nearest::Zone, &["same-node", "same-subzone", "same-zone", "same-region"], &["us", "asia"]),
        (Nearest::Zone, &["same-node", "same-subzone", "same-zone", "same-region", "us"], &["asia"]),
    ];
    for (near, without, expected) in cases {
        let world = World { placement: nearest(near), without: without.to_vec(), ..World::default() };
        let reason = (expected.len() + without.len() < ALL.len()).then_some(Reason::Nearest(near));
        check(world, expected, reason);
    }
}

#[test]
fn local_is_the_own_node_or_nothing() {
    let local = || Placement { node_only: true, ..nearest(Nearest::Zone) };
    check(World { placement: local(), ..World::default() }, &["same-node"], Some(Reason::NodeOnly));
    let world = World { placement: local(), without: vec!["same-node"], ..World::default() };
    let snapshot = world.snapshot();
    let refusal = resolve(&snapshot, Some(&world.client), "10.96.0.1:80".parse().unwrap(), 0).unwrap_err();
    assert!(matches!(refusal, Refusal::NoEndpointOnNode { .. }), "{refusal}");
}

#[test]
fn a_client_stays_with_one_endpoint_where_the_service_has_affinity() {
    let sticky = |placement: Placement| Placement { is_sticky: true, ..placement };
    let own = |client: u32, without: &[&'static str]| {
        let mut world =
            World { placement: sticky(Placement::default()), without: without.to_vec(), ..World::default() };
        let address = std::net::Ipv4Addr::from(0x0a01_0000 + client);
        world.client = workload::workload("shop", "client", &[&address.to_string()]);
        let (names, reason) = world.chosen();
        assert_eq!((names.len(), reason), (1, Some(Reason::ClientAddress)), "one alone, whatever is drawn");
        names[0].clone()
    };
    let before: Vec<String> = (0..600).map(|client| own(client, &[])).collect();
    for (name, ..) in PODS {
        let clients = before.iter().filter(|own| *own == name).count();
        assert!((50..=150).contains(&clients), "{name} has {clients} of 600 clients");
    }
    for (client, before) in (0..).zip(&before) {
        let after = own(client, &["us"]);
        assert!(if before == "us" { after != "us" } else { after == *before }, "{before}, then {after}");
    }
    let local = sticky(Placement { node_only: true, ..Placement::default() });
    check(World { placement: local, ..World::default() }, &["same-node"], Some(Reason::NodeOnly));
}

#[test]
fn hints_count_where_all_endpoints_have_some_and_some_are_meant() {
    let zones =
        |zones: &[&str]| Some(Hints { zones: zones.iter().map(|zone| (*zone).into()).collect(), nodes: Vec::new() });
    let hinted = Placement { is_hinted: true, ..Placement::default() };
    let mut hints: Vec<_> = ["a", "b", "b", "a", "c", "c"].map(|zone| zones(&[zone])).into();
    let world = || World { placement: hinted, hints: hints.clone(), ..World::default() };
    check(world(), &["same-node", "same-region"], Some(Reason::ZoneHints));
    check(World { client: client("eu/z/1"), ..world() }, &ALL, None);
    check(World { client: client(""), ..world() }, &ALL, None);
    hints[5] = None;
    check(World { placement: hinted, hints: hints.clone(), ..World::default() }, &ALL, None);
    // A Service that asks for what is near has it without hints, too.
    let placement = Placement { is_hinted: true, ..nearest(Nearest::Node) };
    check(World { placement, hints, ..World::default() }, &["same-node"], Some(Reason::Nearest(Nearest::Node)));
    let nodes = ["n", "a1", "a1", "n", "n", "n"];
    let hints = nodes.map(|node| Some(Hints { zones: vec!["a".into()], nodes: vec![node.into()] })).into();
    check(
        World { placement: hinted, hints, ..World::default() },
        &["same-subzone", "same-zone"],
        Some(Reason::NodeHints),
    );
}

#[test]
fn failover_takes_outlier_detection_and_goes_by_region_zone_and_subzone() {
    let setting = || Some(LocalitySetting::default());
    check(World { setting: setting(), ..World::default() }, &ALL, None);
    let world = |without: &[&'static str], setting| World {
        setting,
        outlier: true,
        without: without.to_vec(),
        ..World::default()
    };
    check(world(&[], setting()), &["same-node", "same-subzone"], Some(Reason::Failover));
    check(world(&["same-node", "same-subzone"], setting()), &["same-zone"], Some(Reason::Failover));
    // The mesh's own setting does so by default.
    check(world(&[], None), &["same-node", "same-subzone"], Some(Reason::Failover));
    let far = ["same-node", "same-subzone", "same-zone", "same-region"];
    let to_asia = LocalitySetting {
        failover: vec![Failover { from: "eu".into(), to: "asia".into() }],
        ..LocalitySetting::default()
    };
    check(world(&far, Some(to_asia)), &["asia"], Some(Reason::Failover));
    let off = LocalitySetting { enabled: false, ..LocalitySetting::default() };
    check(world(&[], Some(off.clone())), &ALL, None);
    check(World { of_mesh: off, ..world(&[], None) }, &ALL, None);
}

#[test]
fn labels_come_in_the_order_of_their_importance() {
    let by = |labels: &[(&str, Option<&str>)]| {
        let priority =
            |(label, value): &(&str, Option<&str>)| Priority { label: (*label).into(), value: value.map(Into::into) };
        Some(LocalitySetting { failover_priority: labels.iter().map(priority).collect(), ..LocalitySetting::default() })
    };
    let world = |setting| World { setting, outlier: true, ..World::default() };
    let reason = Some(Reason::FailoverPriority);
    check(world(by(&[("tier", None)])), &["us"], reason);
    check(world(by(&[("topology.kubernetes.io/region", None), ("tier", None)])), &ALL[..4], reason);
    check(world(by(&[("topology.kubernetes.io/region", Some("us"))])), &["us"], reason);
    check(world(by(&[("kubernetes.io/hostname", None)])), &["same-node"], reason);
}

#[test]
fn shares_are_kept_whatever_the_number_of_endpoints() {
    let pattern = |text| LocalityPattern::parse(text).unwrap();
    let to = vec![(pattern("eu/a/*"), 20), (pattern("us"), 80), (pattern("mars"), 0)];
    let distribute = vec![Distribute { from: pattern("eu/*"), to }];
    let setting = LocalitySetting { distribute, ..LocalitySetting::default() };
    let world = World { setting: Some(setting.clone()), ..World::default() };
    check(world, &["same-node", "same-subzone", "same-zone", "us"], Some(Reason::Distribute));
    let world = World { setting: Some(setting.clone()), ..World::default() };
    let snapshot = world.snapshot();
    let service = snapshot.service("shop", "cart").unwrap();
    let found = candidates(&snapshot, Some(&world.client), service, &service.ports[0], false);
    let mut counts = BTreeMap::<String, u32>::new();
    for random in 0..10_000u64 {
        let picked = found.pick(random * (u64::MAX / 10_000)).unwrap();
        *counts.entry(picked.workload.clone().unwrap().name.to_string()).or_default() += 1;
    }
    assert!(counts["us"].abs_diff(8_000) <= 1, "{counts:?}");
    assert!(counts["same-node"].abs_diff(667) <= 1 && counts["same-zone"].abs_diff(667) <= 1, "{counts:?}");
    // From elsewhere all are alike.
    check(World { setting: Some(setting), client: client("us/a"), ..World::default() }, &ALL, None);
}

#[test]
fn to_a_client_that_nobody_knows_all_are_alike() {
    let world = World { placement: Placement { node_only: true, ..Placement::default() }, ..World::default() };
    let snapshot = world.snapshot();
    let service = snapshot.service("shop", "cart").unwrap();
    assert!(
        matches!(candidates(&snapshot, None, service, &service.ports[0], false), Candidates::All(all) if all.len() == 6)
    );
}

#[test]
fn localities_are_written_as_they_are_read() {
    for text in ["", "eu", "eu/a", "eu/a/1", "eu//1"] {
        assert_eq!(Locality::parse(text).to_string(), text);
    }
    for bad in ["", "eu/", "*/a", "eu/a*/1", "eu/*/1", "a/b/c/d"] {
        assert!(LocalityPattern::parse(bad).is_err(), "{bad}");
    }
    assert!(LocalityPattern::parse("*").unwrap().matches(&Locality::parse("eu/a/1")));
    assert!(!LocalityPattern::parse("eu/b/*").unwrap().matches(&Locality::parse("eu/a/1")));
}
