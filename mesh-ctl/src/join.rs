//! `mesh-ctl join`: a namespace becomes part of the mesh; before that, what it means is told.

use std::collections::BTreeMap;

use anyhow::bail;
use clap::Args;
use mesh_admin::{Connection, List, MAX_LIMIT, OutsideClient, Party, Selection, path};
use mesh_config::{LiveObjects, ObjectName};
use mesh_core::labels::{JOIN, Wish, wish};
use mesh_core::policy::{Mode, effective_mode};
use mesh_core::{Enrolment, OutsideReason, Snapshot, Workload};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::Outcome;
use crate::cluster::{Cluster, ClusterArguments, namespaces};
use crate::daemon::Daemon;
use crate::fleet;
use crate::flows::name;
use crate::manifests::Reading;
use crate::output::{Format, note, print, print_value, table};

/// Peers and pods that are named at most.
const SHOWN: usize = 20;

/// Puts a namespace into the mesh by its label, after saying what that means and what STRICT would refuse.
#[derive(Debug, Args)]
#[command(after_help = crate::EXIT_CODES)]
pub(crate) struct Join {
    /// The namespace.
    namespace: String,
    /// Says it and changes nothing.
    #[arg(long)]
    dry_run: bool,
    /// Joins also where connections that are open now would be refused.
    #[arg(long)]
    force: bool,
    /// The form of the output.
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
    #[command(flatten)]
    reading: Reading,
}

/// What joining means.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    namespace: String,
    /// Whether its label says so already.
    is_labelled: bool,
    /// Pods that are part of the mesh with the label.
    joining: Vec<String>,
    /// Pods that stay outside, and why.
    outside: Vec<String>,
    /// Pods that take no plaintext once they have joined, and by what.
    strict: Vec<String>,
    /// Who talks to its pods in plaintext now.
    plaintext: Vec<Peer>,
    /// Whether some of those would be refused at once.
    breaks: bool,
    /// Nodes whose daemons did not say what they see.
    unreachable: Vec<String>,
    /// Whether the label was set.
    joined: bool,
}

/// Who talks to a pod in plaintext.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Peer {
    from: String,
    to: String,
    connections: usize,
    /// Whether the pod takes none once it has joined.
    refused: bool,
}

impl Join {
    pub(crate) async fn run(&self, cluster: &ClusterArguments) -> anyhow::Result<Outcome> {
        let cluster = cluster.connect().await?;
        let mut report = self.look(&cluster).await?;
        let hold = report.breaks && !self.force;
        if !report.is_labelled && !self.dry_run && !hold {
            cluster.label_namespace(&self.namespace, JOIN, Some("enabled")).await?;
            report.joined = true;
        }
        match self.output {
            Format::Table => print(&report.for_people())?,
            format => print_value(&report, format)?,
        }
        if hold && !report.is_labelled && !self.dry_run {
            note(
                "not joined: connections that are open now would be refused. PERMISSIVE takes them meanwhile; --force joins",
            );
        }
        Ok(if hold || !report.unreachable.is_empty() { Outcome::Bad } else { Outcome::Good })
    }

    async fn look(&self, cluster: &Cluster) -> anyhow::Result<Report> {
        let Some(found) = cluster.find(&namespaces(), None, &self.namespace).await? else {
            bail!("there is no namespace {}", self.namespace);
        };
        let labels = found.metadata.labels.unwrap_or_default();
        let mut objects = self.reading.of_cluster(cluster).await?;
        let is_labelled = wish(&labels) == Wish::Join;
        if !is_labelled {
            objects.apply(namespace_name(&self.namespace), labelled(&self.namespace, labels));
        }
        let snapshot = LiveObjects::publish(&mut objects).snapshot.clone();
        let mut report = Report { namespace: self.namespace.clone(), is_labelled, ..Report::default() };
        report.look_at_pods(&snapshot);
        report.ask_who_talks(cluster, &snapshot).await?;
        Ok(report)
    }
}

fn namespace_name(name: &str) -> ObjectName {
    ObjectName { group: "".into(), kind: "Namespace".into(), namespace: None, name: name.into() }
}

/// The namespace as it will be.
fn labelled(name: &str, mut labels: BTreeMap<String, String>) -> Value {
    labels.insert(JOIN.to_owned(), "enabled".to_owned());
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
}

impl Report {
    fn look_at_pods(&mut self, snapshot: &Snapshot) {
        for pod in snapshot.workloads().filter(|pod| *pod.namespace == self.namespace) {
            match pod.enrolment {
                Enrolment::Enrolled => self.joining.push(pod.name.to_string()),
                Enrolment::Outside(reason) => self.outside.push(format!("{}: {reason}", pod.name)),
            }
            let mode = effective_mode(snapshot, pod, 0);
            if pod.is_enrolled() && mode.mode == Mode::Strict {
                let by = mode.policy.map_or_else(String::new, |policy| format!(" by PeerAuthentication {policy}"));
                self.strict.push(format!("{}{by}", pod.name));
            }
        }
    }

    /// Connections in plaintext to its pods that are open now: those that daemons carry, and those that nobody does.
    async fn ask_who_talks(&mut self, cluster: &Cluster, snapshot: &Snapshot) -> anyhow::Result<()> {
        let namespace = self.namespace.clone();
        let said = fleet::ask(cluster.daemons(None).await?, |daemon| {
            let namespace = namespace.clone();
            async move {
                Ok((all(&daemon, path::CONNECTIONS, &namespace).await?, all(&daemon, path::OUTSIDE, &namespace).await?))
            }
        })
        .await;
        let mut peers = Peers::default();
        for said in said {
            match said.answer {
                Ok((carried, outside)) => {
                    carried.iter().for_each(|connection| peers.add_carried(connection, &namespace, snapshot));
                    outside.iter().for_each(|client| peers.add_outside(client, snapshot));
                }
                Err(error) => self.unreachable.push(format!("{}: {error:#}", said.name)),
            }
        }
        self.plaintext = peers.told();
        self.breaks = self.plaintext.iter().any(|peer| peer.refused);
        Ok(())
    }

