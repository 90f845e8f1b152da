//! `mesh-ctl waypoint generate|apply|delete|list`: as istioctl has them.

use std::time::Duration;

use anyhow::{bail, ensure};
use clap::Args;
use kube::api::DeleteParams;
use mesh_core::labels::{USE_WAYPOINT, Wish, wish};

use super::gateway::{For, Summary, for_people, manifest};
use crate::Outcome;
use crate::cluster::{Cluster, ClusterArguments, gateways, namespaces};
use crate::output::{Format, note, print, print_value};

/// The waypoint's name unless it is said otherwise, as Istio's is called.
const NAME: &str = "waypoint";

/// Prints the Gateway that `apply` would write.
#[derive(Debug, Args)]
pub(crate) struct Generate {
    #[command(flatten)]
    wanted: Wanted,
}

/// What is wanted.
#[derive(Debug, Args)]
struct Wanted {
    /// The namespace; the context's own without it.
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// The waypoint's name.
    #[arg(long, value_name = "NAME", default_value = NAME)]
    name: String,
    /// For what is sent to services, to workloads' own addresses, or both; services without it.
    #[arg(long = "for", value_name = "WHAT", value_enum)]
    of: Option<For>,
}

/// Asks for a waypoint.
#[derive(Debug, Args)]
#[command(after_help = crate::EXIT_CODES)]
pub(crate) struct Apply {
    #[command(flatten)]
    wanted: Wanted,
    /// Sends what the namespace's services get through it as well: the label istio.io/use-waypoint.
    #[arg(long, visible_alias = "enroll-namespace")]
    enrol_namespace: bool,
    /// With --enrol-namespace: also where the namespace names another waypoint.
    #[arg(long, requires = "enrol_namespace")]
    overwrite: bool,
    /// Waits until it runs.
    #[arg(short, long)]
    wait: bool,
    /// How long to wait, in seconds.
    #[arg(long, value_name = "SECONDS", requires = "wait", default_value_t = 90)]
    timeout: u64,
}

/// Deletes waypoints, and all that was made for them.
#[derive(Debug, Args)]
#[command(after_help = crate::EXIT_CODES)]
pub(crate) struct Delete {
    /// The waypoints.
    #[arg(value_name = "NAME", required_unless_present = "all", conflicts_with = "all")]
    names: Vec<String>,
    /// All of the namespace.
    #[arg(long)]
    all: bool,
    /// The namespace; the context's own without it.
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,
}

/// Lists the waypoints that are asked for, and how far they are there.
#[derive(Debug, Args)]
#[command(after_help = crate::EXIT_CODES)]
pub(crate) struct List {
    /// The namespace; the context's own without it.
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// Those of all namespaces.
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    all_namespaces: bool,
    /// The form of the output.
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
}

impl Generate {
    pub(super) async fn run(&self, cluster: &ClusterArguments) -> anyhow::Result<Outcome> {
        let Wanted { namespace, name, of } = &self.wanted;
        // A cluster is needed for the context's namespace alone.
        let namespace = match namespace {
            Some(namespace) => namespace.clone(),
            None if cluster.is_there() => cluster.connect().await?.namespace,
            None => "default".to_owned(),
        };
        print_value(&manifest(&namespace, name, *of), Format::Yaml)?;
        Ok(Outcome::Good)
    }
}

impl Apply {
    pub(super) async fn run(&self, cluster: &ClusterArguments) -> anyhow::Result<Outcome> {
        let cluster = cluster.connect().await?;
        let Wanted { namespace, name, of } = &self.wanted;
        let namespace = namespace.as_deref().unwrap_or(&cluster.namespace);
        if self.enrol_namespace {
            self.is_free(&cluster, namespace).await?;
        }
        // Whether the cluster knows Gateways is said better by a list than by a write.
        cluster.waypoints(Some(namespace)).await?;
        cluster.apply(&gateways(), Some(namespace), name, &manifest(namespace, name, *of)).await?;
        print(&format!("waypoint {namespace}/{name} applied\n"))?;
        if self.wait {
            cluster.wait_programmed(namespace, name, Duration::from_secs(self.timeout)).await?;
            print(&format!("waypoint {namespace}/{name} is programmed\n"))?;
        }
        if self.enrol_namespace {
            cluster.label_namespace(namespace, USE_WAYPOINT, Some(name)).await?;
            print(&format!("namespace {namespace} labelled {USE_WAYPOINT}={name}\n"))?;
        }
        Ok(Outcome::Good)
    }

