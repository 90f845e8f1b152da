//! `mesh-ctl waypoint`: waypoints and gateways, made, listed and asked.

mod clusters;
mod gateway;
mod make;
mod routes;
mod status;

use clap::{Arg, Args, Subcommand};
use mesh_admin::{WaypointCluster, WaypointRoute};

use crate::Outcome;
use crate::cluster::ClusterArguments;
use crate::flows::Watch;
use crate::list::Part;
use crate::log;
use crate::reach::WaypointReach;

/// What can be done with waypoints and gateways.
#[derive(Debug, Subcommand)]
pub(crate) enum Waypoint {
    /// Asks for a waypoint.
    Apply(make::Apply),
    /// Prints the Gateway that `apply` would write.
    Generate(make::Generate),
    /// Deletes waypoints, and all that was made for them.
    Delete(make::Delete),
    /// Lists the waypoints that are asked for, and how far they are there.
    #[command(visible_alias = "ls")]
    List(make::List),
    /// Says how it is, and what wants attention.
    Status(status::StatusArguments),
    /// Its rules: what they match, where requests go, the shares wanted and seen, and how many failed.
    #[command(visible_alias = "route", mut_arg("namespace", of_the_gateway))]
    Routes(ListArguments),
    /// Where it sends requests: endpoints, who of them is ejected and why, bounds and their use.
    #[command(visible_alias = "cluster", mut_arg("namespace", of_the_gateway))]
    Clusters(ListArguments),
    /// Shows requests as they end, and connections that it does not look into as they open and close, from now on.
    #[command(visible_alias = "flow")]
    Flows(Flows),
    /// Shows what it logs, or changes that until its next start.
    Log(Log),
}

/// Which part of a list of a waypoint, and in what form. On a cluster, -n is the namespace of the Gateway.
#[derive(Debug, Args)]
#[command(after_help = crate::EXIT_CODES)]
pub(crate) struct ListArguments {
    /// On a cluster: the Gateway; all of the namespace without it.
    #[arg(value_name = "NAME", conflicts_with = "socket")]
    name: Option<String>,
    #[command(flatten)]
    reach: WaypointReach,
    #[command(flatten)]
    part: Part,
}

/// Which requests of a waypoint to show.
#[derive(Debug, Args)]
#[command(after_help = crate::EXIT_CODES)]
pub(crate) struct Flows {
    /// On a cluster: the Gateway; all of the namespace without it.
    #[arg(value_name = "NAME", conflicts_with = "socket")]
    name: Option<String>,
    /// On a cluster: the namespace of the Gateway; the context's own without it.
    #[arg(long, value_name = "NAMESPACE", conflicts_with = "socket")]
    gateway_namespace: Option<String>,
    #[command(flatten)]
    reach: WaypointReach,
    #[command(flatten)]
    watch: Watch,
}

/// Shows or changes the filter of the log.
#[derive(Debug, Args)]
#[command(after_help = crate::EXIT_CODES)]
pub(crate) struct Log {
    #[command(flatten)]
    reach: WaypointReach,
    /// A level (error, warn, info, debug, trace, off), or directives such as `info,access=off`.
    #[arg(value_name = "LEVEL")]
    filter: Option<String>,
    /// On a cluster: the Gateway; all of the namespace without it.
    #[arg(long, value_name = "NAME", conflicts_with = "socket")]
    name: Option<String>,
    /// On a cluster: the namespace of the Gateway; the context's own without it.
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,
}

impl Waypoint {
    pub(crate) async fn run(&self, cluster: &ClusterArguments) -> anyhow::Result<Outcome> {
        match self {
            Self::Apply(apply) => apply.run(cluster).await,
            Self::Generate(generate) => generate.run(cluster).await,
            Self::Delete(delete) => delete.run(cluster).await,
            Self::List(list) => list.run(cluster).await,
            Self::Status(status) => status.run(cluster).await,
            Self::Routes(list) => list.show::<WaypointRoute>(cluster).await,
            Self::Clusters(list) => list.show::<WaypointCluster>(cluster).await,
            Self::Flows(Flows { name, gateway_namespace, reach, watch }) => {
                let asking = reach.find(cluster, gateway_namespace.as_deref(), name.as_deref()).await?;
                watch.run(asking, "POD").await
            }
            Self::Log(Log { reach, filter, name, namespace }) => {
                let asking = reach.find(cluster, namespace.as_deref(), name.as_deref()).await?;
                log::show(asking, filter.as_deref(), "POD").await
            }
        }
    }
}

/// What a namespace is here: a list of nodes' own has another meaning for it.
fn of_the_gateway(namespace: Arg) -> Arg {
    namespace.help(
        "On a cluster: the namespace of the Gateway; the context's own without it. With --socket, only those of it",
    )
}

impl ListArguments {
    async fn show<T: crate::list::Listed>(&self, cluster: &ClusterArguments) -> anyhow::Result<Outcome> {
        let asking = self.reach.find(cluster, self.part.namespace.as_deref(), self.name.as_deref()).await?;
        let mut part = self.part.clone();
        if matches!(asking, crate::reach::Asking::Several(_)) {
            // It has said whose waypoint is meant; the rules may be of any namespace.
            part.namespace = None;
        }
        part.show::<T>(asking, "POD").await
    }
}
