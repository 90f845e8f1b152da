//! What DestinationRules make of the way to a Service.
#![allow(clippy::unwrap_used)]

mod workload;

use std::net::SocketAddr;
use std::sync::Arc;

use mesh_core::l7::Backing;
use mesh_core::labels::TLS_MODE;
use mesh_core::policy::{ClientTls, ClientTlsRule, HostPattern, Mode, PeerAuthentication, ROOT_NAMESPACE, Selector};
use mesh_core::{
    Endpoint, Enrolment, LabelSet, OutsideReason, PlaintextReason, Policies, PolicyName, Protocol, Refusal, Service,
    ServicePort, Snapshot, Transport, Workload, forbids_plaintext, resolve,
};

const HOST: &str = "cart.shop.svc.cluster.local";

fn socket(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A pod whose only label is its app.
fn pod(namespace: &str, app: &str, enrolment: Enrolment, address: &str) -> Arc<Workload> {
    let uid = format!("{namespace}-{app}").into();
    let one = workload::workload(namespace, app, &[address]);
    Arc::new(workload::altered(Workload { uid, ..one }, |template| {
        template.labels = LabelSet::from_iter([("app", app)]);
        template.enrolment = enrolment;
    }))
}

/// A rule for [`HOST`] that every client is told of.
fn rule(namespace: &str, name: &str, tls: Option<ClientTls>) -> ClientTlsRule {
    ClientTlsRule {
        name: Arc::new(PolicyName { namespace: namespace.into(), name: name.into() }),
        host: HostPattern::Exact(HOST.into()),
        exported_to: None,
        clients: None,
        tls,
        ports: [].into(),
        traffic: Default::default(),
    }
}

/// `shop/cart`: behind port 80 a pod of the mesh, behind port 81 one that is not, behind port 82 an address alone, behind port 83
/// a pod with a sidecar of Istio's.
fn shop(rules: Vec<ClientTlsRule>) -> Snapshot {
    shop_with(rules, Vec::new())
}

fn shop_with(rules: Vec<ClientTlsRule>, peers: Vec<Arc<PeerAuthentication>>) -> Snapshot {
    let cart = pod("shop", "cart", Enrolment::Enrolled, "10.0.0.1");
    let legacy = pod("shop", "legacy", Enrolment::Outside(OutsideReason::NotLabelled), "10.0.0.2");
    let sidecar = pod("shop", "sidecar", Enrolment::Outside(OutsideReason::NotLabelled), "10.0.0.5");
    let sidecar = Arc::new(workload::altered(Workload::clone(&sidecar), |template| {
        template.labels = LabelSet::from_iter([("app", "sidecar"), (TLS_MODE, "istio")]);
    }));
    let port = |port, address, workload: Option<&Arc<Workload>>| ServicePort {
        name: None,
        port,
        protocol: Protocol::Tcp,
        speaks: Default::default(),
        endpoints: vec![Endpoint::new(socket(address), workload.cloned())],
    };
    let service = Service {
        namespace: "shop".into(),
        name: "cart".into(),
        hostname: HOST.into(),
        vips: vec!["10.96.0.1".parse().unwrap()],
        ports: vec![
            port(80, "10.0.0.1:8080", Some(&cart)),
            port(81, "10.0.0.2:8080", Some(&legacy)),
            port(82, "203.0.113.9:443", None),
            port(83, "10.0.0.5:8080", Some(&sidecar)),
        ],
        ..Default::default()
    };
    let rules = rules.into_iter().map(Arc::new).collect();
    let policies = Policies::build(ROOT_NAMESPACE.into(), Vec::new(), peers, rules);
    Snapshot::build([cart, legacy, sidecar], [service]).with_policies(policies)
}

/// How `client` reaches an address, in a few words.
fn way(rules: Vec<ClientTlsRule>, client: Option<&Workload>, asked: &str) -> &'static str {
    way_in(&shop(rules), client, asked)
}

fn way_in(snapshot: &Snapshot, client: Option<&Workload>, asked: &str) -> &'static str {
    match resolve(snapshot, client, socket(asked), 0).map(|destination| destination.transport) {
        Ok(Transport::Hbone { .. }) => "mtls",
        Ok(Transport::Sidecar { .. }) => "sidecar",
        Ok(Transport::Plaintext(PlaintextReason::DisabledByRule)) => "disabled",
        Ok(Transport::Plaintext(_)) => "plaintext",
        Err(Refusal::MutualTlsImpossible { .. }) => "impossible",
        Err(Refusal::TlsNotOriginated { .. }) => "not originated",
        Ok(Transport::Waypoint { .. }) => "waypoint",
        Err(refusal) => panic!("{refusal}"),
    }
}

/// The name of the rule that is in force for `client` at port 80.
fn in_force(rules: Vec<ClientTlsRule>, client: Option<&Workload>) -> Option<String> {
    let destination = resolve(&shop(rules), client, socket("10.96.0.1:80"), 0).unwrap();
    destination.rule.map(|rule| rule.name.to_string())
}

fn web() -> Arc<Workload> {
    pod("shop", "web", Enrolment::Enrolled, "10.0.0.3")
}

