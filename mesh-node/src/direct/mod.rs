//! Connections between two pods of this node, which the kernel makes with nothing between them: what the daemon
//! permits, what it tells of them, and how it ends those that it permits no more.

mod live;
mod parties;
mod tables;
mod watch;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use mesh_core::lock::UnpoisonedMutex as _;
use mesh_core::{
    Snapshot, Workload,
    policy::{Facts, Peer, authorize},
};
use mesh_netlink::TcpCounters;
use tokio::time::Instant;

use crate::{
    bpf::{Attested, DirectEvents, DirectMaps, DirectSignals, MapAccessError, NetnsCookies, What},
    connections::ConnectionView,
    netns::NetNamespace,
    pods::{EnrolledPod, Members, members},
    sock_diag::PodSocketsError,
    telemetry::{Cut, CutReason, Telemetry},
};

use live::Live;
use tables::Tables;

/// How long direct connections may begin after the daemon has last said so: a daemon that hangs stands for no policy.
const LEASE: Duration = Duration::from_secs(10);
/// How often the lease is renewed.
const RENEWAL: Duration = Duration::from_secs(1);
/// How often the bytes of connections that live are asked for.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);
/// Events that are taken in at a time: as many as the kernel can have waiting.
const MAX_BATCH: usize = 8192;
/// Pause after a batch of events, in which more of them gather without waking anybody.
const GATHERING: Duration = Duration::from_millis(5);

/// The direct path of one node.
pub struct DirectPath(Mutex<State>);

struct State {
    maps: DirectMaps,
    tables: Tables,
    /// What the tables were made of.
    made_of: Option<(Arc<Snapshot>, Members)>,
    pods: HashMap<u64, Arc<EnrolledPod>>,
    snapshot: Arc<Snapshot>,
    live: Live,
    adopted: bool,
    enabled: bool,
    watches_requests: bool,
}

impl DirectPath {
    /// Takes the maps over from an earlier daemon, when [`Self::apply`] is called first: until then they are that one's. Where
    /// it is not `enabled`, nothing is ever permitted.
    #[must_use]
    pub fn new(maps: DirectMaps, telemetry: Arc<Telemetry>, enabled: bool) -> Self {
        Self(Mutex::new(State {
            maps,
            tables: Tables::default(),
            made_of: None,
            pods: HashMap::new(),
            snapshot: Arc::default(),
            watches_requests: telemetry.watches_requests(),
            live: Live::new(telemetry),
            adopted: false,
            enabled,
        }))
    }

    /// Makes the kernel's tables what the snapshot wants for the pods that are in the mesh now, and ends the connections
    /// that it permits no more.
    pub fn apply(&self, snapshot: &Arc<Snapshot>, pods: &[Arc<EnrolledPod>]) {
        let mut state = self.state();
        state.snapshot = snapshot.clone();
        state.pods = pods.iter().map(|pod| (pod.netns.cookie(), pod.clone())).collect();
        if let Err(error) = state.apply(snapshot) {
            tracing::error!(%error, "direct connections are off: the kernel's tables could not be set");
            state.turn_off();
        }
    }

    /// Takes a pod out that leaves the mesh: nothing begins directly to it or from it. What is open goes on.
    pub fn remove(&self, netns_cookie: u64) {
        let mut state = self.state();
        if let Err(error) = state.remove(netns_cookie) {
            tracing::error!(%error, "direct connections are off: the kernel's tables could not be set");
            state.turn_off();
        }
    }

    /// Whether anything is ever permitted.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.state().enabled
    }

    /// The pod in the mesh with this network namespace.
    #[must_use]
    pub fn pod(&self, netns_cookie: u64) -> Option<Arc<EnrolledPod>> {
        self.state().pods.get(&netns_cookie).cloned()
    }

    /// Every direct connection that lives, as its two ends are told of.
    pub fn views(&self) -> Vec<ConnectionView> {
        self.state().live.views()
    }

    /// Follows the kernel's events and keeps the tables in force, until the daemon ends.
    pub async fn run(&self, mut events: DirectEvents, mut signals: DirectSignals) {
        let mut renewal = tokio::time::interval(RENEWAL);
        let mut progress = tokio::time::interval_at(Instant::now() + PROGRESS_INTERVAL, PROGRESS_INTERVAL);
        loop {
            tokio::select! {
                ready = events.ready() => {
                    if ready.is_err() {
                        return;
                    }
                    self.take(&mut events, &mut signals);
                    tokio::time::sleep(GATHERING).await;
                }
                ready = signals.ready() => if ready.is_err() {
                    return;
                },
                _ = renewal.tick() => self.renew(),
                _ = progress.tick() => self.state().observe(),
            }
            self.take(&mut events, &mut signals);
        }
    }

    /// What was shown of a connection comes after its beginning and before its end.
    fn take(&self, events: &mut DirectEvents, signals: &mut DirectSignals) {
        let mut state = self.state();
        let State { live, snapshot, .. } = &mut *state;
        let waiting = std::iter::from_fn(|| events.next()).take(MAX_BATCH);
        let (begun, others): (Vec<_>, Vec<_>) = waiting.partition(|event| event.what == What::Opened);
        begun.iter().for_each(|event| live.note(event, snapshot));
        signals.drain(MAX_BATCH, |signal| live.show(signal));
        others.iter().for_each(|event| live.note(event, snapshot));
        live.finish_overdue();
    }

    fn renew(&self) {
        let mut state = self.state();
        if state.enabled
            && let Err(error) = state.maps.renew_lease(LEASE)
        {
            tracing::error!(%error, "the lease of direct connections is not renewed: they go by the daemon");
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock_unpoisoned()
    }
}

