//! Whatever steps lead to a set of objects, they mean the same: compared with a translation that begins with nothing.

use std::collections::BTreeMap;
use std::path::PathBuf;

use mesh_core::l7::RouteTable;
use mesh_core::l7::gateway::{Listener, Serves};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::document::Format;
use crate::finding::ObjectName;
use crate::limits::Limits;
use crate::live::LiveObjects;

/// Names, addresses and uids come from so few that objects meet: they share what only one may have, name each other, and
/// are defined in several files.
fn document() -> impl Strategy<Value = String> {
    let namespace = (0..2u8, prop::option::of(prop::sample::select(vec!["enabled", "disabled", "perhaps"]))).prop_map(
        |(name, join)| {
            let labels = join.map_or_else(String::new, |join| format!(", labels: {{mesh.dev/join: {join}}}"));
            format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: n{name}{labels}}}}}")
        },
    );
    let node = (0..2u8).prop_map(|name| format!("{{apiVersion: v1, kind: Node, metadata: {{name: node{name}}}}}"));
    let account = (0..2u8, 0..2u8).prop_map(|(namespace, name)| {
        format!("{{apiVersion: v1, kind: ServiceAccount, metadata: {{name: a{name}, namespace: n{namespace}}}}}")
    });
    let telemetry = (0..2u8, 0..2u8, prop::option::of(0..3u8)).prop_map(|(namespace, name, target)| {
        let target = target.map_or_else(String::new, |target| format!("targetRef: {{kind: Service, name: s{target}}}"));
        format!(
            "{{apiVersion: telemetry.istio.io/v1, kind: Telemetry, metadata: {{name: t{name}, namespace: n{namespace}}}, \
             spec: {{{target}}}}}"
        )
    });
    prop_oneof![1 => namespace, 1 => node, 1 => account, 6 => pod(), 3 => service(), 3 => slice(), 2 => policy(), 1 => rules(), 3 => route(), 1 => around_routes(), 2 => entry(), 1 => telemetry]
}

fn pod() -> impl Strategy<Value = String> {
    let names = (0..2u8, 0..4u8, 0..5u8, 0..3u8, 0..3u8);
    let states =
        (prop::collection::vec(0..4u8, 0..3), any::<bool>(), prop::sample::select(vec!["Running", "Succeeded"]));
    (names, states, 0..6u8).prop_map(|((namespace, name, uid, node, account), (addresses, ready, phase), odd)| {
        let node = if odd == 0 { String::new() } else { format!("nodeName: node{node}, ") };
        let uid = if odd == 1 { "'no uid'".to_owned() } else { format!("u{uid}") };
        let host = odd == 2;
        let broken = if odd == 3 { ", x: [" } else { "" };
        let ips: Vec<String> = addresses.iter().map(|last| format!("{{ip: 10.0.0.{last}}}")).collect();
        format!(
            "kind: Pod\napiVersion: v1\nmetadata:\n  name: p{name}\n  namespace: n{namespace}\n  uid: {uid}\n  \
             labels: {{app: x{name}, version: v{account}}}\nspec: {{{node}serviceAccountName: a{account}, hostNetwork: {host}}}\n\
             status: {{phase: {phase}, podIPs: [{}], conditions: [{{type: Ready, status: '{}'}}]{broken}}}",
            ips.join(", "),
            if ready { "True" } else { "False" },
        )
    })
}

fn service() -> impl Strategy<Value = String> {
    let names = (0..2u8, 0..3u8, prop::collection::vec(0..4u8, 0..3));
    (names, prop::sample::select(vec!["ClusterIP", "ExternalName"]), 80..82u16).prop_map(|((namespace, name, vips), kind, port)| {
        let vips: Vec<String> = vips.iter().map(|last| format!("10.96.0.{last}")).collect();
        format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: s{name}, namespace: n{namespace}}}, spec: {{type: {kind}, \
             clusterIPs: [{}], ports: [{{name: http, port: {port}}}]}}}}",
            vips.join(", ")
        )
    })
}

