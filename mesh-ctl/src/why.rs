//! `mesh-ctl why` and `mesh-ctl authz check`: what becomes of a connection, and which policy decides.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{bail, ensure};
use clap::{Args, Subcommand, ValueEnum};
use mesh_admin::{Considered, NodeView, Peer, RequestQuestion, RequestWhy, Way, Why, path};
use mesh_config::load;

use crate::Outcome;
use crate::cluster::ClusterArguments;
use crate::daemon::{Daemon, Refused};
use crate::fleet::Target;
use crate::manifests::Reading;
use crate::output::{Format, age, one_line, print, print_value};
use crate::reach::{Asking, Reach};
use crate::route::{self, Answering, Head, replicas};

/// Ways that are shown one by one to people.
const MAX_SHOWN: usize = 8;

/// A connection, asked about.
#[derive(Debug, Args)]
#[command(after_help = crate::EXIT_CODES)]
pub(crate) struct Question {
    /// Who connects: NAMESPACE/POD, the name of a pod or of its owner, or an address.
    #[arg(value_name = "SRC")]
    source: String,
    /// To what: a request, as http://SERVICE.NAMESPACE[:PORT]/PATH; or, for a connection, SERVICE.NAMESPACE, NAMESPACE/SERVICE or a host name, NAMESPACE/POD or a name, or an address; with a port
    /// where there are several.
    #[arg(value_name = "DST[:PORT]")]
    destination: String,
    /// The namespace of names that say none; all namespaces without it.
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,
    #[command(flatten)]
    head: Head,
    /// The admin socket of a waypoint of this machine that may read a request: it says which endpoints it has ejected; may be given several
    /// times. Without it, /run/mesh/waypoint.sock if it is there. On a cluster, the waypoint that reads it is asked.
    #[arg(long, value_name = "SOCKET", conflicts_with = "config")]
    waypoint: Vec<PathBuf>,
    #[command(flatten)]
    reach: Reach,
    /// Answers by a directory of manifests in place of a daemon.
    #[arg(long, value_name = "DIR")]
    config: Option<PathBuf>,
    /// How nodes connect their own pods, as the daemon's own flag has it.
    #[arg(long, value_enum, default_value = "direct", help_heading = "For manifests, as the daemon's own flags")]
    same_node: SameNode,
    #[command(flatten)]
    reading: Reading,
    /// The form of the output.
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum SameNode {
    Direct,
    Mtls,
}

impl From<SameNode> for mesh_core::why::SameNode {
    fn from(same_node: SameNode) -> Self {
        match same_node {
            SameNode::Direct => Self::Direct,
            SameNode::Mtls => Self::Tunnel,
        }
    }
}

/// What can be asked about authorization.
#[derive(Debug, Subcommand)]
pub(crate) enum Authz {
    /// Says whether SRC may talk to DST, and which policy decides.
    Check(Question),
}

impl Question {
    /// `why`: everything.
    pub(crate) async fn run(&self, cluster: &ClusterArguments) -> anyhow::Result<Outcome> {
        if self.destination.contains("://") {
            let question = self.request()?;
            let mut answer = self.ask_request(&question, cluster).await?;
            if self.config.is_none() {
                let whom = (&self.reach, &*self.waypoint);
                replicas::complete(&mut answer, &question, whom, cluster).await;
            }
            return route::tell(&answer, self.output);
        }
        ensure!(self.waypoint.is_empty(), "--waypoint is asked of requests alone: write http://{}", self.destination);
        let answer = self.ask(path::WHY, cluster).await?;
        self.tell(&answer, for_people)
    }

    fn request(&self) -> anyhow::Result<RequestQuestion> {
        Ok(RequestQuestion {
            source: Some(self.source.clone()),
            namespace: self.namespace.clone(),
            ..self.head.question(&self.destination)?
        })
    }

    async fn ask_request(&self, question: &RequestQuestion, cluster: &ClusterArguments) -> anyhow::Result<RequestWhy> {
        let answering = match &self.config {
            Some(path) => Answering::Manifests(path, &self.reading, self.same_node.into()),
            None => Answering::Daemons(&self.reach),
        };
        answering.answer(question, cluster).await
    }

