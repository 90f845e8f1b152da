//! HTTP at a port that is declared to be TCP: seen in the bytes that pass, and counted as every other request, while nothing is
//! done about it. Nodes leave what goes by a waypoint to the waypoint.

use std::{borrow::Cow, cell::RefCell, rc::Rc, time::Instant};

use mesh_core::telemetry::{
    filter::{Attributes, Number, Text},
    value::{Peer, PeerAttribute},
};
use mesh_signals::{Exchange, Observer, Protocol, Sender};
use tokio_util::io::{InspectReader, InspectWriter};

use super::Arrival;
use crate::{
    duplex::Duplex,
    telemetry::{self, Parties, peer_of},
    upstream::{Cluster, Endpoint},
    worker::Worker,
};

/// Looks at one connection while it is carried.
pub(super) struct Watch<'a> {
    worker: &'a Rc<Worker>,
    arrival: &'a Arrival,
    cluster: Rc<Cluster>,
    endpoint: Rc<Endpoint>,
    began: Instant,
    observer: RefCell<Observer>,
}

impl<'a> Watch<'a> {
    /// Begins to look, unless the server's pod has a label against that.
    pub(super) fn begin(
        worker: &'a Rc<Worker>,
        arrival: &'a Arrival,
        cluster: Rc<Cluster>,
        endpoint: Rc<Endpoint>,
    ) -> Self {
        let port = endpoint.address().port();
        let is_unwatched = endpoint.workload.as_ref().is_some_and(|workload| workload.unwatched.covers(port));
        let observer = RefCell::new(if is_unwatched { Observer::blind() } else { Observer::default() });
        Self { worker, arrival, cluster, endpoint, began: Instant::now(), observer }
    }

    /// The client's stream, looked at.
    pub(super) fn of(&self, stream: impl Duplex) -> impl Duplex {
        let read = InspectReader::new(stream, |bytes: &[u8]| self.show(Sender::Client, bytes));
        InspectWriter::new(read, |bytes: &[u8]| self.show(Sender::Server, bytes))
    }

    fn show(&self, sender: Sender, bytes: &[u8]) {
        let mut observer = self.observer.borrow_mut();
        if observer.looks() {
            observer.show(sender, bytes, self.began.elapsed(), &mut |exchange| self.count(&exchange));
        }
    }

    fn count(&self, exchange: &Exchange) {
        let Self { worker, arrival, cluster, endpoint, .. } = self;
        let parties = Parties {
            arrival,
            source: arrival.client.workload.as_ref(),
            endpoint: Some(endpoint),
            cluster: Some(cluster),
            is_grpc: exchange.protocol == Protocol::Grpc,
            status: exchange.status.unwrap_or_default(),
            grpc: exchange.grpc_status,
            flags: "-",
        };
        let told = telemetry::told(worker, arrival);
        let changes = told.metrics.as_ref().map(|metrics| metrics.of(&Seen { watch: self, exchange }));
        let series = worker.series.of(&worker.shared.telemetry, &parties, (Some(endpoint), Some(cluster)), changes);
        series.count(exchange.duration, exchange.request_bytes, exchange.response_bytes);
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.observer.borrow_mut().end(self.began.elapsed(), &mut |exchange| self.count(&exchange));
    }
}

/// What is known of a request that only passed: nothing of its head.
struct Seen<'a> {
    watch: &'a Watch<'a>,
    exchange: &'a Exchange,
}

impl Attributes for Seen<'_> {
    fn number(&self, what: Number) -> Option<i64> {
        let (arrival, exchange) = (self.watch.arrival, self.exchange);
        let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        match what {
            Number::ResponseCode => exchange.status.map(Into::into),
            Number::ResponseGrpcStatus => exchange.grpc_status.map(Into::into),
            Number::RequestSize => Some(bytes(exchange.request_bytes)),
            Number::ResponseSize => Some(bytes(exchange.response_bytes)),
            Number::SourcePort => Some(arrival.client.address.port().into()),
            Number::DestinationPort => Some(arrival.target.port().into()),
        }
    }

    fn text(&self, what: &Text) -> Option<Cow<'_, str>> {
        let client = &self.watch.arrival.client;
        match what {
            Text::SourceAddress => Some(client.address.to_string().into()),
            Text::UpstreamAddress => Some(self.watch.endpoint.address().to_string().into()),
            Text::PeerIdentity => Some(client.identity.as_ref()?.as_str().into()),
            _ => None,
        }
    }

    fn mtls(&self) -> bool {
        self.watch.arrival.client.identity.is_some()
    }

    fn peer(&self, peer: Peer, what: &PeerAttribute) -> Option<&str> {
        peer_of(self.watch.arrival, Some(&self.watch.endpoint), peer, what)
    }
}