fn slice() -> impl Strategy<Value = String> {
    let endpoint = (0..4u8, prop::option::of(0..4u8), any::<bool>());
    let names = (0..2u8, 0..3u8, prop::option::of(0..3u8));
    (names, prop::collection::vec(endpoint, 0..4), any::<bool>()).prop_map(|((namespace, name, service), endpoints, named)| {
        let labels = service.map_or_else(String::new, |of| format!(", labels: {{kubernetes.io/service-name: s{of}}}"));
        let endpoints: Vec<String> = endpoints
            .iter()
            .map(|(last, pod, ready)| {
                let target = pod.map_or_else(String::new, |pod| format!(", targetRef: {{kind: Pod, name: p{pod}}}"));
                format!("{{addresses: [10.0.0.{last}], conditions: {{ready: {ready}}}{target}}}")
            })
            .collect();
        let port = if named { "http" } else { "other" };
        format!(
            "{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {{name: e{name}, namespace: n{namespace}{labels}}}, \
             addressType: IPv4, ports: [{{name: {port}, port: 8080}}], endpoints: [{}]}}",
            endpoints.join(", ")
        )
    })
}

fn policy() -> impl Strategy<Value = String> {
    (0..2u8, 0..2u8, prop::sample::select(vec!["ALLOW", "DENY", "PERHAPS"])).prop_map(|(namespace, name, action)| {
        format!(
            "{{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {{name: z{name}, namespace: n{namespace}}}, \
             spec: {{action: {action}}}}}"
        )
    })
}

/// ServiceEntries and WorkloadEntries: hosts and addresses are also Services', endpoints also Pods'.
fn entry() -> impl Strategy<Value = String> {
    (0..2u8, 0..3u8, 0..4u8, prop::collection::vec(0..4u8, 0..3)).prop_map(|(namespace, name, kind, vips)| {
        let vips: Vec<String> = vips.iter().map(|last| format!("10.96.0.{last}")).collect();
        let found = match kind {
            0 => "resolution: DNS".to_owned(),
            1 => format!("resolution: STATIC, endpoints: [{{address: 10.0.0.{name}}}]"),
            2 => format!("resolution: STATIC, workloadSelector: {{labels: {{app: x{name}}}}}"),
            _ => return format!(
                "{{apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {{name: w{name}, namespace: n{namespace}}}, \
                 spec: {{address: 10.0.1.{name}, labels: {{app: x{name}}}}}}}"
            ),
        };
        format!(
            "{{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {{name: e{name}, namespace: n{namespace}}}, \
             spec: {{hosts: [h{name}.example.com, s{name}.n0.svc.cluster.local], addresses: [{}], {found}, ports: [{{number: 80}}]}}}}",
            vips.join(", ")
        )
    })
}

/// DestinationRules, VirtualServices, waypoints and the mesh configuration, which name Services and Pods.
fn rules() -> impl Strategy<Value = String> {
    (0..2u8, 0..3u8, 0..5u8).prop_map(|(namespace, of, kind)| match kind {
        0 => format!(
            "{{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {{name: d{of}, namespace: n{namespace}}}, \
             spec: {{host: s{of}, subsets: [{{name: v1, labels: {{version: v1}}}}]}}}}"
        ),
        1 => format!(
            "{{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {{name: v{of}, namespace: n{namespace}}}, \
             spec: {{hosts: [s{of}], http: [{{route: [{{destination: {{host: s{of}, subset: v1, port: {{number: 80}}}}}}]}}]}}}}"
        ),
        2 => format!(
            "{{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {{name: h{of}, namespace: n{namespace}}}, \
             spec: {{parentRefs: [{{kind: Service, group: '', name: s{of}}}], rules: [{{backendRefs: [{{name: s0, port: 80}}]}}]}}}}"
        ),
        3 => format!(
            "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: istio, namespace: istio-system}}, data: {{mesh: \"{{extensionProviders: [{{\
             name: p{of}, envoyExtAuthzGrpc: {{service: s{of}.n{namespace}.svc.cluster.local, port: 80}}}}]}}\"}}}}"
        ),
        _ => format!(
            "{{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {{name: w{of}, namespace: n{namespace}}}, \
             spec: {{gatewayClassName: mesh-waypoint, listeners: [{{name: mesh, port: 15008, protocol: HBONE}}]}}}}"
        ),
    })
}

