//! Mesh: everything at a glance.

use super::requests::{SERVED, failed, requests, took};
use super::{Board, Panel, error_ratio, opened, rate, row};

const SOURCE: &str = "reporter=\"source\"";

pub(super) fn board() -> Board {
    Board {
        uid: "mesh",
        title: "Mesh",
        about: "The whole mesh: is it well, who talks to whom, what is refused",
        variables: Vec::new(),
        rows: vec![row("Now", now()), row("Traffic", traffic()), row("What is refused", refused())],
    }
}

fn now() -> Vec<Panel> {
    let encrypted = opened("reporter=\"source\",connection_security_policy=\"mutual_tls\"", "");
    vec![
        Panel::stat("Nodes", "none", "sum(up{job=~\"(.+/)?mesh-node\"})"),
        Panel::stat("Pods in the mesh", "none", "sum(mesh_pods{state=\"enrolled\"})"),
        Panel::stat("Pods outside that should be in", "none", "sum(mesh_pods{state=\"pending\"})").limits(1.0, 1.0),
        Panel::stat("Requests a second", "reqps", requests(SERVED, "")),
        Panel::stat("Requests that fail", "percentunit", failed(SERVED, "")).limits(0.001, 0.01),
        Panel::stat("p99 of requests", "ms", took(99, SERVED, "")).limits(500.0, 1000.0),
        Panel::stat("Connections a second", "cps", opened(SOURCE, "")),
        Panel::stat("Connections that fail", "percentunit", error_ratio(SOURCE, "")).limits(0.001, 0.01),
        Panel::stat("Encrypted", "percentunit", format!("{encrypted} / {}", opened(SOURCE, ""))).about(
            "The rest stays within one kernel, which attests who talks to whom, or goes to what is outside the mesh",
        ),
        Panel::stat("First certificate ends in", "s", "min(mesh_certificate_expiry_seconds)")
            .at_least(3600.0, 10_800.0),
        Panel::stat(
            "Errors in the configuration",
            "none",
            "max(mesh_config_findings{severity=\"error\"}) or vector(0)",
        )
        .limits(1.0, 1.0),
        Panel::stat("Alerts", "none", "count(ALERTS{alertname=~\"Mesh.+\",alertstate=\"firing\"}) or vector(0)")
            .limits(1.0, 1.0),
    ]
}

fn traffic() -> Vec<Panel> {
    let pair = "source_workload_namespace, source_workload, destination_service_namespace, destination_service_name, \
                connection_security_policy";
    let service = "destination_service_namespace, destination_service_name";
    vec![
        Panel::series(
            "Requests by service, the ten with most",
            "reqps",
            format!("topk(10, {})", requests(SERVED, service)),
            "{{destination_service_name}}.{{destination_service_namespace}}",
        )
        .leads_to(
            "mesh-service",
            "var-namespace=${__field.labels.destination_service_namespace}&var-service=${__field.labels.destination_service_name}",
        ),
        Panel::series(
            "Requests by waypoint and gateway",
            "reqps",
            requests("reporter=~\"waypoint|source\"", "instance"),
            "{{instance}}",
        )
        .leads_to("mesh-waypoint", "var-proxy=${__field.labels.instance}"),
        Panel::series(
            "Connections by namespace",
            "cps",
            opened(SOURCE, "destination_service_namespace"),
            "{{destination_service_namespace}}",
        )
        .leads_to("mesh-namespace", "var-namespace=${__field.labels.destination_service_namespace}"),
        Panel::series(
            "Bytes by service, the ten with most",
            "Bps",
            format!(
                "topk(10, {} + {})",
                rate("istio_tcp_sent_bytes_total", SOURCE, "destination_service_namespace, destination_service_name"),
                rate("istio_tcp_received_bytes_total", SOURCE, "destination_service_namespace, destination_service_name"),
            ),
            "{{destination_service_name}}.{{destination_service_namespace}}",
        ),
        Panel::table(
            "Who talks to whom",
            "cps",
            opened(SOURCE, pair),
            &["source_workload_namespace", "source_workload", "destination_service_namespace", "destination_service_name"],
        )
        .leads_to(
            "mesh-service",
            "var-namespace=${__data.fields.destination_service_namespace}&var-service=${__data.fields.destination_service_name}",
        ),
    ]
}

fn refused() -> Vec<Panel> {
    vec![
        Panel::series(
            "Refused, by reason",
            "cps",
            rate("mesh_connections_refused_total", "", "reporter, reason"),
            "{{reason}} ({{reporter}})",
        ),
        Panel::series(
            "Denied, by policy",
            "cps",
            rate("mesh_policy_decisions_total", "", "policy, result"),
            "{{result}}: {{policy}}",
        )
        .about("would_deny and would_allow are what policies in dry run would do"),
    ]
}
