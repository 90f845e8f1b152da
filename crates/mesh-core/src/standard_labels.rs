//! What Istio's standard metrics say of one side of a connection or a request (Istio "Standard Metrics").

use crate::identity::SpiffeId;
use crate::model::Workload;

/// What a label says when nothing is known.
pub const UNKNOWN: &str = "unknown";

/// The labels that say whom a connection or a request is between, in the order of [`Between::values`].
pub const BETWEEN: [&str; 20] = [
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
];

/// Whom a connection or a request is between, and who says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Between<'a> {
    /// Who says so.
    pub reporter: &'a str,
    /// The client.
    pub source: PartyLabels<'a>,
    /// The server.
    pub destination: PartyLabels<'a>,
    /// The Service: its host name, name and namespace.
    pub service: [&'a str; 3],
}

impl<'a> Between<'a> {
    /// The labels' values, in the order of [`BETWEEN`].
    #[must_use]
    pub const fn values(&self) -> [&'a str; BETWEEN.len()] {
        let (source, destination, [hostname, name, namespace]) = (&self.source, &self.destination, self.service);
        [
            self.reporter,
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
            hostname,
            name,
            namespace,
        ]
    }
}

/// The values of one side's labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartyLabels<'a> {
    /// `workload`
    pub workload: &'a str,
    /// `workload_namespace`
    pub namespace: &'a str,
    /// `principal`
    pub principal: &'a str,
    /// `app`
    pub app: &'a str,
    /// `version`
    pub version: &'a str,
    /// `cluster`
    pub cluster: &'a str,
    /// `canonical_service`
    pub canonical_service: &'a str,
    /// `canonical_revision`
    pub canonical_revision: &'a str,
}

impl<'a> PartyLabels<'a> {
    /// Of what is known; `cluster` is the name of the cluster that workloads are in.
    #[must_use]
    pub fn of(workload: Option<&'a Workload>, principal: Option<&'a SpiffeId>, cluster: &'a str) -> Self {
        let field = |get: fn(&'a Workload) -> &'a str| match workload.map(get) {
            None | Some("") => UNKNOWN,
            Some(value) => value,
        };
        Self {
            workload: field(|workload| &workload.workload_name),
            namespace: field(|workload| &workload.namespace),
            principal: principal.map_or(UNKNOWN, SpiffeId::as_str),
            app: field(|workload| &workload.app),
            version: field(|workload| &workload.version),
            cluster: workload.map_or(UNKNOWN, |_| cluster),
            canonical_service: field(|workload| &workload.canonical_service),
            canonical_revision: workload.map_or("latest", |workload| &workload.canonical_revision),
        }
    }
}