    async fn ask(&self, path: &str, cluster: &ClusterArguments) -> anyhow::Result<Why> {
        if let Some(dir) = &self.config {
            let snapshot = load(dir, &self.reading.options())?.snapshot;
            let namespace = self.namespace.as_deref();
            let client = mesh_core::why::find_client(&snapshot, &self.source, namespace)?;
            let target = mesh_core::why::find_target(&snapshot, &self.destination, namespace)?;
            return Ok(Why::from(&mesh_core::why::why(&snapshot, client, target.address, self.same_node.into())));
        }
        match self.reach.find(cluster).await? {
            Asking::One(daemon) => self.ask_one(&daemon, path, &self.source).await,
            Asking::Several(targets) => self.ask_the_sources(&targets, path).await,
        }
    }

    async fn ask_one(&self, daemon: &Daemon, path: &str, source: &str) -> anyhow::Result<Why> {
        let mut query = vec![("src", source.to_owned()), ("dst", self.destination.clone())];
        query.extend(self.namespace.clone().map(|namespace| ("namespace", namespace)));
        daemon.get(path, &query).await
    }

    /// Every daemon knows which pod is meant and where it runs; what stops its connections its own node's knows.
    async fn ask_the_sources(&self, targets: &[Target], path: &str) -> anyhow::Result<Why> {
        let mut unreached = Vec::new();
        for target in targets {
            let daemon = match &target.daemon {
                Ok(daemon) => daemon,
                Err(why) => {
                    unreached.push(format!("{}: {why}", target.name));
                    continue;
                }
            };
            let answer = match self.ask_one(daemon, path, &self.source).await {
                Ok(answer) => answer,
                Err(error) if error.is::<Refused>() => return Err(error),
                Err(error) => {
                    unreached.push(format!("{}: {error:#}", target.name));
                    continue;
                }
            };
            let source = &answer.source;
            let (Some(namespace), Some(pod), Some(node)) = (&source.namespace, &source.pod, &source.node) else {
                return Ok(answer);
            };
            if *node == target.name {
                return Ok(answer);
            }
            let of_node = targets.iter().find(|target| target.name == *node);
            return match of_node.map(|target| &target.daemon) {
                Some(Ok(daemon)) => self.ask_one(daemon, path, &format!("{namespace}/{pod}")).await,
                Some(Err(why)) => bail!("{namespace}/{pod} runs on {node}, whose daemon cannot be asked: {why}"),
                // A pod of a node without a daemon is outside the mesh, which every other daemon knows as well.
                None => Ok(answer),
            };
        }
        bail!("no daemon answers: {}", unreached.join("; "))
    }

    /// What policies say of a request: those of its connection, where nobody reads it.
    fn tell_policy_of(&self, answer: &RequestWhy) -> anyhow::Result<Outcome> {
        let connection = answer.connection.as_ref().map(|connection| (connection.allowed, &connection.summary));
        let policy = answer.policy.as_ref().map(|policy| (policy.allowed, &policy.reason));
        let (allowed, said) = policy.or(connection).unwrap_or((answer.served, &answer.outcome));
        match self.output {
            Format::Table => print(&format!("{said}\n"))?,
            format => print_value(answer, format)?,
        }
        Ok(if allowed { Outcome::Good } else { Outcome::Bad })
    }

