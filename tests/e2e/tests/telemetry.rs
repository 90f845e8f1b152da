//! What is told of connections: Istio's metrics on both sides, the kernel's counters, readiness, a log line at the end.

use std::net::SocketAddr;

use anyhow::Context as _;
use mesh_e2e::{Connect, Mesh, NODES, Verdict, client, port, server, traffic};
use mesh_lab::{Place, ServiceSpec};

const CLIENT: &str = "spiffe://cluster.local/ns/app/sa/client";
const SERVER: &str = "spiffe://cluster.local/ns/app/sa/server";

/// Octets of a stream's header, which count as the client's.
const HEADER: f64 = 40.0;

#[test]
fn both_sides_count_connections_and_bytes_with_the_identities_of_both() -> Verdict {
    let mesh = Mesh::start()?;
    mesh.join(server("server", "node-b").label("version", "v2"))?;
    let spec = ServiceSpec::new("app", "stream").select("app", "server").port("tcp", 80, port::STREAM);
    let service = mesh.lab.service(spec)?;
    let client = mesh.join(client("client", "node-a").label("app", "client"))?;
    mesh.settle()?;
    for to in [service.at(80), service.at_v6(80)] {
        traffic(&client, "half-close", to, &["--first", "client", "--bytes", "70000"])?;
    }
    let common = [
        ("source_principal", CLIENT),
        ("destination_principal", SERVER),
        ("connection_security_policy", "mutual_tls"),
        ("source_workload", "client"),
        ("source_workload_namespace", "app"),
        ("source_app", "client"),
        ("destination_workload", "server"),
        ("destination_workload_namespace", "app"),
        ("destination_app", "server"),
        ("destination_version", "v2"),
        ("destination_canonical_service", "server"),
        ("destination_canonical_revision", "v2"),
        ("request_protocol", "tcp"),
        ("response_flags", "-"),
    ];
    for (node, reporter) in NODES.into_iter().zip(["source", "destination"]) {
        mesh.told(node, 2)?;
        let metrics = mesh.metrics(node)?;
        let labels = [&common[..], &[("reporter", reporter)]].concat();
        for (name, expected) in [
            ("istio_tcp_connections_opened_total", 2.0),
            ("istio_tcp_connections_closed_total", 2.0),
            ("istio_tcp_received_bytes_total", 2.0 * (70_000.0 + HEADER)),
            ("istio_tcp_sent_bytes_total", 2.0 * 70_000.0),
        ] {
            assert_eq!(
                metrics.sum(name, &labels),
                expected,
                "{name} on {node}: {:#?}",
                metrics.of(name, &[]).collect::<Vec<_>>()
            );
            assert_eq!(metrics.sum(name, &[]), expected, "{name} on {node} with other labels");
        }
    }
    let at_source = [
        ("destination_service", "stream.app.svc.cluster.local"),
        ("destination_service_name", "stream"),
        ("destination_service_namespace", "app"),
    ];
    assert_eq!(mesh.metrics("node-a")?.sum("istio_tcp_connections_opened_total", &at_source), 2.0);
    Ok(())
}

#[test]
fn plaintext_has_no_principal() -> Verdict {
    let mesh = Mesh::start()?;
    let enrolled = mesh.join(server("server", "node-b"))?;
    let outside = mesh.lab.outside("outside")?;
    Connect::to(SocketAddr::new(enrolled.ipv4(), port::ECHO)).answered(&outside)?;
    let labels = [
        ("reporter", "destination"),
        ("source_principal", "unknown"),
        ("source_workload", "unknown"),
        ("destination_principal", "unknown"),
        ("destination_workload", "server"),
        ("connection_security_policy", "none"),
    ];
    mesh.told("node-b", 1)?;
    let metrics = mesh.metrics("node-b")?;
    assert_eq!(metrics.sum("istio_tcp_connections_opened_total", &labels), 1.0);
    Ok(())
}

#[test]
fn refused_connections_are_told_with_their_reason() -> Verdict {
    let mesh = Mesh::start()?;
    let far = mesh.join(server("server", "node-b"))?;
    let service = mesh.lab.service(ServiceSpec::new("app", "empty").select("app", "nobody").port("tcp", 80, 80))?;
    let client = mesh.join(client("client", "node-a"))?;
    mesh.settle()?;
    Connect::to(service.at(80)).run(&client)?;
    Connect::to(SocketAddr::new(far.ipv4(), port::CLOSED)).run(&client)?;
    let lines = mesh.told("node-a", 2)?;
    let metrics = mesh.metrics("node-a")?;
    for (reason, flags) in [("no_endpoint", "UH"), ("unreachable", "UF")] {
        let refused = metrics.sum("mesh_connections_refused_total", &[("reporter", "source"), ("reason", reason)]);
        assert_eq!(refused, 1.0, "{reason}");
        assert_eq!(metrics.sum("istio_tcp_connections_opened_total", &[("response_flags", flags)]), 1.0, "{flags}");
    }
    let ends: Vec<_> = lines.iter().map(|line| (line["end"].as_str(), line["error"].is_string())).collect();
    assert_eq!(ends, [(Some("no_endpoint"), true), (Some("unreachable"), true)]);
    Ok(())
}

