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

fn route(arguments: &[&str]) -> Output {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("input.yaml"), MANIFESTS).unwrap();
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
