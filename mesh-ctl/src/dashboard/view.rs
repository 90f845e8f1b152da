//! What the page is told, as JSON.

use serde::Serialize;

use super::links::Links;
use crate::top::rates::Rates;

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
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct NodeView {
    /// `NAMESPACE/WORKLOAD`, or an address.
    pub(super) id: String,
    /// Empty for an address.
    pub(super) namespace: String,
    /// Without its namespace.
    pub(super) name: String,
    /// What was asked of it, over all edges.
    pub(super) requests: Option<RequestsView>,
}

/// Requests of the last seconds that were seen.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct RequestsView {
    /// A second.
    pub(super) rate: f64,
    /// The share that failed for the server's sake.
    pub(super) failed: f64,
    /// Milliseconds that half of them took at most.
    pub(super) p50: f64,
    /// Milliseconds that 99 of 100 took at most.
    pub(super) p99: f64,
}

/// What passes between two at the moment.
#[derive(Debug, Clone, Serialize)]
pub(super) struct FlowsView {
    /// Connections that are open, as nodes' daemons carry them.
    pub(super) connections: Vec<mesh_admin::Connection>,
    /// The last requests that whoever sees them told of, newest first: of what goes by a waypoint there is nothing else.
    pub(super) requests: Vec<RequestView>,
}

/// A request that is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct RequestView {
    /// Milliseconds since 1970.
    pub(super) at: u64,
    /// Who tells: `waypoint`, `gateway` or `node`.
    pub(super) by: String,
    /// A pod, or an address.
    pub(super) from: String,
    /// A pod, or an address; empty where nobody was reached.
    pub(super) to: String,
    /// For people: what was asked, and what came of it.
    pub(super) words: String,
}

/// Traffic from one to another.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EdgeView {
    pub(super) from: String,
    pub(super) to: String,
    /// Host name of the Service that was asked for last.
    pub(super) service: Option<String>,
    /// The same as the Service's name in [`ServiceView::name`].
    pub(super) service_name: Option<String>,
    /// `waypoint`, `hbone`, `direct` or `plaintext`.
    pub(super) way: &'static str,
    /// Whether it is one side of a waypoint that the page hears itself: the same requests are an edge from the client to the server.
    pub(super) leg: bool,
    /// Requests, where anybody sees them.
    pub(super) requests: Option<RequestsView>,
    /// Connections a second.
    pub(super) rate: f64,
    /// Payload bytes a second, both directions.
    pub(super) bytes: f64,
    /// Share of connections that came to nothing, other than by policy.
    pub(super) errors: f64,
    /// Connections and requests a second that policy denied.
    pub(super) denied: f64,
    /// Connections that are open.
    pub(super) open: usize,
    /// The policy that denied last.
    pub(super) policy: Option<String>,
    /// For `why`: a pod or an address that connected.
    pub(super) source: String,
    /// For `why`: what it connected to.
    pub(super) destination: String,
    /// For `why` of a request: the last that was seen as a whole.
    pub(super) ask: Option<Ask>,
    /// The last that went wrong, newest first.
    pub(super) troubles: Vec<Trouble>,
}

/// A request, to be asked about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Ask {
    /// Who sent it; a pod, or an address.
    pub(super) src: String,
    /// The gateway that it came in at, as `NAMESPACE/NAME`.
    pub(super) gateway: Option<String>,
    pub(super) method: String,
    pub(super) url: String,
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
    /// The request, where it was one that can be asked about.
    pub(super) ask: Option<Ask>,
    /// Its trace, where it is recorded.
    pub(super) trace: Option<String>,
}

/// The daemons and what they hold.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct MeshView {
    pub(super) nodes: Vec<DaemonView>,
    pub(super) proxies: Vec<ProxyView>,
    pub(super) namespaces: Vec<NamespaceView>,
    pub(super) links: Links,
}

/// Services, and whom waypoints and gateways leave out.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct ServicesView {
    pub(super) services: Vec<ServiceView>,
    /// Workloads of which a pod is ejected, as in [`NodeView::id`].
    pub(super) ejected: Vec<String>,
}

/// A Service, and what goes on there.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct ServiceView {
    /// `NAME.NAMESPACE`, or a host outside, or a gateway's listener.
    pub(super) name: String,
    /// By counters; none while nobody tells any.
    pub(super) rates: Option<Rates>,
    /// Rules that share its requests out.
    pub(super) splits: Vec<SplitView>,
    /// Limits and endpoints of its clusters, where there is anything to say, by proxy.
    pub(super) circuits: Vec<CircuitView>,
}

/// A rule that shares requests out.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct SplitView {
    pub(super) rule: String,
    pub(super) parents: Vec<String>,
    /// Which requests; none for all.
    pub(super) matches: Vec<String>,
    pub(super) shares: Vec<ShareView>,
}

/// One of those who get a share.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct ShareView {
    pub(super) to: String,
    /// In percent.
    pub(super) wanted: f64,
    /// In percent, since the rule is as it is; none while there was no request.
    pub(super) seen: Option<f64>,
    pub(super) requests: u64,
    pub(super) errors: u64,
}

/// How a proxy's cluster is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct CircuitView {
    /// `HOST:PORT`, and the subset.
    pub(super) cluster: String,
    /// Whether anybody is left out, or a bound is met.
    pub(super) open: bool,
    pub(super) endpoints: usize,
    pub(super) ejected: Vec<EjectedView>,
    /// Ever.
    pub(super) ejections: u64,
    /// The bounds that there are.
    pub(super) bounds: Vec<BoundView>,
    /// Why nothing is sent there.
    pub(super) refused: Option<String>,
}

/// An endpoint that is left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EjectedView {
    pub(super) endpoint: String,
    /// As `NAMESPACE/NAME`.
    pub(super) pod: Option<String>,
    pub(super) why: Option<String>,
    pub(super) returns_in_seconds: Option<u64>,
}

/// A limit of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct BoundView {
    pub(super) name: &'static str,
    pub(super) used: u32,
    pub(super) most: u32,
    pub(super) full: bool,
    /// How many were refused for it, ever.
    pub(super) overflows: u64,
}

/// A waypoint or gateway.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct ProxyView {
    /// Its pod, or how it is reached before it has answered.
    pub(super) name: String,
    /// Why it does not answer.
    pub(super) error: Option<String>,
    /// What `mesh-ctl waypoint status` says.
    pub(super) status: Option<mesh_admin::WaypointStatus>,
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