#[test]
fn what_the_hooks_do_is_counted_under_a_closed_set_of_reasons() -> Verdict {
    let mesh = Mesh::start()?;
    let reasons = [
        ("redirect", "outbound_connect"),
        ("redirect", "inbound_plaintext"),
        ("pass", "udp"),
        ("drop", "reserved_port"),
        ("drop", "no_socket_record"),
        ("drop", "unattested_syn"),
        ("drop", "no_listener"),
        ("drop", "steer_failed"),
        ("drop", "tcp_fragment"),
        ("drop", "malformed_packet"),
        ("pass", "direct_connect"),
        ("pass", "direct_inbound"),
        ("drop", "forged_flow"),
        ("drop", "unattestable_syn"),
        ("lost", "direct_event"),
        ("lost", "drop_event"),
        ("lost", "drop_event_limit"),
        ("pass", "kubelet_probe"),
        ("lost", "direct_signal"),
        ("lost", "direct_signal_limit"),
        ("lost", "direct_frames"),
        ("answer", "dns"),
    ];
    let metrics = mesh.metrics("node-a")?;
    for (action, reason) in reasons {
        let labels = [("action", action), ("reason", reason)];
        let values: Vec<_> = metrics.of("mesh_ebpf_events_total", &labels).map(|sample| sample.value).collect();
        assert_eq!(values, [0.0], "{action} {reason}");
    }
    assert_eq!(metrics.of("mesh_ebpf_events_total", &[]).count(), reasons.len());

    let [client, far] = mesh.client_and_server()?;
    let outside = mesh.lab.outside("outside")?;
    let to = SocketAddr::new(far.ipv4(), port::ECHO);
    for _ in 0..3 {
        Connect::to(to).answered(&client)?;
        Connect::to(to).answered(&outside)?;
    }
    assert_eq!(mesh.events("node-a", "outbound_connect")?, 3);
    assert_eq!(mesh.events("node-b", "inbound_plaintext")?, 3);
    assert_eq!(mesh.events("node-b", "outbound_connect")?, 0);
    Ok(())
}

#[test]
fn a_line_at_a_connections_end_says_who_talked_to_whom() -> Verdict {
    let mesh = Mesh::start()?;
    let far = mesh.join(server("server", "node-b"))?;
    let spec = ServiceSpec::new("app", "echo").select("app", "server").port("tcp", 80, port::ECHO);
    let service = mesh.lab.service(spec)?;
    let client = mesh.join(client("client", "node-a"))?;
    mesh.settle()?;
    let answer = Connect::to(service.at(80)).saying("1234567").answered(&client)?;
    let source = answer.local.map(|local| local.to_string());
    let destination = SocketAddr::new(far.ipv4(), port::ECHO).to_string();
    for (node, reporter) in NODES.into_iter().zip(["source", "destination"]) {
        let line = mesh.told(node, 1)?.remove(0);
        for (field, expected) in [
            ("reporter", reporter),
            ("source", source.as_deref().unwrap_or_default()),
            ("source_pod", "app/client"),
            ("source_principal", CLIENT),
            ("destination", &destination),
            ("destination_pod", "app/server"),
            ("destination_principal", SERVER),
            ("security", "mutual_tls"),
            ("end", "closed"),
        ] {
            assert_eq!(line[field], expected, "{field} on {node}: {line}");
        }
        assert_eq!((&line["bytes_from_client"], &line["bytes_to_client"]), (&8.into(), &8.into()), "{line}");
        assert!(line["duration_us"].is_u64() && line["timestamp"].is_string(), "{line}");
        assert_eq!((&line["level"], &line["message"]), (&"INFO".into(), &"connection".into()), "{line}");
        let metrics = mesh.metrics(node)?;
        let by_it = [("reporter", reporter)];
        let closed = metrics.of("istio_tcp_connections_closed_total", &by_it).next();
        let labels = &closed.context("no series of the connection")?.labels;
        assert_eq!(labels.len(), 23, "{labels:?}");
        for (label, value) in labels {
            assert_eq!(line[label.as_str()], value.as_str(), "{label} on {node}: {line}");
        }
        if reporter == "source" {
            assert_eq!(line["destination_service"], "echo.app.svc.cluster.local", "{line}");
            assert_eq!(line["original_destination"], service.at(80).to_string(), "{line}");
        }
    }
    Ok(())
}

#[test]
fn readiness_and_metrics_answer_on_their_own_ports() -> Verdict {
    let mesh = Mesh::start()?;
    let daemon = mesh.daemon("node-a")?;
    for (port, path, status) in [
        (15_021, "/healthz/ready", 200),
        (15_021, "/healthz/live", 200),
        (15_021, "/metrics", 404),
        (15_020, "/metrics", 200),
        (15_020, "/stats/prometheus", 200),
        (15_020, "/healthz/ready", 404),
    ] {
        assert_eq!(daemon.get(port, path)?.0, status, "{port}{path}");
    }
    Ok(())
}
