//! The command line.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Parser, ValueEnum};
use mesh_ca::IdentityArgs;
use mesh_otlp::SpanArgs;
use mesh_transport::Carriers;
use mesh_xds::ControlArgs;

/// What the program is to do.
pub enum CommandLine {
    /// Be the daemon.
    Run(Box<Args>),
    /// Say what the machine lacks.
    Precheck(Machine),
    /// Say whether the daemon of this container is in charge.
    Ready(Whose),
}

impl CommandLine {
    /// Reads this process's arguments; ends it where they are wrong.
    ///
    /// Told apart by hand: clap takes a variable such as NODE_NAME for arguments of the daemon that were given.
    #[must_use]
    pub fn read() -> Self {
        let arguments = || std::env::args_os().skip(1);
        match arguments().next().as_deref().and_then(std::ffi::OsStr::to_str) {
            Some("precheck") => Self::Precheck(Machine::parse_from(arguments())),
            Some("ready") => Self::Ready(Whose::parse_from(arguments())),
            _ => Self::Run(Box::new(Args::parse())),
        }
    }
}

/// Says what this machine has of what the daemon needs, and what it lacks; changes nothing.
///
/// Exit codes: 0 nothing is missing, 1 something is.
#[derive(Debug, Parser)]
#[command(version, name = "precheck", bin_name = "mesh-node precheck")]
pub struct Machine {
    /// As the daemon takes it.
    #[arg(long, value_name = "DIR", default_value = "/sys/fs/bpf/mesh")]
    pub bpf_dir: PathBuf,
    /// As the daemon takes it.
    #[arg(long, value_name = "DIR")]
    pub cgroup_root: Option<PathBuf>,
    /// As the daemon takes it.
    #[arg(long, value_name = "DIR", default_value = "/proc")]
    pub proc: PathBuf,
    /// As the daemon takes it.
    #[arg(long, value_name = "DIR")]
    pub kubelet_cgroup: Option<PathBuf>,
    /// Prints JSON, as `mesh-ctl precheck` reads it.
    #[arg(long)]
    pub json: bool,
}

/// Says whether the daemon that is in charge of this node runs in this container, for a probe: while one takes over from another, the
/// readiness port answers for whichever accepts.
///
/// Exit codes: 0 it does, 1 it does not.
#[derive(Debug, Parser)]
#[command(version, name = "ready", bin_name = "mesh-node ready")]
pub struct Whose {
    /// As the daemon takes it.
    #[arg(long, value_name = "PATH", default_value = mesh_admin::DEFAULT_SOCKET)]
    pub admin_socket: PathBuf,
    /// As the daemon takes it.
    #[arg(long, value_name = "DIR", default_value = "/proc")]
    pub proc: PathBuf,
}

