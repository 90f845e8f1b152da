//! The authority in a Kubernetes cluster: its key in a Secret, callers by TokenReview, placement by the Pods.

mod ca_secret;
mod gatekeeper;
mod leader;
mod report;

use std::path::PathBuf;

pub(crate) use ca_secret::CaSecret;
pub(crate) use gatekeeper::KubernetesGatekeeper;
pub(crate) use leader::Election;
pub(crate) use report::report;

/// How the cluster is used.
#[derive(Debug, clap::Args)]
pub(crate) struct ClusterArgs {
    /// Serve a Kubernetes cluster: as the pod that this runs in, or by --kubeconfig.
    #[arg(long, requires = "namespace")]
    pub(crate) kubernetes: bool,
    /// File that says how to reach the cluster, for a process that runs in no pod.
    #[arg(long, value_name = "FILE", requires = "kubernetes")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Namespace of this program, of its Secret and of the node agents.
    #[arg(long, value_name = "NAME", env = "POD_NAMESPACE")]
    pub(crate) namespace: Option<String>,
    /// Secret with the authority, in Istio's cacerts layout; made when it is missing.
    #[arg(long, value_name = "NAME", default_value = "mesh-ca")]
    pub(crate) ca_secret: String,
    /// ConfigMap that the roots are published in, as root-cert.pem.
    #[arg(long, value_name = "NAME", default_value = "mesh-ca-root")]
    pub(crate) root_config_map: String,
    /// Service account of the node agents.
    #[arg(long, value_name = "NAME", default_value = "mesh-node")]
    pub(crate) node_account: String,
    /// Service account of this program's replicas, which ask each other how far the nodes are that are connected to them.
    #[arg(long, value_name = "NAME", default_value = "mesh-control")]
    pub(crate) control_account: String,
    /// File with the token by which this replica asks the others; read anew each time.
    #[arg(long, value_name = "FILE", default_value = "/etc/mesh/token/token")]
    pub(crate) replica_token: PathBuf,
    /// DaemonSet of the node agents: nodes on which its pod is not ready are kept from new pods by the taint
    /// mesh.dev/agent-not-ready. Without it, nodes are left as they are.
    #[arg(long, value_name = "NAME", requires = "kubernetes")]
    pub(crate) taint_nodes_of: Option<String>,
    /// Write Istio's annotation ambient.istio.io/redirection on pods that are in the mesh, for Kiali and others that read it.
    #[arg(long, requires = "kubernetes")]
    pub(crate) annotate_pods: bool,
    /// Audience of the tokens of node agents, proxies and replicas.
    #[arg(long, value_name = "NAME", default_value = "mesh-ca")]
    pub(crate) token_audience: String,
    /// This program's Service.
    #[arg(long, value_name = "NAME", default_value = "mesh-control")]
    pub(crate) service: String,
    /// This replica's name, as the others know it by the lease; one is made up where none is given.
    #[arg(long, value_name = "NAME", env = "POD_NAME")]
    pub(crate) pod_name: Option<String>,
}

impl ClusterArgs {
    /// The parser has seen to it that there is one.
    pub(crate) fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or("default")
    }
}
