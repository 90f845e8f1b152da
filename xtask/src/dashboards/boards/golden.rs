//! Golden signals: traffic, errors and saturation of every service, on one screen.

use super::requests::{SERVED, by_code, by_flag, failed, requests, took};
use super::{Board, Panel, error_ratio, open_now, opened, rate, row, variable};

const INTO: &str = "reporter=\"source\",destination_service_namespace=\"$namespace\"";
const NAME: &str = "destination_service_name";
const LEGEND: &str = "{{destination_service_name}}";

pub(super) fn board() -> Board {
    Board {
        uid: "mesh-golden-signals",
        title: "Mesh / Golden signals",
        about: "Traffic, errors, latency and saturation of a namespace's services, by their requests and their connections",
        variables: vec![variable(
            "namespace",
            "Namespace",
            "istio_tcp_connections_opened_total",
            "destination_service_namespace",
        )],
        rows: vec![
            row("Requests", asked()),
            row("Latency", latency()),
            row("What waypoints and gateways do about it", resilience()),
            row("Connections", traffic()),
            row("Errors of connections", errors()),
            row("Saturation", saturation()),
        ],
    }
}

fn served() -> String {
    format!("{SERVED},destination_service_namespace=\"$namespace\"")
}

fn asked() -> Vec<Panel> {
    let here = served();
    vec![
        Panel::series("Requests", "reqps", requests(&here, NAME), LEGEND).leads_to(
            "mesh-service",
            "var-namespace=$namespace&var-service=${__field.labels.destination_service_name}",
        ),
        Panel::series("Errors", "percentunit", failed(&here, NAME), LEGEND).limits(0.001, 0.01),
        by_code("Requests by status", &here),
        by_flag("Requests by outcome", &here),
    ]
}

fn latency() -> Vec<Panel> {
    let here = served();
    let panel =
        |title, percent| Panel::series(title, "ms", took(percent, &here, NAME), LEGEND).limits(500.0, 1000.0).a_third();
    vec![panel("p50", 50), panel("p90", 90), panel("p99", 99)]
}

/// Of the whole mesh: these counters know of no namespace but their own proxy's.
fn resilience() -> Vec<Panel> {
    let by_proxy = |counter| rate(counter, "", "instance");
    let leads = |panel: Panel| panel.a_third().leads_to("mesh-waypoint", "var-proxy=${__field.labels.instance}");
    vec![
        leads(Panel::series("Retries", "ops", by_proxy("mesh_waypoint_retries_total"), "{{instance}}")),
        leads(Panel::series("Ejections", "ops", by_proxy("mesh_waypoint_ejections_total"), "{{instance}}")),
        Panel::series("Copies (mirroring)", "ops", rate("mesh_waypoint_mirrors_total", "", "outcome"), "{{outcome}}")
            .a_third(),
    ]
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
