//! Compares the pods that should be in the mesh with those that are, and makes them the same.

use std::{
    collections::{BTreeMap, HashSet},
    path::PathBuf,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use mesh_config::Config;
use mesh_core::{NodeName, Snapshot, Workload, WorkloadUid};
use tokio::sync::{mpsc, watch};

use super::{
    EnrolledPod, PodAddresses, PodsView, Roster, Sandboxes, Waiting,
    discovery::{self, SandboxProcess},
    existing::{ExistingOfPods, Telling},
    joined::{Joined, LinkWatch, ServeError},
    lingering::{self, Lingering},
    sandbox::SandboxWatch,
    starts::{Start, Starts, Verdict},
    succession::Order,
};
use crate::{
    args::ExistingConnections,
    bpf::{Datapath, EnrolError, MapAccessError, ProbePorts},
    handover::Inheritance,
    hosts::Hosts,
    keeper::Keeper,
    listeners::{self, ListenError},
    netns::{NetNamespace, NetnsError},
    node::Shared,
    repairs::EnrolmentChange,
    workers::Workers,
};

/// How soon to look again for a sandbox that is not there yet: kubelet sends no event of it to this daemon.
const PENDING_INTERVAL: Duration = Duration::from_millis(100);
/// Why a pod is not in that was not tried.
const NO_SANDBOX: &str = "no process of the pod is found on this node yet";
/// How often to compare everything although nothing is known to have changed: what vanished is back within a second.
const AUDIT_INTERVAL: Duration = Duration::from_millis(500);

/// A pod could not be taken into the mesh. It is tried again; until then its new connections are refused.
#[derive(Debug, thiserror::Error)]
enum JoinError {
    #[error(transparent)]
    Netns(#[from] NetnsError),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(transparent)]
    Hooks(#[from] Box<EnrolError>),
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error("the sandbox was replaced while it was joined")]
    Replaced,
    #[error("cannot watch the sandbox's process: {0}")]
    Watch(#[from] std::io::Error),
}

/// What the enrolment loop needs to know of its node.
pub struct EnrolmentSettings {
    /// The node whose pods are enrolled.
    pub node: NodeName,
    /// The proc file system of the node's pid namespace.
    pub proc: PathBuf,
    /// Inode of the node's own network namespace.
    pub host_netns: u64,
    /// What becomes of the connections that a pod has when it joins.
    pub existing: ExistingConnections,
}

/// The enrolment loop's state.
pub struct Enrolment {
    settings: EnrolmentSettings,
    pub(super) datapath: Datapath,
    pub(super) workers: Arc<Workers>,
    pub(super) shared: Arc<Shared>,
    pub(super) joined: BTreeMap<WorkloadUid, Joined>,
    /// Pods that have just left.
    pub(super) lingering: Lingering,
    /// Why each pod that should be in is not; said once for each reason.
    failures: BTreeMap<WorkloadUid, String>,
    roster: watch::Sender<Roster>,
    /// Why something that vanished is not back, for a pod or for all of them; said once for each reason.
    pub(super) unrepaired: BTreeMap<Option<WorkloadUid>, String>,
    existing: ExistingOfPods,
    probe_ports: ProbePorts,
    hosts: Hosts,
    /// Listeners of the daemon before, for the pods that are joined first.
    pub(super) inheritance: Inheritance,
    /// Pods whose containers are held back.
    held_starts: Starts,
    start_requests: mpsc::Receiver<Start>,
    pub(super) keeper: Keeper,
    /// Where a watch of a sandbox tells that it has ended, and where that is heard.
    tell_ended: mpsc::Sender<WorkloadUid>,
    ended: mpsc::Receiver<WorkloadUid>,
}

impl Enrolment {
    /// Starts with no pod of its own; those that an earlier daemon enrolled stay refused until they are joined again.
    ///
    /// # Errors
    /// A map could not be opened.
    pub fn new(
        settings: EnrolmentSettings,
        datapath: Datapath,
        workers: Arc<Workers>,
        shared: Arc<Shared>,
        start_requests: mpsc::Receiver<Start>,
        keeper: Keeper,
    ) -> Result<Self, MapAccessError> {
        let (tell_ended, ended) = mpsc::channel(64);
        let existing = ExistingOfPods::new(settings.existing, datapath.existing()?);
        let hosts = Hosts::new(datapath.host_maps()?, shared.tells_hosts);
        Ok(Self {
            settings,
            existing,
            hosts,
            probe_ports: datapath.probe_ports()?,
            datapath,
            workers,
            shared,
            joined: BTreeMap::new(),
            lingering: Lingering::default(),
            failures: BTreeMap::new(),
            roster: watch::Sender::default(),
            unrepaired: BTreeMap::new(),
            inheritance: Inheritance::default(),
            held_starts: Starts::default(),
            start_requests,
            keeper,
            tell_ended,
            ended,
        })
    }

    /// What the last comparison found.
    #[must_use]
    pub fn roster(&self) -> watch::Receiver<Roster> {
        self.roster.subscribe()
    }

    /// The node's pods for those who ask.
    #[must_use]
    pub fn view(&self) -> PodsView {
        let EnrolmentSettings { proc, host_netns, .. } = &self.settings;
        PodsView { roster: self.roster(), sandboxes: Sandboxes { proc: proc.clone(), host_netns: *host_netns } }
    }

    /// Runs until the configuration's sender is gone. `ready` is true from the first comparison until connections are taken
    /// no more. While a successor has the listeners, and after [`Order::Stop`], nothing is compared. Once `uninstalled`
    /// resolves, all pods leave, the data path is removed, and nothing more is done.
    pub async fn run(
        mut self,
        mut config: watch::Receiver<Arc<Config>>,
        ready: watch::Sender<bool>,
        mut orders: mpsc::Receiver<Order>,
        uninstalled: impl Future<Output = ()>,
    ) {
        let mut uninstalled = pin!(uninstalled);
        let (mut is_lent, mut is_stopping) = (false, false);
        loop {
            let works = !is_lent && !is_stopping;
            let mut interval = AUDIT_INTERVAL;
            if works {
                let current = config.borrow_and_update().clone();
                let pending = self.reconcile(&current);
                ready.send_replace(true);
                interval = if pending { PENDING_INTERVAL } else { AUDIT_INTERVAL };
            }
            tokio::select! {
                Some(order) = orders.recv() => match order {
                    Order::Lend(answer) => {
                        is_lent = true;
                        // A successor that does not wait is gone.
                        let _ = answer.send(self.lend());
                    }
                    Order::Resume => {
                        is_lent = false;
                        self.resume();
                    }
                    Order::Stop => {
                        is_stopping = true;
                        ready.send_replace(false);
                        self.drain();
                    }
                    Order::Release(answer) => {
                        let _ = answer.send(self.release().await);
                        return std::future::pending().await;
                    }
                },
                changed = config.changed(), if works => if changed.is_err() { return },
                Some(start) = self.start_requests.recv() => match (is_stopping, is_lent) {
                    // Who waits no more needs no answer.
                    (true, _) => drop(start.answer.send(Verdict::Stopping)),
                    (_, true) => drop(start.answer.send(Verdict::Successor)),
                    (false, false) => self.held_starts.push(start),
                },
                Some(uid) = self.ended.recv(), if works => self.sandbox_ended(&uid),
                () = tokio::time::sleep(interval), if works => {}
                () = &mut uninstalled, if !is_lent => return self.uninstall().await,
            }
        }
    }

    /// Leaves the node as if there had been no mesh. A daemon that ended now would be started again, and come back.
    async fn uninstall(mut self) {
        // No pod is held back any more.
        self.start_requests.close();
        let nothing = BTreeMap::new();
        self.withdraw_undesired(&nothing);
        self.keep_listeners();
        self.forget_strangers(&nothing);
        match self.datapath.remove() {
            Ok(()) => tracing::info!("uninstalled: no hook and no map is left on this node"),
            Err(error) => tracing::error!(%error, "not wholly uninstalled"),
        }
        tokio::time::sleep(lingering::TIME).await;
        self.lingering.close();
        std::future::pending().await
    }

    /// The pods of this node that should be in.
    pub(super) fn desired(&self, config: &Config) -> BTreeMap<WorkloadUid, Arc<Workload>> {
        let own = config.snapshot.workloads_on(&self.settings.node).filter(|workload| workload.is_enrolled());
        own.map(|workload| (workload.uid.clone(), workload.clone())).collect()
    }

    /// Makes the actual state the desired one. True when a pod is still missing.
    fn reconcile(&mut self, config: &Config) -> bool {
        let desired = self.desired(config);
        self.withdraw_undesired(&desired);
        let workers = &self.workers;
        self.lingering.close_due(Instant::now(), &self.settings.proc, |uid| workers.close_source(uid));
        self.follow_addresses(&desired);
        self.repair();
        self.join_missing(&desired);
        self.keep_listeners();
        self.connect_directly(&config.snapshot);
        self.hosts.apply(&config.snapshot, self.joined.values().map(|joined| &joined.pod));
        self.let_probes_in(&desired);
        let shared = self.shared.clone();
        self.existing.follow(self.joined.values().map(|joined| &joined.pod), &config.snapshot, telling(&shared));
        let pending = desired.len() > self.joined.len();
        self.forget_strangers(&desired);
        self.hold_certificates();
        self.failures.retain(|uid, _| desired.contains_key(uid));
        self.shared.telemetry.metrics.set_enrolment(desired.len(), self.joined.len(), self.failures.len());
        self.publish(&desired);
        self.let_start(&config.snapshot);
        pending
    }

    /// Joins those that are not in and have a sandbox.
    pub(super) fn join_missing(&mut self, desired: &BTreeMap<WorkloadUid, Arc<Workload>>) {
        let missing: HashSet<&WorkloadUid> = desired.keys().filter(|uid| !self.joined.contains_key(*uid)).collect();
        let found = discovery::find(&self.settings.proc, &missing, self.settings.host_netns);
        for workload in desired.values() {
            let Some(sandbox) = found.get(&workload.uid) else {
                continue;
            };
            match self.join(workload, *sandbox) {
                Ok(()) => {
                    self.failures.remove(&workload.uid);
                }
                Err(error) => self.note_failure(workload, &error.to_string()),
            }
        }
    }

    /// Has the keeper hold what would be lost with this process.
    pub(super) fn keep_listeners(&mut self) {
        self.keeper.hold(self.joined.values().flat_map(Joined::listeners));
    }

    /// Certificates for the accounts of this node's pods, and for no other.
    pub(super) fn hold_certificates(&self) {
        self.shared.identities.hold(&self.identities());
    }

    /// Tells those who ask which pods are not in, and since when.
    fn publish(&self, desired: &BTreeMap<WorkloadUid, Arc<Workload>>) {
        let missing = desired.values().filter(|workload| !self.joined.contains_key(&workload.uid));
        let before = self.roster.borrow().waiting.clone();
        let waiting = missing.map(|workload| {
            let failure = self.failures.get(&workload.uid);
            let waiting = Waiting {
                namespace: workload.namespace.clone(),
                name: workload.name.clone(),
                failed: failure.is_some(),
                reason: failure.cloned().unwrap_or_else(|| NO_SANDBOX.to_owned()),
                since: before.get(&workload.uid).map_or_else(Instant::now, |waiting| waiting.since),
            };
            (workload.uid.clone(), waiting)
        });
        let roster = Roster {
            desired: desired.len(),
            enrolled: self.joined.len(),
            namespaces: self.joined.iter().map(|(uid, joined)| (uid.clone(), joined.pod.netns.inode())).collect(),
            waiting: waiting.collect(),
            existing: self.existing.counts(),
        };
        self.roster.send_if_modified(|current| {
            let changed = *current != roster;
            *current = roster;
            changed
        });
    }

    /// Lets containers run that waited for this comparison.
    fn let_start(&mut self, snapshot: &Snapshot) {
        let (joined, starts) = (&self.joined, &mut self.held_starts);
        starts.settle(|start| match joined.get(&start.uid) {
            Some(joined) => {
                let is_it = start.netns_inode.is_none_or(|inode| inode == joined.sandbox.netns_inode);
                is_it.then_some(Verdict::Enrolled)
            }
            None => {
                let known = snapshot.workload_by_uid(&start.uid)?;
                (!known.is_enrolled()).then_some(Verdict::Outside)
            }
        });
    }

    /// Tells the kernel which of the pods that are wholly in it may connect.
    fn connect_directly(&self, snapshot: &Arc<Snapshot>) {
        let pods: Vec<_> = self.joined.values().map(|joined| joined.pod.clone()).collect();
        self.shared.direct.apply(snapshot, &pods);
    }

    /// Tells the kernel where kubelet knocks at the pods that are in.
    fn let_probes_in(&mut self, desired: &BTreeMap<WorkloadUid, Arc<Workload>>) {
        let of_pod = |(uid, joined): (&WorkloadUid, &Joined)| {
            let (cookie, ports) = (joined.pod.netns.cookie(), desired.get(uid).map(|workload| &workload.probe_ports));
            ports.into_iter().flatten().map(move |port| (cookie, *port)).collect::<Vec<_>>()
        };
        let wanted = self.joined.iter().flat_map(of_pod).collect();
        if let Err(error) = self.probe_ports.set(wanted) {
            tracing::error!(%error, "the kernel does not know of every probe's port");
        }
    }

    fn withdraw_undesired(&mut self, desired: &BTreeMap<WorkloadUid, Arc<Workload>>) {
        let leaving: Vec<_> = self
            .joined
            .iter()
            .filter(|(uid, joined)| !desired.contains_key(*uid) || !joined.is_current(&self.settings.proc))
            .map(|(uid, _)| uid.clone())
            .collect();
        for uid in leaving {
            self.leave(&uid);
        }
    }

    /// Takes over addresses that became known, or changed, after their pod was joined.
    fn follow_addresses(&mut self, desired: &BTreeMap<WorkloadUid, Arc<Workload>>) {
        for (uid, joined) in &self.joined {
            let Some(workload) = desired.get(uid) else { continue };
            let addresses = &joined.pod.addresses;
            if addresses.get()[..] == workload.addresses[..] {
                continue;
            }
            match self.datapath.set_addresses(&joined.pod.netns, &workload.addresses) {
                Ok(()) => addresses.set(&workload.addresses),
                // It is tried again with the next comparison.
                Err(error) => {
                    tracing::error!(pod = joined.pod.display_name, %error, "the pod's addresses not taken over")
                }
            }
        }
    }

    fn join(&mut self, workload: &Workload, sandbox: SandboxProcess) -> Result<(), JoinError> {
        let path = self.settings.proc.join(format!("{}/ns/net", sandbox.pid));
        let netns = NetNamespace::open(&path)?;
        if netns.inode() != sandbox.netns_inode {
            return Err(JoinError::Replaced);
        }
        let watch = SandboxWatch::start(sandbox.pid, workload.uid.clone(), self.tell_ended.clone())?;
        // Before the hooks, so that no interface comes unseen after them.
        let links = LinkWatch::start(&netns)?;
        let mut inherited = self.inheritance.take(netns.cookie());
        inherited.extend(self.lingering.take(&workload.uid, netns.cookie()));
        let listeners = netns.enter(|| listeners::open_all(inherited))?;
        let was_enrolled = self.datapath.is_enrolled(netns.cookie());
        // The hooks come into force even when a listener could not be opened: refused, not leaked.
        self.datapath.enrol(&netns, &workload.addresses).map_err(Box::new)?;
        let (drain, draining) = watch::channel(false);
        let pod = Arc::new(EnrolledPod {
            uid: workload.uid.clone(),
            display_name: format!("{}/{}", workload.namespace, workload.name),
            identity: workload.identity.clone(),
            addresses: PodAddresses::new(&workload.addresses),
            netns,
            drain: draining,
        });
        self.judge_existing(&pod, was_enrolled);
        let listeners = listeners?;
        let joined = Joined::serve(pod, sandbox, drain, (links, watch), listeners, &self.workers)?;
        let pod = &joined.pod;
        tracing::info!(pod = pod.display_name, identity = %pod.identity, pid = sandbox.pid, "pod enrolled");
        self.shared.enrolment_events.add(Some(&pod.display_name), EnrolmentChange::Enrolled { again: was_enrolled });
        self.joined.insert(workload.uid.clone(), joined);
        Ok(())
    }

    /// Ends or keeps what the pod had open before it came under the hooks.
    fn judge_existing(&mut self, pod: &EnrolledPod, was_enrolled: bool) {
        let shared = self.shared.clone();
        let judged = self.existing.joined(pod, was_enrolled, &shared.snapshot(), telling(&shared));
        if let Err(error) = judged {
            tracing::error!(pod = pod.display_name, %error, "connections from before the pod joined go on uncounted");
        }
    }

    fn leave(&mut self, uid: &WorkloadUid) {
        let Some(joined) = self.joined.remove(uid) else {
            return;
        };
        self.shared.direct.remove(joined.pod.netns.cookie());
        if let Err(error) = self.existing.left(&joined.pod) {
            tracing::warn!(pod = joined.pod.display_name, %error, "connections from before the pod joined not forgotten");
        }
        let running = joined.is_current(&self.settings.proc);
        let netns = running.then_some(&joined.pod.netns);
        if let Err(error) = self.datapath.withdraw(joined.pod.netns.cookie(), netns) {
            tracing::error!(pod = joined.pod.display_name, %error, "pod not wholly withdrawn");
        }
        tracing::info!(pod = joined.pod.display_name, running, "pod withdrawn");
        self.shared.enrolment_events.add(Some(&joined.pod.display_name), EnrolmentChange::Withdrawn);
        if running {
            // What is open goes on: no hook leads anything new to us, and what is idle ends by itself.
            self.lingering.add(uid.clone(), joined, Instant::now());
        } else {
            joined.drain.send_replace(true);
            self.workers.close_source(uid);
        }
    }

    fn sandbox_ended(&mut self, uid: &WorkloadUid) {
        // The event may be of a sandbox that has been replaced already.
        if self.joined.get(uid).is_some_and(|joined| !joined.is_current(&self.settings.proc)) {
            self.leave(uid);
        }
    }

    fn note_failure(&mut self, workload: &Workload, error: &str) {
        let known = self.failures.get(&workload.uid);
        if known.is_none_or(|known| known != error) {
            let pod = format!("{}/{}", workload.namespace, workload.name);
            tracing::error!(pod, error, "pod not enrolled: its new connections are refused");
            self.shared.enrolment_events.add(Some(&pod), EnrolmentChange::Failed { error: error.to_owned() });
            self.failures.insert(workload.uid.clone(), error.to_owned());
        }
    }

    /// Takes out the namespaces that an earlier daemon enrolled and that belong to no desired pod.
    fn forget_strangers(&mut self, desired: &BTreeMap<WorkloadUid, Arc<Workload>>) {
        let ours: HashSet<u64> = self.joined.values().map(|joined| joined.pod.netns.cookie()).collect();
        let enrolled = self.datapath.enrolled_cookies().into_iter();
        let mut strangers: HashSet<u64> = enrolled.filter(|cookie| !ours.contains(cookie)).collect();
        if strangers.is_empty() {
            return;
        }
        for (process, uid) in discovery::namespaces(&self.settings.proc, self.settings.host_netns) {
            let path = self.settings.proc.join(format!("{}/ns/net", process.pid));
            // One that is gone meanwhile needs no detaching.
            let Ok(netns) = NetNamespace::open(&path) else { continue };
            let wanted = uid.is_some_and(|uid| desired.contains_key(&uid));
            // A pod that is to be joined and could not be yet stays refused.
            if strangers.remove(&netns.cookie()) && !wanted {
                self.forget(netns.cookie(), Some(&netns));
            }
        }
        for cookie in strangers {
            self.forget(cookie, None);
        }
    }

    fn forget(&mut self, cookie: u64, netns: Option<&NetNamespace>) {
        if let Err(error) = self.datapath.withdraw(cookie, netns) {
            tracing::error!(cookie, %error, "stale enrolment not removed");
        }
    }
}

fn telling(shared: &Shared) -> Telling<'_> {
    Telling { metrics: &shared.telemetry.metrics, events: &shared.enrolment_events }
}
