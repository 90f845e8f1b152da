//! The direct connections that live, by what the kernel tells of them; and their telling to metrics, log and flow events.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use mesh_core::Snapshot;
use mesh_netlink::TcpCounters;
use mesh_signals::Exchange;
use mesh_transport::relay::End;

use super::{parties, watch::Watch};
use crate::{
    bpf::{self, Attested, DirectEvent, DirectId, DirectSignal, SocketEnd, What},
    connections::{ConnectionId, ConnectionView},
    telemetry::{Bytes, Cut, Decider, Ending, Refused, Report, Reporter, Telemetry},
};

/// How long the server's socket may outlive the client's before the connection is told to be over.
const GRACE: Duration = Duration::from_secs(3);

/// The connections, by their names.
pub(super) struct Live {
    telemetry: Arc<Telemetry>,
    connections: HashMap<DirectId, Connection>,
    /// Those whose client's socket has closed, while the server's has not.
    half_closed: HashSet<DirectId>,
}

struct Connection {
    ids: [ConnectionId; 2],
    reports: [Report; 2],
    client_namespace: u64,
    /// The kernel did not have it when it was asked last, and its end had not been told.
    is_missing: bool,
    /// By the latest count.
    bytes: Bytes,
    /// What of them the metrics have.
    told: Bytes,
    client_end: Option<Ended>,
    server_end: Option<Ended>,
    cut: Option<Cut>,
    /// Looks for requests, once the kernel has shown something.
    watch: Option<Box<Watch>>,
    /// An earlier daemon was told of its beginning.
    is_adopted: bool,
}

#[derive(Clone, Copy)]
struct Ended {
    socket: SocketEnd,
    at: Instant,
}

impl Live {
    pub(super) fn new(telemetry: Arc<Telemetry>) -> Self {
        Self { telemetry, connections: HashMap::new(), half_closed: HashSet::new() }
    }

    /// Takes in one event.
    pub(super) fn note(&mut self, event: &DirectEvent, snapshot: &Arc<Snapshot>) {
        let (connection, at) = (&event.connection, instant(event.at));
        match event.what {
            What::Opened => self.open(connection, snapshot, at),
            What::Failed => self.fail(connection, snapshot, at),
            What::ClientClosed { end, accepted } => {
                if !self.connections.contains_key(&connection.id) {
                    // Its beginning was lost.
                    self.open(connection, snapshot, at);
                }
                self.client_closed(connection.id, Ended { socket: end, at }, accepted);
            }
            What::ServerClosed(end) => self.server_closed(connection.id, Ended { socket: end, at }),
        }
    }

    /// Takes in a connection that was opened while an earlier daemon ran, and told by it.
    pub(super) fn adopt(&mut self, connection: &Attested, snapshot: &Arc<Snapshot>) {
        self.insert(connection, snapshot, Instant::now()).is_adopted = true;
    }

    /// Takes in what the kernel shows of a segment.
    pub(super) fn show(&mut self, signal: &DirectSignal<'_>) {
        // Of one that is not known the beginning was lost.
        let Some(connection) = self.connections.get_mut(&signal.id) else {
            return;
        };
        let is_adopted = connection.is_adopted;
        let begun = || if is_adopted { Watch::default() } else { Watch::begin(signal.id) };
        connection.watch.get_or_insert_with(|| Box::new(begun()));
        connection.tell_requests(&self.telemetry, |watch| watch.show(signal));
    }

    /// What has been carried so far was told by an earlier daemon.
    pub(super) fn consider_all_told(&mut self) {
        for connection in self.connections.values_mut() {
            connection.told = connection.bytes;
        }
    }

    /// Says why a connection will end, if it has not.
    pub(super) fn cut(&mut self, connection: &Attested, cut: Cut) {
        if let Some(known) = self.connections.get_mut(&connection.id) {
            known.cut.get_or_insert(cut);
        }
    }

