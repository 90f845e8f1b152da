//! Golden signals: traffic, errors and saturation of every service, on one screen.

use super::{Board, Panel, error_ratio, open_now, opened, rate, row, variable};

const INTO: &str = "reporter=\"source\",destination_service_namespace=\"$namespace\"";
const NAME: &str = "destination_service_name";
const LEGEND: &str = "{{destination_service_name}}";

pub(super) fn board() -> Board {
    Board {
        uid: "mesh-golden-signals",
        title: "Mesh / Golden signals",
        about: "Traffic, errors and saturation of a namespace's services, by their connections",
        variables: vec![variable(
            "namespace",
            "Namespace",
            "istio_tcp_connections_opened_total",
            "destination_service_namespace",
        )],
        rows: vec![row("Traffic", traffic()), row("Errors", errors()), row("Saturation", saturation())],
    }
}

fn traffic() -> Vec<Panel> {
    let bytes = format!(
        "{} + {}",
        rate("istio_tcp_sent_bytes_total", INTO, NAME),
        rate("istio_tcp_received_bytes_total", INTO, NAME)
    );
    vec![
        Panel::series("Connections", "cps", opened(INTO, NAME), LEGEND).leads_to(
            "mesh-service",
            "var-namespace=$namespace&var-service=${__field.labels.destination_service_name}",
        ),
        Panel::series("Bytes", "Bps", bytes, LEGEND),
    ]
}

fn errors() -> Vec<Panel> {
    let denied = format!("{INTO},response_flags=\"DENY\"");
    vec![
        Panel::series("Errors", "percentunit", error_ratio(INTO, NAME), LEGEND).limits(0.001, 0.01),
        Panel::series("Denied", "cps", opened(&denied, NAME), LEGEND).about("Not an error of the service"),
    ]
}

fn saturation() -> Vec<Panel> {
    vec![
        Panel::series("Open connections", "none", open_now(INTO, NAME), LEGEND),
        Panel::series(
            "Connections by workload: is the load even?",
            "cps",
            opened(INTO, "destination_service_name, destination_workload"),
            "{{destination_workload}} of {{destination_service_name}}",
        ),
    ]
}
