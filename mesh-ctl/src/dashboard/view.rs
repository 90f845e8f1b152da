//! What the page is told, as JSON.

use serde::Serialize;

/// Who talks to whom, now.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct GraphView {
    /// The ends of edges, by name.
    pub(super) nodes: Vec<NodeView>,
    /// Who talks to whom.
    pub(super) edges: Vec<EdgeView>,
    /// Events that are not in it: a daemon told more than was read in time.
    pub(super) lost: u64,
    /// Ends of edges that are not shown apart, since there are too many.
    pub(super) crowded_out: bool,
}

/// A workload, or an address outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct NodeView {
    /// `NAMESPACE/WORKLOAD`, or an address.
    pub(super) id: String,
    /// Empty for an address.
    pub(super) namespace: String,
    /// Without its namespace.
    pub(super) name: String,
}

/// Traffic from one to another.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EdgeView {
    pub(super) from: String,
    pub(super) to: String,
    /// Host name of the Service that was asked for last.
    pub(super) service: Option<String>,
    /// `hbone`, `direct` or `plaintext`.
    pub(super) way: &'static str,
    /// Connections a second.
    pub(super) rate: f64,
    /// Payload bytes a second, both directions.
    pub(super) bytes: f64,
    /// Share of connections that came to nothing, other than by policy.
    pub(super) errors: f64,
    /// Connections a second that policy denied.
    pub(super) denied: f64,
    /// Connections that are open.
    pub(super) open: usize,
    /// The policy that denied last.
    pub(super) policy: Option<String>,
    /// For `why`: a pod or an address that connected.
    pub(super) source: String,
    /// For `why`: what it connected to.
    pub(super) destination: String,
    /// The last that went wrong, newest first.
    pub(super) troubles: Vec<Trouble>,
}

/// Something that went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Trouble {
    /// Milliseconds since 1970.
    pub(super) at: u64,
    /// Of a closed set.
    pub(super) end: String,
    /// For people.
    pub(super) detail: Option<String>,
}

/// The daemons and what they hold.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct MeshView {
    pub(super) nodes: Vec<DaemonView>,
    pub(super) namespaces: Vec<NamespaceView>,
}

/// One daemon.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct DaemonView {
    /// Its node, or its socket before it has answered.
    pub(super) name: String,
    /// Why it does not answer.
    pub(super) error: Option<String>,
    /// What `mesh-ctl status` says.
    pub(super) status: Option<mesh_admin::Status>,
    /// The certificates that it holds.
    pub(super) certificates: Vec<mesh_admin::Certificate>,
}

/// Whether a namespace is ready for STRICT.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct NamespaceView {
    pub(super) name: String,
    /// Its pods.
    pub(super) pods: usize,
    /// Those that are in the mesh, or should be.
    pub(super) enrolled: usize,
    /// `STRICT`, `PERMISSIVE` or `DISABLE`, where a PeerAuthentication of the namespace or the mesh says so.
    pub(super) mode: Option<String>,
    /// Who came in plaintext since the page's program was started: `FROM -> TO`.
    pub(super) plaintext: Vec<String>,
    /// Pods that are not in the mesh, with the reason.
    pub(super) outside: Vec<String>,
}