    /// The namespaces with clients of connections that live.
    pub(super) fn client_namespaces(&self) -> BTreeSet<u64> {
        self.connections.values().map(|connection| connection.client_namespace).collect()
    }

    /// Takes in what the kernel has counted in one namespace.
    pub(super) fn observe(&mut self, namespace: u64, counters: &[TcpCounters]) {
        let counters: HashMap<u64, &TcpCounters> =
            counters.iter().map(|counters| (counters.cookie, counters)).collect();
        for (id, connection) in &mut self.connections {
            let known = (connection.client_namespace == namespace).then(|| counters.get(&id.cookie)).flatten();
            if let Some(counters) = known {
                let from_client = counters.acknowledged.saturating_sub(1);
                connection.bytes = Bytes { from_client, to_client: counters.received };
            }
        }
    }

    /// Adds what was counted since the last call to the metrics.
    pub(super) fn tell_progress(&mut self) {
        for connection in self.connections.values_mut() {
            let untold = connection.bytes.since(connection.told);
            connection.told = connection.bytes;
            if untold != Bytes::default() {
                connection.reports.iter().for_each(|report| self.telemetry.carried(report, untold));
            }
        }
    }

    /// Ends the connections that are not among `attested`, which the kernel has now, and were not the last time either:
    /// their ends' events were lost, and not merely on their way.
    pub(super) fn finish_lost(&mut self, attested: &HashSet<DirectId>) {
        let mut lost = Vec::new();
        for (id, connection) in &mut self.connections {
            let missing = connection.client_end.is_none() && !attested.contains(id);
            if missing && connection.is_missing {
                lost.push(*id);
            }
            connection.is_missing = missing;
        }
        for id in lost {
            self.finish(id);
        }
    }

    /// Ends the connections whose server's socket outlives the client's.
    pub(super) fn finish_overdue(&mut self) {
        let is_overdue = |id: &&DirectId| {
            let known = self.connections.get(id).and_then(|connection| connection.client_end);
            known.is_none_or(|client| client.at.elapsed() > GRACE)
        };
        let overdue: Vec<_> = self.half_closed.iter().filter(is_overdue).copied().collect();
        for id in overdue {
            self.finish(id);
        }
    }

    /// Every connection, as its two ends are told of.
    pub(super) fn views(&self) -> Vec<ConnectionView> {
        let views = self.connections.values().flat_map(|connection| {
            connection.ids.into_iter().zip(&connection.reports).map(|(id, report)| ConnectionView {
                id,
                report: report.clone(),
                is_open: true,
                bytes: connection.bytes,
            })
        });
        views.collect()
    }

    fn insert(&mut self, connection: &Attested, snapshot: &Arc<Snapshot>, started: Instant) -> &mut Connection {
        let fresh = Connection {
            ids: [ConnectionId::next(), ConnectionId::next()],
            reports: parties::reports(connection, snapshot, started),
            client_namespace: connection.netns_cookies.client,
            is_missing: false,
            bytes: Bytes::default(),
            told: Bytes::default(),
            client_end: None,
            server_end: None,
            cut: None,
            watch: None,
            is_adopted: false,
        };
        self.connections.entry(connection.id).insert_entry(fresh).into_mut()
    }

    fn open(&mut self, connection: &Attested, snapshot: &Arc<Snapshot>, at: Instant) {
        // Adopted while its event waited.
        if self.connections.contains_key(&connection.id) {
            return;
        }
        let telemetry = self.telemetry.clone();
        let opened = self.insert(connection, snapshot, at);
        let [_, at_server] = &mut opened.reports;
        if let Some(authorization) = parties::authorization(at_server, snapshot) {
            telemetry.judged(at_server, &authorization);
            at_server.decider = Decider::of(&authorization.verdict);
        }
        for (id, report) in opened.ids.into_iter().zip(&opened.reports) {
            telemetry.opened(id, report);
        }
    }

