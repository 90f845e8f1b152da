//! Spans of tunnels' set-up, by OTLP to a collector.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result};
use mesh_e2e::{
    Collector, Connect, Mesh, NAMESPACE, NODES, Otlp, PATIENCE, Verdict, Waypoint, attribute, client, echo, port,
};
use mesh_lab::{Place, PodSpec, ServiceSpec, wait_until};
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind};

/// A mesh that traces every connection, with a collector on each node.
fn traced(otlp: Otlp) -> Result<(Mesh, [Collector; 2])> {
    let mut mesh = Mesh::without_daemons()?;
    let mut collectors = Vec::new();
    for node in NODES {
        let collector = Collector::start(&mesh.lab.node(node)?, otlp)?;
        let protocol = format!("{otlp:?}").to_lowercase();
        let url = collector.url();
        mesh.start_daemon_with(
            node,
            &["--otlp-endpoint", &url, "--otlp-protocol", &protocol, "--trace-sampling", "1"],
        )?;
        collectors.push(collector);
    }
    mesh.label()?;
    let collectors = collectors.try_into().map_err(|_| anyhow::anyhow!("there are two nodes"))?;
    Ok((mesh, collectors))
}

fn one_trace_across_both_nodes(otlp: Otlp) -> Verdict {
    let (mesh, [at_client, at_server]) = traced(otlp)?;
    let [pod, server] = mesh.client_and_echo()?;
    Connect::to(SocketAddr::new(server.ipv4(), port::ECHO)).answered(&pod)?;
    let first = |collector: &Collector, name: &str| {
        wait_until(&format!("a span {name}"), PATIENCE, || {
            Ok(collector.spans().into_iter().find(|span| span.name == name))
        })
    };
    let (connect, accept) = (first(&at_client, "connect")?, first(&at_server, "accept")?);
    assert_eq!(connect.trace_id, accept.trace_id);
    assert_eq!(connect.span_id, accept.parent_span_id);
    assert!(connect.parent_span_id.is_empty());
    assert!(connect.start_time_unix_nano <= accept.start_time_unix_nano);
    assert!(accept.start_time_unix_nano <= accept.end_time_unix_nano);
    for span in [&connect, &accept] {
        assert_eq!(attribute(span, "mesh.client.principal"), Some("spiffe://cluster.local/ns/app/sa/client"));
        assert_eq!(attribute(span, "mesh.server.principal"), Some("spiffe://cluster.local/ns/app/sa/server"));
        assert_eq!(attribute(span, "server.address"), Some(server.ipv4().to_string().as_str()));
        assert_eq!(attribute(span, "error.type"), None, "{span:?}");
        assert!(span.status.is_none());
    }
    for node in NODES {
        let count = |result| -> Result<f64> { Ok(mesh.metrics(node)?.sum("mesh_spans_total", &[("result", result)])) };
        wait_until("the span to be counted", PATIENCE, || Ok((count("exported")? >= 1.0).then_some(())))?;
        assert_eq!((count("failed")?, count("dropped")?), (0.0, 0.0), "{node}");
    }
    Ok(())
}

#[test]
fn a_connections_set_up_is_one_trace_across_both_nodes_over_grpc() -> Verdict {
    one_trace_across_both_nodes(Otlp::Grpc)
}

#[test]
fn a_connections_set_up_is_one_trace_across_both_nodes_over_http() -> Verdict {
    one_trace_across_both_nodes(Otlp::Http)
}

/// A collector in a pod of the mesh.
const PROVIDER: &str = "- name: otel
  opentelemetry: {service: collector.app.svc.cluster.local, port: 4317}
";

/// All connections traced there, with a tag.
const BY_TELEMETRY: &str = "apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: mesh, namespace: istio-system}
spec:
  tracing:
  - providers: [{name: otel}]
    randomSamplingPercentage: 100
    customTags: {stage: {literal: {value: trial}}, user: {header: {name: x-user, defaultValue: nobody}}}
";

/// Whoever has this label has no spans.
const QUIET: &str = "---
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: quiet, namespace: app}
spec:
  selector: {matchLabels: {traced: 'no'}}
  tracing: [{disableSpanReporting: true}]
";

