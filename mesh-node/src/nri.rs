//! Asked by the container runtime before a pod's containers run, where it has NRI: a pod of the mesh is enrolled by then, and none
//! starts of which that cannot be said. Where there is no NRI, pods are found by kubelet's cgroups, a moment after they start.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use mesh_core::{
    Enrolment, WorkloadUid,
    labels::{enrolment_of, wish},
};
use mesh_nri::{Admission, Event, NriError, Plugin, Pod, Refusal, Runtime};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    node::Shared,
    pods::{Roster, Start, Verdict, netns_inode},
    telemetry::PodStart,
};

/// By which containerd can be told to require the daemon; docs/operations/new-nodes.md says how.
const PLUGIN: Plugin<'_> = Plugin { name: "mesh-node", index: "10" };
/// How soon to connect again: the runtime restarts, or is the first to come to have NRI.
const RETRY: Duration = Duration::from_millis(500);
/// How long a daemon that takes over waits until the runtime asks it.
const REGISTRATION: Duration = Duration::from_secs(2);

/// What is needed to answer.
pub struct NriSettings {
    /// The runtime's socket; `None` where it is not to be asked for.
    pub socket: Option<PathBuf>,
    /// Namespaces whose pods start although nothing is known of them: without those, nothing would come to be known.
    pub exempt: Vec<String>,
    /// The proc file system of the node's pid namespace.
    pub proc: PathBuf,
    /// Inode of the node's own network namespace.
    pub host_netns: u64,
}

/// How pods come to be known as they start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Discovery {
    /// It was not tried yet.
    Unknown,
    /// By this runtime, which waits.
    Asked(Runtime),
    /// By kubelet's cgroups, and why.
    Cgroups(String),
}

/// The plugin, and who answers for it.
pub struct Nri {
    settings: NriSettings,
    shared: Arc<Shared>,
    starts: mpsc::Sender<Start>,
    roster: watch::Receiver<Roster>,
}

/// The plugin while it is connected, or tries to be. It leaves when this goes.
pub struct NriTask(JoinSet<()>);

impl NriTask {
    /// A task for a plugin that is not registered: it answers nobody.
    #[must_use]
    pub fn none() -> Self {
        Self(JoinSet::new())
    }

    /// Runs for ever.
    pub async fn run(mut self) {
        while self.0.join_next().await.is_some() {}
        std::future::pending().await
    }
}

impl Nri {
    /// Answers by what the enrolment loop, which takes `starts`, finds.
    #[must_use]
    pub fn new(
        settings: NriSettings,
        shared: &Arc<Shared>,
        starts: mpsc::Sender<Start>,
        roster: watch::Receiver<Roster>,
    ) -> Self {
        Self { settings, shared: shared.clone(), starts, roster }
    }

    /// Begins to be asked, and waits until it is known whether the runtime does.
    pub async fn start(self) -> NriTask {
        let mut discovery = self.shared.nri.subscribe();
        let Some(socket) = self.settings.socket.clone() else {
            self.shared.nri.send_replace(Discovery::Cgroups("not asked for: --nri-socket".to_owned()));
            return NriTask::none();
        };
        let mut task = JoinSet::new();
        task.spawn(async move {
            loop {
                let ended = PLUGIN.serve(&socket, &self, |runtime| self.registered(runtime)).await;
                let Err(error) = ended;
                self.told(&error);
                sleep(RETRY).await;
            }
        });
        let known = discovery.wait_for(|discovery| *discovery != Discovery::Unknown);
        if timeout(REGISTRATION, known).await.is_err() {
            tracing::warn!("the container runtime has not finished its introduction; it may ask later");
        }
        NriTask(task)
    }

    fn registered(&self, runtime: &Runtime) {
        tracing::info!(
            runtime = runtime.name,
            version = runtime.version,
            "asked by the container runtime: pods are enrolled before their containers run"
        );
        self.note(Discovery::Asked(runtime.clone()));
    }

    fn told(&self, error: &NriError) {
        let reason = error.to_string();
        if self.note(Discovery::Cgroups(reason.clone())) {
            tracing::warn!(
                reason,
                "not asked by the container runtime (NRI): pods are found by kubelet's cgroups, and may run a moment \
                 before they are enrolled"
            );
        }
    }