impl State {
    fn apply(&mut self, snapshot: &Arc<Snapshot>) -> Result<(), MapAccessError> {
        let members = members(snapshot, self.pods.values());
        if self.is_made_of(snapshot, &members) {
            return Ok(());
        }
        if !self.adopted {
            self.maps.clear()?;
        }
        let next = if self.enabled {
            Tables::of(snapshot, &members, self.watches_requests)
        } else {
            Tables::of_addresses(&members)
        };
        self.tables.change_to(&next, &mut self.maps)?;
        let last = std::mem::replace(&mut self.tables, next);
        if last.permit_more_than(&self.tables) || !self.adopted {
            self.cut_forbidden(snapshot, &members)?;
        }
        self.made_of = Some((snapshot.clone(), members));
        if !self.adopted {
            self.adopt()?;
        }
        Ok(())
    }

    fn remove(&mut self, netns_cookie: u64) -> Result<(), MapAccessError> {
        self.pods.remove(&netns_cookie);
        let next = self.tables.without(netns_cookie);
        self.tables.change_to(&next, &mut self.maps)?;
        self.tables = next;
        self.made_of = None;
        Ok(())
    }

    fn is_made_of(&self, snapshot: &Arc<Snapshot>, members: &Members) -> bool {
        let made_of = self.made_of.as_ref();
        made_of.is_some_and(|(known, pods)| Arc::ptr_eq(known, snapshot) && pods == members)
    }

    /// Nothing begins directly until the tables have been made anew.
    fn turn_off(&mut self) {
        self.tables = Tables::default();
        self.made_of = None;
        if let Err(error) = self.maps.clear() {
            tracing::error!(%error, "the kernel's tables of direct connections could not be emptied");
        }
    }

    /// Ends every connection, and every handshake, that policy denies now.
    fn cut_forbidden(&mut self, snapshot: &Snapshot, members: &Members) -> Result<(), MapAccessError> {
        for connection in self.maps.attested()? {
            if self.tables.permit(connection.netns_cookies, connection.server.port()) {
                continue;
            }
            let Some(denial) = denial(snapshot, members, &connection) else {
                continue;
            };
            self.live.cut(&connection, Cut { reason: CutReason::PolicyDenied, detail: denial });
            self.maps.forget(&connection)?;
            let pod = self.pods.get(&connection.netns_cookies.client);
            if let Some(pod) = pod
                && let Err(error) = destroy(&pod.netns, &connection)
            {
                tracing::error!(client = %connection.client, server = %connection.server, %error, "connection not cut");
            }
        }
        Ok(())
    }

    /// Takes over the connections that were made while an earlier daemon ran.
    fn adopt(&mut self) -> Result<(), MapAccessError> {
        for connection in self.maps.attested()? {
            self.live.adopt(&connection, &self.snapshot);
        }
        self.adopted = true;
        self.observe();
        self.live.consider_all_told();
        Ok(())
    }

    /// Asks the kernel for the bytes of the connections that live, and finds those whose end was not told.
    fn observe(&mut self) {
        let attested = match self.maps.attested() {
            Ok(attested) => attested,
            Err(error) => {
                tracing::warn!(%error, "direct connections could not be listed");
                return;
            }
        };
        for cookie in self.live.client_namespaces() {
            let Some(pod) = self.pods.get(&cookie) else {
                continue;
            };
            match counters(&pod.netns) {
                Ok(counters) => self.live.observe(cookie, &counters),
                Err(error) => tracing::warn!(pod = pod.display_name, %error, "bytes of direct connections unknown"),
            }
        }
        self.live.tell_progress();
        let ids = attested.iter().map(|connection| connection.id).collect();
        self.live.finish_lost(&ids);
    }
}

/// Why policy denies a connection between two pods of this node now; `None`: it does not.
fn denial(snapshot: &Snapshot, members: &Members, connection: &Attested) -> Option<String> {
    let NetnsCookies { client, server } = connection.netns_cookies;
    let (client, server): (&Workload, &Workload) = (members.get(&client)?, members.get(&server)?);
    let facts = Facts {
        peer: Peer::Kernel(&client.identity),
        client: connection.client.ip(),
        forwarded: None,
        server: None,
        destination: connection.server,
    };
    authorize(snapshot, server, &facts).verdict.err().map(|denial| denial.to_string())
}

fn counters(netns: &NetNamespace) -> Result<Vec<TcpCounters>, PodSocketsError> {
    Ok(netns.sock_diag()?.counters()?)
}

/// Ends a connection by its client's socket: both ends get a reset.
fn destroy(netns: &NetNamespace, connection: &Attested) -> Result<(), PodSocketsError> {
    let mut diag = netns.sock_diag()?;
    let found = diag.find(connection.client, connection.server)?;
    // Another connection may have its addresses by now.
    if let Some(found) = found.filter(|found| found.cookie() == connection.id.cookie) {
        diag.destroy(&found)?;
    }
    Ok(())
}
