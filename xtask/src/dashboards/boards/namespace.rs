//! Namespace: its services, who comes from where, and whether it is ready for STRICT.

use super::requests::{SERVED, failed, requests, took};
use super::{Board, Panel, error_ratio, opened, row, variable};

const INTO: &str = "reporter=\"source\",destination_service_namespace=\"$namespace\"";
const PLAINTEXT: &str =
    "reporter=\"destination\",destination_workload_namespace=\"$namespace\",source_principal=\"unknown\"";

pub(super) fn board() -> Board {
    Board {
        uid: "mesh-namespace",
        title: "Mesh / Namespace",
        about: "One namespace: traffic in and out, errors, and what STRICT would refuse",
        variables: vec![variable(
            "namespace",
            "Namespace",
            "istio_tcp_connections_opened_total",
            "destination_workload_namespace",
        )],
        rows: vec![
            row("Now", now()),
            row("Requests", asked()),
            row("Connections", traffic()),
            row("Ready for STRICT?", strict()),
        ],
    }
}

fn served() -> String {
    format!("{SERVED},destination_service_namespace=\"$namespace\"")
}

fn asked() -> Vec<Panel> {
    const SERVICE: &str = "destination_service_namespace, destination_service_name";
    let outward = format!("{SERVED},source_workload_namespace=\"$namespace\"");
    vec![
        Panel::series("Requests in, by service", "reqps", requests(&served(), SERVICE), "{{destination_service_name}}")
            .leads_to(
                "mesh-service",
                "var-namespace=$namespace&var-service=${__field.labels.destination_service_name}",
            ),
        Panel::series("Errors by service", "percentunit", failed(&served(), SERVICE), "{{destination_service_name}}")
            .limits(0.001, 0.01),
        Panel::series("p99 by service", "ms", took(99, &served(), SERVICE), "{{destination_service_name}}")
            .limits(500.0, 1000.0),
        Panel::series(
            "Requests out, by service",
            "reqps",
            requests(&outward, SERVICE),
            "{{destination_service_name}}.{{destination_service_namespace}}",
        ),
    ]
}

fn now() -> Vec<Panel> {
    let plaintext = format!("{} or vector(0)", opened(PLAINTEXT, ""));
    vec![
        Panel::stat("Requests in, a second", "reqps", requests(&served(), "")),
        Panel::stat("Requests that fail", "percentunit", failed(&served(), "")).limits(0.001, 0.01),
        Panel::stat("Connections in, a second", "cps", opened(INTO, "")),
        Panel::stat(
            "Connections out, a second",
            "cps",
            opened("reporter=\"source\",source_workload_namespace=\"$namespace\"", ""),
        ),
        Panel::stat("Connections that fail", "percentunit", error_ratio(INTO, "")).limits(0.001, 0.01),
        Panel::stat("Plaintext in, a second", "cps", plaintext)
            .limits(0.001, 0.001)
            .about("What STRICT would refuse, or does"),
    ]
}

fn traffic() -> Vec<Panel> {
    let services = "destination_service_namespace, destination_service_name";
    vec![
        Panel::series("Connections in, by service", "cps", opened(INTO, services), "{{destination_service_name}}")
            .leads_to(
                "mesh-service",
                "var-namespace=$namespace&var-service=${__field.labels.destination_service_name}",
            ),
        Panel::series("Errors by service", "percentunit", error_ratio(INTO, services), "{{destination_service_name}}"),
        Panel::series(
            "Connections in, by whom",
            "cps",
            opened(INTO, "source_workload_namespace, source_workload"),
            "{{source_workload}}.{{source_workload_namespace}}",
        ),
        Panel::series(
            "Connections out, by service",
            "cps",
            opened("reporter=\"source\",source_workload_namespace=\"$namespace\"", services),
            "{{destination_service_name}}.{{destination_service_namespace}}",
        ),
    ]
}

fn strict() -> Vec<Panel> {
    vec![
        Panel::series(
            "Plaintext in, by destination",
            "cps",
            opened(PLAINTEXT, "destination_workload"),
            "{{destination_workload}}",
        )
        .about("None for a while, probes of kubelet aside: the namespace is ready for STRICT"),
        Panel::series(
            "How connections in are protected",
            "cps",
            opened(
                "reporter=\"destination\",destination_workload_namespace=\"$namespace\"",
                "connection_security_policy",
            ),
            "{{connection_security_policy}}",
        ),
    ]
}
