//! What Kiali asks of Prometheus is there: the labels that it groups by, of HTTP and TCP, by each reporter that it looks at.
//!
//! The labels and reporters are those of its source (kiali/kiali, `graph/telemetry/istio`: `istio.go` for nodes and edges,
//! `appender/security_policy.go`, `response_time.go` and `throughput.go` for what is written at them). It leaves out, with a
//! warning, each series that lacks one of them.

use anyhow::{Context as _, Result, ensure};
use mesh_e2e::{Mesh, PATIENCE, Prometheus, Scraped, Shop, Store, Verdict};
use mesh_lab::wait_until;
use serde_json::Value;

/// Of a node at each end.
const NODES: [&str; 13] = [
    "source_cluster",
    "source_workload_namespace",
    "source_workload",
    "source_canonical_service",
    "source_canonical_revision",
    "destination_cluster",
    "destination_service_namespace",
    "destination_service",
    "destination_service_name",
    "destination_workload_namespace",
    "destination_workload",
    "destination_canonical_service",
    "destination_canonical_revision",
];
/// Of an edge of requests; gRPC's status is there for gRPC alone.
const REQUESTS: [&str; 3] = ["request_protocol", "response_code", "response_flags"];
/// Of an edge's lock, and the identities beside it.
const SECURITY: [&str; 3] = ["source_principal", "destination_principal", "connection_security_policy"];

/// Values of labels.
type Wanted<'a> = &'a [(&'a str, &'a str)];

/// Waits until the series behind a selector that have grown lately, by the labels that Kiali groups by, are there, and among them
/// one of each of the wanted values.
fn grown(prometheus: &Prometheus, selector: &str, labels: &[&str], wanted: &[Wanted<'_>]) -> Result<()> {
    let by: Vec<_> = NODES.iter().chain(labels).copied().collect();
    let query = format!("sum(rate({selector}[20s])) by ({}) > 0", by.join(","));
    let mut last = Vec::new();
    let found = wait_until(&format!("{query} to give {wanted:?}"), PATIENCE, || {
        last = prometheus.query(&query)?;
        Ok((!last.is_empty() && wanted.iter().all(|wanted| has(&last, wanted))).then_some(()))
    });
    found.with_context(|| format!("{last:#?}"))?;
    for series in &last {
        let missing: Vec<_> = by.iter().filter(|label| !series["metric"][**label].is_string()).collect();
        ensure!(missing.is_empty(), "Kiali leaves out {series}: it lacks {missing:?}");
    }
    Ok(())
}

/// Whether one of the series has these values.
fn has(found: &[Value], wanted: Wanted<'_>) -> bool {
    found.iter().any(|series| wanted.iter().all(|(label, value)| series["metric"][*label] == *value))
}

#[test]
fn what_kiali_draws_its_graph_of_is_told_by_every_reporter() -> Verdict {
    let mesh = Mesh::start()?;
    let _shop = Shop::open(&mesh)?;
    let store = Store::open(&mesh)?;
    let prometheus = Prometheus::start_with(
        &mesh,
        &[],
        &Scraped { proxies: &[&store.waypoint, &store.gateway], ..Scraped::default() },
    )?;
    connections(&prometheus)?;
    requests(&prometheus)?;
    refusals(&prometheus)?;
    Ok(())
}

/// Both ends of each connection, and the way by the waypoint from one side to the other.
fn connections(prometheus: &Prometheus) -> Result<()> {
    let labels: Vec<_> = SECURITY.iter().chain(&["response_flags"]).copied().collect();
    for reporter in ["source", "destination"] {
        for metric in ["istio_tcp_sent_bytes_total", "istio_tcp_received_bytes_total"] {
            let edge = [
                ("connection_security_policy", "mutual_tls"),
                ("source_workload", "order-v1"),
                ("destination_canonical_service", "payment"),
                ("destination_canonical_revision", "v1"),
            ];
            grown(prometheus, &format!("{metric}{{reporter=\"{reporter}\"}}"), &labels, &[&edge])?;
        }
    }
    let to = "istio_tcp_sent_bytes_total{reporter=\"source\",source_workload=\"buyer\"}";
    grown(prometheus, to, &labels, &[&[("destination_workload", "waypoint-1"), ("destination_service_name", "item")]])?;
    let from = "istio_tcp_sent_bytes_total{reporter=\"destination\",source_workload=\"waypoint-1\"}";
    let waypoint = ("source_principal", "spiffe://cluster.local/ns/store/sa/waypoint");
    grown(prometheus, from, &labels, &[&[("destination_workload", "item-v1"), waypoint]])
}

/// By the waypoint from its client to the server, and by the gateway from itself.
fn requests(prometheus: &Prometheus) -> Result<()> {
    let edge: Vec<_> = SECURITY.iter().chain(&REQUESTS).copied().collect();
    let good = ("response_code", "200");
    for (reporter, from, to) in [("waypoint", "buyer", "item-v2"), ("source", "gateway-1", "frontend-v1")] {
        let wanted = [("source_workload", from), ("destination_workload", to), good];
        let secure = [("connection_security_policy", "mutual_tls")];
        grown(prometheus, &format!("istio_requests_total{{reporter=\"{reporter}\"}}"), &edge, &[&wanted, &secure])?;
        // Response times and throughput, which are written at edges.
        for metric in ["istio_request_duration_milliseconds", "istio_request_bytes", "istio_response_bytes"] {
            for part in ["sum", "count", "bucket"] {
                let labels: &[_] = if part == "bucket" { &["le", "request_protocol"] } else { &["request_protocol"] };
                if (metric, part) == ("istio_request_bytes", "sum") {
                    // Nobody sends a body here.
                    continue;
                }
                grown(prometheus, &format!("{metric}_{part}{{reporter=\"{reporter}\"}}"), labels, &[])?;
            }
        }
    }
    Ok(())
}

/// What policies and faults refused shows as errors of an edge; and gRPC's own status, without a waypoint as nodes see it.
fn refusals(prometheus: &Prometheus) -> Result<()> {
    let edge: Vec<_> = SECURITY.iter().chain(&REQUESTS).copied().collect();
    let refused = "istio_requests_total{reporter=\"waypoint\",source_workload=\"buyer\",response_code!=\"200\"}";
    let [denied, failed] =
        [("403", "RBAC"), ("503", "FI")].map(|(code, flags)| [("response_code", code), ("response_flags", flags)]);
    grown(prometheus, refused, &edge, &[&denied, &failed])?;
    let grpc = "istio_requests_total{reporter=\"node\",request_protocol=\"grpc\"}";
    grown(prometheus, grpc, &["request_protocol", "grpc_response_status"], &[&[("grpc_response_status", "0")]])
}
