//! `mesh-ctl version`: this program's, and the daemons' if they are reached.

use clap::Args;
use mesh_admin::{Status, path};
use serde::Serialize;

use crate::Outcome;
use crate::cluster::ClusterArguments;
use crate::fleet::{self, Said};
use crate::output::{Format, print, print_value};
use crate::reach::Reach;

/// Prints the versions.
#[derive(Debug, Args)]
pub(crate) struct Version {
    #[command(flatten)]
    reach: Reach,
    /// The form of the output.
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Versions {
    client: &'static str,
    /// Of the daemon, where one is asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    daemon: Option<String>,
    /// Of the daemons of a cluster.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    nodes: Vec<NodeVersion>,
    /// Why none is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    unreachable: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct NodeVersion {
    node: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    daemon: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unreachable: Option<String>,
}

impl Version {
    pub(crate) async fn run(&self, cluster: &ClusterArguments) -> anyhow::Result<Outcome> {
        let mut versions =
            Versions { client: env!("CARGO_PKG_VERSION"), daemon: None, nodes: Vec::new(), unreachable: None };
        match self.reach.find(cluster).await {
            Ok(asking) => {
                let several = matches!(asking, crate::reach::Asking::Several(_));
                let said = fleet::ask(asking.targets(), |daemon| async move {
                    Ok(daemon.get::<Status>(path::STATUS, &[]).await?.version)
                })
                .await;
                if several {
                    versions.nodes = said.into_iter().map(NodeVersion::from).collect();
                } else {
                    match fleet::only(said) {
                        Ok(version) => versions.daemon = Some(version),
                        Err(error) => versions.unreachable = Some(format!("{error:#}")),
                    }
                }
            }
            Err(error) => versions.unreachable = Some(format!("{error:#}")),
        }
        match self.output {
            Format::Table => print(&versions.for_people())?,
            format => print_value(&versions, format)?,
        }
        Ok(Outcome::Good)
    }
}

impl From<Said<String>> for NodeVersion {
    fn from(said: Said<String>) -> Self {
        let (daemon, unreachable) = match said.answer {
            Ok(version) => (Some(version), None),
            Err(error) => (None, Some(format!("{error:#}"))),
        };
        Self { node: said.name, daemon, unreachable }
    }
}

impl Versions {
    fn for_people(&self) -> String {
        let told = |version: &Option<String>, why: &Option<String>| match version {
            Some(version) => version.clone(),
            None => format!("not reached: {}", why.as_deref().unwrap_or_default()),
        };
        let mut text = format!("mesh-ctl  {}\n", self.client);
        if self.nodes.is_empty() {
            text += &format!("mesh-node {}\n", told(&self.daemon, &self.unreachable));
        }
        for node in &self.nodes {
            text += &format!("mesh-node {} on {}\n", told(&node.daemon, &node.unreachable), node.node);
        }
        text
    }
}
