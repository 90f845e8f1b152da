//! Istio's standard labels of requests and connections (Istio "Standard Metrics").

use std::sync::Arc;

use mesh_core::standard_labels::{Between, PartyLabels, UNKNOWN};
use mesh_core::{SpiffeId, Workload};
use mesh_metrics::{ConnectionLabels, RequestEnd, RequestLabels, connection_labels, request_labels};

use crate::{
    inbound::{Arrival, Target},
    upstream::{Cluster, ClusterKey, Endpoint},
};

/// Whom a request, or a connection that nobody looks into, was between, and how it ended.
pub(crate) struct Parties<'a> {
    /// To what it was sent, and by whom.
    pub(crate) arrival: &'a Arrival,
    /// The workload that the metrics have as its source: a waypoint's client, and a gateway itself.
    pub(crate) source: Option<&'a Arc<Workload>>,
    /// Who answered.
    pub(crate) endpoint: Option<&'a Endpoint>,
    /// Where it was sent on to.
    pub(crate) cluster: Option<&'a Cluster>,
    /// Whether it is gRPC's.
    pub(crate) is_grpc: bool,
    /// The status; 0 where there was no answer.
    pub(crate) status: u16,
    /// gRPC's status, where it is known.
    pub(crate) grpc: Option<u16>,
    /// The response flags.
    pub(crate) flags: &'static str,
}

impl<'a> Parties<'a> {
    /// Of a connection that nobody looks into, and that has gone nowhere yet.
    pub(crate) const fn of_connection(
        arrival: &'a Arrival,
        source: Option<&'a Arc<Workload>>,
        flags: &'static str,
    ) -> Self {
        Self { arrival, source, endpoint: None, cluster: None, is_grpc: false, status: 0, grpc: None, flags }
    }

    /// The identity of a client that is no workload that is known; its text is shared by what one tunnel carries.
    pub(super) fn stranger(&self) -> Option<&'a SpiffeId> {
        self.arrival.client.identity.as_ref().filter(|_| self.source.is_none())
    }

    /// A request's labels; `cluster` is the name of the cluster of both ends. Where not all may be `known`, the parties are not told.
    pub(super) fn values(&self, cluster: &str, known: bool) -> RequestLabels {
        self.between(cluster, known, |between, security| {
            let Self { is_grpc, status, grpc, flags, .. } = *self;
            request_labels(between, &RequestEnd { is_grpc, status, grpc, flags, security })
        })
    }

    /// The same of a connection that nobody looks into.
    pub(super) fn connection_values(&self, cluster: &str, known: bool) -> ConnectionLabels<String> {
        self.between(cluster, known, |between, security| {
            connection_labels(between, self.flags, security).map(str::to_owned)
        })
    }

    /// What `labels` makes of both ends, and of the connection's security.
    fn between<T>(&self, cluster: &str, known: bool, labels: impl FnOnce(&Between<'_>, &'static str) -> T) -> T {
        let at_gateway = matches!(self.arrival.target, Target::Gateway(_));
        let workload = self.source.map(|workload| &**workload).filter(|_| known);
        let destination = self.endpoint.and_then(|endpoint| endpoint.workload.as_deref()).filter(|_| known);
        let service = self.service().filter(|_| known).unwrap_or([UNKNOWN; 3].map(str::to_owned));
        let identity = self.arrival.client.identity.as_ref().or(workload.map(|workload| &workload.identity));
        let identity = identity.filter(|_| known);
        let mut source = PartyLabels::of(workload, identity, cluster);
        if workload.is_none() {
            // Who is no workload that is known here has a namespace in the identity.
            source.namespace = identity.map_or(UNKNOWN, SpiffeId::namespace);
        }
        let destination = PartyLabels::of(destination, destination.map(|workload| &workload.identity), cluster);
        let by_tunnel = !at_gateway || self.endpoint.is_some_and(|endpoint| endpoint.identity().is_some());
        let between = Between {
            reporter: if at_gateway { "source" } else { "waypoint" },
            source,
            destination,
            service: service.each_ref().map(String::as_str),
        };
        labels(&between, if by_tunnel { "mutual_tls" } else { "none" })
    }

    /// The Service that it was sent on to, or that was asked for: its host name, name and namespace.
    fn service(&self) -> Option<[String; 3]> {
        let asked = self.arrival.target.service();
        let hostname = match self.cluster.map(|cluster| &cluster.key) {
            Some(ClusterKey::Service { hostname, .. }) => hostname,
            _ => &asked?.hostname,
        };
        if let Some(service) = asked.filter(|service| service.hostname == *hostname) {
            return Some([&service.hostname, &service.name, &service.namespace].map(|text| text.to_string()));
        }
        let mut labels = hostname.split('.');
        let mut next = || labels.next().unwrap_or(UNKNOWN).to_owned();
        Some([hostname.to_string(), next(), next()])
    }
}
