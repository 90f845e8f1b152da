//! Waypoint and gateway: what one proxy of requests does, and what it had to do for it.

use super::requests::{by_code, by_flag, durations, failed, requests, took};
use super::{Board, Panel, rate, row, variable};

const HERE: &str = "instance=\"$proxy\"";

pub(super) fn board() -> Board {
    Board {
        uid: "mesh-waypoint",
        title: "Mesh / Waypoint and gateway",
        about: "One waypoint or gateway: its requests, by route and by service, and what it did to get them answered",
        variables: vec![variable("proxy", "Waypoint or gateway", "mesh_waypoint_config_generation", "instance")],
        rows: vec![
            row("Now", now()),
            row("Requests", all()),
            row("By service", services()),
            row("By route", routes()),
            row("Retries, circuits and copies", resilience()),
            row("Who may", access()),
            row("The proxy itself", own()),
        ],
    }
}

fn counted(counter: &str, by: &str) -> String {
    rate(&format!("mesh_waypoint_{counter}_total"), HERE, by)
}

fn now() -> Vec<Panel> {
    vec![
        Panel::stat("Answers", "none", format!("up{{{HERE}}}")).at_least(1.0, 1.0),
        Panel::stat("Requests a second", "reqps", requests(HERE, "")),
        Panel::stat("Errors", "percentunit", failed(HERE, "")).limits(0.001, 0.01),
        Panel::stat("p50", "ms", took(50, HERE, "")).limits(500.0, 1000.0),
        Panel::stat("p99", "ms", took(99, HERE, "")).limits(500.0, 1000.0),
        Panel::stat("Generation", "none", format!("mesh_waypoint_config_generation{{{HERE}}}"))
            .about("Configurations that came into force since it began; not comparable between proxies"),
    ]
}

fn all() -> Vec<Panel> {
    vec![
        by_code("Requests by status", HERE),
        durations("Durations", HERE),
        by_flag("Requests by outcome", HERE),
        Panel::series(
            "Requests by client",
            "reqps",
            requests(HERE, "source_workload_namespace, source_workload"),
            "{{source_workload}}.{{source_workload_namespace}}",
        )
        .leads_to(
            "mesh-workload",
            "var-namespace=${__field.labels.source_workload_namespace}&var-workload=${__field.labels.source_workload}",
        ),
    ]
}

fn services() -> Vec<Panel> {
    const SERVICE: &str = "destination_service_namespace, destination_service_name";
    const LEGEND: &str = "{{destination_service_name}}.{{destination_service_namespace}}";
    vec![
        Panel::series("Requests by service", "reqps", requests(HERE, SERVICE), LEGEND).leads_to(
            "mesh-service",
            "var-namespace=${__field.labels.destination_service_namespace}&var-service=${__field.labels.destination_service_name}",
        ),
        Panel::series("Errors by service", "percentunit", failed(HERE, SERVICE), LEGEND).limits(0.001, 0.01),
        Panel::series("p99 by service", "ms", took(99, HERE, SERVICE), LEGEND).limits(500.0, 1000.0),
        Panel::series(
            "Requests by workload and version",
            "reqps",
            requests(HERE, "destination_workload_namespace, destination_workload, destination_canonical_revision"),
            "{{destination_workload}}.{{destination_workload_namespace}} {{destination_canonical_revision}}",
        )
        .about("unknown: no endpoint was chosen"),
    ]
}

fn routes() -> Vec<Panel> {
    const RULE: &str = "route_kind, route_namespace, route, rule";
    let share = format!("({}) / ({})", counted("route_errors", RULE), counted("route_requests", RULE));
    let to = format!("{RULE}, destination, subset");
    vec![
        Panel::series(
            "Requests by rule and destination",
            "reqps",
            counted("route_requests", &to),
            "{{route_kind}} {{route_namespace}}/{{route}} {{rule}} -> {{destination}} {{subset}}",
        )
        .about("none: answered by the rule itself, or failed before a destination was chosen. What no rule is about is not here"),
        Panel::series(
            "Errors by rule",
            "percentunit",
            share,
            "{{route_kind}} {{route_namespace}}/{{route}} {{rule}}",
        )
        .limits(0.001, 0.01),
    ]
}

fn resilience() -> Vec<Panel> {
    vec![
        Panel::series("Retries", "ops", counted("retries", ""), "made")
            .and(counted("retries_refused", ""), "refused: the budget is used up"),
        Panel::series("Ejections", "ops", counted("ejections", ""), "endpoints ejected").limits(0.001, 0.1),
        Panel::series("Copies (mirroring)", "ops", counted("mirrors", "outcome"), "{{outcome}}"),
        Panel::series("Names without an address", "ops", counted("dns_failures", ""), "DNS"),
    ]
}

fn access() -> Vec<Panel> {
    vec![
        Panel::series("Tokens", "ops", counted("tokens", "outcome"), "{{outcome}}"),
        Panel::series("Authorizers asked", "ops", counted("external_authorizations", "outcome"), "{{outcome}}"),
        Panel::series("Keys of tokens fetched", "ops", counted("jwks_fetches", "outcome"), "{{outcome}}"),
        Panel::series(
            "What broke HTTP's rules",
            "ops",
            counted("bad_input", "sender, reason"),
            "{{reason}} ({{sender}})",
        ),
    ]
}

fn own() -> Vec<Panel> {
    vec![
        Panel::series("Spans", "ops", rate("mesh_spans_total", HERE, "result"), "{{result}}"),
        Panel::series("Sets of labels that were too many", "ops", counted("series_overflow", ""), "counted as unknown")
            .limits(0.001, 0.001),
        Panel::stat("Samples a scrape", "none", format!("scrape_samples_scraped{{{HERE}}}")).limits(40_000.0, 80_000.0),
        Panel::stat("A scrape takes", "s", format!("scrape_duration_seconds{{{HERE}}}")).limits(0.1, 0.5),
    ]
}
