//! `mesh-ctl waypoint`: a waypoint or gateway, asked through its own socket.

mod clusters;
mod routes;
mod status;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use mesh_admin::{LogFilter, WAYPOINT_SOCKET, WaypointCluster, WaypointRoute, path};

use crate::Outcome;
use crate::daemon::Daemon;
use crate::list::Part;
use crate::output::print;

/// What can be asked of a waypoint or gateway.
#[derive(Debug, Subcommand)]
pub(crate) enum Waypoint {
    /// Says how it is, and what wants attention.
    Status(status::StatusArguments),
    /// Its rules: what they match, where requests go, the shares wanted and seen, and how many failed.
    #[command(visible_alias = "route")]
    Routes(ListArguments),
    /// Where it sends requests: endpoints, who of them is ejected and why, bounds and their use.
    #[command(visible_alias = "cluster")]
    Clusters(ListArguments),
    /// Shows what it logs, or changes that until its next start.
    Log(Log),
}

/// Which waypoint to ask.
#[derive(Debug, Clone, Args)]
pub(crate) struct Socket {
    /// The admin socket of the waypoint or gateway.
    #[arg(long, visible_alias = "waypoint", value_name = "PATH", env = "MESH_WAYPOINT_SOCKET", default_value = WAYPOINT_SOCKET)]
    socket: PathBuf,
}

impl Socket {
    fn daemon(&self) -> Daemon {
        Daemon::waypoint_at(self.socket.clone())
    }
}

/// Which part of a list of a waypoint, and in what form.
#[derive(Debug, Args)]
#[command(after_help = crate::EXIT_CODES)]
pub(crate) struct ListArguments {
    #[command(flatten)]
    socket: Socket,
    #[command(flatten)]
    part: Part,
}

/// Shows or changes the filter of the log.
#[derive(Debug, Args)]
#[command(after_help = crate::EXIT_CODES)]
pub(crate) struct Log {
    #[command(flatten)]
    socket: Socket,
    /// A level (error, warn, info, debug, trace, off), or directives such as `info,access=off`.
    #[arg(value_name = "LEVEL")]
    filter: Option<String>,
}

impl Waypoint {
    pub(crate) fn run(&self) -> anyhow::Result<Outcome> {
        match self {
            Self::Status(status) => status.run(),
            Self::Routes(list) => list.part.show::<WaypointRoute>(&list.socket.daemon()),
            Self::Clusters(list) => list.part.show::<WaypointCluster>(&list.socket.daemon()),
            Self::Log(Log { socket, filter }) => {
                let in_force: LogFilter = match filter {
                    None => socket.daemon().get(path::LOG, &[])?,
                    Some(filter) => socket.daemon().put(path::LOG, &LogFilter { filter: filter.clone() })?,
                };
                print(&format!("{}\n", in_force.filter))?;
                Ok(Outcome::Good)
            }
        }
    }
}
