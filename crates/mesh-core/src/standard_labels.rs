//! What Istio's standard metrics say of one side of a connection or a request (Istio "Standard Metrics").

use crate::identity::SpiffeId;
use crate::model::Workload;

/// What a label says when nothing is known.
pub const UNKNOWN: &str = "unknown";

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
