//! What goes by a waypoint: who is led there, what the kernel leaves to the daemon, and that nothing passes it by.
#![allow(clippy::unwrap_used)]

mod workload;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use mesh_core::direct::{DirectServer, kernel_may_pick};
use mesh_core::l7::{GATEWAY_NAME, Guard, L7, Served, WAYPOINT_PORT, Waypoint};
use mesh_core::policy::{Denial, Facts, Peer, authorize};
use mesh_core::why::{Path, SameNode, Stop, find_client, why};
use mesh_core::{
    Endpoint, Enrolment, LabelSet, OutsideReason, Protocol, Refusal, Service, ServicePort, Snapshot, SpiffeId,
    Transport, TrustDomain, Workload, WorkloadUid, resolve,
};

const VIP: &str = "10.96.0.1:80";
const CART: &str = "10.0.0.2:8080";

fn socket(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A replica of the waypoint, which is no part of the mesh: it speaks for itself.
fn replica(number: usize) -> Arc<Workload> {
    let address = format!("10.0.1.{number}");
    let one = workload::workload("shop", "waypoint", &[&address]);
    let name = format!("waypoint-{number}");
    let one = Workload { uid: name.clone().into(), name: name.into(), ..one };
    Arc::new(workload::altered(one, |template| {
        template.enrolment = Enrolment::Outside(OutsideReason::OptedOut);
        template.labels = LabelSet::from_iter([(GATEWAY_NAME, "waypoint")]);
    }))
}

fn service(name: &str, vip: &str, port: u16, endpoints: &[(&str, &Arc<Workload>)]) -> Service {
    let endpoint =
        |(address, workload): &(&str, &Arc<Workload>)| Endpoint::new(socket(address), Some(Arc::clone(workload)));
    let endpoints = endpoints.iter().map(endpoint).collect();
    Service {
        namespace: "shop".into(),
        name: name.into(),
        hostname: format!("{name}.shop.svc.cluster.local").into(),
        vips: vec![vip.parse().unwrap()],
        ports: vec![ServicePort { name: None, port, protocol: Protocol::Tcp, speaks: Default::default(), endpoints }],
        ..Default::default()
    }
}

struct World {
    client: Arc<Workload>,
    cart: Arc<Workload>,
    waypoint: Arc<Waypoint>,
    snapshot: Snapshot,
}

/// A Service `cart` with a waypoint of so many replicas that are ready.
fn world(serves: Served, replicas: usize) -> World {
    let client = Arc::new(workload::workload("shop", "client", &["10.0.0.1"]));
    let cart = Arc::new(workload::workload("shop", "cart", &["10.0.0.2"]));
    let replicas: Vec<_> = (1..=replicas).map(replica).collect();
    let waypoint = Arc::new(Waypoint {
        namespace: "shop".into(),
        name: "waypoint".into(),
        class: "istio-waypoint".into(),
        hostname: "waypoint.shop.svc.cluster.local".into(),
        identities: vec![SpiffeId::new(&TrustDomain::default(), "shop", "waypoint").unwrap()],
        serves,
    });
    let addresses: Vec<_> = replicas.iter().map(|replica| format!("{}:15008", replica.addresses[0])).collect();
    let endpoints: Vec<_> = addresses.iter().map(String::as_str).zip(&replicas).collect();
    let services = [
        service("cart", "10.96.0.1", 80, &[(CART, &cart)]),
        service("waypoint", "10.96.0.9", WAYPOINT_PORT, &endpoints),
    ];
    let hostname = Arc::clone(&services[0].hostname);
    let by_service = serves.takes_services().then(|| (hostname, Arc::clone(&waypoint)));
    let by_workload = serves.takes_workloads().then(|| (cart.uid.clone(), Arc::clone(&waypoint)));
    let l7 = L7::default().with_waypoints(
        vec![Arc::clone(&waypoint)],
        by_service.into_iter().collect(),
        by_workload.into_iter().collect(),
    );
    let workloads = [Arc::clone(&client), Arc::clone(&cart)].into_iter().chain(replicas);
    let snapshot = Snapshot::build(workloads, services).with_l7(l7);
    World { client, cart, waypoint, snapshot }
}

/// The waypoint's replica that a connection is led to, and what that is asked for.
fn by_waypoint(world: &World, asked: &str, random: u64) -> Option<(SocketAddr, SocketAddr)> {
    let found = resolve(&world.snapshot, Some(&world.client), socket(asked), random).unwrap();
    match found.transport {
        Transport::Waypoint { waypoint, identity, asked } => {
            assert_eq!(waypoint, world.waypoint);
            assert_eq!(waypoint.identities, [identity]);
            Some((found.endpoint, asked))
        }
        _ => None,
    }
}

#[test]
fn what_is_sent_to_a_service_goes_by_its_waypoint_and_what_is_sent_to_a_pod_only_where_that_is_asked_for() {
    let cases = [
        (Served::Services, true, false),
        (Served::Workloads, false, true),
        (Served::All, true, true),
        (Served::Nothing, false, false),
    ];
    for (serves, services, workloads) in cases {
        let world = world(serves, 1);
        let replica = socket("10.0.1.1:15008");
        assert_eq!(by_waypoint(&world, VIP, 0), services.then(|| (replica, socket(VIP))), "{serves:?}");
        assert_eq!(by_waypoint(&world, CART, 0), workloads.then(|| (replica, socket(CART))), "{serves:?}");
    }
}

#[test]
fn every_replica_has_its_share() {
    let world = world(Served::Services, 3);
    let mut counts = HashMap::new();
    for step in 0..3_000_u64 {
        let (replica, _) = by_waypoint(&world, VIP, (u64::MAX / 3_000) * step).unwrap();
        *counts.entry(replica).or_insert(0) += 1;
    }
    assert_eq!(counts.len(), 3);
    assert!(counts.values().all(|count| (999..=1_001).contains(count)), "{counts:?}");
}

#[test]
fn without_a_replica_nothing_goes_past_the_waypoint() {
    let world = world(Served::All, 0);
    for asked in [VIP, CART] {
        let refusal = resolve(&world.snapshot, Some(&world.client), socket(asked), 0).unwrap_err();
        assert!(matches!(refusal, Refusal::WaypointWithoutReplicas { .. }), "{refusal}");
        let client = find_client(&world.snapshot, "shop/client", None).unwrap();
        let answer = why(&world.snapshot, client, socket(asked), SameNode::Direct);
        assert_eq!(answer.ways.unwrap_err(), refusal);
    }
}

#[test]
fn the_waypoint_itself_and_whoever_is_unknown_are_led_to_the_application() {
    let world = world(Served::All, 1);
    let replica = replica(1);
    for client in [Some(&*replica), None] {
        for asked in [VIP, CART] {
            let found = resolve(&world.snapshot, client, socket(asked), 0).unwrap();
            assert_eq!(found.endpoint, socket(CART));
            assert!(matches!(found.transport, Transport::Hbone { .. }), "{:?}", found.transport);
        }
    }
}

#[test]
fn the_kernel_leaves_to_the_daemon_what_goes_by_a_waypoint() {
    for (serves, pick, direct) in [(Served::Services, false, true), (Served::All, false, false)] {
        let world = world(serves, 1);
        let service = world.snapshot.service_by_vip(socket(VIP).ip()).unwrap();
        assert_eq!(kernel_may_pick(&world.snapshot, service), pick);
        let ports = DirectServer::new(&world.snapshot, &world.cart).ports_for(&world.client);
        assert_eq!(ports.allow(8080), direct, "{serves:?}");
    }
}

/// The cart takes connections at 8080 from the waypoint alone.
fn guarded() -> World {
    let mut world = world(Served::Services, 1);
    let guard = Guard { port: Some(8080), waypoint: Arc::clone(&world.waypoint) };
    let guards = HashMap::from([(WorkloadUid::from("uid-cart"), vec![guard])]);
    let l7 = world.snapshot.l7().clone().with_guards(guards);
    world.snapshot = world.snapshot.with_l7(l7);
    world
}

#[test]
fn a_guarded_port_takes_nobody_but_the_waypoint() {
    let world = guarded();
    let waypoint = world.waypoint.identities.first().unwrap();
    let client = &world.client.identity;
    let peers = [
        (Peer::Certificate(waypoint), true),
        (Peer::Certificate(client), false),
        (Peer::Kernel(client), false),
        (Peer::Unproven, false),
    ];
    for (peer, allowed) in peers {
        let at = |port| Facts {
            peer,
            client: socket("10.0.0.1:1").ip(),
            forwarded: None,
            server: None,
            destination: SocketAddr::new(socket(CART).ip(), port),
        };
        let verdict = authorize(&world.snapshot, &world.cart, &at(8080)).verdict;
        assert_eq!(verdict.is_ok(), allowed, "{peer:?}");
        if let Err(denial) = verdict {
            assert_eq!(denial, Denial::PastWaypoint(Arc::clone(&world.waypoint)));
        }
        assert!(authorize(&world.snapshot, &world.cart, &at(9090)).verdict.is_ok(), "another port");
    }
    let direct = DirectServer::new(&world.snapshot, &world.cart).ports_for(&world.client);
    assert!(!direct.allow(8080));
    assert!(direct.allow(9090));
}

#[test]
fn why_shows_the_way_by_the_waypoint_and_who_may_not_go_around() {
    let world = guarded();
    let ask = |asked| {
        let client = find_client(&world.snapshot, "shop/client", None).unwrap();
        why(&world.snapshot, client, socket(asked), SameNode::Tunnel).ways.unwrap()
    };
    let by_vip = ask(VIP);
    assert_eq!(by_vip[0].endpoint, socket("10.0.1.1:15008"));
    assert!(matches!(&by_vip[0].path, Path::Waypoint(waypoint, _) if *waypoint == world.waypoint));
    assert!(by_vip[0].stop().is_none());
    let around = ask(CART);
    assert!(matches!(around[0].stop(), Some(Stop::Denied(Denial::PastWaypoint(_)))), "{around:?}");
}