#[test]
fn telemetries_say_which_nodes_spans_go_where_by_the_pods_at_both_ends() -> Verdict {
    let mesh = Mesh::start()?;
    let server = mesh.join(echo("server", "node-b"))?;
    let loud = mesh.join(client("loud", "node-a"))?;
    let quiet = mesh.join(client("quiet", "node-a").label("traced", "no"))?;
    let pod = mesh.join(PodSpec::new(NAMESPACE, "collector").on(NODES[1]).label("app", "collector"))?;
    let collector = Collector::start_in(&pod)?;
    let spec = ServiceSpec::new(NAMESPACE, "collector").select("app", "collector");
    mesh.lab.service(spec.port("grpc", 4317, collector.port()))?;
    mesh.provide(PROVIDER)?;
    mesh.lab.apply("telemetry.yaml", &[BY_TELEMETRY, QUIET].concat())?;
    mesh.settle()?;
    let to = SocketAddr::new(server.ipv4(), port::ECHO);
    for client in [&quiet, &loud] {
        Connect::to(to).answered(client)?;
    }
    let of = |name: &str, client: &str| {
        let is = |span: &Span| span.name == name && attribute(span, "mesh.client.pod") == Some(client);
        collector.spans().into_iter().find(is)
    };
    let (connect, accept, alone) = wait_until("the spans of three ends", PATIENCE, || {
        Ok(of("connect", "loud").zip(of("accept", "loud")).zip(of("accept", "quiet")))
    })
    .map(|((connect, accept), alone)| (connect, accept, alone))?;
    assert_eq!((&connect.trace_id, &connect.span_id), (&accept.trace_id, &accept.parent_span_id));
    assert!(alone.parent_span_id.is_empty(), "its client's node has no span: {alone:?}");
    for span in [&connect, &accept, &alone] {
        assert_eq!((attribute(span, "stage"), attribute(span, "user")), (Some("trial"), Some("nobody")), "{span:?}");
    }
    // The span of the quiet one's end would have come before.
    assert!(of("connect", "quiet").is_none());
    // First none is recorded, then nothing is said of spans and no flag names a collector, and then all are recorded again.
    for telemetry in [&BY_TELEMETRY.replace(": 100", ": 0"), "", &BY_TELEMETRY.replace("trial", "again")] {
        mesh.lab.apply("telemetry.yaml", telemetry)?;
        mesh.settle()?;
        Connect::to(to).answered(&loud)?;
    }
    let stages = wait_until("the span of the last connection", PATIENCE, || {
        let is = |span: &Span| span.name == "connect" && attribute(span, "mesh.client.pod") == Some("loud");
        let spans = collector.spans().into_iter().filter(is);
        let stages: Vec<_> = spans.map(|span| attribute(&span, "stage").map(str::to_owned)).collect();
        Ok(stages.iter().flatten().any(|stage| stage == "again").then_some(stages))
    })?;
    assert_eq!(stages.len(), 2, "the first and the last: {stages:?}");
    Ok(())
}

#[test]
fn a_refused_connection_is_a_span_with_the_reason() -> Verdict {
    let (mesh, [at_client, _]) = traced(Otlp::Grpc)?;
    let [pod, server] = mesh.client_and_echo()?;
    let answer = Connect::to(SocketAddr::new(server.ipv4(), 9)).run(&pod)?;
    assert!(answer.was_refused(), "{answer:?}");
    let failed = wait_until("a failed span", PATIENCE, || {
        Ok(at_client.spans().into_iter().find(|span| attribute(span, "error.type").is_some()))
    })?;
    assert_eq!(attribute(&failed, "error.type"), Some("unreachable"));
    let status = failed.status.context("no status")?;
    assert!(!status.message.is_empty());
    Ok(())
}

#[test]
fn a_collector_that_is_away_costs_spans_and_no_connection() -> Verdict {
    let mut mesh = Mesh::without_daemons()?;
    for node in NODES {
        mesh.start_daemon_with(node, &["--otlp-endpoint", "http://127.0.0.1:9", "--trace-sampling", "1"])?;
    }
    mesh.label()?;
    let [pod, server] = mesh.client_and_echo()?;
    for _ in 0..3 {
        Connect::to(SocketAddr::new(server.ipv4(), port::ECHO)).answered(&pod)?;
    }
    let daemon = mesh.daemon("node-a")?;
    wait_until("the lost spans to be counted", PATIENCE, || {
        let lost = daemon.metrics()?.sum("mesh_spans_total", &[("result", "failed")]);
        Ok((lost >= 1.0).then_some(()))
    })?;
    assert!(daemon.logs().contains("spans are lost until the collector takes them"), "{}", daemon.logs());
    Ok(())
}

#[test]
fn a_request_by_a_waypoint_is_one_trace_from_the_clients_node_to_the_servers() -> Verdict {
    let (mesh, [at_client, at_server]) = traced(Otlp::Grpc)?;
    let product = client("product", "node-b").label("app", "product").port("http", 8080);
    mesh.join(product.command(["mesh-shop", "product", "--listen", "[::]:8080"]))?;
    let spec = ServiceSpec::new(NAMESPACE, "product").select("app", "product").port("http", 80, 8080);
    let service = mesh.lab.service(spec)?;
    let pod = mesh.join(client("client", "node-a"))?;
    let node = mesh.lab.node("node-b")?;
    let address = node.addresses().into_iter().find(IpAddr::is_ipv4).context("node-b has no address")?;
    let at_waypoint = Collector::start_at(&node, address, Otlp::Http)?;
    let waypoint = Waypoint::declare_in(&mesh, NAMESPACE, "waypoint")?;
    let url = at_waypoint.url();
    let flags = ["--otlp-endpoint", &url, "--otlp-protocol", "http", "--trace-sampling", "0"];
    waypoint.replica_with(&mesh, "waypoint-1", "node-b", &flags)?;
    waypoint.serve_namespace(&mesh)?;
    mesh.settle()?;
    let url = format!("http://{}/healthz", service.at(80));
    pod.exec(&["curl", "--silent", "--show-error", "--fail", "--max-time", "30", &url])?;
    let by = |collector: &Collector, principal: &str, kind: SpanKind| {
        wait_until("a span", PATIENCE, || {
            let is = |span: &Span| {
                span.kind == i32::from(kind)
                    && attribute(span, "mesh.client.principal").is_none_or(|id| id.ends_with(principal))
            };
            Ok(collector.spans().into_iter().find(is))
        })
    };
    let connect = by(&at_client, "/sa/client", SpanKind::Client)?;
    let request = by(&at_waypoint, "/sa/client", SpanKind::Server)?;
    let attempt = by(&at_waypoint, "", SpanKind::Client)?;
    let accept = by(&at_server, "/sa/waypoint", SpanKind::Server)?;
    for (above, below) in [(&connect, &request), (&request, &attempt), (&attempt, &accept)] {
        assert_eq!((&below.trace_id, &below.parent_span_id), (&above.trace_id, &above.span_id), "{above:?} {below:?}");
    }
    Ok(())
}
