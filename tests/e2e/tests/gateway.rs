//! The ingress gateway: clients outside reach Services of the mesh over mTLS, under the gateway's identity.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context as _;
use mesh_e2e::{Connect, Mesh, PATIENCE, Verdict, connections, port, server};
use mesh_lab::{Ingress, Outside, Place as _, Pod, PodSpec, ServiceSpec, wait_until};

const GATEWAY: &str = "spiffe://cluster.local/ns/edge/sa/gateway";

/// A connection of the gateway's in the log of node b.
fn of_the_gateway(mesh: &Mesh) -> anyhow::Result<serde_json::Value> {
    let daemon = mesh.daemon("node-b")?;
    wait_until("a connection of the gateway's in the server's log", PATIENCE, || {
        Ok(connections(daemon).into_iter().find(|line| line["source_principal"] == GATEWAY))
    })
}

/// A request for a host from outside, to the gateway's pod: the status and who answered.
fn get(outside: &Outside, gateway: &Pod, url: &str, more: &[&str]) -> anyhow::Result<String> {
    let connect = format!("::{}:", gateway.ipv4());
    let format = "%{http_code} %header{x-served-by}";
    let usual =
        ["curl", "--silent", "--show-error", "--max-time", "20", "--output", "/dev/null", "--write-out", format];
    let argv = [&usual[..], &["--connect-to", &connect], more, &[url]].concat();
    let output = outside.exec_within(PATIENCE * 2, &argv)?;
    Ok(output.stdout.trim().to_owned())
}

#[test]
fn a_client_outside_reaches_a_service_through_the_gateway_over_mtls() -> Verdict {
    let mesh = Mesh::start()?;
    mesh.join(server("server", "node-b"))?;
    let spec = ServiceSpec::new("app", "server").select("app", "server").port("tcp", 80, port::ECHO);
    mesh.lab.service(spec)?;
    let gateway = Ingress::new("edge", "gateway").port(8000);
    gateway.lead_tcp(&mesh.lab, "server", 80)?;
    let pod = gateway.start_here(&mesh.lab, "node-a")?;
    let outside = mesh.lab.outside("outside")?;
    for ip in pod.addresses() {
        Connect::to(SocketAddr::new(ip, 8000)).answered(&outside)?;
    }
    let line = of_the_gateway(&mesh)?;
    assert_eq!(line["security"], "mutual_tls", "{line}");
    Ok(())
}

/// A frontend on node b behind its Service, in the namespace `default`, which is in the mesh and STRICT.
fn frontend(mesh: &Mesh) -> anyhow::Result<()> {
    mesh.lab.label_namespace("default", "mesh.dev/join", "enabled")?;
    let command = ["mesh-traffic", "http", "--listen", "[::]:8080", "--name", "frontend"];
    let pod = PodSpec::new("default", "frontend").on("node-b").service_account("frontend").label("app", "frontend");
    mesh.join(pod.command(command).port("http", 8080))?;
    mesh.lab.service(ServiceSpec::new("default", "frontend").select("app", "frontend").port("http", 80, 8080))?;
    let strict = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: default, namespace: default}\n\
                  spec: {mtls: {mode: STRICT}}\n";
    mesh.lab.apply("strict.yaml", strict)
}

#[test]
fn the_guides_gateway_lets_its_host_in_and_no_other() -> Verdict {
    let mesh = Mesh::without_labels()?;
    frontend(&mesh)?;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crates/mesh-config/fixtures/istio-guide");
    let guide = std::fs::read_to_string(folder.join("gateway-frontend.yaml")).context("the guide's file")?;
    mesh.lab.apply("gateway-frontend.yaml", &guide)?;
    let gateway = Ingress::new("edge", "gateway").port(80).label("istio", "ingressgateway");
    let pod = gateway.start_here(&mesh.lab, "node-a")?;
    let outside = mesh.lab.outside("outside")?;
    assert_eq!(get(&outside, &pod, "http://frontend.example.com/", &[])?, "200 frontend");
    assert_eq!(get(&outside, &pod, "http://other.example.com/", &[])?, "404");
    // Its connection is kept for the next request.
    wait_until("a connection of the gateway's over mTLS", PATIENCE, || {
        let labels = [
            ("source_principal", GATEWAY),
            ("connection_security_policy", "mutual_tls"),
            ("destination_workload", "frontend"),
        ];
        let opened = mesh.metrics("node-b")?.sum("istio_tcp_connections_opened_total", &labels);
        Ok((opened > 0.0).then_some(()))
    })?;
    Ok(())
}

/// The same by the Gateway API, with two versions by weight and one by a header.
const ROUTES: &str = "apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gateway, namespace: edge}
spec:
  gatewayClassName: mesh
  listeners: [{name: http, port: 80, protocol: HTTP, hostname: '*.example.com', allowedRoutes: {namespaces: {from: All}}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: frontend, namespace: default}
spec:
  parentRefs: [{name: gateway, namespace: edge}]
  hostnames: [frontend.example.com]
  rules:
  - matches: [{path: {type: PathPrefix, value: /old}}]
    filters: [{type: RequestRedirect, requestRedirect: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}, statusCode: 301}}]
  - backendRefs: [{name: frontend, port: 80}]
    filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x-served-by, value: by-route}]}}]
";

#[test]
fn the_gateway_apis_routes_lead_in_from_outside() -> Verdict {
    let mesh = Mesh::without_labels()?;
    frontend(&mesh)?;
    mesh.lab.apply("routes.yaml", ROUTES)?;
    let pod = Ingress::new("edge", "gateway").port(80).start_here(&mesh.lab, "node-a")?;
    let outside = mesh.lab.outside("outside")?;
    assert_eq!(get(&outside, &pod, "http://frontend.example.com/", &[])?, "200 by-route");
    assert_eq!(get(&outside, &pod, "http://frontend.example.com/old/1", &[])?, "301");
    assert_eq!(get(&outside, &pod, "http://frontend.example.org/", &[])?, "404");
    assert_eq!(get(&outside, &pod, "http://frontend.example.com/", &["--http2-prior-knowledge"])?, "200 by-route");
    Ok(())
}
