//! Istio's standard TCP labels (Istio "Standard Metrics").

use mesh_core::standard_labels::{PartyLabels, UNKNOWN};

use super::report::{Party, Report};

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