    /// Whether the namespace can be sent through it, before anything is written.
    async fn is_free(&self, cluster: &Cluster, namespace: &str) -> anyhow::Result<()> {
        let Some(found) = cluster.find(&namespaces(), None, namespace).await? else {
            bail!("there is no namespace {namespace}");
        };
        let labels = found.metadata.labels.unwrap_or_default();
        if wish(&labels) != Wish::Join {
            note(&format!(
                "namespace {namespace} is not part of the mesh: no pod of it uses the waypoint until it is (`mesh-ctl join \
                 {namespace}`)"
            ));
        }
        match labels.get(USE_WAYPOINT) {
            Some(other) if *other != self.wanted.name && !self.overwrite => {
                bail!(
                    "namespace {namespace} has {USE_WAYPOINT}={other} already: --overwrite puts this one in its place"
                )
            }
            _ => Ok(()),
        }
    }
}

impl Delete {
    pub(super) async fn run(&self, cluster: &ClusterArguments) -> anyhow::Result<Outcome> {
        let cluster = cluster.connect().await?;
        let namespace = self.namespace.as_deref().unwrap_or(&cluster.namespace);
        let there: Vec<Summary> = cluster.waypoints(Some(namespace)).await?;
        let names: Vec<&str> = match self.all {
            true => there.iter().map(|waypoint| &*waypoint.name).collect(),
            false => self.names.iter().map(String::as_str).collect(),
        };
        // Before any goes: a name that is misspelt, or another kind of Gateway.
        for name in &names {
            let known = there.iter().any(|waypoint| waypoint.name == **name);
            ensure!(
                known,
                "there is no waypoint {namespace}/{name}: `mesh-ctl waypoint list -A` shows which there are"
            );
        }
        if names.is_empty() {
            note(&format!("no waypoints in namespace {namespace}"));
        }
        for name in names {
            let api = cluster.objects(&gateways(), Some(namespace));
            cluster.within(&format!("Gateway {name}"), api.delete(name, &DeleteParams::default())).await?;
            print(&format!("waypoint {namespace}/{name} deleted\n"))?;
            self.tell_left(&cluster, namespace, name).await?;
        }
        Ok(Outcome::Good)
    }

    /// Who still names it would wait for it.
    async fn tell_left(&self, cluster: &Cluster, namespace: &str, name: &str) -> anyhow::Result<()> {
        let found = cluster.find(&namespaces(), None, namespace).await?;
        if found.and_then(|found| found.metadata.labels?.remove(USE_WAYPOINT)).as_deref() == Some(name) {
            note(&format!(
                "namespace {namespace} still has the label {USE_WAYPOINT}={name}: `kubectl label namespace {namespace} \
                 {USE_WAYPOINT}-` takes it off"
            ));
        }
        Ok(())
    }
}

impl List {
    pub(super) async fn run(&self, cluster: &ClusterArguments) -> anyhow::Result<Outcome> {
        let cluster = cluster.connect().await?;
        let own = self.namespace.as_deref().unwrap_or(&cluster.namespace);
        let found = cluster.waypoints((!self.all_namespaces).then_some(own)).await?;
        match self.output {
            Format::Table if found.is_empty() => note("no waypoints"),
            Format::Table => print(&for_people(&found))?,
            format => print_value(&found, format)?,
        }
        Ok(Outcome::Good)
    }
}
