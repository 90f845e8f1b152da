//! `mesh-ctl precheck`: what a cluster, or this machine, has of what the mesh needs. Nothing is changed.

mod cni;
mod gateway_api;
mod images;
mod machine;
mod nodes;
mod rights;
mod webhooks;

use clap::Args;
use k8s_openapi::apimachinery::pkg::version::Info;
use mesh_admin::{Found, Precheck, Requirement};
use serde_json::Value;

use self::machine::Machine;
use crate::Outcome;
use crate::cluster::{Cluster, ClusterArguments};
use crate::install::{Chart, Helm, HelmArguments, Values, objects};
use crate::output::{Format, print, print_value, table};

/// The oldest version of Kubernetes, as the chart says.
const KUBERNETES: (u32, u32) = (1, 30);
const HEADINGS: [&str; 3] = ["REQUIREMENT", "STATE", "WHAT"];

/// Says what a cluster has of what the mesh needs, and what to do about what it lacks; without a kubeconfig, what this machine has.
#[derive(Debug, Args)]
#[command(after_help = crate::EXIT_CODES)]
pub(crate) struct PrecheckArguments {
    #[command(flatten)]
    machine: Machine,
    #[command(flatten)]
    helm: HelmArguments,
    #[command(flatten)]
    values: Values,
    /// The form of the output.
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
    /// Leaves the line of headings out.
    #[arg(long)]
    no_headers: bool,
}

impl PrecheckArguments {
    pub(crate) async fn run(&self, cluster: &ClusterArguments) -> anyhow::Result<Outcome> {
        let found = match self.machine.is_meant() || !cluster.is_there() {
            true => self.machine.ask()?,
            false => self.ask(cluster).await?,
        };
        match self.output {
            Format::Table => print(&shown(&found.requirements, self.no_headers))?,
            format => print_value(&found, format)?,
        }
        Ok(if found.nothing_is_missing() { Outcome::Good } else { Outcome::Bad })
    }

    /// What is looked for is what would be installed: without Helm, that is one thing that is missing.
    async fn ask(&self, arguments: &ClusterArguments) -> anyhow::Result<Precheck> {
        let cluster = arguments.connect().await?;
        let helm = match Helm::find(&self.helm, arguments) {
            Ok(helm) => helm,
            Err(error) => {
                let mut found = of_cluster(&cluster, &[]).await?;
                found.requirements.push(requirement("Helm", Found::Missing, format!("{error:#}")));
                return Ok(found);
            }
        };
        let rendered = helm.template(&Chart::unpack()?, &self.values)?;
        of_cluster(&cluster, &objects(&rendered)?).await
    }
}

/// What a cluster has of what `wanted`, the chart's objects, need.
pub(crate) async fn of_cluster(cluster: &Cluster, wanted: &[Value]) -> anyhow::Result<Precheck> {
    let mut requirements = vec![version(cluster).await?];
    requirements.extend(nodes::look(cluster).await?);
    requirements.push(images::look(cluster, wanted).await?);
    requirements.extend(cni::look(cluster).await?);
    requirements.push(gateway_api::look(cluster).await?);
    requirements.extend(webhooks::look(cluster).await?);
    requirements.extend(rights::look(cluster, wanted).await?);
    Ok(Precheck { requirements })
}

/// The lines of what is missing or doubtful; empty where all is well.
pub(crate) fn not_well(found: &Precheck) -> String {
    let not_well: Vec<Requirement> = found.requirements.iter().filter(|it| it.state != Found::Ok).cloned().collect();
    if not_well.is_empty() { String::new() } else { shown(&not_well, true) }
}

fn shown(requirements: &[Requirement], no_headers: bool) -> String {
    let rows = requirements.iter().map(|it| vec![it.name.clone(), it.state.to_string(), it.detail.clone()]);
    table(if no_headers { &[] } else { &HEADINGS }, &rows.collect::<Vec<_>>())
}

fn requirement(name: &str, state: Found, detail: impl Into<String>) -> Requirement {
    Requirement { name: name.to_owned(), state, detail: detail.into() }
}

async fn version(cluster: &Cluster) -> anyhow::Result<Requirement> {
    let Info { major, minor, git_version, .. } =
        cluster.within("the version", cluster.client.apiserver_version()).await?;
    // Some add a sign to the minor version: `30+`.
    let number = |text: &str| text.trim_end_matches(|c: char| !c.is_ascii_digit()).parse::<u32>().unwrap_or_default();
    let is_new_enough = (number(&major), number(&minor)) >= KUBERNETES;
    Ok(match is_new_enough {
        true => requirement("Kubernetes", Found::Ok, git_version),
        false => {
            let least = format!("{}.{}", KUBERNETES.0, KUBERNETES.1);
            let detail = format!("{git_version}; the mesh needs {least} or newer: upgrade the cluster first");
            requirement("Kubernetes", Found::Missing, detail)
        }
    })
}