    fn tell(&self, answer: &Why, text: fn(&Why) -> String) -> anyhow::Result<Outcome> {
        match self.output {
            Format::Table => print(&text(answer))?,
            format => print_value(answer, format)?,
        }
        Ok(if answer.allowed { Outcome::Good } else { Outcome::Bad })
    }
}

impl Authz {
    pub(crate) async fn run(&self, cluster: &ClusterArguments) -> anyhow::Result<Outcome> {
        let Self::Check(question) = self;
        if question.destination.contains("://") {
            let answer = question.ask_request(&question.request()?, cluster).await?;
            return question.tell_policy_of(&answer);
        }
        let answer = question.ask(path::AUTHZ, cluster).await?;
        question.tell(&answer, |answer| format!("{}\n", answer.summary))
    }
}

fn for_people(answer: &Why) -> String {
    let mut text = String::new();
    line(&mut text, "source", &described(&answer.source));
    if let Some(pods) = answer.source.of_pods {
        line(&mut text, "", &format!("one of {pods} pods of that name"));
    }
    identity(&mut text, &answer.source);
    let service = answer.service.as_ref().map_or_else(String::new, |service| format!(" of {service}"));
    line(&mut text, "asks for", &format!("{}{service}", answer.asked));
    if answer.service.is_some() {
        let chosen = match answer.endpoints {
            0 => "no endpoint is ready".to_owned(),
            1 => "one endpoint".to_owned(),
            many => format!("{many} endpoints, of which each connection takes one at random"),
        };
        line(&mut text, "", &chosen);
    }
    if let Some(preferred) = &answer.preferred {
        let others = match preferred.others {
            0 => "no other is ready".to_owned(),
            1 => "one other is left out".to_owned(),
            others => format!("{others} others are left out"),
        };
        line(&mut text, "chosen by", &format!("{}: {others}", preferred.by));
    }
    for way in answer.ways.iter().take(MAX_SHOWN) {
        text.push('\n');
        tell_way(&mut text, way);
    }
    if answer.endpoints > MAX_SHOWN {
        let _ = writeln!(text, "\nand {} more endpoints (-o json shows them)", answer.endpoints - MAX_SHOWN);
    }
    if let Some(node) = &answer.node {
        text.push('\n');
        tell_node(&mut text, node, answer.source.enrolled);
    }
    let _ = writeln!(text, "\n{}", answer.summary);
    text
}

fn tell_way(text: &mut String, way: &Way) {
    let port = way.endpoint.port();
    line(text, "endpoint", &format!("{}, port {port}", described(&way.destination)));
    identity(text, &way.destination);
    line(text, "path", &format!("{}: {}", way.path.replace('_', " "), way.path_reason));
    if let Some(rule) = &way.destination_rule {
        line(text, "", &format!("DestinationRule {rule} is about it"));
    }
    if let Some(mode) = &way.mode {
        let by = mode.policy.as_ref().map_or_else(
            || "as no PeerAuthentication says otherwise".to_owned(),
            |policy| format!("by PeerAuthentication {policy} ({})", mode.level),
        );
        line(text, "mode", &format!("{} {by}", mode.mode));
        if way.policies.is_empty() {
            line(text, "policies", "none is about it");
        }
    }
    for (index, policy) in way.policies.iter().enumerate() {
        tell_policy(text, if index == 0 { "policies" } else { "" }, policy, line);
    }
    line(text, "verdict", &format!("{}: {}", if way.allowed { "allowed" } else { "refused" }, way.reason));
    if let Some(dry_run) = &way.dry_run {
        line(text, "dry run", dry_run);
    }
    if !way.audited.is_empty() {
        line(text, "audited", &way.audited.join(", "));
    }
}

/// A policy that was looked at, by lines that `line` writes.
pub(crate) fn tell_policy(text: &mut String, name: &str, policy: &Considered, line: fn(&mut String, &str, &str)) {
    let verdict = match policy.matched_rule {
        Some(rule) => format!("rules[{rule}] matches"),
        None if policy.misses.is_empty() => "has no rules, and matches nothing".to_owned(),
        None => "no rule matches".to_owned(),
    };
    let dry_run = if policy.dry_run { ", in dry run" } else { "" };
    line(text, name, &format!("{} {} ({}{dry_run}): {verdict}", policy.action, policy.policy, policy.scope));
    // Where a rule matches, the ones before it are of no interest.
    if policy.matched_rule.is_none() {
        for miss in &policy.misses {
            line(text, "", &format!("  {}: found {}", miss.field, miss.found));
        }
    }
}

fn tell_node(text: &mut String, node: &NodeView, source_enrolled: bool) {
    line(text, "asked", &format!("the daemon on {}", node.node));
    match &node.certificate {
        Some(certificate) => {
            let left = age(certificate.expires_in_seconds.unwrap_or(0));
            line(text, "certificate", &format!("{}, ends in {left}", certificate.identity));
        }
        None if source_enrolled && node.notes.is_empty() => {
            line(text, "certificate", "none yet: it is fetched for the first connection");
        }
        None => {}
    }
    node.notes.iter().for_each(|note| line(text, "note", note));
    node.stops.iter().for_each(|stop| line(text, "stopped", stop));
}

fn described(peer: &Peer) -> String {
    let locality = peer.locality.as_ref().map_or_else(String::new, |locality| format!(" in {locality}"));
    match (&peer.namespace, &peer.pod, &peer.node) {
        (Some(namespace), Some(pod), Some(node)) => {
            format!("{namespace}/{pod} ({}) on {node}{locality}", peer.address)
        }
        _ => peer.address.to_string(),
    }
}

fn identity(text: &mut String, peer: &Peer) {
    let mesh =
        peer.outside.as_ref().map_or_else(|| "part of the mesh".to_owned(), |why| format!("outside the mesh: {why}"));
    match &peer.identity {
        Some(identity) if peer.enrolled => line(text, "", &format!("{identity}, {mesh}")),
        _ => line(text, "", &mesh),
    }
}

fn line(text: &mut String, name: &str, value: &str) {
    let _ = writeln!(text, "{name:13}{}", one_line(value));
}
