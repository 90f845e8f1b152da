//! Service: who uses it, how it answers, which versions take part.

use super::{Board, Panel, error_ratio, open_now, opened, rate, row, variable};

const SERVICE: &str =
    "reporter=\"source\",destination_service_namespace=\"$namespace\",destination_service_name=\"$service\"";

pub(super) fn board() -> Board {
    Board {
        uid: "mesh-service",
        title: "Mesh / Service",
        about: "One service, as its clients' nodes see it",
        variables: vec![
            variable("namespace", "Namespace", "istio_tcp_connections_opened_total", "destination_service_namespace"),
            variable(
                "service",
                "Service",
                "istio_tcp_connections_opened_total{destination_service_namespace=\"$namespace\"}",
                "destination_service_name",
            ),
        ],
        rows: vec![row("Now", now()), row("Traffic", traffic()), row("Errors", errors())],
    }
}

fn now() -> Vec<Panel> {
    vec![
        Panel::stat("Connections a second", "cps", opened(SERVICE, "")),
        Panel::stat("Errors", "percentunit", error_ratio(SERVICE, "")).limits(0.001, 0.01),
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
            "Errors by client",
            "percentunit",
            error_ratio(SERVICE, "source_workload"),
            "{{source_workload}}",
        ),
    ]
}
