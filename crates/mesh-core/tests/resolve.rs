//! Where connections go.
#![allow(clippy::unwrap_used)]

mod workload;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use mesh_core::{
    Destination, Endpoint, Enrolment, NodeName, OutsideReason, PlaintextReason, Protocol, Refusal, Service,
    ServicePort, Snapshot, SpiffeId, Transport, TrustDomain, Workload, WorkloadUid, resolve,
};
use proptest::prelude::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn socket(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn identity(account: &str) -> SpiffeId {
    SpiffeId::new(&TrustDomain::default(), "shop", account).unwrap()
}

fn workload(name: &str, enrolment: Enrolment, addresses: &[&str]) -> Arc<Workload> {
    let one = workload::workload("shop", name, addresses);
    Arc::new(workload::altered(one, |template| template.enrolment = enrolment))
}

fn endpoint(address: &str, workload: Option<&Arc<Workload>>) -> Endpoint {
    Endpoint::new(socket(address), workload.cloned())
}

fn port(port: u16, protocol: Protocol, endpoints: Vec<Endpoint>) -> ServicePort {
    ServicePort { name: None, port, protocol, speaks: Default::default(), endpoints }
}

/// A shop: cart is enrolled, legacy is not, and the Service cart has both families.
fn shop() -> Snapshot {
    let cart = workload("cart", Enrolment::Enrolled, &["10.244.0.2", "fd00::2"]);
    let outside = Enrolment::Outside(OutsideReason::NotLabelled);
    let legacy = workload("legacy", outside, &["10.244.0.3"]);
    let on_host = Enrolment::Outside(OutsideReason::HostNetwork);
    let host = workload("host", on_host, &["192.168.0.1"]);
    let service = Service {
        namespace: "shop".into(),
        name: "cart".into(),
        hostname: "cart.shop.svc.cluster.local".into(),
        vips: vec![ip("10.96.0.1"), ip("fd00:96::1")],
        ports: vec![
            // The wrong way round, and one address mapped: build() puts it right.
            port(
                80,
                Protocol::Tcp,
                vec![endpoint("[fd00::2]:8080", Some(&cart)), endpoint("[::ffff:10.244.0.2]:8080", Some(&cart))],
            ),
            port(81, Protocol::Tcp, vec![endpoint("10.244.0.3:8080", Some(&legacy))]),
            port(82, Protocol::Tcp, vec![endpoint("203.0.113.9:443", None)]),
            port(83, Protocol::Tcp, vec![]),
            port(53, Protocol::Udp, vec![endpoint("10.244.0.2:53", Some(&cart))]),
        ],
        ..Default::default()
    };
    Snapshot::build([cart, legacy, host], [service])
}

#[test]
fn every_kind_of_address_goes_where_it_should() {
    let hbone = || Transport::Hbone { identity: identity("cart") };
    let unknown = || Transport::Plaintext(PlaintextReason::DestinationUnknown);
    let outside = || Transport::Plaintext(PlaintextReason::DestinationNotEnrolled);
    // Asked for, led to, by a Service, how.
    let cases = [
        ("10.244.0.2:9000", "10.244.0.2:9000", false, hbone()),
        ("[fd00::2]:9000", "[fd00::2]:9000", false, hbone()),
        ("[::ffff:10.244.0.2]:9000", "10.244.0.2:9000", false, hbone()),
        ("10.244.0.3:80", "10.244.0.3:80", false, outside()),
        ("192.168.0.1:80", "192.168.0.1:80", false, unknown()),
        ("198.51.100.7:443", "198.51.100.7:443", false, unknown()),
        ("10.96.0.1:80", "10.244.0.2:8080", true, hbone()),
        ("[fd00:96::1]:80", "[fd00::2]:8080", true, hbone()),
        ("[::ffff:10.96.0.1]:80", "10.244.0.2:8080", true, hbone()),
        ("10.96.0.1:81", "10.244.0.3:8080", true, outside()),
        ("10.96.0.1:82", "203.0.113.9:443", true, unknown()),
    ];
    for (asked, led_to, by_service, transport) in cases {
        let destination = resolve(&shop(), None, socket(asked), 7).unwrap();
        assert_eq!(destination.endpoint, socket(led_to), "{asked}");
        assert_eq!(destination.service.is_some(), by_service, "{asked}");
        assert_eq!(destination.transport, transport, "{asked}");
    }
}

#[test]
fn a_service_that_cannot_be_served_is_refused_with_the_reason() {
    for asked in ["10.96.0.1:83", "[fd00:96::1]:81"] {
        let refusal = resolve(&shop(), None, socket(asked), 0).unwrap_err();
        assert!(matches!(refusal, Refusal::ServiceWithoutEndpoints { .. }), "{asked}");
        assert_eq!(refusal.to_string(), "service shop/cart has no ready endpoint of this address family");
    }
    for asked in ["10.96.0.1:84", "10.96.0.1:53"] {
        let refusal = resolve(&shop(), None, socket(asked), 0).unwrap_err();
        assert!(matches!(refusal, Refusal::ServicePortNotDeclared { .. }), "{asked}");
    }
}

#[test]
fn the_first_to_claim_an_address_or_uid_keeps_it() {
    let first = workload("first", Enrolment::Enrolled, &["10.0.0.1"]);
    let mut second = Workload::clone(&workload("second", Enrolment::Enrolled, &["10.0.0.1", "10.0.0.2"]));
    second.uid = first.uid.clone();
    let snapshot = Snapshot::build([Workload::clone(&first), second], Vec::<Service>::new());
    assert_eq!(snapshot.workload_by_address(ip("10.0.0.1")), Some(&first));
    assert_eq!(snapshot.workload_by_uid(&WorkloadUid::from("uid-first")), Some(&first));
    let other = snapshot.workload_by_address(ip("::ffff:10.0.0.2"));
    assert_eq!(other.map(|w| &*w.name), Some("second"));
}

#[test]
fn a_snapshot_tells_what_runs_on_a_node() {
    let snapshot = shop();
    let on = |node: &str| {
        let names = snapshot.workloads_on(&NodeName::from(node)).map(|w| w.name.to_string());
        names.collect::<Vec<_>>()
    };
    assert_eq!(on("a"), ["cart", "host", "legacy"]);
    assert!(on("b").is_empty());
    assert!(Snapshot::default().workloads().next().is_none());
}

fn with_endpoints(count: u16) -> Snapshot {
    let endpoints = (0..count).map(|n| endpoint(&format!("10.1.{}.{}:80", n >> 8, n & 255), None));
    let service = Service {
        namespace: "shop".into(),
        name: "many".into(),
        hostname: "many.shop.svc.cluster.local".into(),
        vips: vec![ip("10.96.0.9")],
        ports: vec![port(80, Protocol::Tcp, endpoints.collect())],
        ..Default::default()
    };
    Snapshot::build(Vec::<Workload>::new(), [service])
}

proptest! {
    #[test]
    fn resolve_never_panics(v6 in any::<bool>(), bits in any::<u128>(), port in any::<u16>(), random in any::<u64>()) {
        let address = if v6 {
            IpAddr::V6(Ipv6Addr::from_bits(bits))
        } else {
            IpAddr::V4(Ipv4Addr::from_bits(bits as u32))
        };
        let _ = resolve(&shop(), None, SocketAddr::new(address, port), random);
    }

    #[test]
    fn a_mapped_address_is_the_ipv4_address(
        host in prop::sample::select(vec!["10.96.0.1", "10.244.0.2", "10.244.0.3", "192.0.2.1"]),
        port in prop::sample::select(vec![53u16, 80, 81, 82, 83, 84, 9000]),
        random in any::<u64>(),
    ) {
        let IpAddr::V4(v4) = ip(host) else { unreachable!() };
        let plain = resolve(&shop(), None, SocketAddr::new(v4.into(), port), random);
        let mapped = resolve(&shop(), None, SocketAddr::new(v4.to_ipv6_mapped().into(), port), random);
        prop_assert_eq!(plain, mapped);
    }

    #[test]
    fn an_endpoint_is_always_one_of_the_service(count in 1u16..600, random in any::<u64>()) {
        let snapshot = with_endpoints(count);
        let Destination { endpoint, service, .. } = resolve(&snapshot, None, socket("10.96.0.9:80"), random).unwrap();
        let service = service.unwrap();
        prop_assert!(service.ports[0].endpoints.iter().any(|e| e.address == endpoint));
    }

    #[test]
    fn connections_spread_evenly(count in 1u16..50, seed in any::<u64>()) {
        let snapshot = with_endpoints(count);
        let mut hits = BTreeMap::new();
        let rounds = u64::from(count) * 64;
        for n in 0..rounds {
            // A Weyl sequence: as even as can be over u64, so shares are within one step of each other.
            let random = seed.wrapping_add(n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let endpoint = resolve(&snapshot, None, socket("10.96.0.9:80"), random).unwrap().endpoint;
            *hits.entry(endpoint).or_insert(0u64) += 1;
        }
        prop_assert_eq!(hits.len(), usize::from(count));
        prop_assert!(hits.values().all(|hits| (48..=80).contains(hits)), "{:?}", hits);
    }
}