    fn for_people(&self) -> String {
        let mut text = String::new();
        let listed = |text: &mut String, what: &str, names: &[String]| {
            if !names.is_empty() {
                let more = names.len().saturating_sub(SHOWN);
                let more = if more > 0 { format!(", and {more} more") } else { String::new() };
                let shown = names[..names.len().min(SHOWN)].join(", ");
                *text += &format!("{what:13}{shown}{more}\n");
            }
        };
        let state = match (self.is_labelled, self.joined) {
            (true, _) => "labelled to join already",
            (false, true) => "labelled to join",
            (false, false) => "not joined yet",
        };
        text += &format!("{:13}{}: {state}\n", "namespace", self.namespace);
        listed(&mut text, "joining", &self.joining);
        listed(&mut text, "outside", &self.outside);
        listed(&mut text, "strict", &self.strict);
        if self.plaintext.is_empty() {
            text += &format!("{:13}nobody does now\n", "plaintext");
        } else {
            let rows = self.plaintext.iter().take(SHOWN).map(|peer| {
                let verdict = if peer.refused { "refused once it has joined" } else { "taken; STRICT would refuse it" };
                vec![peer.from.clone(), peer.to.clone(), peer.connections.to_string(), verdict.to_owned()]
            });
            let headings = ["PLAINTEXT FROM", "TO", "CONNECTIONS", "IN THE MESH"];
            text += &format!("\n{}", table(&headings, &rows.collect::<Vec<_>>()));
        }
        for node in &self.unreachable {
            text += &format!("{:13}no answer of {node}\n", "note");
        }
        text
    }
}

/// How many connections there are by who talks to whom, and whether the pod takes none once it has joined.
#[derive(Default)]
struct Peers(BTreeMap<(String, String), (usize, bool)>);

impl Peers {
    /// Adds one that a daemon carries.
    fn add_carried(&mut self, Connection { talk, .. }: &Connection, namespace: &str, snapshot: &Snapshot) {
        let to = &talk.destination;
        let pod = to.pod.as_deref().and_then(|pod| snapshot.workload(namespace, pod));
        let Some(pod) = pod.filter(|_| to.namespace.as_deref() == Some(namespace)) else { return };
        if talk.security != "none" {
            return;
        }
        let port = to.address.map_or(0, |address| address.port());
        let from_mesh = talk.source.pod.as_deref().zip(talk.source.namespace.as_deref());
        let from_mesh = from_mesh.and_then(|(pod, namespace)| snapshot.workload(namespace, pod));
        // What the client's own daemon carries becomes mTLS when the server joins.
        let refused = is_strict(snapshot, pod, port) && !from_mesh.is_some_and(|client| client.is_enrolled());
        self.add((client(&talk.source), name(to)), 1, refused);
    }

    /// Adds those of a client whom no daemon carries. Whoever is in the mesh is told of by its own, or joins with the pod.
    fn add_outside(&mut self, known: &OutsideClient, snapshot: &Snapshot) {
        let Some(pod) = snapshot.workload(&known.namespace, &known.pod).filter(|pod| pod.is_enrolled()) else { return };
        let on_host = Enrolment::Outside(OutsideReason::HostNetwork);
        let client = snapshot.workload_by_address(known.client).filter(|client| client.enrolment != on_host);
        // Kubelet's probes come from the node's own address, and pass.
        let is_probe = client.is_none() && pod.probe_ports.contains(&known.port);
        if is_probe || client.is_some_and(|client| client.is_enrolled()) {
            return;
        }
        let from = client.map_or_else(|| known.client.to_string(), |pod| format!("{}/{}", pod.namespace, pod.name));
        let to = format!("{}/{}:{}", known.namespace, known.pod, known.port);
        self.add((from, to), known.connections, is_strict(snapshot, pod, known.port));
    }

    fn add(&mut self, who: (String, String), connections: usize, refused: bool) {
        let entry = self.0.entry(who).or_default();
        entry.0 += connections;
        entry.1 |= refused;
    }

    fn told(self) -> Vec<Peer> {
        let told = self.0.into_iter();
        told.map(|((from, to), (connections, refused))| Peer { from, to, connections, refused }).collect()
    }
}

fn is_strict(snapshot: &Snapshot, pod: &Workload, port: u16) -> bool {
    effective_mode(snapshot, pod, port).mode == Mode::Strict
}

/// Its port is another for each connection, and says nothing.
fn client(party: &Party) -> String {
    match (&party.namespace, &party.pod, party.address) {
        (Some(namespace), Some(pod), _) => format!("{namespace}/{pod}"),
        (_, _, Some(address)) => address.ip().to_string(),
        _ => name(party),
    }
}

/// All of a daemon's list that is about a namespace.
async fn all<T: DeserializeOwned>(daemon: &Daemon, path: &str, namespace: &str) -> anyhow::Result<Vec<T>> {
    let mut all = Vec::new();
    loop {
        let selection = Selection { namespace: Some(namespace.to_owned()), offset: all.len(), limit: Some(MAX_LIMIT) };
        let part: List<T> = daemon.get(path, &selection.to_query()).await?;
        let is_last = part.items.is_empty();
        all.extend(part.items);
        if is_last || all.len() >= part.total {
            return Ok(all);
        }
    }
}
