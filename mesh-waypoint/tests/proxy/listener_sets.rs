//! Listeners that ListenerSets add to a Gateway.

use std::time::Duration;

use crate::gateway::{Certificate, GATEWAY, gateway, get};
use crate::server::serve;
use crate::world::{OUTSIDE, World, run_as};

/// A Gateway with one listener of its own, that takes sets of namespaces so.
fn taking(namespaces: &str) -> String {
    let class = "gatewayClassName: mesh, ";
    let sets = format!("allowedListeners: {{namespaces: {namespaces}}}, ");
    gateway("{name: own, port: 8000, protocol: HTTP, hostname: a.example}").replace(class, &format!("{class}{sets}"))
}

/// A set of a namespace with an HTTPS listener, its own certificate, and a route of the set to `outside`.
fn set(namespace: &str, listener: &str) -> String {
    format!(
        "apiVersion: v1
kind: Namespace
metadata: {{name: {namespace}, labels: {{team: {namespace}}}}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: ListenerSet
metadata: {{name: more, namespace: {namespace}}}
spec: {{parentRef: {{name: edge, namespace: shop}}, listeners: [{listener}]}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: more, namespace: {namespace}}}
spec:
  parentRefs: [{{kind: ListenerSet, name: more}}]
  rules: [{{backendRefs: [{{name: outside, namespace: shop, port: 80}}]}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: ReferenceGrant
metadata: {{name: {namespace}, namespace: shop}}
spec:
  from: [{{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: {namespace}}}]
  to: [{{group: '', kind: Service}}]
---
"
    )
}

async fn becomes(world: &World, manifests: &str, (url, more): (&str, &[&str]), status: &str) {
    world.configure(manifests);
    while get(url, more).await.0 != status {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn a_gateway_takes_the_listeners_of_those_whom_it_admits() {
    run_as(GATEWAY, "", async |world: World| {
        let _outside = serve(OUTSIDE, 8080, false).await;
        let certificate = Certificate::new(&world, "server", &["b.example"]);
        let secret = certificate.secret("cert").replace("namespace: shop", "namespace: team-b");
        let https =
            "{name: https, port: 8443, protocol: HTTPS, hostname: b.example, tls: {certificateRefs: [{name: cert}]}}";
        let rest = format!("{}{secret}", set("team-b", https));
        let asked: (&str, &[&str]) = ("https://b.example:8443/", &["--cacert", certificate.roots()]);
        // A port that nobody listens on is waited for by the first question; later ones stay open for their Gateway's other sets.
        let other = set("team-c", "{name: http, port: 8443, protocol: HTTPS, hostname: c.example}");
        for (namespaces, status) in [
            ("{from: All}", "200"),
            ("{from: Selector, selector: {matchLabels: {team: team-c}}}", "000"),
            ("{from: Selector, selector: {matchLabels: {team: team-b}}}", "200"),
        ] {
            becomes(&world, &format!("{}{rest}{other}", taking(namespaces)), asked, status).await;
        }
        // What is attached to the set is at its listeners alone, and what is attached to the Gateway is not there.
        assert_eq!(get("http://a.example:8000/", &[]).await, ("200".into(), OUTSIDE.into()));
        let of_set = set("team-b", https)
            .replace("rules: [{backendRefs", "rules: [{matches: [{path: {value: /set}}], backendRefs");
        let all = format!("{}{of_set}{secret}", taking("{from: All}"));
        becomes(&world, &all, asked, "404").await;
        assert_eq!(get("https://b.example:8443/set", asked.1).await.0, "200");
        assert_eq!(get("http://a.example:8000/set", &[]).await.0, "200", "a route of the Gateway, of any path");
    });
}

#[test]
fn the_gateways_own_listener_comes_before_a_sets() {
    run_as(GATEWAY, "", async |world: World| {
        let _outside = serve(OUTSIDE, 8080, false).await;
        let listeners = "{name: same, port: 8000, protocol: HTTP, hostname: a.example}, \
                         {name: free, port: 8000, protocol: HTTP, hostname: b.example}";
        let of_set = set("team-b", listeners).replace("rules: [{", "rules: [{filters: [{type: RequestRedirect, requestRedirect: {statusCode: 302, path: {type: ReplaceFullPath, replaceFullPath: /set}}}], ");
        let of_set = of_set.replace(", backendRefs: [{name: outside, namespace: shop, port: 80}]", "");
        world.configure(&format!("{}{of_set}", taking("{from: All}")));
        while get("http://b.example:8000/", &[]).await.0 != "302" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(get("http://a.example:8000/", &[]).await.0, "200");
    });
}
