//! Workload: what comes in and what goes out, and under which identities.

use super::requests::{SERVED, by_code, durations, failed, requests, took};
use super::{Board, Panel, open_now, opened, rate, row, variable};

const IN: &str =
    "reporter=\"destination\",destination_workload_namespace=\"$namespace\",destination_workload=\"$workload\"";
const OUT: &str = "reporter=\"source\",source_workload_namespace=\"$namespace\",source_workload=\"$workload\"";

pub(super) fn board() -> Board {
    let series = "istio_tcp_connections_opened_total{source_workload_namespace=\"$namespace\"}";
    Board {
        uid: "mesh-workload",
        title: "Mesh / Workload",
        about: "One workload, as its own nodes see it",
        variables: vec![
            variable("namespace", "Namespace", "istio_tcp_connections_opened_total", "source_workload_namespace"),
            variable("workload", "Workload", series, "source_workload"),
        ],
        rows: vec![
            row("Requests in", asked()),
            row("Requests out", asks()),
            row("Connections in", inbound()),
            row("Connections out", outbound()),
        ],
    }
}

fn asked() -> Vec<Panel> {
    const CLIENT: &str = "source_workload_namespace, source_workload";
    const LEGEND: &str = "{{source_workload}}.{{source_workload_namespace}}";
    let here = format!("{SERVED},destination_workload_namespace=\"$namespace\",destination_workload=\"$workload\"");
    vec![
        Panel::series("Requests in, by client", "reqps", requests(&here, CLIENT), LEGEND),
        by_code("Requests in, by status", &here),
        durations("Durations of requests in", &here),
        Panel::series("Errors by client", "percentunit", failed(&here, CLIENT), LEGEND).limits(0.001, 0.01),
    ]
}

fn asks() -> Vec<Panel> {
    const SERVICE: &str = "destination_service_namespace, destination_service_name";
    const LEGEND: &str = "{{destination_service_name}}.{{destination_service_namespace}}";
    let here = format!("{SERVED},source_workload_namespace=\"$namespace\",source_workload=\"$workload\"");
    vec![
        Panel::series("Requests out, by service", "reqps", requests(&here, SERVICE), LEGEND).leads_to(
            "mesh-service",
            "var-namespace=${__field.labels.destination_service_namespace}&var-service=${__field.labels.destination_service_name}",
        ),
        by_code("Requests out, by status", &here),
        Panel::series("p99 of requests out, by service", "ms", took(99, &here, SERVICE), LEGEND).limits(500.0, 1000.0),
        Panel::series("Errors by service", "percentunit", failed(&here, SERVICE), LEGEND).limits(0.001, 0.01),
    ]
}

fn inbound() -> Vec<Panel> {
    vec![
        Panel::series(
            "Connections in, by client",
            "cps",
            opened(IN, "source_workload_namespace, source_workload"),
            "{{source_workload}}.{{source_workload_namespace}}",
        ),
        Panel::series("Connections in, by outcome", "cps", opened(IN, "response_flags"), "{{response_flags}}"),
        Panel::series("Open connections in", "none", open_now(IN, "source_workload"), "{{source_workload}}"),
        Panel::series(
            "Bytes in and out, of clients",
            "Bps",
            rate("istio_tcp_received_bytes_total", IN, "destination_workload"),
            "from clients, {{destination_workload}}",
        )
        .and(rate("istio_tcp_sent_bytes_total", IN, "destination_workload"), "to clients, {{destination_workload}}"),
        Panel::table(
            "Who comes, by identity",
            "cps",
            opened(IN, "source_principal, source_workload, connection_security_policy"),
            &["source_principal", "source_workload", "connection_security_policy"],
        ),
    ]
}

fn outbound() -> Vec<Panel> {
    vec![
        Panel::series(
            "Connections out, by service",
            "cps",
            opened(OUT, "destination_service_namespace, destination_service_name"),
            "{{destination_service_name}}.{{destination_service_namespace}}",
        )
        .leads_to(
            "mesh-service",
            "var-namespace=${__field.labels.destination_service_namespace}&var-service=${__field.labels.destination_service_name}",
        ),
        Panel::series("Connections out, by outcome", "cps", opened(OUT, "response_flags"), "{{response_flags}}"),
        Panel::series(
            "Bytes by service",
            "Bps",
            rate("istio_tcp_sent_bytes_total", OUT, "destination_service_name"),
            "from {{destination_service_name}}",
        )
        .and(rate("istio_tcp_received_bytes_total", OUT, "destination_service_name"), "to {{destination_service_name}}"),
        Panel::series("Open connections out", "none", open_now(OUT, "destination_service_name"), "{{destination_service_name}}"),
    ]
}