/// The node daemon of the mesh: enrols this node's pods and carries their connections over mTLS.
///
/// Exit codes: 0 stopped as asked, 1 failed, 2 cannot run on this machine or with these arguments.
/// `mesh-node precheck` says what this machine lacks, `mesh-node ready` whether the daemon here is in charge.
#[derive(Clone, Debug, Parser)]
#[command(version)]
pub struct Args {
    /// Name of this node, as in the pods' spec.nodeName.
    #[arg(long, env = "NODE_NAME")]
    pub node: String,
    /// Directory of manifests (YAML or JSON); it is watched.
    #[arg(
        long,
        value_name = "DIR",
        required_unless_present_any = ["kubernetes", "control_address"],
        conflicts_with_all = ["kubernetes", "control_address"]
    )]
    pub config: Option<PathBuf>,
    /// Follow a Kubernetes cluster: as the pod that this runs in, or by --kubeconfig.
    #[arg(long, conflicts_with = "control_address")]
    pub kubernetes: bool,
    /// What mesh-control serves instead.
    #[command(flatten)]
    pub control: ControlArgs,
    /// File that says how to reach the cluster, for a daemon that runs in no pod.
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    pub kubeconfig: Option<PathBuf>,
    /// Tell what happens to pods in the mesh as Events on them, to the cluster of the pod that this runs in, or by --kubeconfig.
    #[arg(long, conflicts_with = "config")]
    pub events: bool,
    /// The DaemonSet that runs this daemon. When it is deleted, the mesh is being uninstalled: pods leave, and hooks and maps go.
    #[arg(long, value_name = "NAMESPACE/NAME", conflicts_with = "config", value_parser = daemon_set)]
    pub daemon_set: Option<(String, String)>,
    /// Its pods' certificates.
    #[command(flatten)]
    pub identity: IdentityArgs,
    /// DNS suffix of Services.
    #[arg(long, default_value = "cluster.local")]
    pub cluster_domain: String,
    /// Namespace whose policies are the whole mesh's.
    #[arg(long, default_value = "istio-system")]
    pub root_namespace: String,
    /// Name of the cluster in metrics.
    #[arg(long, default_value = "Kubernetes")]
    pub cluster: String,
    /// Directory on a BPF file system, for this node alone.
    #[arg(long, value_name = "DIR", default_value = "/sys/fs/bpf/mesh")]
    pub bpf_dir: PathBuf,
    /// Root of the cgroup v2 hierarchy; found in /proc/self/mounts by default.
    #[arg(long, value_name = "DIR")]
    pub cgroup_root: Option<PathBuf>,
    /// The proc file system that shows the node's processes.
    #[arg(long, value_name = "DIR", default_value = "/proc")]
    pub proc: PathBuf,
    /// Address for Prometheus.
    #[arg(long, value_name = "ADDR", default_value = "[::]:15020")]
    pub metrics_addr: SocketAddr,
    /// Address for readiness probes.
    #[arg(long, value_name = "ADDR", default_value = "[::]:15021")]
    pub readiness_addr: SocketAddr,
    /// Unix socket of the admin API, which `mesh-ctl` asks.
    #[arg(long, value_name = "PATH", default_value = mesh_admin::DEFAULT_SOCKET)]
    pub admin_socket: PathBuf,
    /// Port at 127.0.0.1 where the admin API is as well, for `mesh-ctl` by the API server: to root's and the daemon's own user's
    /// programs of the node, and to no pod. None by default.
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub admin_port: Option<u16>,
    /// Threads that carry connections; one a core by default.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub workers: Option<u16>,
    /// What tunnels to other nodes are made of.
    #[arg(long, value_enum, default_value_t = Tunnels::DirectOrH2)]
    pub tunnels: Tunnels,
    /// Connections of a pod to one destination that each worker carries over TLS connections of their own; more that are open
    /// at once share HTTP/2 connections. Takes less CPU and memory with many connections, but where sixteen are not read
    /// these can then hold up the others of that pod and destination, so there is no bound by default.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub direct_tunnels: Option<u16>,
    /// Spans of tunnels' set-up.
    #[command(flatten)]
    pub spans: SpanArgs,
    /// Looks for no requests in what is carried: no istio_requests_total of services without a waypoint. For single namespaces,
    /// pods and ports there is the label mesh.dev/no-request-metrics.
    #[arg(long)]
    pub no_request_metrics: bool,
    /// Tells no pod of the mesh's hosts: what pods ask of DNS goes to their resolver. For single pods there is the annotation
    /// ambient.istio.io/dns-capture: "false".
    #[arg(long)]
    pub no_dns_capture: bool,
    /// Cgroup of kubelet, whose probes pass into pods whatever their mode is: a directory, absolute or below the cgroup
    /// root. By default that of the process named kubelet; where it has none of its own, all that runs on the node's own
    /// network passes, at the ports alone at which pods declare probes.
    #[arg(long, value_name = "DIR")]
    pub kubelet_cgroup: Option<PathBuf>,
    /// Socket of the container runtime's NRI, by which pods are enrolled before their containers run. Without it, or where nobody
    /// listens there, pods are found by kubelet's cgroups, a moment after they start.
    #[arg(long, value_name = "PATH")]
    pub nri_socket: Option<PathBuf>,
    /// Namespaces whose pods start although the configuration does not know them yet: those without which it would come to know
    /// nothing, such as mesh-control's own. A pod elsewhere waits, and kubelet tries again.
    #[arg(long, value_name = "NAMESPACE", value_delimiter = ',')]
    pub nri_exempt: Vec<String>,
    /// What becomes of the TCP connections that a running pod has open when it joins: they are plaintext, which no policy
    /// has seen.
    #[arg(long, value_enum, default_value_t = ExistingConnections::Auto)]
    pub existing_connections: ExistingConnections,
    /// How pods of this node are connected to each other, where policy allows it.
    #[arg(long, value_enum, default_value_t = SameNode::Direct)]
    pub same_node: SameNode,
    /// How long established connections may go on here after a successor has taken over; what is left then is reset.
    /// A second SIGTERM ends the wait.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = mesh_ca::time)]
    pub drain_timeout: Duration,
    /// The same after a SIGTERM while there is no successor: new connections wait meanwhile, for one that may come.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = mesh_ca::time)]
    pub stop_timeout: Duration,
    /// Runs the daemon below a process that keeps the pods' listeners: after a crash it is started again at once, and new connections
    /// wait and are not refused. That process stays when its daemon has handed over and ended, until SIGTERM; where no daemon is in
    /// charge of the node any more, it starts its own again.
    #[arg(long)]
    pub keep_listeners: bool,
    /// What to log: a level, or directives such as `info,access=off`.
    #[arg(long, value_name = "FILTER", default_value = "info")]
    pub log: String,
    /// Log from the eBPF programs as well; for debugging, it costs time on every connection.
    #[arg(long)]
    pub bpf_log: bool,
}

