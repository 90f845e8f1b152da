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
    telemetry::{self, Ends, Parties},
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
        let passed = PassedRequest { ends: Ends { arrival, endpoint: Some(endpoint) }, exchange };
        let changes = told.metrics.as_ref().map(|metrics| metrics.of(&passed));
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
struct PassedRequest<'a> {
    ends: Ends<'a>,
    exchange: &'a Exchange,
}

impl Attributes for PassedRequest<'_> {
    fn number(&self, what: Number) -> Option<i64> {
        let exchange = self.exchange;
        let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        match what {
            Number::ResponseCode => exchange.status.map(Into::into),
            Number::ResponseGrpcStatus => exchange.grpc_status.map(Into::into),
            Number::RequestSize => Some(bytes(exchange.request_bytes)),
            Number::ResponseSize => Some(bytes(exchange.response_bytes)),
            Number::SourcePort => Some(self.ends.source_port()),
            Number::DestinationPort => Some(self.ends.destination_port()),
        }
    }

    fn text(&self, what: &Text) -> Option<Cow<'_, str>> {
        self.ends.text(what)
    }

    fn mtls(&self) -> bool {
        self.ends.mtls()
    }

    fn peer(&self, peer: Peer, what: &PeerAttribute) -> Option<&str> {
        self.ends.peer(peer, what)
    }
}

#[cfg(test)]
mod tests {
    use std::{net::SocketAddr, time::Duration};

    use mesh_core::l7::Topology;

    use super::*;
    use crate::inbound::Entrance;

    /// It is known of the connection, whatever that carries.
    #[test]
    fn a_request_that_only_passes_has_its_servers_name() {
        let address = SocketAddr::from(([10, 1, 0, 9], 443));
        let client = SocketAddr::from(([10, 1, 0, 1], 40_000));
        let entrance = Entrance {
            port: 443,
            server: Some("shop.example.com".into()),
            address: Some(address),
            tls: true,
            https: true,
            topology: Topology::default(),
        };
        let arrival = Arrival::from_outside((client, client), None, entrance);
        let exchange = Exchange {
            protocol: Protocol::Http,
            status: Some(200),
            grpc_status: None,
            duration: Duration::ZERO,
            request_bytes: 0,
            response_bytes: 0,
        };
        let passed = PassedRequest { ends: Ends { arrival: &arrival, endpoint: None }, exchange: &exchange };
        assert_eq!(passed.text(&Text::ServerName).as_deref(), Some("shop.example.com"));
        assert_eq!(passed.text(&Text::Method), None, "nothing of its head");
    }
}