    fn fail(&mut self, connection: &Attested, snapshot: &Arc<Snapshot>, at: Instant) {
        let cut = self.connections.remove(&connection.id).and_then(|known| known.cut);
        let why = cut.map_or_else(|| "the application refused, or did not answer".to_owned(), |cut| cut.detail);
        let ending = Ending::Refused(Refused::Unreachable, why);
        for report in parties::reports(connection, snapshot, at) {
            self.telemetry.ended(ConnectionId::next(), &report, Bytes::default(), Bytes::default(), &ending);
        }
    }

    fn client_closed(&mut self, id: DirectId, ended: Ended, accepted: bool) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        connection.client_end = Some(ended);
        if connection.server_end.is_some() || !accepted {
            self.finish(id);
        } else {
            self.half_closed.insert(id);
        }
    }

    fn server_closed(&mut self, id: DirectId, ended: Ended) {
        // One that is over for want of this event.
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        connection.server_end = Some(ended);
        if connection.client_end.is_some() {
            self.finish(id);
        }
    }

    fn finish(&mut self, id: DirectId) {
        self.half_closed.remove(&id);
        let Some(mut connection) = self.connections.remove(&id) else {
            return;
        };
        let bytes = connection.final_bytes();
        let untold = bytes.since(connection.told);
        if let Some(at) = connection.ended_at() {
            connection.reports.iter_mut().for_each(|report| report.end_at(at));
        }
        connection.tell_requests(&self.telemetry, Watch::end);
        for (id, report) in connection.ids.into_iter().zip(&connection.reports) {
            let ending = match &connection.cut {
                Some(cut) => Ending::Cut(cut.clone()),
                None => Ending::Carried(connection.end(report.reporter)),
            };
            self.telemetry.ended(id, report, untold, bytes, &ending);
        }
    }
}

impl Connection {
    /// Tells of the requests that the connection's watch, where it has one, says are complete; as the server's end.
    fn tell_requests(&mut self, telemetry: &Telemetry, complete: impl FnOnce(&mut Watch) -> Vec<Exchange>) {
        let Some(watch) = &mut self.watch else { return };
        let ([_, id], [_, report]) = (self.ids, &self.reports);
        for exchange in complete(watch) {
            telemetry.requested(id, report, &mut watch.counts, &exchange);
        }
    }

    /// Each end knows best what it has sent.
    fn final_bytes(&self) -> Bytes {
        let from_client = self.client_end.map(|ended| ended.socket.sent);
        let to_client = match (self.server_end, self.client_end) {
            (Some(server), _) => Some(server.socket.sent),
            // An orderly end has come with a FIN that counts.
            (None, Some(client)) => Some(client.socket.received.saturating_sub(client.socket.orderly.into())),
            (None, None) => None,
        };
        Bytes {
            from_client: from_client.unwrap_or(self.bytes.from_client),
            to_client: to_client.unwrap_or(self.bytes.to_client),
        }
    }

    fn ended_at(&self) -> Option<Instant> {
        let ends = self.client_end.into_iter().chain(self.server_end);
        ends.map(|ended| ended.at).max()
    }

    /// How it ended, for the daemon as it stands for one end: the application is that end's.
    fn end(&self, reporter: Reporter) -> End {
        let abrupt = |end: Option<Ended>| end.filter(|ended| !ended.socket.orderly).map(|ended| ended.at);
        // A reset is told first by the end that sent it.
        let by_client = match (abrupt(self.client_end), abrupt(self.server_end)) {
            (None, None) => return End::Closed,
            (Some(client), Some(server)) => client <= server,
            (client, _) => client.is_some(),
        };
        if by_client == (reporter == Reporter::Source) { End::ResetByApp } else { End::ResetByFar }
    }
}

/// A time of the kernel's as the daemon measures it.
fn instant(at: Duration) -> Instant {
    let ago = bpf::now().saturating_sub(at);
    Instant::now().checked_sub(ago).unwrap_or_else(Instant::now)
}