/// Routes of the Gateway API: to Services and to listeners, with matches and hosts in common.
fn route() -> impl Strategy<Value = String> {
    let names = (0..2u8, 0..3u8, prop::sample::select(vec!["HTTPRoute", "HTTPRoute", "GRPCRoute"]));
    let parents = (prop::option::of(0..3u8), prop::option::of((0..2u8, any::<bool>())));
    let rules = prop::collection::vec((0..3u8, 0..3u8, 0..2u8, 80..82u16), 1..3);
    (names, parents, prop::option::of(0..2u8), rules).prop_map(|((namespace, name, kind), (service, gateway), host, rules)| {
        let service = service.map(|of| format!("{{kind: Service, group: '', name: s{of}}}"));
        let gateway = gateway.map(|(of, named)| {
            format!("{{name: g{of}, namespace: n0{}}}", if named { ", sectionName: some" } else { "" })
        });
        let parents: Vec<String> = service.into_iter().chain(gateway).collect();
        let host = host.map_or_else(String::new, |host| format!("hostnames: [h{host}.example.com], "));
        let rules: Vec<String> = rules
            .iter()
            .map(|(path, to, of, port)| {
                let matched = match (path, kind) {
                    (0, _) => String::new(),
                    (path, "HTTPRoute") => format!("matches: [{{path: {{value: /{path}}}}}], "),
                    (path, _) => format!("matches: [{{method: {{service: s{path}}}}}], "),
                };
                format!("{{{matched}backendRefs: [{{name: s{to}, namespace: n{of}, port: {port}}}]}}")
            })
            .collect();
        format!(
            "{{apiVersion: gateway.networking.k8s.io/v1, kind: {kind}, metadata: {{name: r{name}, namespace: n{namespace}}}, \
             spec: {{parentRefs: [{}], {host}rules: [{}]}}}}",
            parents.join(", "),
            rules.join(", ")
        )
    })
}

/// What routes are attached to, and what lets them refer to others.
fn around_routes() -> impl Strategy<Value = String> {
    (0..2u8, any::<bool>(), any::<bool>()).prop_map(|(name, is_grant, is_open)| {
        if is_grant {
            let from = if is_open { "GRPCRoute" } else { "HTTPRoute" };
            return format!(
                "{{apiVersion: gateway.networking.k8s.io/v1, kind: ReferenceGrant, metadata: {{name: r, namespace: n{name}}}, spec: {{from: \
                 [{{group: gateway.networking.k8s.io, kind: {from}, namespace: n{}}}], to: [{{group: '', kind: Service}}]}}}}",
                1 - name
            );
        }
        let from = if is_open { "All" } else { "Same" };
        format!(
            "{{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {{name: g{name}, namespace: n0}}, \
             spec: {{gatewayClassName: mesh, listeners: [{{name: all, port: 80, protocol: HTTP, allowedRoutes: {{namespaces: \
             {{from: {from}}}}}}}, {{name: some, port: 80, protocol: HTTP, hostname: h0.example.com}}]}}}}"
        )
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 400 } else { 4000 }))]

    #[test]
    fn steps_mean_what_their_result_means(
        steps in prop::collection::vec((0..4usize, prop::collection::vec(document(), 0..8), any::<bool>()), 1..12)
    ) {
        let options = Options { served: true, statuses: true, ..Options::default() };
        let limits = Limits::of(&options);
        let mut translator = Translator::new(options.clone());
        let mut files: BTreeMap<PathBuf, Contents> = BTreeMap::new();
        for (file, documents, look) in steps {
            let path = PathBuf::from(format!("{file}.yaml"));
            let old = files.get(&path).cloned().unwrap_or_default();
            let new = Contents::update(&old, &path.as_path().into(), &documents.join("\n---\n"), Format::Yaml, &limits);
            translator.update(|| path.clone(), &old, &new);
            files.insert(path, new);
            if !look {
                continue;
            }
            let before = translator.current();
            let config = translator.publish();
            let mut afresh = Translator::new(options.clone());
            for (path, contents) in files.iter().rev() {
                afresh.update(|| path.clone(), &Contents::default(), contents);
            }
            let expected = afresh.publish();
            prop_assert_eq!(&config.findings, &expected.findings);
            prop_assert_eq!(&config.snapshot, &expected.snapshot);
            prop_assert_eq!(&config.statuses, &expected.statuses);
            let both = config.served.differences(&expected.served, None).next();
            prop_assert!(both.is_none(), "{both:?}");
            prop_assert_eq!(&read_of_what_is_served(&config).snapshot, &config.snapshot);
            tells_what_changed(before.as_deref(), &config)?;
        }
    }
}

