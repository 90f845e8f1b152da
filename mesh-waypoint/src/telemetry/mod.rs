//! What Prometheus is told: Istio's standard metrics of requests and connections, and what is only ours.

mod access;
mod bad_input;
mod cache;
mod crowding;
mod exports;
mod flows;
mod labels;
mod own;
mod routes;
mod spans;

use std::sync::Arc;

use mesh_admin_server::LogOutput;
use mesh_core::telemetry::MetricChanges;
use mesh_metrics::{ControlMetrics, ControlStanding, Registry, RequestMetrics, RequestSeries, TcpMetrics, TcpSeries};
use mesh_xds::{Progress, Standing};
use prometheus::{TextEncoder, proto::MetricFamily};

use self::{crowding::Crowding, flows::Flows, routes::RouteMetrics};
use crate::counts::RuleBook;

pub(crate) use self::access::{
    Ended, EndedConnection, Ends, NotedHead, is_logged, opened, protocol, put_address, put_of_arrival, put_start, tell,
    told,
};
pub(crate) use self::bad_input::{BadInput, BadInputs, Sender, is_malformed};
pub(crate) use self::cache::SeriesCache;
pub(crate) use self::exports::Exports;
pub(crate) use self::labels::Parties;
pub(crate) use self::own::{AuthorizerOutcome, KeyFetch, LimitOutcome, MirrorOutcome, OwnMetrics};
pub(crate) use self::spans::{AttemptEnd, AttemptSpan, Finished, Outcome, RequestSpan, Tracer, Upstream};

/// Everything that is measured, over all threads.
pub(crate) struct Telemetry {
    registry: Registry,
    cluster: String,
    requests: RequestMetrics,
    connections: TcpMetrics,
    /// What broke HTTP's rules.
    pub(crate) bad_inputs: BadInputs,
    /// Connections that there was no room for.
    pub(crate) crowding: Crowding,
    /// Ours.
    pub(crate) own: OwnMetrics,
    /// Requests as they end.
    pub(crate) flows: Flows,
}

impl Telemetry {
    /// Registers everything; `cluster` is the name of the cluster in Istio's labels, `rules` are told of as they are counted.
    ///
    /// # Errors
    /// Two metrics have one name.
    pub(crate) fn new(cluster: String, rules: &RuleBook) -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        registry.register(Box::new(RouteMetrics::of(rules.clone())?))?;
        let (requests, connections) = (RequestMetrics::register(&registry)?, TcpMetrics::register(&registry)?);
        let (bad_inputs, crowding) = (BadInputs::new(&registry)?, Crowding::new(&registry)?);
        let own = OwnMetrics::new(&registry)?;
        Ok(Self { cluster, requests, connections, bad_inputs, crowding, own, registry, flows: Flows::default() })
    }

    /// Tells of lines of the log that were lost, too.
    ///
    /// # Errors
    /// Two metrics have one name.
    pub(crate) fn register_log(&self, log: &LogOutput) -> Result<(), prometheus::Error> {
        self.registry.register(Box::new(log.lost()))
    }

    /// Tells of what mesh-control serves, too.
    ///
    /// # Errors
    /// Two metrics have one name.
    pub(crate) fn register_control(&self, progress: Progress) -> Result<(), prometheus::Error> {
        let read = move || {
            let Standing { connected, version, rejected, .. } = progress.standing();
            let generation = version.map_or(0, |version| version.generation);
            ControlStanding { connected: connected.is_some(), generation, rejected }
        };
        self.registry.register(Box::new(ControlMetrics::new(read)?))
    }

    /// The name of the cluster.
    pub(crate) fn cluster(&self) -> &str {
        &self.cluster
    }

    /// The series of a request's labels.
    pub(crate) fn series(&self, parties: &Parties<'_>) -> Arc<RequestSeries> {
        self.requests.of(parties.values(&self.cluster, true), || {
            self.own.series_overflow.inc();
            parties.values(&self.cluster, false)
        })
    }

    /// The series of a request's labels, as they are changed.
    pub(crate) fn changed_series(&self, parties: &Parties<'_>, changes: &MetricChanges) -> Arc<RequestSeries> {
        self.requests.changed(&parties.values(&self.cluster, true), changes, &|| {
            self.own.series_overflow.inc();
            parties.values(&self.cluster, false)
        })
    }

    /// The series of a connection that nobody looks into.
    pub(crate) fn connection_series(&self, parties: &Parties<'_>) -> Arc<TcpSeries> {
        self.connections.of(&parties.connection_values(&self.cluster, true), || {
            self.own.series_overflow.inc();
            parties.connection_values(&self.cluster, false)
        })
    }

    /// The labels of a request, as fields of its line.
    fn label_fields(&self, parties: &Parties<'_>) -> String {
        access::label_fields(&parties.values(&self.cluster, true))
    }

    /// The labels of a connection, as fields of its line.
    pub(crate) fn connection_fields(&self, parties: &Parties<'_>) -> String {
        access::connection_fields(&parties.connection_values(&self.cluster, true))
    }

    /// All of it.
    pub(crate) fn gather(&self) -> Vec<MetricFamily> {
        self.registry.gather()
    }

    /// All of it in Prometheus' text format.
    ///
    /// # Errors
    /// The encoder's, which it has for families without metrics or names.
    pub(crate) fn encode(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reference_has_every_metric() {
        let telemetry = Telemetry::new("c".to_owned(), &RuleBook::default()).unwrap();
        telemetry.register_control(Progress::default()).unwrap();
        telemetry.register_log(&LogOutput::stdout().unwrap()).unwrap();
        mesh_docs::hold_metrics("mesh-waypoint", telemetry.registry.listed());
    }
}
