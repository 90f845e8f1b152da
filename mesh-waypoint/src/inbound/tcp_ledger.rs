//! What one connection that nobody looks into came to: counted while it is carried, told once at its end.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::{Instant, SystemTime},
};

use mesh_metrics::TcpSeries;
use tokio_util::io::{InspectReader, InspectWriter};

use super::Arrival;
use crate::{
    duplex::Duplex,
    exchange::Flag,
    listeners::Listeners,
    telemetry::{self, EndedConnection, Parties},
    upstream::{Cluster, Endpoint, UpstreamError},
    worker::Worker,
};

/// The account of one connection. It is told of when this goes.
pub(super) struct TcpLedger<'a> {
    worker: &'a Rc<Worker>,
    arrival: &'a Arrival,
    /// Its number among flows.
    id: u64,
    at: SystemTime,
    began: Instant,
    reached: Option<Reached>,
    /// Bytes of the client.
    sent: Cell<u64>,
    /// Bytes of the server.
    received: Cell<u64>,
    outcome: RefCell<Outcome>,
}

/// Where it is sent on to, and what that counts in.
struct Reached {
    cluster: Rc<Cluster>,
    endpoint: Rc<Endpoint>,
    series: Arc<TcpSeries>,
}

/// How it ended.
struct Outcome {
    end: &'static str,
    flag: Flag,
    error: Option<String>,
}

impl<'a> TcpLedger<'a> {
    /// A connection begins. One of which nothing more is heard was ended by its client before it was connected.
    pub(super) fn open(worker: &'a Rc<Worker>, arrival: &'a Arrival) -> Self {
        let outcome = Outcome { end: "withdrawn", flag: Flag::DownstreamTermination, error: None };
        Self {
            worker,
            arrival,
            id: worker.shared.telemetry.flows.number(),
            at: SystemTime::now(),
            began: Instant::now(),
            reached: None,
            sent: Cell::default(),
            received: Cell::default(),
            outcome: RefCell::new(outcome),
        }
    }

    /// It is connected. Where nothing more is heard of it, it was ended from here.
    pub(super) fn reached(&mut self, cluster: &Rc<Cluster>, endpoint: &Rc<Endpoint>) {
        self.note("cut", Flag::None, None);
        let listeners = self.worker.listeners();
        let parties = self.parties(&listeners, Some((cluster, endpoint)), Flag::None);
        let series = self.worker.shared.telemetry.connection_series(&parties);
        series.opened.inc();
        let flows = &self.worker.shared.telemetry.flows;
        flows.tell_of(|| telemetry::opened(self.id, self.arrival, endpoint));
        self.reached = Some(Reached { cluster: cluster.clone(), endpoint: endpoint.clone(), series });
    }

    /// It is not connected.
    pub(super) fn refused(&self, error: &UpstreamError) {
        self.note("refused", Flag::of(error), Some(error.to_string()));
    }

    /// No route leads anywhere.
    pub(super) fn unrouted(&self) {
        self.note("refused", Flag::NoRoute, Some("no route for the connection".to_owned()));
    }

    /// Both sides have ended, or one was broken off.
    pub(super) fn ended(&self, error: Option<&std::io::Error>) {
        let end = if error.is_some() { "reset" } else { EndedConnection::CLOSED };
        self.note(end, Flag::None, error.map(ToString::to_string));
    }

    /// The client's stream, whose bytes are counted.
    pub(super) fn of(&self, stream: impl Duplex) -> impl Duplex {
        let series = self.reached.as_ref().map(|reached| &reached.series);
        let read = InspectReader::new(stream, move |bytes: &[u8]| {
            let count = bytes.len() as u64;
            self.sent.set(self.sent.get() + count);
            series.inspect(|series| series.from_client(count));
        });
        InspectWriter::new(read, move |bytes: &[u8]| {
            let count = bytes.len() as u64;
            self.received.set(self.received.get() + count);
            series.inspect(|series| series.to_client(count));
        })
    }

    fn note(&self, end: &'static str, flag: Flag, error: Option<String>) {
        self.outcome.replace(Outcome { end, flag, error });
    }

    /// Whom it is between, where it has `reached` somebody.
    fn parties<'p>(
        &'p self,
        listeners: &'p Listeners,
        reached: Option<(&'p Cluster, &'p Endpoint)>,
        flag: Flag,
    ) -> Parties<'p> {
        let (cluster, endpoint) = reached.unzip();
        let source = self.arrival.source(listeners);
        Parties { cluster, endpoint, ..Parties::of_connection(self.arrival, source, flag.as_str()) }
    }

    fn tell(&self, parties: &Parties<'_>, outcome: &Outcome) {
        let worker = self.worker;
        let told = telemetry::told(worker, self.arrival);
        let ended = EndedConnection {
            at: self.at,
            arrival: self.arrival,
            cluster: self.reached.as_ref().map(|reached| &reached.cluster.key),
            endpoint: parties.endpoint,
            sent: self.sent.get(),
            received: self.received.get(),
            duration: self.began.elapsed(),
            flags: parties.flags,
            end: outcome.end,
            error: outcome.error.as_deref(),
        };
        worker.shared.telemetry.flows.tell_of(|| ended.flow(self.id));
        telemetry::tell(worker, (&told, telemetry::is_logged(&told)), &ended, self.arrival.trace, |line| {
            ended.write(&worker.shared.telemetry.connection_fields(parties), line);
        });
    }
}

impl Drop for TcpLedger<'_> {
    fn drop(&mut self) {
        let outcome = self.outcome.borrow();
        let listeners = self.worker.listeners();
        let reached = self.reached.as_ref().map(|reached| (&*reached.cluster, &*reached.endpoint));
        let parties = self.parties(&listeners, reached, outcome.flag);
        match &self.reached {
            Some(reached) => reached.series.closed.inc(),
            None => {
                let series = self.worker.shared.telemetry.connection_series(&parties);
                series.opened.inc();
                series.closed.inc();
            }
        }
        self.tell(&parties, &outcome);
    }
}
