//! The connections that a pod had before it joined: plaintext that no hook and no policy of the mesh has seen. They are
//! ended or kept, as the operator chose, and those that are kept are counted as long as they live.

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    sync::Arc,
};

use mesh_abi::ports;
use mesh_core::{
    Snapshot, Workload, WorkloadUid,
    policy::{Facts, Mode, Peer, authorize, effective_mode},
};
use mesh_netlink::{SockDiag, TcpConnection, TcpSockets};

use super::EnrolledPod;
use crate::{
    args::ExistingConnections,
    bpf::{ExistingMap, MapAccessError},
    repairs::{EnrolmentChange, EnrolmentEvents},
    sock_diag::PodSocketsError,
    telemetry::{Existing, Metrics},
};

/// Connections that are told one by one when they are ended, for each pod and change.
const MAX_TOLD: usize = 20;

/// Why the connections could not be looked at. It is tried again.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExistingError {
    #[error(transparent)]
    Map(#[from] MapAccessError),
    #[error(transparent)]
    Sockets(#[from] PodSocketsError),
}

/// The connections from before the joining, of all joined pods.
pub(super) struct ExistingOfPods {
    choice: ExistingConnections,
    map: ExistingMap,
    /// Cookies of the sockets that are kept, of the pods that have any.
    kept: BTreeMap<WorkloadUid, HashSet<u64>>,
    /// What they were judged by.
    judged_by: Option<Arc<Snapshot>>,
}

/// What became of a pod's connections when they were judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    reset: usize,
    kept: usize,
    failed: usize,
}

impl ExistingOfPods {
    pub(super) fn new(choice: ExistingConnections, map: ExistingMap) -> Self {
        Self { choice, map, kept: BTreeMap::new(), judged_by: None }
    }

    /// How many are kept, of the pods that have any.
    pub(super) fn counts(&self) -> BTreeMap<WorkloadUid, usize> {
        self.kept.iter().map(|(uid, kept)| (uid.clone(), kept.len())).collect()
    }

    /// A pod has come under the hooks. Where it `was_enrolled` before, by this daemon or an earlier one, only what was
    /// kept then is from before; everything else was made under the hooks.
    pub(super) fn joined(
        &mut self,
        pod: &EnrolledPod,
        was_enrolled: bool,
        snapshot: &Snapshot,
        telling: Telling<'_>,
    ) -> Result<(), ExistingError> {
        let mut diag = pod.netns.sock_diag()?;
        let sockets = diag.all().map_err(PodSocketsError::from)?;
        let known: HashSet<u64> = self.map.of(pod.netns.cookie()).into_iter().collect();
        let mut before: HashSet<u64> =
            sockets.connections.iter().map(TcpConnection::cookie).filter(|it| known.contains(it)).collect();
        for gone in known.difference(&before) {
            self.map.remove(*gone)?;
        }
        if !was_enrolled {
            let all = sockets.connections.iter().filter(|connection| leaves_the_pod(pod, connection));
            before.extend(all.map(TcpConnection::cookie));
            for socket in &before {
                self.map.insert(*socket, pod.netns.cookie())?;
            }
        }
        self.kept.insert(pod.uid.clone(), before);
        let tally = self.judge(pod, snapshot, &mut diag, &sockets)?;
        telling.of_joining(pod, tally);
        Ok(())
    }

    /// A pod has left: its connections are nobody's business.
    pub(super) fn left(&mut self, pod: &EnrolledPod) -> Result<(), ExistingError> {
        self.kept.remove(&pod.uid);
        for socket in self.map.of(pod.netns.cookie()) {
            self.map.remove(socket)?;
        }
        Ok(())
    }

