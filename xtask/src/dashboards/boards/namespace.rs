//! Namespace: its services, who comes from where, and whether it is ready for STRICT.

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
        rows: vec![row("Now", now()), row("Traffic", traffic()), row("Ready for STRICT?", strict())],
    }
}

fn now() -> Vec<Panel> {
    let plaintext = format!("{} or vector(0)", opened(PLAINTEXT, ""));
    vec![
        Panel::stat("Connections in, a second", "cps", opened(INTO, "")),
        Panel::stat(
            "Connections out, a second",
            "cps",
            opened("reporter=\"source\",source_workload_namespace=\"$namespace\"", ""),
        ),
        Panel::stat("Errors", "percentunit", error_ratio(INTO, "")).limits(0.001, 0.01),
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
