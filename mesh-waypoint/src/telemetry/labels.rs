//! Istio's standard labels of requests (Istio "Standard Metrics").

use std::sync::Arc;

use mesh_core::standard_labels::{PartyLabels, UNKNOWN};
use mesh_core::{SpiffeId, Workload};
use mesh_metrics::RequestLabels;

use crate::{
    inbound::{Arrival, Target},
    upstream::{Cluster, ClusterKey, Endpoint},
};

/// What a request speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Protocol {
    /// HTTP.
    Http,
    /// gRPC.
    Grpc,
}

/// Whom a request was between, and how it ended.
pub(crate) struct Parties<'a> {
    /// To what it was sent, and by whom.
    pub(crate) arrival: &'a Arrival,
    /// The workload that the metrics have as its source: a waypoint's client, and a gateway itself.
    pub(crate) source: Option<&'a Arc<Workload>>,
    /// Who answered.
    pub(crate) endpoint: Option<&'a Endpoint>,
    /// Where it was sent on to.
    pub(crate) cluster: Option<&'a Cluster>,
    /// What it speaks.
    pub(crate) protocol: Protocol,
    /// The status; 0 where there was no answer.
    pub(crate) status: u16,
    /// gRPC's status, where it is known.
    pub(crate) grpc: Option<u16>,
    /// The response flags.
    pub(crate) flags: &'static str,
}

impl Parties<'_> {
    /// The labels' values; `cluster` is the name of the cluster of both ends. Where not all may be `known`, the parties are not told.
    pub(super) fn values(&self, cluster: &str, known: bool) -> RequestLabels {
        let at_gateway = matches!(self.arrival.target, Target::Gateway(_));
        let workload = self.source.map(|workload| &**workload).filter(|_| known);
        let destination = self.endpoint.and_then(|endpoint| endpoint.workload.as_deref()).filter(|_| known);
        let [service, name, namespace] = self.service().filter(|_| known).unwrap_or([UNKNOWN; 3].map(str::to_owned));
        let identity = self.arrival.client.identity.as_ref().or(workload.map(|workload| &workload.identity));
        let identity = identity.filter(|_| known);
        let mut source = PartyLabels::of(workload, identity, cluster);
        if workload.is_none() {
            // Who is no workload that is known here has a namespace in the identity.
            source.namespace = identity.map_or(UNKNOWN, SpiffeId::namespace);
        }
        let destination = PartyLabels::of(destination, destination.map(|workload| &workload.identity), cluster);
        let protocol = match self.protocol {
            Protocol::Http => "http",
            Protocol::Grpc => "grpc",
        };
        let by_tunnel = !at_gateway || self.endpoint.is_some_and(|endpoint| endpoint.identity().is_some());
        let text = str::to_owned;
        [
            text(if at_gateway { "source" } else { "waypoint" }),
            text(source.workload),
            text(source.namespace),
            text(source.principal),
            text(source.app),
            text(source.version),
            text(source.cluster),
            text(source.canonical_service),
            text(source.canonical_revision),
            text(destination.workload),
            text(destination.namespace),
            text(destination.principal),
            text(destination.app),
            text(destination.version),
            text(destination.cluster),
            text(destination.canonical_service),
            text(destination.canonical_revision),
            service,
            name,
            namespace,
            text(protocol),
            self.status.to_string(),
            self.grpc.map_or_else(String::new, |status| status.to_string()),
            text(self.flags),
            text(if by_tunnel { "mutual_tls" } else { "none" }),
        ]
    }

    /// The Service that it was sent on to, or that was asked for: its host name, name and namespace.
    fn service(&self) -> Option<[String; 3]> {
        let asked = match &self.arrival.target {
            Target::Service(service, _) => Some(&*service.hostname),
            Target::Workload(_) | Target::Gateway(_) => None,
        };
        let hostname = match self.cluster.map(|cluster| &cluster.key) {
            Some(ClusterKey::Service { hostname, .. }) => Some(&**hostname),
            _ => asked,
        }?;
        if let Target::Service(service, _) = &self.arrival.target
            && *service.hostname == *hostname
        {
            return Some([&service.hostname, &service.name, &service.namespace].map(|text| text.to_string()));
        }
        let mut labels = hostname.split('.');
        let mut next = || labels.next().unwrap_or(UNKNOWN).to_owned();
        Some([hostname.to_owned(), next(), next()])
    }
}