fn teller() -> Arc<Workload> {
    pod("bank", "teller", Enrolment::Enrolled, "10.0.0.4")
}

#[test]
fn a_mode_is_kept_to_or_the_connection_is_refused() {
    use ClientTls::{Disable, IstioMutual, Mutual, Simple, Unreadable};
    // Towards a pod of the mesh, one that is not, an address, and a pod with a sidecar.
    for (mode, expected) in [
        (None, ["mtls", "plaintext", "plaintext", "sidecar"]),
        (Some(IstioMutual), ["mtls", "impossible", "impossible", "sidecar"]),
        (Some(Disable), ["disabled", "plaintext", "plaintext", "disabled"]),
        (Some(Simple), ["not originated"; 4]),
        (Some(Mutual), ["not originated"; 4]),
        (Some(Unreadable), ["not originated"; 4]),
    ] {
        let asked = ["10.96.0.1:80", "10.96.0.1:81", "10.96.0.1:82", "10.96.0.1:83"];
        let ways = asked.map(|asked| way(vec![rule("shop", "cart", mode)], Some(&web()), asked));
        assert_eq!(ways, expected, "{mode:?}");
    }
}

#[test]
fn a_sidecar_is_spoken_to_by_its_mtls_unless_a_peer_authentication_turns_that_off() {
    let peer = |mode, ports: &[(u16, Mode)]| {
        Arc::new(PeerAuthentication {
            name: Arc::new(PolicyName { namespace: "shop".into(), name: "sidecar".into() }),
            selector: Selector::new([("app", "sidecar")]),
            mode,
            ports: ports.iter().map(|(port, mode)| (*port, Some(*mode))).collect(),
        })
    };
    for (peers, expected) in [
        (vec![], "sidecar"),
        (vec![peer(Some(Mode::Strict), &[])], "sidecar"),
        (vec![peer(Some(Mode::Disable), &[])], "plaintext"),
        // The port is the pod's own.
        (vec![peer(Some(Mode::Strict), &[(8080, Mode::Disable)])], "plaintext"),
        (vec![peer(Some(Mode::Strict), &[(83, Mode::Disable)])], "sidecar"),
    ] {
        let ways = ["10.96.0.1:83", "10.0.0.5:8080"]
            .map(|asked| way_in(&shop_with(vec![], peers.clone()), Some(&web()), asked));
        assert_eq!(ways, [expected; 2], "{peers:?}");
    }
    let destination = resolve(&shop(vec![]), Some(&web()), socket("10.96.0.1:83"), 0).unwrap();
    let Transport::Sidecar { identity } = destination.transport else { panic!("{:?}", destination.transport) };
    assert_eq!(identity.to_string(), "spiffe://cluster.local/ns/shop/sa/sidecar");
}

#[test]
fn a_refusal_names_the_rule_and_the_mode() {
    let refusal = |mode, asked| {
        let snapshot = shop(vec![rule("shop", "cart", Some(mode))]);
        resolve(&snapshot, Some(&web()), socket(asked), 0).unwrap_err().to_string()
    };
    assert_eq!(
        refusal(ClientTls::Simple, "10.96.0.1:80"),
        "DestinationRule shop/cart asks for TLS of mode SIMPLE, which is not originated here"
    );
    assert_eq!(
        refusal(ClientTls::IstioMutual, "10.96.0.1:81"),
        "DestinationRule shop/cart asks for ISTIO_MUTUAL, and the endpoint is not part of the mesh"
    );
}

#[test]
fn a_port_says_all_for_itself() {
    let with =
        |tls, of_port: Option<ClientTls>| ClientTlsRule { ports: [(80, of_port)].into(), ..rule("shop", "r", tls) };
    let of_80 = |rule: ClientTlsRule| way(vec![rule], Some(&web()), "10.96.0.1:80");
    assert_eq!(of_80(with(Some(ClientTls::Disable), Some(ClientTls::IstioMutual))), "mtls");
    assert_eq!(of_80(with(None, Some(ClientTls::Disable))), "disabled");
    // Settings of a port replace all of the rule's: tls that they leave out is not inherited.
    assert_eq!(of_80(with(Some(ClientTls::Disable), None)), "mtls");
    let other = with(Some(ClientTls::IstioMutual), Some(ClientTls::Disable));
    assert_eq!(way(vec![other], Some(&web()), "10.96.0.1:81"), "impossible");
}

#[test]
fn a_rule_is_about_the_service_and_not_about_its_pods() {
    let simple = || vec![rule("shop", "cart", Some(ClientTls::Simple))];
    assert_eq!(way(simple(), Some(&web()), "10.0.0.1:8080"), "mtls");
    let elsewhere = HostPattern::Exact("cart.bank.svc.cluster.local".into());
    let of_another = ClientTlsRule { host: elsewhere, ..rule("shop", "r", Some(ClientTls::Simple)) };
    assert_eq!(way(vec![of_another], Some(&web()), "10.96.0.1:80"), "mtls");
}

