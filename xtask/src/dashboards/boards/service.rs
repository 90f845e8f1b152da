//! Service: who uses it, how it answers, which versions take part.

use super::requests::{SERVED, by_code, by_flag, durations, failed, requests, took};
use super::{Board, Panel, error_ratio, open_now, opened, rate, row, variable};

const SERVICE: &str =
    "reporter=\"source\",destination_service_namespace=\"$namespace\",destination_service_name=\"$service\"";

pub(super) fn board() -> Board {
    Board {
        uid: "mesh-service",
        title: "Mesh / Service",
        about: "One service: its requests as its waypoint or node tells of them, its connections as its clients' nodes see them",
        variables: vec![
            variable("namespace", "Namespace", "istio_tcp_connections_opened_total", "destination_service_namespace"),
            variable(
                "service",
                "Service",
                "istio_tcp_connections_opened_total{destination_service_namespace=\"$namespace\"}",
                "destination_service_name",
            ),
        ],
        rows: vec![
            row("Now", now()),
            row("Requests", asked()),
            row("Connections", traffic()),
            row("Errors of connections", errors()),
        ],
    }
}

fn served() -> String {
    format!("{SERVED},destination_service_namespace=\"$namespace\",destination_service_name=\"$service\"")
}

fn asked() -> Vec<Panel> {
    const CLIENT: &str = "source_workload_namespace, source_workload";
    const LEGEND: &str = "{{source_workload}}.{{source_workload_namespace}}";
    let here = served();
    let sent = format!(
        "({}) / ({})",
        rate("istio_response_bytes_sum", &here, ""),
        rate("istio_response_bytes_count", &here, "")
    );
    let came = format!(
        "({}) / ({})",
        rate("istio_request_bytes_sum", &here, ""),
        rate("istio_request_bytes_count", &here, "")
    );
    vec![
        by_code("Requests by status", &here),
        durations("Durations", &here),
        Panel::series("Requests by client", "reqps", requests(&here, CLIENT), LEGEND).leads_to(
            "mesh-workload",
            "var-namespace=${__field.labels.source_workload_namespace}&var-workload=${__field.labels.source_workload}",
        ),
        Panel::series("Errors by client", "percentunit", failed(&here, CLIENT), LEGEND).limits(0.001, 0.01),
        Panel::series(
            "Requests by workload and version",
            "reqps",
            requests(&here, "destination_workload, destination_canonical_revision"),
            "{{destination_workload}} {{destination_canonical_revision}}",
        )
        .about("How a canary's share comes out"),
        Panel::series(
            "p99 by workload and version",
            "ms",
            took(99, &here, "destination_workload, destination_canonical_revision"),
            "{{destination_workload}} {{destination_canonical_revision}}",
        )
        .limits(500.0, 1000.0),
        by_flag("Requests by outcome", &here),
        Panel::series("Mean size of bodies", "bytes", came, "request").and(sent, "response"),
    ]
}

fn now() -> Vec<Panel> {
    vec![
        Panel::stat("Requests a second", "reqps", requests(&served(), "")),
        Panel::stat("Requests that fail", "percentunit", failed(&served(), "")).limits(0.001, 0.01),
        Panel::stat("p50", "ms", took(50, &served(), "")).limits(500.0, 1000.0),
        Panel::stat("p99", "ms", took(99, &served(), "")).limits(500.0, 1000.0),
        Panel::stat("Connections a second", "cps", opened(SERVICE, "")),
        Panel::stat("Connections that fail", "percentunit", error_ratio(SERVICE, "")).limits(0.001, 0.01),
        Panel::stat(
            "Clients",
            "none",
            format!(
                "count(sum by (source_workload_namespace, source_workload) (istio_tcp_connections_opened_total{{{SERVICE}}}))"
            ),
        ),
        Panel::stat("Bytes to clients", "Bps", rate("istio_tcp_sent_bytes_total", SERVICE, "")),
        Panel::stat("Bytes from clients", "Bps", rate("istio_tcp_received_bytes_total", SERVICE, "")),
    ]
}

fn traffic() -> Vec<Panel> {
    vec![
        Panel::series(
            "Connections by client",
            "cps",
            opened(SERVICE, "source_workload_namespace, source_workload"),
            "{{source_workload}}.{{source_workload_namespace}}",
        )
        .leads_to(
            "mesh-workload",
            "var-namespace=${__field.labels.source_workload_namespace}&var-workload=${__field.labels.source_workload}",
        ),
        Panel::series(
            "Connections by workload and version",
            "cps",
            opened(SERVICE, "destination_workload, destination_canonical_revision"),
            "{{destination_workload}} {{destination_canonical_revision}}",
        ),
        Panel::series(
            "Connections by protection",
            "cps",
            opened(SERVICE, "connection_security_policy"),
            "{{connection_security_policy}}",
        ),
        Panel::series(
            "Open connections",
            "none",
            open_now(SERVICE, "destination_workload"),
            "{{destination_workload}}",
        ),
        Panel::series(
            "Bytes from clients",
            "Bps",
            rate("istio_tcp_received_bytes_total", SERVICE, "source_workload"),
            "{{source_workload}}",
        ),
        Panel::series(
            "Bytes to clients",
            "Bps",
            rate("istio_tcp_sent_bytes_total", SERVICE, "source_workload"),
            "{{source_workload}}",
        ),
    ]
}

fn errors() -> Vec<Panel> {
    vec![
        Panel::series("Connections by outcome", "cps", opened(SERVICE, "response_flags"), "{{response_flags}}").about(
            "-: carried. UH: no endpoint. UF: not reached, or no handshake. NR: no route. DENY: denied by policy",
        ),
        Panel::series(
            "Connections that fail, by client",
            "percentunit",
            error_ratio(SERVICE, "source_workload"),
            "{{source_workload}}",
        ),
    ]
}
