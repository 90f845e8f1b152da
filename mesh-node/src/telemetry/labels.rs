//! Istio's standard TCP labels (Istio "Standard Metrics").

use mesh_core::standard_labels::{PartyLabels, UNKNOWN};

use mesh_metrics::RequestLabels;
use mesh_signals::Protocol;

use super::{
    report::{Party, Report},
    requests::Outcome,
};

/// Label names, in the order of [`values`].
pub(super) const NAMES: [&str; 23] = [
    "reporter",
    "source_workload",
    "source_workload_namespace",
    "source_principal",
    "source_app",
    "source_version",
    "source_cluster",
    "source_canonical_service",
    "source_canonical_revision",
    "destination_workload",
    "destination_workload_namespace",
    "destination_principal",
    "destination_app",
    "destination_version",
    "destination_cluster",
    "destination_canonical_service",
    "destination_canonical_revision",
    "destination_service",
    "destination_service_name",
    "destination_service_namespace",
    "request_protocol",
    "response_flags",
    "connection_security_policy",
];

/// Values of the labels, in the order of [`NAMES`].
pub(super) type Values<'a> = [&'a str; NAMES.len()];

/// The values for a connection of which nothing is told but what is of a closed set.
pub(super) fn of_unknown_parties<'a>(report: &'a Report, response_flags: &'a str) -> Values<'a> {
    let mut values = [UNKNOWN; NAMES.len()];
    let [.., protocol, flags, security] = &mut values;
    (*protocol, *flags, *security) = ("tcp", response_flags, report.security.as_str());
    values[0] = report.reporter.as_str();
    values
}

/// The labels' values for one connection. `cluster` is the name of the cluster, the same for both ends.
pub(super) fn values<'a>(report: &'a Report, cluster: &'a str, response_flags: &'a str) -> Values<'a> {
    let of = |party: &'a Party| PartyLabels::of(party.workload.as_deref(), party.principal.as_ref(), cluster);
    let (source, destination) = (of(&report.source), of(&report.destination));
    let service = report.service.as_deref();
    let fallback = destination.canonical_service;
    [
        report.reporter.as_str(),
        source.workload,
        source.namespace,
        source.principal,
        source.app,
        source.version,
        source.cluster,
        source.canonical_service,
        source.canonical_revision,
        destination.workload,
        destination.namespace,
        destination.principal,
        destination.app,
        destination.version,
        destination.cluster,
        destination.canonical_service,
        destination.canonical_revision,
        service.map_or(fallback, |service| &service.hostname),
        service.map_or(fallback, |service| &service.name),
        service.map_or(destination.namespace, |service| &service.namespace),
        "tcp",
        response_flags,
        report.security.policy_label(),
    ]
}

/// Who reports requests that a node has seen pass: neither of Istio's own reporters, so that nothing is counted twice where a
/// waypoint tells of the same requests.
const NODE: &str = "node";

/// The labels' values for requests of one connection that ended so.
pub(super) fn of_request(report: &Report, cluster: &str, outcome: Outcome) -> RequestLabels {
    // As Envoy flags a request whose connection ended before its response.
    let flags = if outcome.status.is_some() { "-" } else { "UC" };
    let [_, parties @ .., _, flags, security] = values(report, cluster, flags);
    let protocol = match outcome.protocol {
        Protocol::Http => "http",
        Protocol::Grpc => "grpc",
    };
    let status = outcome.status.unwrap_or(0).to_string();
    let grpc = outcome.grpc.map_or_else(String::new, |status| status.to_string());
    let mut all = [NODE].into_iter().chain(parties).chain([protocol, &*status, &*grpc, flags, security]);
    std::array::from_fn(|_| all.next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use mesh_metrics::REQUEST_LABELS;

    use super::*;
    use crate::telemetry::Reporter;

    #[test]
    fn labels_of_requests_are_those_of_connections_and_how_they_ended() {
        let (parties, ends) = NAMES.split_at(NAMES.len() - 3);
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