/// A namespace and a name in it.
fn daemon_set(text: &str) -> Result<(String, String), String> {
    let parts = text.split_once('/').filter(|(namespace, name)| !namespace.is_empty() && !name.is_empty());
    let (namespace, name) = parts.ok_or("not NAMESPACE/NAME")?;
    Ok((namespace.to_owned(), name.to_owned()))
}

/// What becomes of connections from before a pod joined, as an operator may choose it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ExistingConnections {
    /// Reset what policy would refuse as plaintext, when the pod joins and whenever policies change: into a port whose mode
    /// is STRICT or that an AuthorizationPolicy denies, and out of a pod whose own mode is STRICT. Keep and count the others.
    Auto,
    /// Reset them all, whatever the pod's mode is.
    Reset,
    /// Keep and count them all, whatever the pod's mode is.
    Keep,
}

/// How pods of one node are connected, as an operator may choose it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SameNode {
    /// By the kernel, which attests who they are, with nothing between them and nothing encrypted.
    Direct,
    /// By mTLS, as across nodes.
    Mtls,
}

/// What tunnels are made of, as an operator may choose it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Tunnels {
    /// A TLS connection for each application connection where both ends are of this mesh, else HTTP/2.
    DirectOrH2,
    /// HTTP/2 CONNECT streams only, as Istio's ztunnel has them.
    H2,
}

impl From<Tunnels> for Carriers {
    fn from(tunnels: Tunnels) -> Self {
        match tunnels {
            Tunnels::DirectOrH2 => Self::DirectOrH2,
            Tunnels::H2 => Self::H2,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reference_has_every_flag() {
        let (precheck, ready) =
            (<Machine as clap::CommandFactory>::command(), <Whose as clap::CommandFactory>::command());
        let all = <Args as clap::CommandFactory>::command().subcommands([precheck, ready]);
        mesh_docs::hold("mesh-node.md", &mesh_docs::flags(all));
    }
}
