//! The admin API of a node daemon and of a waypoint, as JSON over HTTP/1.1 on a Unix socket: its paths and its types.
//!
//! The daemon writes them and `mesh-ctl` reads them, or makes the same from a directory of manifests. Names are in
//! camelCase; a field that is not known is left out. Keys are never renamed within [`VERSION`]; new ones may come.
#![forbid(unsafe_code)]

mod certificate;
mod connection;
mod distribution;
mod flow;
mod flow_selection;
mod list;
mod log;
mod outside;
mod policy;
mod precheck;
mod refusal;
mod request_question;
mod request_why;
mod service;
mod status;
mod traffic;
mod waypoint;
mod why;
mod workload;

pub use certificate::Certificate;
pub use connection::{Connection, Party, Talk};
pub use distribution::{DISTRIBUTION, Distribution, Subscriber};
pub use flow::{Flow, FlowLine, RequestFlow, Verdict};
pub use flow_selection::FlowSelection;
pub use list::{DEFAULT_LIMIT, List, MAX_LIMIT, Selection};
pub use log::LogFilter;
pub use outside::OutsideClient;
pub use policy::{Policy, PolicyRef};
pub use precheck::{Found, Precheck, Requirement};
pub use refusal::Refusal;
pub use request_question::RequestQuestion;
pub use request_why::{
    Ejected, MAX_EJECTED, RequestBackend, RequestLimit, RequestPolicy, RequestPreferred, RequestServer, RequestWhy,
};
pub use service::{Endpoint, MAX_ENDPOINTS, Port, Service};
pub use status::{
    CertificateError, Certificates, Config, ControlState, DataPath, Draining, EnrolmentEvent, Expiry, Handover, Hook,
    MAX_FINDINGS, MAX_WAITING, Pods, PodsFound, Status, WaitingPod,
};
pub use traffic::{Bucket, ServiceTraffic, Traffic};
pub use waypoint::{
    Bound, ClusterEndpoint, ClusterPool, RouteBackend, WAYPOINT_SOCKET, WaypointCluster, WaypointLimit, WaypointRoute,
    WaypointStatus, WaypointThread,
};
pub use why::{Considered, Miss, Mode, NodeView, Peer, Preferred, Way, Why};
pub use workload::Workload;

/// Version of the API, the first part of every path.
pub const VERSION: &str = "v1";
/// Where a daemon listens unless it is told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/mesh/admin.sock";

/// The paths of the API.
pub mod path {
    /// GET: a [`crate::Status`].
    pub const STATUS: &str = "/v1/status";
    /// GET: a [`crate::List`] of [`crate::Workload`]s.
    pub const WORKLOADS: &str = "/v1/workloads";
    /// GET: a [`crate::List`] of [`crate::Service`]s.
    pub const SERVICES: &str = "/v1/services";
    /// GET: a [`crate::List`] of [`crate::Policy`] items.
    pub const POLICIES: &str = "/v1/policies";
    /// GET: a [`crate::List`] of [`crate::Certificate`]s.
    pub const CERTIFICATES: &str = "/v1/certificates";
    /// GET: a [`crate::List`] of [`crate::Connection`]s.
    pub const CONNECTIONS: &str = "/v1/connections";
    /// GET, of a node: a [`crate::List`] of [`crate::OutsideClient`]s of its pods.
    pub const OUTSIDE: &str = "/v1/outside";
    /// GET: a stream of [`crate::FlowLine`]s, a line of JSON each, without end; its query is a [`crate::FlowSelection`].
    pub const FLOWS: &str = "/v1/flows";
    /// Traffic of Services since the program began: [`Traffic`](crate::Traffic).
    pub const TRAFFIC: &str = "/v1/traffic";
    /// GET: a [`crate::Why`]; its query names `src`, `dst` and perhaps a `namespace`.
    pub const WHY: &str = "/v1/why";
    /// GET: the same by the configuration alone, without what the node adds.
    pub const AUTHZ: &str = "/v1/authz";
    /// GET: a [`crate::RequestWhy`]; its query is a [`crate::RequestQuestion`].
    pub const REQUEST: &str = "/v1/request";
    /// GET, of a waypoint: a [`crate::WaypointStatus`].
    pub const WAYPOINT_STATUS: &str = "/v1/waypoint/status";
    /// GET, of a waypoint: a [`crate::List`] of [`crate::WaypointRoute`]s.
    pub const WAYPOINT_ROUTES: &str = "/v1/waypoint/routes";
    /// GET, of a waypoint: a [`crate::List`] of [`crate::WaypointCluster`]s.
    pub const WAYPOINT_CLUSTERS: &str = "/v1/waypoint/clusters";
    /// GET: the [`crate::LogFilter`] in force. PUT: puts another one in force.
    pub const LOG: &str = "/v1/log";
}
