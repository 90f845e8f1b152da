//! Clusters by chance: pods, Services, waypoints and policies of them.

use mesh_config::ObjectName;
use proptest::prelude::*;
use serde_json::{Value, json};

/// An object that is put in, or taken out.
pub type Change = (ObjectName, Option<Value>);

fn change(path: &str, value: Option<Value>) -> Change {
    (ObjectName::of_path(path).unwrap_or_else(|| panic!("{path}")), value)
}

fn pod() -> impl Strategy<Value = Change> {
    let state = prop::option::weighted(0.85, (any::<bool>(), any::<bool>(), any::<bool>(), 0..3u8));
    (0..6u8, state).prop_map(|(number, state)| {
        let name = format!("p{number}");
        let value = state.map(|(ready, joined, by_waypoint, tier)| {
            let mut labels = json!({"app": format!("a{}", number % 2), "tier": format!("t{tier}"),
                                    "mesh.dev/join": if joined { "enabled" } else { "disabled" }});
            if by_waypoint {
                labels["istio.io/use-waypoint"] = json!("wp");
            }
            // The waypoint's replica.
            if number == 5 {
                labels["gateway.networking.k8s.io/gateway-name"] = json!("wp");
            }
            json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": name, "namespace": "shop", "uid": format!("u{number}-{joined}-{tier}"),
                             "labels": labels},
                "spec": {"nodeName": "a", "containers": [{"name": "c"}], "serviceAccountName": format!("sa{}", number % 3)},
                "status": {"podIP": format!("10.0.0.{}", number + 1), "podIPs": [{"ip": format!("10.0.0.{}", number + 1)}],
                           "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]},
            })
        });
        change(&format!("/Pod/shop/{name}"), value)
    })
}

fn service() -> impl Strategy<Value = Change> {
    let state = prop::option::weighted(0.85, (80..82u16, any::<bool>()));
    (0..3u8, state).prop_map(|(number, state)| {
        let value = state.map(|(port, by_waypoint)| {
            json!({
                "apiVersion": "v1", "kind": "Service",
                "metadata": {"name": format!("s{number}"), "namespace": "shop",
                             "labels": if by_waypoint { json!({"istio.io/use-waypoint": "wp"}) } else { json!({}) }},
                "spec": {"clusterIP": format!("10.96.0.{number}"), "ports": [{"port": port, "name": "tcp"}]},
            })
        });
        change(&format!("/Service/shop/s{number}"), value)
    })
}

fn endpoints() -> impl Strategy<Value = Change> {
    let state = prop::option::weighted(0.85, (prop::collection::vec(0..7u8, 0..4), 8080..8082u16));
    (0..3u8, state).prop_map(|(number, state)| {
        let value = state.map(|(pods, port)| {
            let endpoint = |pod: &u8| {
                // The last one is nobody's pod.
                let target = (*pod < 6).then(|| json!({"kind": "Pod", "name": format!("p{pod}"), "namespace": "shop"}));
                json!({"addresses": [format!("10.0.0.{}", pod + 1)], "conditions": {"ready": true}, "targetRef": target})
            };
            json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
                "metadata": {"name": format!("s{number}-x"), "namespace": "shop",
                             "labels": {"kubernetes.io/service-name": format!("s{number}")}},
                "endpoints": pods.iter().map(endpoint).collect::<Vec<_>>(),
                "ports": [{"name": "tcp", "port": port, "protocol": "TCP"}],
            })
        });
        change(&format!("discovery.k8s.io/EndpointSlice/shop/s{number}-x"), value)
    })
}

fn waypoint() -> impl Strategy<Value = Change> {
    any::<bool>().prop_map(|there| {
        let value = json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
            "metadata": {"name": "wp", "namespace": "shop", "labels": {"istio.io/waypoint-for": "all"}},
            "spec": {"gatewayClassName": "mesh-waypoint",
                     "listeners": [{"name": "mesh", "port": 15008, "protocol": "HBONE"}]},
        });
        change("gateway.networking.k8s.io/Gateway/shop/wp", there.then_some(value))
    })
}

fn texts(of: &'static [&'static str]) -> impl Strategy<Value = Vec<&'static str>> {
    prop::sample::subsequence(of, 1..=2)
}

fn source() -> impl Strategy<Value = Value> {
    let principals = texts(&["cluster.local/ns/shop/sa/sa0", "cluster.local/*", "*/sa/sa1", "*"]);
    let (namespaces, accounts) = (texts(&["shop", "s*", "*k", "*"]), texts(&["shop/sa0", "shop/sa1", "bank/sa1"]));
    let by_identity = prop_oneof![
        (any::<bool>(), principals)
            .prop_map(|(not, values)| (if not { "notPrincipals" } else { "principals" }, values)),
        (any::<bool>(), namespaces)
            .prop_map(|(not, values)| (if not { "notNamespaces" } else { "namespaces" }, values)),
        (any::<bool>(), accounts)
            .prop_map(|(not, values)| (if not { "notServiceAccounts" } else { "serviceAccounts" }, values)),
    ];
    let blocks = || texts(&["10.0.0.1", "10.0.0.0/30", "10.0.0.0/8", "fd00::/8"]);
    let by_address = (any::<bool>(), any::<bool>(), blocks()).prop_map(|(remote, not, values)| {
        let key = match (remote, not) {
            (false, false) => "ipBlocks",
            (false, true) => "notIpBlocks",
            (true, false) => "remoteIpBlocks",
            (true, true) => "notRemoteIpBlocks",
        };
        (key, values)
    });
    let fields = (prop::option::of(by_identity), prop::collection::vec(by_address, 0..3));
    fields.prop_filter_map("says something", |(identity, addresses)| {
        let all: serde_json::Map<_, _> =
            identity.into_iter().chain(addresses).map(|(key, values)| (key.to_owned(), json!(values))).collect();
        (!all.is_empty()).then(|| json!({"source": all}))
    })
}

