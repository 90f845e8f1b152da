//! Istio's standard TCP labels (Istio "Standard Metrics").

use mesh_core::standard_labels::{Between, PartyLabels, UNKNOWN};
use mesh_metrics::{CONNECTION_LABELS, ConnectionLabels, RequestEnd, RequestLabels, connection_labels, request_labels};
use mesh_signals::Protocol;

use super::{
    report::{Party, Report},
    requests::Outcome,
};

/// The values for a connection of which nothing is told but what is of a closed set.
pub(super) fn of_unknown_parties<'a>(report: &'a Report, response_flags: &'a str) -> ConnectionLabels<&'a str> {
    let mut values = [UNKNOWN; CONNECTION_LABELS.len()];
    let [.., protocol, flags, security] = &mut values;
    (*protocol, *flags, *security) = ("tcp", response_flags, report.security.as_str());
    values[0] = report.reporter.as_str();
    values
}

/// The labels' values for one connection. `cluster` is the name of the cluster, the same for both ends.
pub(super) fn values<'a>(report: &'a Report, cluster: &'a str, response_flags: &'a str) -> ConnectionLabels<&'a str> {
    let between = between(report, report.reporter.as_str(), cluster);
    connection_labels(&between, response_flags, report.security.policy_label())
}

fn between<'a>(report: &'a Report, reporter: &'a str, cluster: &'a str) -> Between<'a> {
    let of = |party: &'a Party| PartyLabels::of(party.workload.as_deref(), party.principal.as_ref(), cluster);
    let (source, destination) = (of(&report.source), of(&report.destination));
    let service = match report.service.as_deref() {
        Some(service) => [&*service.hostname, &service.name, &service.namespace],
        None => [destination.canonical_service, destination.canonical_service, destination.namespace],
    };
    Between { reporter, source, destination, service }
}

/// Who reports requests that a node has seen pass: neither of Istio's own reporters, so that nothing is counted twice where a
/// waypoint tells of the same requests.
const NODE: &str = "node";

/// The response flags of a request with that status, as Envoy flags one whose connection ended before its response.
#[must_use]
pub const fn request_flags(status: Option<u16>) -> &'static str {
    if status.is_some() { "-" } else { "UC" }
}

/// The labels' values for requests of one connection that ended so.
pub(super) fn of_request(report: &Report, cluster: &str, outcome: Outcome) -> RequestLabels {
    let end = RequestEnd {
        is_grpc: outcome.protocol == Protocol::Grpc,
        status: outcome.status.unwrap_or(0),
        grpc: outcome.grpc,
        flags: request_flags(outcome.status),
        security: report.security.policy_label(),
    };
    request_labels(&between(report, NODE, cluster), &end)
}

#[cfg(test)]
mod tests {
    use mesh_metrics::REQUEST_LABELS;

    use super::*;
    use crate::telemetry::Reporter;

    #[test]
    fn labels_of_requests_are_those_of_connections_and_how_they_ended() {
        let (parties, ends) = CONNECTION_LABELS.split_at(CONNECTION_LABELS.len() - 3);
        assert_eq!(parties, &REQUEST_LABELS[..parties.len()]);
        assert_eq!(ends[1..], REQUEST_LABELS[REQUEST_LABELS.len() - 2..]);
        let report = Report::begin(Reporter::Destination, Party::default());
        let labels = of_request(&report, "c", Outcome { protocol: Protocol::Grpc, status: Some(200), grpc: Some(14) });
        let of = |name: &str| &*labels[REQUEST_LABELS.iter().position(|known| *known == name).expect("a label")];
        assert_eq!((of("reporter"), of("request_protocol"), of("response_code")), ("node", "grpc", "200"));
        assert_eq!((of("grpc_response_status"), of("response_flags")), ("14", "-"));
        assert_eq!((of("source_workload"), of("connection_security_policy")), ("unknown", "none"));
    }
}
