//! Where nodes lead connections to hosts of ServiceEntries.
#![allow(clippy::unwrap_used)]

mod workload;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use mesh_core::hosts::{Told, Untold, addresses, told, untold};
use mesh_core::l7::{L7, Served, WAYPOINT_PORT, Waypoint};
use mesh_core::{
    Endpoint, Entry, Protocol, Refusal, Resolution, Service, ServicePort, Snapshot, Transport, Workload, resolve,
};

fn entry(host: &str, vips: &[&str], resolution: Resolution, endpoints: &[&str]) -> Service {
    let endpoints = endpoints.iter().map(|address| Endpoint::new(address.parse().unwrap(), None)).collect();
    Service {
        namespace: "shop".into(),
        name: host.into(),
        hostname: host.into(),
        vips: vips.iter().map(|vip| vip.parse().unwrap()).collect(),
        ports: vec![ServicePort {
            name: None,
            port: 80,
            protocol: Protocol::Tcp,
            speaks: Default::default(),
            endpoints,
        }],
        placement: Default::default(),
        entry: Some(Arc::new(Entry {
            object: "entry".into(),
            resolution,
            names: Vec::new(),
            exported_to: None,
            subject_alt_names: Vec::new(),
            may_be_told: true,
        })),
    }
}

fn client() -> Arc<Workload> {
    Arc::new(workload::workload("shop", "client", &["10.0.0.1"]))
}

fn leads_to(snapshot: &Snapshot, asked: &str) -> Result<SocketAddr, Refusal> {
    resolve(snapshot, Some(&client()), asked.parse().unwrap(), 0).map(|destination| destination.endpoint)
}

fn world(services: Vec<Service>) -> Snapshot {
    Snapshot::build([client()], services)
}

#[test]
fn an_entry_is_found_by_its_addresses_at_its_ports_and_by_its_host() {
    let snapshot = world(vec![entry("db.example.com", &["240.240.0.1"], Resolution::Static, &["203.0.113.1:5432"])]);
    assert_eq!(leads_to(&snapshot, "240.240.0.1:80").unwrap(), "203.0.113.1:5432".parse().unwrap());
    assert_eq!(leads_to(&snapshot, "240.240.0.1:81").unwrap(), "240.240.0.1:81".parse().unwrap(), "not the entry's");
    assert!(snapshot.service_by_hostname("db.example.com").is_some());
    assert!(snapshot.service_by_hostname("example.com").is_none());
    let mut without = snapshot.clone();
    without.remove_service("shop", "db.example.com");
    assert!(without.service_by_hostname("db.example.com").is_none());
}

#[test]
fn without_resolution_a_connection_goes_where_it_was_asked_to() {
    let services = vec![entry("*.example.com", &["203.0.113.1", "203.0.113.2"], Resolution::None, &["203.0.113.1:80"])];
    let snapshot = world(services);
    for asked in ["203.0.113.1:80", "203.0.113.2:80"] {
        assert_eq!(leads_to(&snapshot, asked).unwrap(), asked.parse().unwrap());
    }
}

#[test]
fn what_dns_has_the_addresses_of_needs_a_waypoint() {
    let by_dns = entry("api.example.com", &["240.240.0.1"], Resolution::Dns, &[]);
    let refusal = leads_to(&world(vec![by_dns.clone()]), "240.240.0.1:80").unwrap_err();
    assert!(matches!(refusal, Refusal::NamesNotResolved { .. }), "{refusal}");
    let replica = Arc::new(workload::workload("shop", "waypoint", &["10.0.0.9"]));
    let endpoint = Endpoint::new("10.0.0.9:15008".parse().unwrap(), Some(replica.clone()));
    let of_waypoint = Service {
        namespace: "shop".into(),
        name: "waypoint".into(),
        hostname: "waypoint.shop.svc.cluster.local".into(),
        vips: vec!["10.96.0.9".parse().unwrap()],
        ports: vec![ServicePort {
            name: None,
            port: WAYPOINT_PORT,
            protocol: Protocol::Tcp,
            speaks: Default::default(),
            endpoints: vec![endpoint],
        }],
        ..Default::default()
    };
    let waypoint = Arc::new(Waypoint {
        namespace: "shop".into(),
        name: "waypoint".into(),
        class: "mesh-waypoint".into(),
        hostname: of_waypoint.hostname.clone(),
        identities: vec![replica.identity.clone()],
        serves: Served::Services,
    });
    let l7 = L7::default().with_waypoints(
        vec![waypoint.clone()],
        HashMap::from([(by_dns.hostname.clone(), waypoint)]),
        HashMap::new(),
    );
    let snapshot = Snapshot::build([client(), replica], [by_dns, of_waypoint]).with_l7(l7);
    let to = resolve(&snapshot, Some(&client()), "240.240.0.1:80".parse().unwrap(), 0).unwrap();
    assert!(matches!(to.transport, Transport::Waypoint { asked, .. } if asked == "240.240.0.1:80".parse().unwrap()));
}

