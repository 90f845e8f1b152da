//! `mesh-ctl describe`: everything that the mesh makes of a pod or a service, by the cluster's objects and its node's daemon.

mod pod;
mod service;

use std::fmt::Write as _;

use clap::{Args, Subcommand};
use mesh_admin::{Mode, Policy, PolicyRef};
use mesh_core::Snapshot;
use mesh_core::l7::Rule;
use serde::Serialize;

use crate::Outcome;
use crate::cluster::{Cluster, ClusterArguments};
use crate::manifests::Reading;
use crate::output::{Format, one_line, print, print_value};

/// What can be described.
#[derive(Debug, Subcommand)]
pub(crate) enum Describe {
    /// Whether a pod is part of the mesh and why, its identity and certificate, the policies and the waypoint that are about it.
    #[command(visible_alias = "po")]
    Pod(Named),
    /// A service's pods, the policies about them, its waypoint and its routes.
    #[command(visible_alias = "svc")]
    Service(Named),
}

/// One object.
#[derive(Debug, Args)]
#[command(after_help = crate::EXIT_CODES)]
pub(crate) struct Named {
    /// Its name, or NAME.NAMESPACE.
    #[arg(value_name = "NAME")]
    name: String,
    /// Its namespace; the context's own without it.
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// The form of the output.
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
    #[command(flatten)]
    reading: Reading,
}

/// What is told of a thing.
trait Described: Serialize {
    /// For people.
    fn text(&self) -> String;
    /// Whether nothing about it wants attention.
    fn is_well(&self) -> bool;
}

impl Describe {
    pub(crate) async fn run(&self, cluster: &ClusterArguments) -> anyhow::Result<Outcome> {
        let cluster = cluster.connect().await?;
        match self {
            Self::Pod(named) => named.show(&pod::describe(&cluster, named).await?),
            Self::Service(named) => named.show(&service::describe(&cluster, named).await?),
        }
    }
}

impl Named {
    /// The namespace and name. A pod's name has no dots as a rule, a Service's never.
    fn place<'a>(&'a self, cluster: &'a Cluster) -> (&'a str, &'a str) {
        match (&self.namespace, self.name.split_once('.')) {
            (Some(namespace), _) => (namespace, &self.name),
            (None, Some((name, namespace))) => (namespace, name),
            (None, None) => (&cluster.namespace, &self.name),
        }
    }

    fn show(&self, described: &impl Described) -> anyhow::Result<Outcome> {
        match self.output {
            Format::Table => print(&described.text())?,
            format => print_value(described, format)?,
        }
        Ok(if described.is_well() { Outcome::Good } else { Outcome::Bad })
    }
}

/// The mode of a port.
#[derive(Debug, Serialize)]
struct PortMode {
    /// The pod's port; none for all that have no other.
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    #[serde(flatten)]
    mode: Mode,
}

/// A rule for requests.
#[derive(Debug, Serialize)]
struct RouteLine {
    rule: String,
    matches: Vec<String>,
    action: String,
}

impl RouteLine {
    fn of(rule: &Rule) -> Self {
        Self {
            rule: rule.at.to_string(),
            matches: rule.matches.iter().map(ToString::to_string).collect(),
            action: rule.action.in_words(),
        }
    }

    fn text(&self) -> String {
        let matches = if self.matches.is_empty() { "every request".to_owned() } else { self.matches.join(" or ") };
        format!("{}: {matches}: {}", self.rule, self.action)
    }
}

/// The AuthorizationPolicies and PeerAuthentications about a workload.
fn policies(snapshot: &Snapshot, workload: &mesh_core::Workload) -> Vec<Policy> {
    let all = snapshot.policies();
    let authorization = all.authorization_of(workload).into_iter().map(PolicyRef::Authorization);
    let peer = all.peer_authentication_of(workload).into_iter().map(PolicyRef::PeerAuthentication);
    peer.chain(authorization).map(|policy| policy.describe(all.root_namespace())).collect()
}

fn policy_text(policy: &Policy) -> String {
    let selects = policy.selects.as_ref().map_or_else(String::new, |labels| format!(" by {labels}"));
    let dry_run = if policy.dry_run { ", in dry run" } else { "" };
    let (kind, name) = (&policy.kind, format!("{}/{}", policy.namespace, policy.name));
    format!("{kind} {name}: {}{dry_run} (of the {}{selects})", policy.action, policy.scope)
}

fn mode_text(mode: &PortMode) -> String {
    let by = mode.mode.policy.as_ref().map_or_else(
        || "as no PeerAuthentication says otherwise".to_owned(),
        |policy| format!("by PeerAuthentication {policy} ({})", mode.mode.level),
    );
    let port = mode.port.map_or_else(String::new, |port| format!("port {port}: "));
    format!("{port}{} {by}", mode.mode.mode)
}

/// Writes lines of which the first has a name.
fn lines(text: &mut String, name: &str, values: impl IntoIterator<Item = String>) {
    let mut name = name;
    for value in values {
        // A String takes everything.
        let _ = writeln!(text, "{name:13}{}", one_line(&value));
        name = "";
    }
}
