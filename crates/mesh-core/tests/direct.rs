//! What the kernel of a node may decide by itself, against what the daemon would decide.
#![allow(clippy::unwrap_used)]

mod workload;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use mesh_core::direct::{DirectServer, kernel_may_pick};
use mesh_core::policy::{
    Action, AuthorizationPolicy, ClientTls, ClientTlsRule, Facts, HostPattern, IpBlock, Peer, ROOT_NAMESPACE, Rule,
    Term, Test, authorize,
};
use mesh_core::{Endpoint, Policies, PolicyName, Protocol, Service, ServicePort, Snapshot, Workload};

fn workload(name: &str, addresses: &[&str]) -> Arc<Workload> {
    Arc::new(workload::workload("shop", name, addresses))
}

fn name(text: &str) -> Arc<PolicyName> {
    Arc::new(PolicyName { namespace: "shop".into(), name: text.into() })
}

/// A DENY policy for all that one of these holds for.
fn deny(tests: Vec<Test>) -> Arc<AuthorizationPolicy> {
    let to = tests.into_iter().map(|test| vec![Term { negated: false, test }]).collect();
    let rules = vec![Rule { to, ..Rule::default() }];
    Arc::new(AuthorizationPolicy {
        name: name("deny"),
        selector: None,
        action: Action::Deny,
        provider: None,
        dry_run: false,
        rules,
    })
}

fn rule(host: &str, tls: ClientTls) -> Arc<ClientTlsRule> {
    let host = HostPattern::Exact(host.into());
    Arc::new(ClientTlsRule {
        name: name("rule"),
        host,
        exported_to: None,
        clients: None,
        tls: Some(tls),
        ports: BTreeMap::new(),
        traffic: Default::default(),
    })
}

/// Client and server of both families; the server is behind a Service, and an endpoint of a headless one at 9000.
fn snapshot(authorization: Vec<Arc<AuthorizationPolicy>>, tls: Vec<Arc<ClientTlsRule>>) -> Snapshot {
    let server = workload("server", &["10.0.0.2", "fd00::2"]);
    let service = |name: &str, vips: &[&str], port: u16| {
        let endpoint = Endpoint::new(SocketAddr::new(server.addresses[0], port), Some(server.clone()));
        let port = ServicePort {
            name: None,
            port,
            protocol: Protocol::Tcp,
            speaks: Default::default(),
            endpoints: vec![endpoint],
        };
        Service {
            namespace: "shop".into(),
            name: name.into(),
            hostname: format!("{name}.shop.svc.cluster.local").into(),
            vips: vips.iter().map(|vip| vip.parse().unwrap()).collect(),
            ports: vec![port],
            ..Default::default()
        }
    };
    let services = [service("plain", &["10.96.0.1"], 80), service("headless", &[], 9000)];
    let client = workload("client", &["10.0.0.1", "fd00::1"]);
    let policies = Policies::build(ROOT_NAMESPACE.into(), authorization, Vec::new(), tls);
    Snapshot::build([client, server.clone()], services).with_policies(policies)
}

fn pod(snapshot: &Snapshot, name: &str) -> Arc<Workload> {
    snapshot.workloads().find(|workload| *workload.name == *name).unwrap().clone()
}

/// The ports of these at which the kernel may connect the client to the server.
fn allowed(snapshot: &Snapshot, ports: &[u16]) -> Vec<u16> {
    let (client, server) = (pod(snapshot, "client"), pod(snapshot, "server"));
    let direct = DirectServer::new(snapshot, &server).ports_for(&client);
    for port in ports.iter().copied().filter(|port| direct.allow(*port)) {
        for (from, to) in client.addresses.iter().zip(&server.addresses) {
            let destination = SocketAddr::new(*to, port);
            let facts = Facts {
                peer: Peer::Kernel(&client.identity),
                client: *from,
                forwarded: None,
                server: None,
                destination,
            };
            assert!(authorize(snapshot, &server, &facts).verdict.is_ok(), "{destination}");
        }
    }
    ports.iter().copied().filter(|port| direct.allow(*port)).collect()
}

#[test]
fn without_policies_every_port_is_the_kernels() {
    assert_eq!(allowed(&snapshot(vec![], vec![]), &[1, 80, 9000, 65_535]), [1, 80, 9000, 65_535]);
}

#[test]
fn a_port_that_a_policy_denies_is_left_to_the_daemon() {
    let snapshot = snapshot(vec![deny(vec![Test::DestinationPort([80, 81].into())])], vec![]);
    assert_eq!(allowed(&snapshot, &[79, 80, 81, 82]), [79, 82]);
}

#[test]
fn what_is_denied_in_one_family_is_left_to_the_daemon_in_both() {
    let block: IpBlock = "10.0.0.1".parse().unwrap();
    let snapshot = snapshot(vec![deny(vec![Test::SourceIp([block].into_iter().collect())])], vec![]);
    assert_eq!(allowed(&snapshot, &[80]), [0u16; 0]);
}

#[test]
fn pods_with_no_family_in_common_are_not_connected() {
    let (client, server) = (workload("v4", &["10.0.0.9"]), workload("v6", &["fd00::9"]));
    let snapshot = Snapshot::build([client.clone(), server.clone()], Vec::<Service>::new());
    assert!(!DirectServer::new(&snapshot, &server).ports_for(&client).allow(80));
}

#[test]
fn what_a_destination_rule_is_about_is_left_to_the_daemon() {
    for tls in [ClientTls::Disable, ClientTls::IstioMutual, ClientTls::Simple] {
        let headless = snapshot(vec![], vec![rule("headless.shop.svc.cluster.local", tls)]);
        assert_eq!(allowed(&headless, &[80, 9000]), [80], "{tls:?}");
        let plain = snapshot(vec![], vec![rule("plain.shop.svc.cluster.local", tls)]);
        let picks: Vec<_> = plain.services().map(|service| kernel_may_pick(&plain, service)).collect();
        assert_eq!(picks, [true, false], "{tls:?}: of the Service alone, which is last by name");
    }
}