    /// Notes it; whether it was otherwise.
    fn note(&self, now: Discovery) -> bool {
        self.shared.telemetry.metrics.starts.set_asked(matches!(now, Discovery::Asked(_)));
        self.shared.nri.send_if_modified(|before| {
            let changed = *before != now;
            *before = now;
            changed
        })
    }

    /// Whether the pod is of no concern, whatever the configuration says of it.
    fn unconcerned(&self, pod: &Pod, netns_inode: Option<u64>) -> Option<PodStart> {
        if netns_inode == Some(self.settings.host_netns) {
            return Some(PodStart::HostNetwork);
        }
        // The API server knows it by another uid.
        pod.is_static.then_some(PodStart::Static)
    }

    /// Has the enrolment loop decide.
    async fn decide(&self, pod: &Pod, netns_inode: Option<u64>, patience: Duration) -> PodStart {
        if let Some(unconcerned) = self.unconcerned(pod, netns_inode) {
            return unconcerned;
        }
        let (answer, answered) = oneshot::channel();
        let start = Start { uid: WorkloadUid::from(pod.uid.as_str()), netns_inode, answer };
        let verdict = timeout(patience, async {
            self.starts.send(start).await.ok()?;
            answered.await.ok()
        });
        match verdict.await {
            Ok(Some(Verdict::Enrolled)) => PodStart::Enrolled,
            Ok(Some(Verdict::Outside)) => PodStart::Outside,
            Ok(Some(Verdict::Successor)) => PodStart::Successor,
            Ok(Some(Verdict::Stopping)) => PodStart::Stopping,
            // The loop has ended: the mesh is being uninstalled.
            Ok(None) => PodStart::Outside,
            Err(_) if self.settings.exempt.contains(&pod.namespace) => PodStart::Exempt,
            Err(_) if self.is_known(pod) => PodStart::NotEnrolled,
            Err(_) if self.stays_out(pod) => PodStart::Outside,
            Err(_) => PodStart::Unknown,
        }
    }

    /// Whether nothing asks for the pod to be in the mesh: neither itself nor, as far as is known, its namespace. What is not in the
    /// mesh starts without mesh-control, too.
    fn stays_out(&self, pod: &Pod) -> bool {
        let namespace = self.shared.snapshot().namespace_wish(&pod.namespace);
        namespace.is_some_and(|namespace| enrolment_of(namespace, wish(&pod.labels)) != Enrolment::Enrolled)
    }

    fn is_known(&self, pod: &Pod) -> bool {
        self.shared.snapshot().workload_by_uid(&WorkloadUid::from(pod.uid.as_str())).is_some()
    }

    /// Why a pod may not start yet; none where it may.
    fn refusal(&self, pod: &Pod, start: PodStart) -> Option<String> {
        let why = match start {
            PodStart::Unknown => {
                "the mesh's configuration does not know the pod yet: is mesh-control there? Namespaces that \
                                  have to start without it are named by --nri-exempt"
                    .to_owned()
            }
            PodStart::NotEnrolled => {
                let uid = WorkloadUid::from(pod.uid.as_str());
                let waiting = self.roster.borrow().waiting.get(&uid).map(|waiting| waiting.reason.clone());
                format!("the pod is not enrolled yet: {}", waiting.as_deref().unwrap_or("its sandbox was replaced"))
            }
            PodStart::Stopping => "the node's daemon is about to end, and the next one is not there yet".to_owned(),
            _ => return None,
        };
        Some(format!("mesh-node: {why}. Kubelet tries again."))
    }
}

impl Admission for Nri {
    async fn admit(&self, pod: Pod, event: Event, patience: Duration) -> Result<(), Refusal> {
        let began = Instant::now();
        let inode = pod.pid.and_then(|pid| netns_inode(&self.settings.proc, pid));
        let start = self.decide(&pod, inode, patience).await;
        let took = began.elapsed();
        self.shared.telemetry.metrics.starts.decided(start, event == Event::SandboxStarted, took);
        tracing::debug!(pod = pod.name, namespace = pod.namespace, ?event, ?start, ?took, "a pod starts");
        let Some(reason) = self.refusal(&pod, start) else { return Ok(()) };
        tracing::warn!(pod = pod.name, namespace = pod.namespace, reason, "a pod was kept from starting");
        Err(Refusal(reason))
    }
}
