//! The admin API: what the daemon says of itself on a Unix socket, to root and to its own user alone.
//!
//! The types and paths are `mesh-admin`'s, the server is `mesh-admin-server`'s; `mesh-ctl` is the client.

mod connections;
mod lists;
mod router;
mod status;
mod why;

use std::{
    sync::{Arc, Weak},
    time::Instant,
};

use http::{Request, StatusCode};
use hyper::body::Incoming;
use mesh_admin_server::{Api, LogControl, Routed};
use mesh_core::NodeName;

use crate::{bpf::HookWatch, node::Shared, pods::PodsView, workers::Workers};

/// What the API answers from.
pub struct Admin {
    /// The daemon's node.
    pub node: NodeName,
    /// When the daemon was started.
    pub started: Instant,
    /// The threads that carry connections; they end before the last client of this API does.
    pub workers: Weak<Workers>,
    /// What all of the daemon shares.
    pub shared: Arc<Shared>,
    /// The node's pods.
    pub pods: PodsView,
    /// The hooks that are in force.
    pub hooks: HookWatch,
    /// The log's filter.
    pub log: Arc<LogControl>,
}

impl Api for Admin {
    const PROGRAM: &'static str = "mesh-node";

    async fn route(self: Arc<Self>, request: Request<Incoming>) -> Routed {
        self.find(request).await
    }

    fn answered(&self, status: StatusCode) {
        self.shared.telemetry.metrics.admin_request(status.as_u16());
    }
}
