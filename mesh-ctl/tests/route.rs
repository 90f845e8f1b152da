//! What a request would get, by manifests alone.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::process::{Command, Output};

const MANIFESTS: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio.io/use-waypoint: waypoint}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: waypoint, namespace: shop}
spec: {gatewayClassName: mesh-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
---
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec: {clusterIP: 10.96.0.1, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: bare, namespace: shop, labels: {istio.io/use-waypoint: none}}
spec: {clusterIP: 10.96.0.2, ports: [{port: 80}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: cart, namespace: shop}
spec: {host: cart, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: cart, namespace: shop}
spec:
  hosts: [cart]
  http:
  - name: beta
    match: [{uri: {prefix: /api/}, method: {exact: POST}, headers: {x-beta: {exact: "1"}}, queryParams: {q: {exact: a b}}}]
    rewrite: {uri: /v2/}
    route: [{destination: {host: cart, subset: v2}}]
    timeout: 3s
    retries: {attempts: 2, perTryTimeout: 1s}
    fault: {delay: {percentage: {value: 50}, fixedDelay: 1s}}
  - match: [{uri: {prefix: /old}}]
    redirect: {uri: /new, redirectCode: 308}
  - match: [{uri: {prefix: /lost}}]
    route: [{destination: {host: absent}}]
  - match: [{uri: {prefix: /cart}}]
    route:
    - {destination: {host: cart, subset: v1}, weight: 90}
    - {destination: {host: cart, subset: v2}, weight: 10}
"#;

/// Pods of the Service, and replicas of the waypoint, in two regions.
const PLACES: &str = r#"
---
apiVersion: v1
kind: Node
metadata: {name: a, labels: {topology.kubernetes.io/region: eu, topology.kubernetes.io/zone: eu-a}}
---
apiVersion: v1
kind: Node
metadata: {name: b, labels: {topology.kubernetes.io/region: us, topology.kubernetes.io/zone: us-b}}
---
apiVersion: v1
kind: Pod
metadata: {name: cart-1, namespace: shop, uid: u1, labels: {app: cart, mesh.dev/join: enabled}}
spec: {nodeName: a, containers: []}
status: {podIP: 10.1.0.1, phase: Running, conditions: [{type: Ready, status: "True"}]}
---
apiVersion: v1
kind: Pod
metadata: {name: cart-2, namespace: shop, uid: u2, labels: {app: cart, mesh.dev/join: enabled}}
spec: {nodeName: b, containers: []}
status: {podIP: 10.1.0.2, phase: Running, conditions: [{type: Ready, status: "True"}]}
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: shop, uid: u3, labels: {mesh.dev/join: enabled}}
spec: {nodeName: a, containers: []}
status: {podIP: 10.1.0.3, phase: Running, conditions: [{type: Ready, status: "True"}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: bare-1, namespace: shop, labels: {kubernetes.io/service-name: far}}
addressType: IPv4
ports: [{port: 8080}]
endpoints: [{addresses: [10.1.0.1]}, {addresses: [10.1.0.2]}]
---
apiVersion: v1
kind: Service
metadata: {name: far, namespace: shop}
spec: {clusterIP: 10.96.0.3, ports: [{port: 80}], trafficDistribution: PreferSameZone}
"#;

/// A replica of the waypoint on a node, and the Service that leads to the replicas.
fn replica(number: u8, node: &str) -> String {
    format!(
        "---
apiVersion: v1
kind: Pod
metadata: {{name: waypoint-{number}, namespace: shop, uid: w{number}, labels: {{gateway.networking.k8s.io/gateway-name: waypoint, mesh.dev/join: enabled}}}}
spec: {{nodeName: {node}, containers: []}}
status: {{podIP: 10.1.1.{number}, phase: Running, conditions: [{{type: Ready, status: \"True\"}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: waypoint-{number}, namespace: shop, labels: {{kubernetes.io/service-name: waypoint}}}}
addressType: IPv4
ports: [{{port: 15008}}]
endpoints: [{{addresses: [10.1.1.{number}]}}]
"
    )
}

const WAYPOINT: &str = "---
apiVersion: v1
kind: Service
metadata: {name: waypoint, namespace: shop}
spec: {clusterIP: 10.96.0.9, ports: [{port: 15008}]}
";

fn route(arguments: &[&str]) -> Output {
    route_by(MANIFESTS, arguments)
}

fn route_by(manifests: &str, arguments: &[&str]) -> Output {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("input.yaml"), manifests).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_mesh-ctl"));
    command.arg("route").args(arguments).arg("--config").arg(dir.path()).output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn the_rule_that_counts_is_named_with_all_that_it_does() {
    let output = route(&["-X", "POST", "-H", "X-Beta: 1", "http://cart.shop/api/items?q=a+b"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let expected = "\
service    cart.shop.svc.cluster.local
waypoint   shop/waypoint
policies   none is about it
rule       VirtualService shop/cart rule beta
matches    /api/*, method=POST, x-beta=1, ?q=a b
request    forwarded
to         100.0000 %  cart.shop.svc.cluster.local:80 subset v2
as         /v2/items
with       50 % delayed by 1s
           timeout 3s
           up to 2 retries, each at most 1s
";
    assert_eq!(text(&output), expected);
}

#[test]
fn shares_follow_the_weights() {
    let output = route(&["-o", "json", "http://cart.shop/cart"]);
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["rule"], "VirtualService shop/cart rule 3");
    assert_eq!(answer["backends"][0]["percent"], 90.0);
    assert_eq!(answer["backends"][1]["to"], "cart.shop.svc.cluster.local:80 subset v2");
}

#[test]
fn a_request_that_no_backend_gets_is_told_by_the_exit_code_unless_the_rule_answers() {
    let cases = [
        ("http://cart.shop/api/items", 1, "answered with 404"),
        ("http://cart.shop/x/%2e%2e/%6cost", 1, "VirtualService shop/cart rule 2"),
        ("http://cart.shop/%00", 1, "answered with 400"),
        ("http://cart.shop/lost", 1, "nobody, answered with 503: absent.shop.svc.cluster.local is no Service's"),
        ("http://cart.shop/old/page?x=1", 0, "answered with 308: go to http://cart.shop/new?x=1"),
        ("http://bare.shop/", 0, "forwarded as it is: the Service has no waypoint"),
    ];
    for (url, code, what) in cases {
        let output = route(&[url]);
        assert_eq!(output.status.code(), Some(code), "{url} {output:?}");
        assert!(text(&output).contains(what), "{what} in\n{}", text(&output));
    }
}

#[test]
fn what_is_no_request_to_a_service_is_refused_with_the_remedy() {
    let cases = [
        ("/cart", "http://SERVICE.NAMESPACE"),
        ("https://cart.shop/", "http://SERVICE.NAMESPACE"),
        ("http://nowhere.shop/", "nowhere"),
        ("http://10.96.0.9/", "10.96.0.9"),
    ];
    for (url, remedy) in cases {
        let output = route(&[url]);
        assert_eq!(output.status.code(), Some(2), "{url} {output:?}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(remedy), "{remedy} in {said}");
    }
}

#[test]
fn servers_are_told_apart_by_where_they_are_seen_from_a_replica() {
    let one = [MANIFESTS, PLACES, WAYPOINT, &replica(1, "b")].concat();
    let told = text(&route_by(&one, &["http://far.shop/"]));
    let expected = "\
to         100.0000 %  far.shop.svc.cluster.local:80
             chosen by trafficDistribution: PreferSameZone, seen from shop/waypoint-1 in us/us-b
             shop/cart-2 (10.1.0.2:8080) by mtls, in us/us-b, first
             shop/cart-1 (10.1.0.1:8080) by mtls, in eu/eu-a, priority 1, stands in for those before it
";
    assert!(told.ends_with(expected), "{told}");
    // Replicas see it from where each of them is, and none is asked: nobody says that nothing is ejected.
    let two = [&one, &*replica(2, "a")].concat();
    let told = text(&route_by(&two, &["http://far.shop/"]));
    let seen = "seen from shop/waypoint-1 in us/us-b; another replica sees it otherwise, from where it is\n";
    assert!(told.contains(seen) && !told.contains("eject"), "{told}");
    // Without pods of the waypoint nobody knows from where.
    let told = text(&route_by(&[MANIFESTS, PLACES].concat(), &["http://far.shop/"]));
    assert!(!told.contains("chosen by"), "{told}");
}

#[test]
fn what_localities_leave_out_is_said() {
    let rule = "---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: far, namespace: shop}
spec:
  host: far
  trafficPolicy: {loadBalancer: {localityLbSetting: {distribute: [{from: us/*, to: {us: 100}}]}}}
";
    let manifests = [MANIFESTS, PLACES, WAYPOINT, &replica(1, "b"), rule].concat();
    let output = route_by(&manifests, &["-o", "json", "http://far.shop/"]);
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let backend = &answer["backends"][0];
    assert_eq!((&backend["endpoints"], &backend["preferred"]["others"]), (&1.into(), &1.into()), "{answer:#}");
    assert_eq!(backend["servers"][0]["share"], 100, "{answer:#}");
    assert_eq!(backend["servers"][1]["leftOut"], true, "{answer:#}");
    let near =
        manifests.replace("trafficDistribution: PreferSameZone", "internalTrafficPolicy: Local").replace(rule, "");
    let told = text(&route_by(&near, &["--from", "shop/client", "http://far.shop/"]));
    assert!(told.contains("chosen by internalTrafficPolicy: Local, seen from shop/client in eu/eu-a\n"), "{told}");
    assert!(told.contains("shop/cart-1 (10.1.0.1:8080) by mtls, in eu/eu-a\n"), "{told}");
    assert!(told.contains("shop/cart-2 (10.1.0.2:8080) by mtls, in us/us-b, left out, for where it is\n"), "{told}");
}
