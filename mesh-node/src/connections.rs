//! The connections that a worker thread carries now: what is told of them while they live, and how they are cut.
//!
//! The table is the thread's own, so that nothing is locked for a connection's sake; others ask by [`crate::workers::Workers::each`].

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    fmt,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use mesh_core::policy::Permit;
use mesh_transport::{
    hbone::Fate,
    relay::{Far, RelayCounters, Watcher, relay_watched},
};
use tokio::{net::TcpStream, sync::Notify};

use crate::telemetry::{Bytes, Cut, CutReason, Ending, Report, Reporter, Telemetry};

/// Names a connection of this daemon; never used again while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(u64);

impl ConnectionId {
    /// The next one.
    pub fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// The number that it is told by.
    pub const fn number(self) -> u64 {
        self.0
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One connection: being opened, or carried.
pub struct Connection {
    id: ConnectionId,
    report: Report,
    counters: RelayCounters,
    is_open: Cell<bool>,
    /// What of [`Self::bytes`] the metrics have already.
    told: Cell<Bytes>,
    cut: RefCell<Option<Cut>>,
    cut_now: Notify,
}

/// A connection at one moment, for other threads.
#[derive(Clone, Debug)]
pub struct ConnectionView {
    /// Its name.
    pub id: ConnectionId,
    /// Who talks to whom.
    pub report: Report,
    /// Whether both ends are connected.
    pub is_open: bool,
    /// What has been carried.
    pub bytes: Bytes,
}

impl Connection {
    /// Who talks to whom.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Ends the connection with a reset at each end, now or as soon as it would be opened. The first reason stays.
    pub fn cut(&self, cut: Cut) {
        self.cut.borrow_mut().get_or_insert(cut);
        self.cut_now.notify_one();
    }

    /// The connection as others may see it.
    pub fn view(&self) -> ConnectionView {
        ConnectionView { id: self.id, report: self.report.clone(), is_open: self.is_open.get(), bytes: self.bytes() }
    }

    /// Bytes carried so far.
    fn bytes(&self) -> Bytes {
        let sent = self.counters.sent.load(Ordering::Relaxed);
        let received = self.counters.received.load(Ordering::Relaxed);
        // From the client's side of view, whichever end the relay's application socket was.
        match self.report.reporter {
            Reporter::Source => Bytes { from_client: sent, to_client: received },
            Reporter::Destination => Bytes { from_client: received, to_client: sent },
        }
    }

    /// What was carried since this was called last.
    fn untold_bytes(&self) -> Bytes {
        let now = self.bytes();
        now.since(self.told.replace(now))
    }

    async fn when_cut(&self) -> Cut {
        loop {
            if let Some(cut) = self.cut.borrow().clone() {
                return cut;
            }
            self.cut_now.notified().await;
        }
    }
}

/// A worker thread's connections.
pub struct Connections {
    telemetry: Arc<Telemetry>,
    table: RefCell<HashMap<ConnectionId, Rc<Connection>>>,
}

impl Connections {
    /// An empty table.
    pub fn new(telemetry: Arc<Telemetry>) -> Self {
        Self { telemetry, table: RefCell::default() }
    }

    /// Takes a connection in, of which everything is known but its bytes and its end.
    pub fn begin(&self, report: Report) -> Carried<'_> {
        let connection = Rc::new(Connection {
            id: ConnectionId::next(),
            report,
            counters: RelayCounters::default(),
            is_open: Cell::new(false),
            told: Cell::default(),
            cut: RefCell::default(),
            cut_now: Notify::new(),
        });
        self.table.borrow_mut().insert(connection.id, connection.clone());
        Carried { table: self, connection }
    }

    /// All connections, as they are now.
    pub fn all(&self) -> Vec<Rc<Connection>> {
        self.table.borrow().values().cloned().collect()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.table.borrow().len()
    }

    /// Adds what was carried since the last call to the metrics, so that long connections show while they live.
    pub fn tell_progress(&self) {
        for connection in self.table.borrow().values() {
            let untold = connection.untold_bytes();
            if untold != Bytes::default() {
                self.telemetry.carried(&connection.report, untold);
            }
        }
    }
}

/// A connection in its table, for as long as this lives.
pub struct Carried<'a> {
    table: &'a Connections,
    connection: Rc<Connection>,
}

impl Carried<'_> {
    /// The connection.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Both ends of a connection into an application are connected: relays, as the permit says that it may.
    pub async fn enter(&self, permit: Permit, application: TcpStream, far: impl Into<Far>) -> Ending {
        // It has said all that it has to say; a carried connection keeps little.
        drop(permit);
        self.relay(application, far).await
    }

    /// Both ends of a pod's own connection are connected: relays. Whether it may enter is judged at the other end.
    pub async fn leave(&self, app: TcpStream, far: impl Into<Far>) -> Ending {
        self.relay(app, far).await
    }

    /// Relays until the end, or until the connection is cut.
    async fn relay(&self, app: TcpStream, far: impl Into<Far>) -> Ending {
        let Self { table, connection } = self;
        connection.is_open.set(true);
        table.telemetry.opened(connection.id, &connection.report);
        let far = far.into();
        let requests = table.telemetry.watch_requests(connection.id, &connection.report, &far);
        let watcher = requests.as_ref().map(|requests| requests as &dyn Watcher);
        let fate = if let Far::Tunnel(tunnel) = &far { Some(tunnel.fate()) } else { None };
        tokio::select! {
            biased;
            // Dropping the relay resets both ends.
            cut = connection.when_cut() => Ending::Cut(cut),
            outcome = relay_watched(app, far, &connection.counters, watcher) => match fate.as_ref().and_then(Fate::reason) {
                Some(end) => Ending::Cut(Cut { reason: CutReason::of(end), detail: end.to_string() }),
                None => Ending::Carried(outcome.end),
            },
        }
    }

    /// The one terminal event of the connection: metrics, a log line, a flow event.
    pub fn finish(self, ending: &Ending) {
        let connection = &self.connection;
        let untold = connection.untold_bytes();
        self.table.telemetry.ended(connection.id, &connection.report, untold, connection.bytes(), ending);
    }
}

impl Drop for Carried<'_> {
    fn drop(&mut self) {
        self.table.table.borrow_mut().remove(&self.connection.id);
    }
}