/// What somebody makes of the objects who is told of them for the first time.
fn read_of_what_is_served(config: &Config) -> Arc<Config> {
    let mut live = LiveObjects::new(Options::default());
    for served in config.served.iter() {
        let name = ObjectName::of_path(served.path()).unwrap();
        live.take(&name, &served.source.object, served.source.refused.as_deref()).unwrap();
    }
    live.publish()
}

/// What is told to have changed is what differs.
fn tells_what_changed(before: Option<&Config>, now: &Config) -> Result<(), TestCaseError> {
    let Some(before) = before.filter(|before| before.generation != now.generation) else { return Ok(()) };
    let told: BTreeMap<_, _> = now
        .changes
        .workloads
        .iter()
        .map(|change| {
            let either = change.now.as_ref().or(change.before.as_ref()).unwrap();
            ((either.namespace.to_string(), either.name.to_string()), (change.before.clone(), change.now.clone()))
        })
        .collect();
    let names = |config: &Config| {
        config.snapshot.workloads().map(|it| (it.namespace.to_string(), it.name.to_string())).collect::<BTreeSet<_>>()
    };
    for name in names(before).union(&names(now)) {
        let (old, new) = (before.snapshot.workload(&name.0, &name.1), now.snapshot.workload(&name.0, &name.1));
        let expected = (old != new).then(|| (old.cloned(), new.cloned()));
        prop_assert_eq!(told.get(name), expected.as_ref());
    }
    prop_assert_eq!(now.changes.policies, before.snapshot.policies() != now.snapshot.policies());
    prop_assert_eq!(now.changes.rate_limits, before.snapshot.rate_limits() != now.snapshot.rate_limits());
    prop_assert_eq!(now.changes.telemetries, before.snapshot.telemetries() != now.snapshot.telemetries());
    prop_assert_eq!(now.changes.providers, before.snapshot.providers() != now.snapshot.providers());
    prop_assert_eq!(now.changes.l7, before.snapshot.l7() != now.snapshot.l7());
    Ok(())
}

/// The tables of the listeners of a cluster's one Gateway.
fn tables(config: &Config) -> Vec<Arc<RouteTable>> {
    let listeners = config.snapshot.l7().gateways().iter().flat_map(|gateway| &gateway.listeners);
    let table = |listener: &Arc<Listener>| match &listener.serves {
        Serves::Requests { table, .. } => Arc::clone(table),
        other => panic!("{other:?}"),
    };
    listeners.map(table).collect()
}

#[test]
fn a_routes_change_leaves_other_routes_and_other_listeners_tables_as_they_are() {
    let mut live = LiveObjects::new(Options::default());
    let mut apply = |kind: &str, name: &str, spec: serde_json::Value| {
        let version = "gateway.networking.k8s.io/v1";
        let metadata = json!({"name": name, "namespace": "shop"});
        let (group, namespace) = ("gateway.networking.k8s.io".into(), Some("shop".into()));
        let object = ObjectName { group, kind: kind.into(), namespace, name: name.into() };
        live.apply(object, json!({"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec}));
        live.publish()
    };
    let route = |listener: &str, path: &str| {
        let matched = json!([{"path": {"type": "Exact", "value": path}}]);
        let to = json!([{"name": "cart", "port": 80}]);
        json!({"parentRefs": [{"name": "g", "sectionName": listener}], "rules": [{"matches": matched, "backendRefs": to}]})
    };
    let listener = |name: &str, port: u16| json!({"name": name, "port": port, "protocol": "HTTP"});
    let listeners = json!([listener("a", 80), listener("b", 81)]);
    apply("Gateway", "g", json!({"gatewayClassName": "mesh", "listeners": listeners}));
    apply("HTTPRoute", "apart", route("a", "/apart"));
    apply("HTTPRoute", "beside", route("b", "/beside"));
    let before = tables(&apply("HTTPRoute", "changing", route("b", "/before")));
    let after = tables(&apply("HTTPRoute", "changing", route("b", "/after")));
    assert!(Arc::ptr_eq(&before[0], &after[0]));
    let rule = |table: &RouteTable, index: usize| Arc::clone(&table.hosts()[0].rules[index]);
    assert!(Arc::ptr_eq(&rule(&before[1], 0), &rule(&after[1], 0)));
    assert_ne!(rule(&before[1], 1), rule(&after[1], 1));
}
