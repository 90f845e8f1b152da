//! What the daemon tells of itself and of the connections that it carries.

mod access_log;
mod certificates;
mod configuration;
mod decisions;
mod endpoints;
mod existing;
mod exports;
mod flow_events;
#[cfg(test)]
mod hostile_names;
mod labels;
mod metrics;
mod report;
mod requests;
mod spans;
mod starts;
mod succession;

use std::sync::Arc;

use mesh_core::policy::Authorization;
use mesh_signals::Exchange;
use mesh_transport::relay::Far;

pub use decisions::Decider;
pub use endpoints::Endpoints;
pub use existing::Existing;
pub use exports::Exports;
pub use flow_events::{FlowEvent, FlowEvents, FlowKind};
pub use labels::request_flags;
pub use metrics::Metrics;
pub use report::{Bytes, Cut, CutReason, Ending, Party, Refused, Report, Reporter, Security};
pub use requests::{RequestCounts, RequestWatch};
pub use spans::{Finished, Span, SpanKind, Spans};
pub use starts::PodStart;

use self::access_log::Ended;
use crate::connections::ConnectionId;

/// Where connections are told: every way that there is hears of every connection, once.
pub struct Telemetry {
    /// Prometheus' metrics.
    pub metrics: Arc<Metrics>,
    /// Live flow events.
    pub flows: FlowEvents,
    /// Spans of tunnels' set-up.
    spans: Spans,
    /// Who gets lines and spans by Telemetries.
    pub exports: Exports,
    watches_requests: bool,
}

impl Telemetry {
    /// Nothing told yet; whether requests are looked for in what is carried.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>, spans: Spans, exports: Exports, watches_requests: bool) -> Self {
        Self { metrics, flows: FlowEvents::new(), spans, exports, watches_requests }
    }

    /// Policies have decided on a connection into a pod.
    pub fn judged(&self, report: &Report, authorization: &Authorization) {
        self.metrics.judged(report, authorization);
    }

    /// The set-up of a connection's tunnel begins, below `traceparent` where that is one. None where it is not recorded.
    #[must_use]
    pub fn begin_span(&self, kind: SpanKind, report: &Report, traceparent: Option<&str>) -> Option<Box<Span>> {
        let asked = self.exports.told(report).map(|told| told.tracing).unwrap_or_default();
        let named = asked.provider.as_ref().and_then(|provider| self.exports.spans(provider));
        self.spans.begin(kind, traceparent, &asked, named)
    }

    /// The set-up of a connection's tunnel is over; `error` says why it failed.
    pub fn set_up(&self, span: Option<Box<Span>>, report: &Report, error: Option<(Refused, &str)>) {
        if let Some(span) = span {
            span.finish(report, error, &self.metrics);
        }
    }

    /// Both ends of a connection are connected.
    pub fn opened(&self, id: ConnectionId, report: &Report) {
        self.metrics.connection_opened(report);
        self.flows.opened(id, report);
    }

    /// Looks for requests in a connection, where that is wanted and this node is the one to do it.
    pub fn watch_requests<'a>(&'a self, id: ConnectionId, report: &'a Report, far: &Far) -> Option<RequestWatch<'a>> {
        (self.watches_requests && requests::are_ours(report, far))
            .then(|| RequestWatch::begin(id, report, &self.metrics, &self.flows))
    }

    /// Whether requests are looked for.
    #[must_use]
    pub const fn watches_requests(&self) -> bool {
        self.watches_requests
    }

    /// A request of a connection that others carry.
    pub fn requested(&self, id: ConnectionId, report: &Report, counts: &mut RequestCounts, exchange: &Exchange) {
        self.flows.request(id, report, exchange);
        counts.count(exchange, report, &self.metrics);
    }

    /// More bytes of a connection that lives on.
    pub fn carried(&self, report: &Report, bytes: Bytes) {
        self.metrics.bytes_carried(report, bytes);
    }

    /// The one terminal event of a connection. `untold` is what [`Self::carried`] was not told of, `all` everything.
    pub fn ended(&self, id: ConnectionId, report: &Report, untold: Bytes, all: Bytes, ending: &Ending) {
        self.metrics.connection_ended(report, untold, ending);
        self.exports.tell(&Ended { report, bytes: all, ending }, &self.metrics);
        self.flows.ended(id, report, all, ending);
    }
}
