//! Requests in what is carried: rate, errors and duration of services that have no waypoint, without a byte being held back.
//!
//! Each connection is looked at by one node: that of its server where this is in the mesh, else that of its client. Of what the
//! kernel carries alone, between two pods of one node, it shows the beginning of each segment ([`crate::direct`]).

use std::{cell::RefCell, sync::Arc, time::Instant};

use mesh_metrics::RequestSeries;
use mesh_signals::{Exchange, Observer, Protocol, Sender};
use mesh_transport::relay::{Far, Watcher};

use super::{
    flow_events::FlowEvents,
    metrics::Metrics,
    report::{Report, Reporter},
};
use crate::connections::ConnectionId;

/// Kinds of outcome of one connection whose series are kept at hand.
const MAX_KEPT: usize = 16;

/// How an exchange ended, as the labels tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) protocol: Protocol,
    pub(super) status: Option<u16>,
    pub(super) grpc: Option<u16>,
}

impl From<&Exchange> for Outcome {
    fn from(exchange: &Exchange) -> Self {
        Self { protocol: exchange.protocol, status: exchange.status, grpc: exchange.grpc_status }
    }
}

/// Looks at one connection while it is carried.
pub struct RequestWatch<'a> {
    connection: ConnectionId,
    report: &'a Report,
    metrics: &'a Metrics,
    flows: &'a FlowEvents,
    began: Instant,
    seen: RefCell<Observed>,
}

struct Observed {
    observer: Observer,
    counts: RequestCounts,
}

/// What one connection's requests are counted in, kept at hand.
#[derive(Default)]
pub struct RequestCounts(Vec<(Outcome, Arc<RequestSeries>)>);

impl RequestCounts {
    pub(super) fn count(&mut self, exchange: &Exchange, report: &Report, metrics: &Metrics) {
        let outcome = Outcome::from(exchange);
        let count = |series: &RequestSeries| {
            series.count(exchange.duration, exchange.request_bytes, exchange.response_bytes);
        };
        if let Some((_, series)) = self.0.iter().find(|(known, _)| *known == outcome) {
            return count(series);
        }
        let series = metrics.requests(report, outcome);
        count(&series);
        if self.0.len() < MAX_KEPT {
            self.0.push((outcome, series));
        }
    }
}

/// Whether this node is the one to look at a connection.
pub(super) fn are_ours(report: &Report, far: &Far) -> bool {
    let (workload, port) = (&report.destination.workload, report.destination.address.map(|address| address.port()));
    let unwatched = match (workload, port) {
        (Some(workload), Some(port)) => workload.unwatched.covers(port),
        _ => false,
    };
    // What goes by a tunnel is looked at where it arrives, and what a waypoint sends on the waypoint tells of.
    !unwatched && !report.by_waypoint && (report.reporter == Reporter::Destination || matches!(far, Far::Plain(_)))
}

impl<'a> RequestWatch<'a> {
    /// Begins to look.
    pub(super) fn begin(
        connection: ConnectionId,
        report: &'a Report,
        metrics: &'a Metrics,
        flows: &'a FlowEvents,
    ) -> Self {
        let seen = RefCell::new(Observed { observer: Observer::default(), counts: RequestCounts::default() });
        Self { connection, report, metrics, flows, began: Instant::now(), seen }
    }

    fn show(&self, sender: Sender, bytes: &[u8]) {
        let Observed { observer, counts } = &mut *self.seen.borrow_mut();
        if observer.looks() {
            let at = self.began.elapsed();
            observer.show(sender, bytes, at, &mut |exchange| self.count(counts, &exchange));
        }
    }

    fn count(&self, counts: &mut RequestCounts, exchange: &Exchange) {
        self.flows.request(self.connection, self.report, exchange);
        counts.count(exchange, self.report, self.metrics);
    }
}

impl Watcher for RequestWatch<'_> {
    fn sent(&self, bytes: &[u8]) {
        let sender = match self.report.reporter {
            Reporter::Source => Sender::Client,
            Reporter::Destination => Sender::Server,
        };
        self.show(sender, bytes);
    }

    fn received(&self, bytes: &[u8]) {
        let sender = match self.report.reporter {
            Reporter::Source => Sender::Server,
            Reporter::Destination => Sender::Client,
        };
        self.show(sender, bytes);
    }
}

impl Drop for RequestWatch<'_> {
    fn drop(&mut self) {
        let at = self.began.elapsed();
        let Observed { observer, counts } = &mut *self.seen.borrow_mut();
        observer.end(at, &mut |exchange| self.count(counts, &exchange));
    }
}
