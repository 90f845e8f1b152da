//! What is asked of requests: how many, how many failed, how long they took.

use super::{Panel, rate};

/// Who tells of requests to a service: its waypoint or, where it has none, the node that saw them pass. No request is told by
/// both; what a gateway tells (`reporter="source"`) one of them tells again.
pub(super) const SERVED: &str = "reporter=~\"waypoint|node\"";

/// Statuses of gRPC that are the server's fault (OpenTelemetry, semantic conventions for RPC: status of a server's span).
const GRPC_FAULTS: &str = "2|4|12|13|14|15";

/// Requests a second.
pub(super) fn requests(selector: &str, by: &str) -> String {
    rate("istio_requests_total", selector, by)
}

/// The share of requests that failed for the server's sake: 5xx, no answer though the client waited, or such a status of gRPC.
pub(super) fn failed(selector: &str, by: &str) -> String {
    let http = format!("{selector},response_code=~\"5..|0\",response_flags!=\"DC\"");
    let grpc = format!("{selector},response_code=\"200\",grpc_response_status=~\"{GRPC_FAULTS}\"");
    let each = [http, grpc].map(|with| format!("rate(istio_requests_total{{{with}}}[$__rate_interval])"));
    let (errors, all) = (each.join(" or "), requests(selector, by));
    let by = if by.is_empty() { String::new() } else { format!(" by ({by})") };
    format!("(sum{by} ({errors}) or 0 * ({all})) / ({all})")
}

/// How long it took until so many percent had their whole answer, in milliseconds.
pub(super) fn took(percent: u8, selector: &str, by: &str) -> String {
    let by = if by.is_empty() { "le".to_owned() } else { format!("le, {by}") };
    let buckets = rate("istio_request_duration_milliseconds_bucket", selector, &by);
    format!("histogram_quantile(0.{percent}, {buckets})")
}

/// The median, and what the slower ones take, of everything that is selected.
pub(super) fn durations(title: &'static str, selector: &str) -> Panel {
    Panel::series(title, "ms", took(50, selector, ""), "p50")
        .and(took(90, selector, ""), "p90")
        .and(took(99, selector, ""), "p99")
        .limits(500.0, 1000.0)
        .about("From the request's head to the end of its response; read from buckets, so exact to the bucket's width alone")
}

/// Requests by what they were answered with.
pub(super) fn by_code(title: &'static str, selector: &str) -> Panel {
    Panel::series(
        title,
        "reqps",
        requests(selector, "response_code, grpc_response_status"),
        "{{response_code}} {{grpc_response_status}}",
    )
    .about("HTTP's status and, behind it, gRPC's; 0 alone: no answer")
}

/// Requests by why they were answered so.
pub(super) fn by_flag(title: &'static str, selector: &str) -> Panel {
    Panel::series(title, "reqps", requests(selector, "response_flags"), "{{response_flags}}").about(
        "-: the server's own answer. NR: no route. NC: a route to nothing. UH: no endpoint. UF, UC, UPE: not reached, broke off, \
         broke the protocol. UT: timeout. URX: retries used up. UO: a bound is reached. FI, DI: faults by a rule. RBAC: denied by \
         policy. UAEX: by an authorizer. DC, DPE: the client went, or broke the protocol",
    )
}
