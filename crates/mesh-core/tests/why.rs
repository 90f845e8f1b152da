//! Why connections go where they go: what people's names mean, and that the answer is the one that decides.
#![allow(clippy::unwrap_used)]

mod workload;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use mesh_core::labels::TLS_MODE;
use mesh_core::policy::{Action, AuthorizationPolicy, Facts, Pattern, Patterns, Peer, Rule, Term, Test, authorize};
use mesh_core::why::{Client, Path, PlaintextCause, SameNode, Way, find_client, find_target, why};
use mesh_core::{
    Endpoint, Enrolment, LabelSet, OutsideReason, PlaintextReason, Policies, PolicyName, Protocol, Service,
    ServicePort, Snapshot, SpiffeId, TrustDomain, Workload, resolve,
};

fn socket(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A pod `NAMESPACE/OWNER-NUMBER`.
fn pod(namespace: &str, owner: &str, number: usize, enrolment: Enrolment, addresses: &[&str]) -> Arc<Workload> {
    let (uid, name) = (format!("{namespace}-{owner}-{number}").into(), format!("{owner}-{number}").into());
    let one = Workload { uid, name, ..workload::workload(namespace, owner, addresses) };
    Arc::new(workload::altered(one, |template| template.enrolment = enrolment))
}

const OUTSIDE: Enrolment = Enrolment::Outside(OutsideReason::NotLabelled);

/// Two carts behind a Service, one of them outside the mesh; a client with both families; namesakes in another namespace.
fn cluster() -> Snapshot {
    let carts =
        [pod("shop", "cart", 1, Enrolment::Enrolled, &["10.0.0.1"]), pod("shop", "cart", 2, OUTSIDE, &["10.0.0.2"])];
    let others = [
        pod("shop", "client", 1, Enrolment::Enrolled, &["10.0.0.3", "fd00::3"]),
        pod("bank", "cart", 9, Enrolment::Enrolled, &["10.0.0.9", "fd00::9"]),
        pod("bank", "teller", 1, OUTSIDE, &["10.0.0.10"]),
        Arc::new(workload::altered(Workload::clone(&pod("bank", "sidecar", 1, OUTSIDE, &["10.0.0.11"])), |template| {
            template.labels = LabelSet::from_iter([(TLS_MODE, "istio")]);
        })),
    ];
    let endpoints =
        carts.iter().map(|cart| Endpoint::new(SocketAddr::new(cart.addresses[0], 8080), Some(Arc::clone(cart))));
    let port = |number, endpoints| ServicePort {
        name: None,
        port: number,
        protocol: Protocol::Tcp,
        speaks: Default::default(),
        endpoints,
    };
    let service = |namespace: &str, name: &str, vips: &[&str], ports| Service {
        namespace: namespace.into(),
        name: name.into(),
        hostname: format!("{name}.{namespace}.svc.cluster.local").into(),
        vips: vips.iter().map(|vip| vip.parse().unwrap()).collect(),
        ports,
        ..Default::default()
    };
    let services = [
        service("shop", "cart", &["10.96.0.1"], vec![port(80, endpoints.collect())]),
        service("shop", "empty", &["10.96.0.2"], vec![port(80, Vec::new()), port(81, Vec::new())]),
        service("shop", "headless", &[], vec![port(80, Vec::new())]),
    ];
    let deny_tellers = AuthorizationPolicy {
        name: Arc::new(PolicyName { namespace: "shop".into(), name: "no-bank".into() }),
        selector: None,
        action: Action::Deny,
        provider: None,
        dry_run: false,
        rules: vec![Rule {
            from: vec![vec![Term {
                negated: true,
                test: Test::Namespace(Patterns::from_iter([Pattern::parse("shop").unwrap()])),
            }]],
            ..Rule::default()
        }],
    };
    let policies = Policies::build("istio-system".into(), vec![Arc::new(deny_tellers)], Vec::new(), Vec::new());
    Snapshot::build(carts.into_iter().chain(others), services).with_policies(policies)
}

#[test]
fn names_mean_what_people_mean_by_them() {
    let cluster = cluster();
    let clients = [
        ("shop/client-1", None, "10.0.0.3"),
        ("shop/client", None, "10.0.0.3"),
        ("client", None, "10.0.0.3"),
        ("cart", Some("bank"), "10.0.0.9"),
        ("bank/cart", Some("shop"), "10.0.0.9"),
        ("10.0.0.3", None, "10.0.0.3"),
        ("::ffff:10.0.0.3", None, "10.0.0.3"),
        ("192.0.2.1", None, "192.0.2.1"),
    ];
    for (text, namespace, address) in clients {
        let client = find_client(&cluster, text, namespace).unwrap();
        assert_eq!(client.address, address.parse::<IpAddr>().unwrap(), "{text}");
    }
    // Of several pods of one owner, one that is in the mesh.
    let cart = find_client(&cluster, "shop/cart", None).unwrap();
    assert_eq!((cart.pods, cart.workload.unwrap().is_enrolled()), (2, true));

    let targets = [
        ("cart.shop", None, "10.96.0.1:80"),
        ("cart.shop.svc:80", None, "10.96.0.1:80"),
        ("cart.shop.svc.cluster.local", None, "10.96.0.1:80"),
        ("shop/cart:99", None, "10.96.0.1:99"),
        ("cart", Some("shop"), "10.96.0.1:80"),
        ("bank/cart:5", None, "10.0.0.9:5"),
        ("cart-1", None, "10.0.0.1:8080"),
        ("10.0.0.1", None, "10.0.0.1:8080"),
        ("10.0.0.1:1", None, "10.0.0.1:1"),
        ("[fd00::9]:80", None, "[fd00::9]:80"),
    ];
    for (text, namespace, address) in targets {
        let target = find_target(&cluster, text, namespace).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(target.address, socket(address), "{text}");
    }
}

#[test]
fn a_name_that_means_nothing_or_too_much_is_told_with_what_to_say_instead() {
    let cluster = cluster();
    let client = |text, namespace| find_client(&cluster, text, namespace).unwrap_err().to_string();
    assert_eq!(client("nobody", None), "there is no pod or workload nobody; say NAMESPACE/NAME, or an address");
    assert!(client("teller", Some("shop")).contains("teller in namespace shop"));
    let which = client("cart", None);
    assert!(which.contains("cart may be bank/cart, shop/cart; say which"), "{which}");
    let target = |text| find_target(&cluster, text, None).unwrap_err().to_string();
    for (text, expected) in [
        ("empty.shop", "which port of shop/empty? say shop/empty:PORT, such as 80, 81"),
        ("headless.shop", "shop/headless has no address: it is headless"),
        ("client-1", "which port of client-1?"),
        ("[fd00::9]", "which port of fd00::9?"),
        ("cart.shop:http", "\"http\" is no port"),
        ("cart.shop:0", "\"0\" is no port"),
        ("cart.nowhere", "there is no Service, pod or workload cart.nowhere"),
        ("", "there is no Service"),
    ] {
        let error = target(text);
        assert!(error.contains(expected), "{text}: {error}");
    }
}

/// Every client and address that matters here.
fn questions(cluster: &Snapshot) -> Vec<(Client, SocketAddr)> {
    let clients = ["client-1", "cart-1", "cart-2", "cart-9", "teller-1", "sidecar-1", "192.0.2.1"];
    let asked = [
        "10.96.0.1:80",
        "10.96.0.1:81",
        "10.96.0.2:80",
        "10.0.0.1:8080",
        "10.0.0.2:8080",
        "[fd00::9]:5",
        "192.0.2.2:443",
    ];
    let pairs = clients.into_iter().flat_map(|client| asked.map(|asked| (client, asked)));
    pairs.map(|(client, asked)| (find_client(cluster, client, None).unwrap(), socket(asked))).collect()
}

#[test]
fn the_answer_is_what_resolve_and_authorize_decide() {
    let cluster = cluster();
    for (client, asked) in questions(&cluster) {
        for same_node in [SameNode::Direct, SameNode::Tunnel] {
            let answer = why(&cluster, client.clone(), asked, same_node);
            let enrolled = client.workload.as_deref().filter(|workload| workload.is_enrolled());
            let Ok(ways) = &answer.ways else {
                assert_eq!(answer.ways.err(), resolve(&cluster, enrolled, asked, 0).err(), "{client:?} {asked}");
                continue;
            };
            assert_eq!(ways.len(), answer.endpoints);
            ways.iter().for_each(|way| is_what_is_decided(&cluster, &client, way));
        }
    }
}

fn is_what_is_decided(cluster: &Snapshot, client: &Client, way: &Way) {
    let enrolled = client.workload.as_deref().filter(|workload| workload.is_enrolled());
    let peer = match (&way.path, enrolled) {
        (Path::Tunnel(_), Some(workload)) => Peer::Certificate(&workload.identity),
        (Path::Direct, Some(workload)) => Peer::Kernel(&workload.identity),
        (Path::Tunnel(_) | Path::Direct, None) => panic!("of one who is outside: {way:?}"),
        _ => Peer::Unproven,
    };
    let Some(decision) = &way.decision else { return };
    let workload = way.workload.as_deref().unwrap();
    let own = client.workload.as_ref().map_or(vec![client.address], |workload| workload.addresses.to_vec());
    let from = own.into_iter().find(|ip| ip.is_ipv4() == way.endpoint.is_ipv4()).unwrap_or(client.address);
    let facts = Facts { peer, client: from, forwarded: None, server: None, destination: way.endpoint };
    assert_eq!(decision.authorization, authorize(cluster, workload, &facts), "{client:?} {way:?}");
    assert_eq!(way.stop().is_some(), decision.authorization.verdict.is_err());
}

#[test]
fn paths_have_their_reasons() {
    let cluster = cluster();
    let ways = |client: &str, asked: &str| {
        let client = find_client(&cluster, client, None).unwrap();
        why(&cluster, client, socket(asked), SameNode::Tunnel)
            .ways
            .unwrap()
            .into_iter()
            .map(|way| way.path)
            .collect::<Vec<_>>()
    };
    let cart = SpiffeId::new(&TrustDomain::default(), "shop", "cart").unwrap();
    let outside = PlaintextCause::Destination(PlaintextReason::DestinationNotEnrolled);
    assert_eq!(ways("client-1", "10.96.0.1:80"), [Path::Tunnel(cart), Path::Plaintext(outside)]);
    let cause = PlaintextCause::ClientOutside(OutsideReason::NotLabelled);
    assert_eq!(ways("teller-1", "10.96.0.1:80"), [Path::Plaintext(cause), Path::Plaintext(cause)]);
    let cause = PlaintextCause::ClientHasSidecar;
    assert_eq!(ways("sidecar-1", "10.96.0.1:80"), [Path::Plaintext(cause), Path::Plaintext(cause)]);
    assert_eq!(ways("192.0.2.1", "10.0.0.1:8080"), [Path::Plaintext(PlaintextCause::ClientUnknown)]);
    assert_eq!(ways("cart-1", "10.0.0.1:8080"), [Path::WithinPod]);
    let unknown = PlaintextCause::Destination(PlaintextReason::DestinationUnknown);
    assert_eq!(ways("client-1", "192.0.2.2:443"), [Path::Plaintext(unknown)]);
}

#[test]
fn a_denial_names_the_policy_and_the_rule() {
    let cluster = cluster();
    let client = find_client(&cluster, "bank/cart", None).unwrap();
    let answer = why(&cluster, client, socket("10.96.0.1:80"), SameNode::Tunnel);
    let ways = answer.ways.unwrap();
    assert_eq!(ways[0].stop().unwrap().to_string(), "AuthorizationPolicy shop/no-bank denies it");
    assert_eq!(ways[0].decision.as_ref().unwrap().policies[0].matched(), Some(0));
    // The other endpoint is outside the mesh, where nothing is enforced.
    assert!(ways[1].stop().is_none() && ways[1].decision.is_none());
}

#[test]
fn pods_of_one_node_are_connected_by_the_kernel_only_where_policy_allows_it() {
    let cluster = cluster();
    let path = |client: &str, asked: &str, same_node| {
        let client = find_client(&cluster, client, None).unwrap();
        why(&cluster, client, socket(asked), same_node).ways.unwrap().remove(0).path
    };
    assert_eq!(path("client-1", "10.0.0.1:8080", SameNode::Direct), Path::Direct);
    assert_eq!(path("client-1", "10.96.0.1:80", SameNode::Direct), Path::Direct);
    assert!(matches!(path("client-1", "10.0.0.1:8080", SameNode::Tunnel), Path::Tunnel(_)));
    // What policy denies goes by the daemon, which says so.
    assert!(matches!(path("bank/cart", "10.0.0.1:8080", SameNode::Direct), Path::Tunnel(_)));
}