#[test]
fn the_clients_namespace_comes_before_the_services_and_that_before_the_root() {
    let disable = |namespace| rule(namespace, "r", Some(ClientTls::Disable));
    let (of_bank, of_shop, of_root) = (disable("bank"), disable("shop"), disable(ROOT_NAMESPACE));
    let other = disable("stock");
    let teller = teller();
    for (rules, client, expected) in [
        (vec![&of_root, &of_shop, &of_bank], Some(&*teller), Some("bank/r")),
        (vec![&of_root, &of_shop], Some(&*teller), Some("shop/r")),
        (vec![&of_root], Some(&*teller), Some("istio-system/r")),
        (vec![&other], Some(&*teller), None),
        (vec![&of_root, &of_shop, &of_bank], None, Some("shop/r")),
        (vec![&of_bank], None, None),
    ] {
        let rules: Vec<ClientTlsRule> = rules.into_iter().cloned().collect();
        assert_eq!(in_force(rules.clone(), client).as_deref(), expected, "{rules:?}");
    }
}

#[test]
fn in_a_namespace_the_most_specific_host_decides_and_among_equals_the_oldest() {
    let ending = |name, end: &str| ClientTlsRule {
        host: HostPattern::Suffix(end.into()),
        ..rule("shop", name, Some(ClientTls::Disable))
    };
    let exact = |name| rule("shop", name, Some(ClientTls::Disable));
    let (any, cluster, of_shop) =
        (|| ending("any", ""), || ending("cluster", ".local"), || ending("of-shop", ".shop.svc.cluster.local"));
    for (rules, expected) in [
        (vec![any()], "shop/any"),
        (vec![any(), cluster()], "shop/cluster"),
        (vec![any(), cluster(), of_shop()], "shop/of-shop"),
        (vec![of_shop(), any(), cluster()], "shop/of-shop"),
        (vec![any(), of_shop(), exact("exact")], "shop/exact"),
        (vec![exact("older"), exact("younger")], "shop/older"),
        (vec![ending("older", ".local"), ending("younger", ".local")], "shop/older"),
        // The client's namespace decides before the host does.
        (vec![ClientTlsRule { name: exact("x").name, ..any() }, rule(ROOT_NAMESPACE, "r", None)], "shop/x"),
    ] {
        assert_eq!(in_force(rules, Some(&web())).as_deref(), Some(expected));
    }
}

#[test]
fn a_rule_is_for_the_clients_that_it_is_exported_to_and_selects() {
    let disable = |name| rule("shop", name, Some(ClientTls::Disable));
    let exported = || ClientTlsRule { exported_to: Some(vec!["shop".into()]), ..disable("exported") };
    let selecting = || ClientTlsRule { clients: Selector::new([("app", "web")]), ..disable("selecting") };
    let (web, teller) = (web(), teller());
    let namesake = pod("bank", "web", Enrolment::Enrolled, "10.0.0.5");
    for (rules, client, expected) in [
        (vec![exported()], Some(&*web), Some("shop/exported")),
        (vec![exported()], Some(&*teller), None),
        (vec![exported()], None, None),
        (vec![selecting()], Some(&*web), Some("shop/selecting")),
        (vec![selecting()], Some(&*namesake), None),
        (vec![selecting()], None, None),
        (vec![disable("all"), selecting()], Some(&*web), Some("shop/selecting")),
        (vec![disable("all"), selecting()], Some(&*teller), Some("shop/all")),
    ] {
        assert_eq!(in_force(rules.clone(), client).as_deref(), expected, "{rules:?}");
    }
}

#[test]
fn plaintext_that_is_open_may_not_go_on_where_a_rule_asks_for_tls() {
    let ends = |tls, asked: &str, endpoint: &str| {
        let rules = vec![rule("shop", "all", tls)];
        forbids_plaintext(&shop(rules), Some(&web()), socket(asked), socket(endpoint)).map(|(_, tls)| tls)
    };
    let legacy = "10.0.0.2:8080";
    for tls in [ClientTls::IstioMutual, ClientTls::Simple, ClientTls::Mutual, ClientTls::Unreadable] {
        assert_eq!(ends(Some(tls), "10.96.0.1:81", legacy), Some(tls));
        // Of that Service, whatever has become of its port or its endpoints.
        assert_eq!(ends(Some(tls), "10.96.0.1:99", "10.9.9.9:1"), Some(tls));
        // Nobody asked for the Service.
        assert_eq!(ends(Some(tls), legacy, legacy), None);
    }
    for tls in [None, Some(ClientTls::Disable)] {
        assert_eq!(ends(tls, "10.96.0.1:81", legacy), None);
    }
}

#[test]
fn whoever_sends_on_has_the_rules_that_select_its_own_pod() {
    let selecting = ClientTlsRule { clients: Selector::new([("app", "edge")]), ..rule("shop", "edge", None) };
    let snapshot = shop(vec![selecting]);
    let edge = LabelSet::from_iter([("app", "edge")]);
    let other = LabelSet::from_iter([("app", "other")]);
    for (labels, expected) in [(Some(&edge), true), (Some(&other), false), (None, false)] {
        let backing = Backing::find(&snapshot, ("shop", labels), HOST, (80, None)).unwrap();
        assert_eq!(backing.rule.is_some(), expected, "{labels:?}");
    }
}