#[test]
fn an_entry_is_there_for_the_namespaces_that_it_is_exported_to() {
    let mut service = entry("db.example.com", &["240.240.0.1"], Resolution::Static, &["203.0.113.1:5432"]);
    let others = Entry { exported_to: Some(vec!["bank".into()]), ..Entry::clone(service.entry.as_ref().unwrap()) };
    service.entry = Some(Arc::new(others));
    let snapshot = world(vec![service]);
    assert_eq!(leads_to(&snapshot, "240.240.0.1:80").unwrap(), "240.240.0.1:80".parse().unwrap());
    let teller = workload::workload("bank", "teller", &["10.0.0.2"]);
    let to = resolve(&snapshot, Some(&teller), "240.240.0.1:80".parse().unwrap(), 0).unwrap();
    assert_eq!(to.endpoint, "203.0.113.1:5432".parse().unwrap());
}

#[test]
fn pods_are_told_of_a_host_where_its_addresses_lead_somewhere() {
    let vips = ["244.0.0.1", "2001:2::1"];
    let (v4, v6) = (Some("244.0.0.1".parse().unwrap()), Some("2001:2::1".parse().unwrap()));
    let is_told = |service: &Service| told(&world(vec![service.clone()]), service);
    let listed = |endpoints: &[&str]| entry("db.example.com", &vips, Resolution::Static, endpoints);
    let both = Some(Told { v4, v6 });
    assert_eq!(is_told(&listed(&["203.0.113.1:80", "[2001:db8::1]:80"])), both);
    // Not of a family in which nothing is behind it, but of some: connections are refused then, and do not go past the mesh.
    assert_eq!(is_told(&listed(&["203.0.113.1:80"])), Some(Told { v4, v6: None }));
    assert_eq!(is_told(&listed(&["[2001:db8::1]:80"])), Some(Told { v4: None, v6 }));
    assert_eq!(is_told(&listed(&[])), both);
    let changed = |change: &dyn Fn(&mut Service)| {
        let mut service = listed(&["203.0.113.1:80"]);
        change(&mut service);
        is_told(&service)
    };
    assert_eq!(changed(&|service| service.ports[0].protocol = Protocol::Udp), None);
    assert_eq!(changed(&|service| service.hostname = "*.example.com".into()), None);
    assert_eq!(changed(&|service| service.entry = None), None);
    let of_entry = |change: &dyn Fn(&mut Entry)| {
        changed(&|service| {
            let mut entry = Entry::clone(service.entry.as_ref().unwrap());
            change(&mut entry);
            service.entry = Some(Arc::new(entry));
        })
    };
    assert_eq!(of_entry(&|entry| entry.resolution = Resolution::None), None);
    assert_eq!(of_entry(&|entry| entry.may_be_told = false), None);
    let name = || {
        let (name, traits) = ("api.example.com".into(), Arc::default());
        mesh_core::NamedEndpoint { of_port: 80, name, port: 80, traits }
    };
    assert_eq!(of_entry(&|entry| entry.names.push(name())), None, "nodes ask no DNS");
}

#[test]
fn an_address_that_the_mesh_gives_leads_to_its_host_alone() {
    let host = entry("db.example.com", &["244.0.0.1"], Resolution::Static, &["203.0.113.1:5432"]);
    let snapshot = world(vec![host.clone()]);
    assert_eq!(addresses(&snapshot, &host).len(), 1);
    assert_eq!(leads_to(&snapshot, "244.0.0.1:80").unwrap(), "203.0.113.1:5432".parse().unwrap());
    let undeclared = leads_to(&snapshot, "244.0.0.1:81").unwrap_err();
    assert!(matches!(undeclared, Refusal::ServicePortNotDeclared { port: 81, .. }), "{undeclared}");
    let nobodys = leads_to(&snapshot, "244.0.0.2:80").unwrap_err();
    assert!(matches!(nobodys, Refusal::NoHost { .. }), "{nobodys}");
    // Its endpoints are its own as before.
    assert!(snapshot.headless_service("203.0.113.1:5432".parse().unwrap()).is_some());
    // Where a cluster has such addresses itself, who has one is reached.
    let pod = Arc::new(workload::workload("shop", "pod", &["244.0.0.3"]));
    let snapshot = Snapshot::build([client(), pod], [host]);
    assert_eq!(leads_to(&snapshot, "244.0.0.3:80").unwrap(), "244.0.0.3:80".parse().unwrap());
}

#[test]
fn who_asks_for_others_or_for_itself_is_told_of_nothing() {
    let pod = |serves_dns: bool, change: &dyn Fn(&mut mesh_core::Template)| {
        let mut pod = workload::workload("shop", "pod", &["10.0.0.1"]);
        change(Arc::make_mut(&mut pod.template));
        untold(&pod, serves_dns)
    };
    assert_eq!(pod(false, &|_| {}), None);
    assert_eq!(pod(true, &|_| {}), Some(Untold::AsksForOthers));
    assert_eq!(pod(false, &|template| template.asks_itself = true), Some(Untold::AsksItself));
}
