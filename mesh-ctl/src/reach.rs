//! Whom a command asks: a daemon of this machine by its socket, or those of a cluster by a kubeconfig.

use std::path::{Path, PathBuf};

use anyhow::bail;
use clap::Args;
use mesh_admin::{DEFAULT_SOCKET, WAYPOINT_SOCKET};

use crate::cluster::ClusterArguments;
use crate::daemon::{Asked, Daemon};
use crate::fleet::Target;

/// Whom to ask.
#[derive(Debug, Clone)]
pub(crate) enum Asking {
    /// The one of this machine.
    One(Daemon),
    /// Those of a cluster, by name.
    Several(Vec<Target>),
}

/// Which daemons to ask: the one of --socket, or those of the cluster.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Reach {
    /// The admin socket of a daemon of this machine. Without it and a kubeconfig, /run/mesh/admin.sock.
    #[arg(long, value_name = "PATH", env = "MESH_ADMIN_SOCKET")]
    socket: Option<PathBuf>,
    /// Asks the daemon of this node of the cluster alone.
    #[arg(long, value_name = "NODE", conflicts_with = "socket")]
    node: Option<String>,
}

/// Which waypoints or gateways to ask: the one of --socket, or those of the cluster.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct WaypointReach {
    /// The admin socket of a waypoint or gateway of this machine. Without it and a kubeconfig, /run/mesh/waypoint.sock.
    #[arg(long, visible_alias = "waypoint", value_name = "PATH", env = "MESH_WAYPOINT_SOCKET")]
    socket: Option<PathBuf>,
}

impl Reach {
    /// Whether a cluster's are asked, as [`Reach::find`] decides.
    pub(crate) fn is_of_a_cluster(&self, cluster: &ClusterArguments) -> anyhow::Result<bool> {
        let by_name = self.node.is_some();
        Ok(matches!(place(self.socket.as_deref(), DEFAULT_SOCKET, by_name, cluster)?, Place::Cluster))
    }

    pub(crate) async fn find(&self, cluster: &ClusterArguments) -> anyhow::Result<Asking> {
        let by_name = self.node.is_some();
        match place(self.socket.as_deref(), DEFAULT_SOCKET, by_name, cluster)? {
            Place::Socket(path) => Ok(Asking::One(Daemon::at(path))),
            Place::Cluster => {
                let targets = cluster.connect().await?.daemons(self.node.as_deref()).await?;
                Ok(if by_name { one(targets)? } else { Asking::Several(targets) })
            }
        }
    }
}

impl WaypointReach {
    /// Whether a cluster's are asked, as [`WaypointReach::find`] decides.
    pub(crate) fn is_of_a_cluster(&self, cluster: &ClusterArguments, by_name: bool) -> anyhow::Result<bool> {
        Ok(matches!(place(self.socket.as_deref(), WAYPOINT_SOCKET, by_name, cluster)?, Place::Cluster))
    }

    /// The one of this machine, or the pods of the Gateway of this name; of all of the namespace, or of the context's own.
    pub(crate) async fn find(
        &self,
        cluster: &ClusterArguments,
        namespace: Option<&str>,
        name: Option<&str>,
    ) -> anyhow::Result<Asking> {
        match place(self.socket.as_deref(), WAYPOINT_SOCKET, name.is_some(), cluster)? {
            Place::Socket(path) => Ok(Asking::One(Daemon::waypoint_at(path))),
            Place::Cluster => {
                let cluster = cluster.connect().await?;
                let namespace = namespace.unwrap_or(&cluster.namespace);
                let targets = cluster.proxies(namespace, name).await?;
                if targets.is_empty() {
                    let of = name
                        .map_or_else(|| "of waypoints or gateways".to_owned(), |name| format!("of the Gateway {name}"));
                    bail!(
                        "no pods {of} in namespace {namespace}: `mesh-ctl waypoint list -A` shows which there are, -n names another \
                         namespace"
                    );
                }
                Ok(Asking::Several(targets))
            }
        }
    }
}

/// The only one, as one of this machine would be asked.
fn one(targets: Vec<Target>) -> anyhow::Result<Asking> {
    match targets.into_iter().next() {
        Some(Target { daemon: Ok(daemon), .. }) => Ok(Asking::One(daemon)),
        Some(Target { name, daemon: Err(why) }) => bail!("{name}: {why}"),
        None => bail!("there is nobody to ask"),
    }
}

enum Place {
    Socket(PathBuf),
    Cluster,
}

/// What is named goes first: a socket, then a cluster; then the socket that is there, then the kubeconfig that is.
fn place(socket: Option<&Path>, usual: &str, by_name: bool, cluster: &ClusterArguments) -> anyhow::Result<Place> {
    match socket {
        Some(socket) => Ok(Place::Socket(socket.to_owned())),
        None if by_name || cluster.is_asked_for() => Ok(Place::Cluster),
        None if Path::new(usual).exists() => Ok(Place::Socket(usual.into())),
        None if cluster.is_there() => Ok(Place::Cluster),
        None => bail!(
            "nobody to ask: there is no {usual} on this machine, and no kubeconfig; name a cluster with --kubeconfig FILE (or \
             KUBECONFIG), run this on a node of the mesh, or name a socket with --socket"
        ),
    }
}

impl Asking {
    /// All of them, by name.
    pub(crate) fn targets(self) -> Vec<Target> {
        match self {
            Self::One(daemon) => vec![Target { name: daemon.name(), daemon: Ok(daemon) }],
            Self::Several(targets) => targets,
        }
    }
}

impl Daemon {
    /// For a message: which kind it is.
    pub(crate) fn kind(asked: Asked) -> &'static str {
        match asked {
            Asked::Node => "daemon",
            Asked::Waypoint => "waypoint",
            Asked::Control => "mesh-control",
        }
    }
}