fn operation() -> impl Strategy<Value = Value> {
    let ports = texts(&["8080", "8081", "9000"]);
    (any::<bool>(), ports, prop::bool::weighted(0.2)).prop_map(|(not, ports, of_request)| {
        let mut operation = json!({if not { "notPorts" } else { "ports" }: ports});
        if of_request {
            operation["methods"] = json!(["GET"]);
        }
        json!({"operation": operation})
    })
}

fn rule() -> impl Strategy<Value = Value> {
    let when = prop::option::of(texts(&["10.0.0.1", "10.0.0.0/29"]));
    let lists = (prop::collection::vec(source(), 0..3), prop::collection::vec(operation(), 0..3), when);
    lists.prop_map(|(from, to, when)| {
        let mut rule = json!({});
        if !from.is_empty() {
            rule["from"] = json!(from);
        }
        if !to.is_empty() {
            rule["to"] = json!(to);
        }
        if let Some(values) = when {
            rule["when"] = json!([{"key": "destination.ip", "values": values}]);
        }
        rule
    })
}

fn selector() -> impl Strategy<Value = Option<Value>> {
    let label = prop::sample::select(vec![("app", "a0"), ("app", "a1"), ("tier", "t0")]);
    prop::option::of(label.prop_map(|(key, value)| json!({"matchLabels": {key: value}})))
}

fn policy() -> impl Strategy<Value = Change> {
    let place = (0..3u8, prop::sample::select(vec!["shop", "shop", "bank", "istio-system"]));
    let action = prop::sample::select(vec!["ALLOW", "ALLOW", "DENY", "CUSTOM", "AUDIT"]);
    let rules = prop::collection::vec(rule(), 0..3);
    let all = (place, prop::bool::weighted(0.8), selector(), action, prop::bool::weighted(0.2), rules);
    all.prop_map(|((number, namespace), there, selector, action, dry_run, rules)| {
        let mut value = json!({
            "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
            "metadata": {"name": format!("z{number}"), "namespace": namespace,
                         "annotations": {"istio.io/dry-run": dry_run.to_string()}},
            "spec": {"action": action, "rules": rules},
        });
        if let Some(selector) = selector {
            value["spec"]["selector"] = selector;
        }
        if action == "CUSTOM" {
            value["spec"]["provider"] = json!({"name": "opa"});
        }
        change(&format!("security.istio.io/AuthorizationPolicy/{namespace}/z{number}"), there.then_some(value))
    })
}

/// One that a waypoint enforces, so that nobody may go past it.
fn targeted_policy() -> impl Strategy<Value = Change> {
    let targets = vec![("", "Service", "s0"), ("", "Service", "s1"), ("gateway.networking.k8s.io", "Gateway", "wp")];
    (prop::sample::select(targets), any::<bool>()).prop_map(|((group, kind, name), there)| {
        let value = json!({
            "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
            "metadata": {"name": format!("t-{name}"), "namespace": "shop"},
            "spec": {"targetRefs": [{"group": group, "kind": kind, "name": name}],
                     "rules": [{"to": [{"operation": {"methods": ["GET"]}}]}]},
        });
        change(&format!("security.istio.io/AuthorizationPolicy/shop/t-{name}"), there.then_some(value))
    })
}

fn peer_authentication() -> impl Strategy<Value = Change> {
    let mode = || prop::sample::select(vec!["UNSET", "STRICT", "PERMISSIVE", "DISABLE"]);
    let place = (0..2u8, prop::sample::select(vec!["shop", "istio-system"]));
    let ports = prop::collection::btree_map(prop::sample::select(vec!["8080", "8081"]), mode(), 0..2);
    (place, prop::bool::weighted(0.8), selector(), mode(), ports).prop_map(
        |((number, namespace), there, selector, mode, ports)| {
            let mut value = json!({
                "apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication",
                "metadata": {"name": format!("m{number}"), "namespace": namespace},
                "spec": {"mtls": {"mode": mode}},
            });
            if let Some(selector) = selector {
                value["spec"]["selector"] = selector;
                value["spec"]["portLevelMtls"] =
                    ports.iter().map(|(port, mode)| ((*port).to_owned(), json!({"mode": mode}))).collect();
            }
            change(&format!("security.istio.io/PeerAuthentication/{namespace}/m{number}"), there.then_some(value))
        },
    )
}

/// Any of them.
pub fn object() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => pod(),
        2 => service(),
        2 => endpoints(),
        2 => waypoint(),
        3 => policy(),
        2 => targeted_policy(),
        2 => peer_authentication(),
    ]
}
