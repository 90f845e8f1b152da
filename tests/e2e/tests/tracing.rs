//! Spans of tunnels' set-up, by OTLP to a collector.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use mesh_e2e::{Collector, Connect, Mesh, NODES, Otlp, PATIENCE, Verdict, attribute, client, echo, port};
use mesh_lab::{Place, wait_until};

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
    let server = mesh.join(echo("server", "node-b"))?;
    let pod = mesh.join(client("client", "node-a"))?;
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

#[test]
fn a_refused_connection_is_a_span_with_the_reason() -> Verdict {
    let (mesh, [at_client, _]) = traced(Otlp::Grpc)?;
    let server = mesh.join(echo("server", "node-b"))?;
    let pod = mesh.join(client("client", "node-a"))?;
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
    let server = mesh.join(echo("server", "node-b"))?;
    let pod = mesh.join(client("client", "node-a"))?;
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
