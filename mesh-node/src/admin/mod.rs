//! The admin API: what the daemon says of itself on a Unix socket, to root and to its own user alone.
//!
//! The types and paths are `mesh-admin`'s; `mesh-ctl` is the client.

mod answer;
mod connections;
mod lists;
mod log;
mod router;
mod server;
mod socket;
mod status;
mod why;

use std::{
    sync::{Arc, Weak},
    time::Instant,
};

use mesh_core::NodeName;
use tokio::{net::UnixListener, sync::watch};

pub use socket::AdminSocket;

use crate::{bpf::HookWatch, node::Shared, pods::Roster, telemetry::LogControl, workers::Workers};

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
    /// The enrolment loop's last comparison.
    pub roster: watch::Receiver<Roster>,
    /// The hooks that are in force.
    pub hooks: HookWatch,
    /// The log's filter.
    pub log: Arc<LogControl>,
}

impl Admin {
    /// Serves until dropped.
    pub async fn serve(self: Arc<Self>, listener: UnixListener) {
        server::serve(listener, self).await;
    }
}
