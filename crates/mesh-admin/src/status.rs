//! How a daemon is.

use serde::{Deserialize, Serialize};

/// Findings that are told word by word; [`Config`] counts them all.
pub const MAX_FINDINGS: usize = 20;
/// Pods that are named because they are not in the mesh yet; [`Pods`] counts them all.
pub const MAX_WAITING: usize = 100;

/// A daemon's state at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The daemon's version.
    pub version: String,
    /// The name of its node.
    pub node: String,
    /// Its process id, in its own pid namespace.
    pub pid: u32,
    /// Seconds since it was started.
    pub uptime_seconds: u64,
    /// The kernel's release.
    pub kernel: String,
    /// What is in force in the kernel.
    pub data_path: DataPath,
    /// The configuration in force.
    pub config: Config,
    /// The node's pods that are to be part of the mesh.
    pub pods: Pods,
    /// The certificates held.
    pub certificates: Certificates,
    /// Threads that carry connections.
    pub workers: usize,
    /// Connections that they carry now.
    pub connections: usize,
    /// How this daemon came to be in charge.
    #[serde(default)]
    pub handover: Handover,
    /// What happened lately to the node's pods and to what holds them in the mesh, oldest first.
    #[serde(default)]
    pub events: Vec<EnrolmentEvent>,
}

/// One daemon in a chain of those that took over from each other while connections went on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Handover {
    /// How many there have been in the chain, this one included: 1 after a start without another daemon.
    pub generation: u64,
    /// How often this one was started again after a crash, by the process that keeps its listeners.
    #[serde(default)]
    pub restarts: u64,
    /// Earlier daemons that carry connections still.
    pub draining: Vec<Draining>,
    /// The process id of a successor that prepares to take over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub successor: Option<u32>,
}

/// A daemon that takes nothing new any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Draining {
    /// Its process id, in its own pid namespace.
    pub pid: u32,
    /// Seconds since it was taken over from.
    pub for_seconds: u64,
}

/// Something that happened to a pod of the node, or to the hooks of all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EnrolmentEvent {
    /// When, in milliseconds since 1970 (UTC).
    pub at_milliseconds: u64,
    /// `namespace/name`; none where it concerns every pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// `enrolled`, `withdrawn`, `failed`, `repaired`, `not_repaired` or `existing_connections`.
    pub event: String,
    /// What was put back, or why not; what became of connections from before the pod joined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// What is in force in the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DataPath {
    /// What holds the hooks on pods' interfaces: `tcx` links, or `clsact` filters before Linux 6.6.
    pub pod_hooks: String,
    /// The cgroup that the other hooks are attached to.
    pub cgroup: String,
    /// How pods of this node are connected to each other: `direct`, by the kernel, or `mtls`.
    pub same_node: String,
    /// Those hooks.
    pub hooks: Vec<Hook>,
}

/// A hook at the root of cgroup v2.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hook {
    /// The program's name.
    pub name: String,
    /// Whether the kernel says that it is attached now.
    pub present: bool,
}

/// The configuration in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Config {
    /// Counts from 1.
    pub generation: u64,
    /// Workloads in it.
    pub workloads: usize,
    /// Services in it.
    pub services: usize,
    /// Findings that are errors.
    pub errors: usize,
    /// Findings that are warnings.
    pub warnings: usize,
    /// Findings for information.
    pub infos: usize,
    /// The worst [`MAX_FINDINGS`] of the errors and warnings, a line each.
    pub findings: Vec<String>,
    /// How far it is with what mesh-control serves; none where the configuration is taken from elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control: Option<ControlState>,
}

/// How far a daemon is with what mesh-control serves.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ControlState {
    /// The replica that it is connected to, `HOST:PORT`; none while mesh-control is away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connected: Option<String>,
    /// The newest state that is in force as a whole: the replica's generation, and a digest that is the same at all replicas that
    /// serve the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Objects of which the newest version was not taken.
    pub rejected: usize,
}

/// Pods of the node: desired state against actual state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pods {
    /// To be part of the mesh.
    pub desired: usize,
    /// Part of it.
    pub enrolled: usize,
    /// Not yet part of it.
    pub pending: usize,
    /// Those among them that could not be enrolled; it is tried again.
    pub failed: usize,
    /// Plaintext connections that live on from before their pods joined.
    #[serde(default)]
    pub existing_connections: usize,
    /// How they come to be known as they start; none from a daemon that is too old to say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<PodsFound>,
    /// The first [`MAX_WAITING`] that are not enrolled.
    pub waiting: Vec<WaitingPod>,
}

/// How pods come to be known as they start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodsFound {
    /// `nri`: the container runtime asks before containers run. `cgroups`: by kubelet's cgroups, a moment after they run.
    pub by: String,
    /// The runtime that asks, or why none does.
    pub detail: String,
}

/// A pod that should be enrolled and is not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WaitingPod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// `pending` or `failed`.
    pub state: String,
    /// Why.
    pub reason: String,
    /// Seconds since it is so.
    pub for_seconds: u64,
}

/// The certificates held, in short.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Certificates {
    /// How many there are.
    pub held: usize,
    /// The one that ends first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub soonest: Option<Expiry>,
    /// Identities that want for one.
    pub errors: Vec<CertificateError>,
}

/// When a certificate ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Expiry {
    /// Whose it is.
    pub identity: String,
    /// Seconds until its end; 0 when it is over.
    pub expires_in_seconds: u64,
}

/// Why there is no certificate, or no new one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateError {
    /// For whom.
    pub identity: String,
    /// Why.
    pub error: String,
}
