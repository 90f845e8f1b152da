//! Istio's standard TCP labels (Istio "Standard Metrics").

use mesh_core::{SpiffeId, Workload};

use super::report::{Party, Report};

/// What a label says when nothing is known.
const UNKNOWN: &str = "unknown";

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
    let source = PartyLabels::of(&report.source, cluster);
    let destination = PartyLabels::of(&report.destination, cluster);
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

struct PartyLabels<'a> {
    workload: &'a str,
    namespace: &'a str,
    principal: &'a str,
    app: &'a str,
    version: &'a str,
    cluster: &'a str,
    canonical_service: &'a str,
    canonical_revision: &'a str,
}

impl<'a> PartyLabels<'a> {
    fn of(party: &'a Party, cluster: &'a str) -> Self {
        let workload = party.workload.as_deref();
        let field = |get: fn(&'a Workload) -> &'a str| match workload.map(get) {
            None | Some("") => UNKNOWN,
            Some(value) => value,
        };
        let principal = party.principal.as_ref().map_or(UNKNOWN, SpiffeId::as_str);
        Self {
            workload: field(|workload| &workload.workload_name),
            namespace: field(|workload| &workload.namespace),
            principal,
            app: field(|workload| &workload.app),
            version: field(|workload| &workload.version),
            cluster: workload.map_or(UNKNOWN, |_| cluster),
            canonical_service: field(|workload| &workload.canonical_service),
            canonical_revision: workload.map_or("latest", |workload| &workload.canonical_revision),
        }
    }
}