    /// Looks at what is kept: what has ended is forgotten, and a configuration that has changed is heard.
    pub(super) fn follow<'a>(
        &mut self,
        pods: impl Iterator<Item = &'a Arc<EnrolledPod>>,
        snapshot: &Arc<Snapshot>,
        telling: Telling<'_>,
    ) {
        let is_new = !self.judged_by.as_ref().is_some_and(|known| Arc::ptr_eq(known, snapshot));
        self.judged_by = Some(snapshot.clone());
        let followed: Vec<_> = pods.filter(|pod| self.kept.contains_key(&pod.uid)).collect();
        for pod in followed {
            if let Err(error) = self.look_at(pod, is_new, snapshot, telling) {
                // With the same snapshot once more.
                self.judged_by = None;
                tracing::warn!(pod = pod.display_name, %error, "connections from before the pod joined not looked at");
            }
        }
        telling.metrics.existing.set_open(self.kept.values().map(HashSet::len).sum());
    }

    fn look_at(
        &mut self,
        pod: &EnrolledPod,
        is_new: bool,
        snapshot: &Snapshot,
        telling: Telling<'_>,
    ) -> Result<(), ExistingError> {
        let mut diag = pod.netns.sock_diag()?;
        let sockets = diag.all().map_err(PodSocketsError::from)?;
        let open: HashSet<u64> = sockets.connections.iter().map(TcpConnection::cookie).collect();
        let kept = self.kept.get(&pod.uid).into_iter().flatten();
        let ended: Vec<u64> = kept.filter(|socket| !open.contains(socket)).copied().collect();
        for socket in ended {
            self.forget(&pod.uid, socket)?;
        }
        if is_new {
            let tally = self.judge(pod, snapshot, &mut diag, &sockets)?;
            telling.of_change(pod, tally);
        }
        Ok(())
    }

    /// Ends those of the pod's connections that may not go on.
    fn judge(
        &mut self,
        pod: &EnrolledPod,
        snapshot: &Snapshot,
        diag: &mut SockDiag,
        sockets: &TcpSockets,
    ) -> Result<Tally, ExistingError> {
        let workload = snapshot.workload_by_uid(&pod.uid).cloned();
        let kept = self.kept.get(&pod.uid).cloned().unwrap_or_default();
        let mut tally = Tally::default();
        for connection in sockets.connections.iter().filter(|connection| kept.contains(&connection.cookie())) {
            let inbound = sockets.listening.contains(&connection.local.port());
            let why = self.why_not(workload.as_deref(), snapshot, connection, inbound);
            let Some(why) = why else {
                tally.kept += 1;
                continue;
            };
            match diag.destroy(connection) {
                Ok(_) => {
                    tally.reset += 1;
                    self.forget(&pod.uid, connection.cookie())?;
                    if tally.reset <= MAX_TOLD {
                        let (local, remote) = (connection.local, connection.remote);
                        tracing::info!(pod = pod.display_name, %local, %remote, inbound, why, "connection from before reset");
                    }
                }
                Err(error) => {
                    tally.failed += 1;
                    if tally.failed == 1 {
                        tracing::error!(pod = pod.display_name, %error, why, "connection from before not reset");
                    }
                }
            }
        }
        if self.kept.get(&pod.uid).is_some_and(HashSet::is_empty) {
            self.kept.remove(&pod.uid);
        }
        Ok(tally)
    }

    /// Why a connection may not go on, if it may not.
    fn why_not(
        &self,
        workload: Option<&Workload>,
        snapshot: &Snapshot,
        connection: &TcpConnection,
        inbound: bool,
    ) -> Option<String> {
        match self.choice {
            ExistingConnections::Keep => None,
            ExistingConnections::Reset => Some("the daemon runs with --existing-connections reset".to_owned()),
            ExistingConnections::Auto => denial(snapshot, workload?, connection, inbound),
        }
    }

    fn forget(&mut self, uid: &WorkloadUid, socket: u64) -> Result<(), ExistingError> {
        if let Some(kept) = self.kept.get_mut(uid) {
            kept.remove(&socket);
        }
        Ok(self.map.remove(socket)?)
    }
}

/// Why policy denies plaintext: into the pod by what would be asked of it now, out of it where the pod's own mode is
/// STRICT, since then all that it says is to be said under its identity.
fn denial(snapshot: &Snapshot, workload: &Workload, connection: &TcpConnection, inbound: bool) -> Option<String> {
    if inbound {
        let facts = Facts {
            peer: Peer::Unproven,
            client: connection.remote.ip(),
            forwarded: None,
            server: None,
            destination: connection.local,
        };
        return authorize(snapshot, workload, &facts).verdict.err().map(|denial| denial.to_string());
    }
    let mode = effective_mode(snapshot, workload, connection.local.port());
    (mode.mode == Mode::Strict).then(|| "it is the pod's own, and the pod's mode is STRICT".to_owned())
}

/// Whether the connection goes to another host, and is not to one of the daemon's tunnels, whose listener is there already.
fn leaves_the_pod(pod: &EnrolledPod, connection: &TcpConnection) -> bool {
    let (local, remote) = (connection.local, connection.remote);
    !(local.ip().is_loopback() || remote.ip().is_loopback() || pod.owns(remote.ip()) || local.port() == ports::HBONE)
}

/// Where it is told.
#[derive(Clone, Copy)]
pub(super) struct Telling<'a> {
    pub(super) metrics: &'a Metrics,
    pub(super) events: &'a EnrolmentEvents,
}

impl Telling<'_> {
    fn of_joining(self, pod: &EnrolledPod, tally: Tally) {
        if tally != Tally::default() {
            tracing::info!(pod = pod.display_name, %tally, "connections from before the pod joined");
        }
        self.metrics.existing.became(Existing::Kept, tally.kept);
        self.count(pod, tally);
    }

    fn of_change(self, pod: &EnrolledPod, tally: Tally) {
        if tally.reset + tally.failed > 0 {
            tracing::info!(pod = pod.display_name, %tally, "connections from before the pod joined, by new policies");
            self.count(pod, tally);
        }
    }

    fn count(self, pod: &EnrolledPod, tally: Tally) {
        self.metrics.existing.became(Existing::Reset, tally.reset);
        self.metrics.existing.became(Existing::Failed, tally.failed);
        if tally != Tally::default() {
            self.events.add(Some(&pod.display_name), EnrolmentChange::Existing { detail: tally.to_string() });
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} reset, {} kept", self.reset, self.kept)?;
        if self.failed > 0 {
            write!(f, ", {} to be reset and not", self.failed)?;
        }
        Ok(())
    }
}
