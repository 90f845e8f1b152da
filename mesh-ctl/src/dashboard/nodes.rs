//! The daemons that the page is about: each is followed and asked once, however many viewers there are.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mesh_admin::{
    Certificate, Connection, FlowLine, FlowSelection, List, MAX_LIMIT, Policy, Selection, Status, Why, Workload, path,
};
use tokio::sync::watch;

use super::graph::{Graph, is_of};
use super::view::{DaemonView, MeshView, NamespaceView};
use crate::daemon::{Daemon, Next};

/// How often connections, and everything else, are asked for.
const ASK: Duration = Duration::from_secs(2);
/// How often the page is told of a graph that has changed.
const TELL: Duration = Duration::from_secs(1);
/// Pause after a daemon broke off.
const AGAIN: Duration = Duration::from_secs(1);
/// Lines of a list for people: the rest is counted.
const SHOWN: usize = 50;

/// What a daemon has said of itself and of the configuration.
#[derive(Debug, Default)]
struct Heard {
    status: Option<Status>,
    certificates: Vec<Certificate>,
    workloads: Vec<Workload>,
    policies: Vec<Policy>,
    error: Option<String>,
}

/// All daemons, and what is known by them.
pub(super) struct Nodes {
    daemons: Vec<Daemon>,
    graph: Mutex<Graph>,
    heard: Mutex<Vec<Heard>>,
    started: Instant,
    /// The texts that every viewer gets: the graph, and the rest.
    graph_text: watch::Sender<String>,
    mesh_text: watch::Sender<String>,
}

type Task<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

impl Nodes {
    pub(super) fn new(daemons: Vec<Daemon>) -> Self {
        let heard = Mutex::new(daemons.iter().map(|_| Heard::default()).collect());
        let (graph_text, mesh_text) = (watch::Sender::default(), watch::Sender::default());
        Self { daemons, graph: Mutex::default(), heard, started: Instant::now(), graph_text, mesh_text }
    }

    /// The graph as JSON, and each that follows.
    pub(super) fn graphs(&self) -> watch::Receiver<String> {
        self.graph_text.subscribe()
    }

    /// Everything else as JSON, and each that follows.
    pub(super) fn meshes(&self) -> watch::Receiver<String> {
        self.mesh_text.subscribe()
    }

    /// Follows the daemons; runs until dropped.
    pub(super) async fn follow(&self) {
        let mut tasks: Vec<Task<'_>> = vec![Box::pin(self.tell())];
        for number in 0..self.daemons.len() {
            tasks.push(Box::pin(self.listen(number)));
            tasks.push(Box::pin(self.ask(number)));
        }
        // None of them ends; each is polled when any has something to do, which is a handful of times a second.
        std::future::poll_fn(|context| {
            for task in &mut tasks {
                let _ = task.as_mut().poll(context);
            }
            std::task::Poll::Pending
        })
        .await
    }

    /// Connections of an edge that are open now, by the end that is told of.
    pub(super) async fn connections_of(&self, from: &str, to: &str) -> Vec<Connection> {
        let mut found = Vec::new();
        for daemon in &self.daemons {
            let Ok(list) = connections(daemon).await else { continue };
            found.extend(list.into_iter().filter(|connection| is_of(&connection.talk, from, to)));
        }
        // Both ends tell of it where both are nodes of ours.
        if found.iter().any(|connection| connection.talk.reporter == "source") {
            found.retain(|connection| connection.talk.reporter == "source");
        }
        found.truncate(SHOWN);
        found
    }

    /// What a daemon says of a connection: the first that has an answer.
    pub(super) async fn why(&self, source: &str, destination: &str) -> Result<Why, String> {
        let query = [("src", source.to_owned()), ("dst", destination.to_owned())];
        let mut refusal = "there is no daemon to ask".to_owned();
        for daemon in &self.daemons {
            match daemon.get::<Why>(path::WHY, &query).await {
                Ok(why) => return Ok(why),
                Err(error) => refusal = format!("{error:#}"),
            }
        }
        Err(refusal)
    }

    /// The stream of a daemon's flows, again and again.
    async fn listen(&self, number: usize) {
        loop {
            let on_line = |line: &str| {
                match serde_json::from_str(line)? {
                    FlowLine::Event(flow) => self.graph().flow(number, &flow, self.now()),
                    FlowLine::Lost { lost } => self.graph().lost(lost),
                }
                Ok(Next::More)
            };
            let query = FlowSelection::default().to_query();
            // Why it broke off is told by `ask`.
            let _ = self.daemons[number].lines(path::FLOWS, &query, || Ok(()), on_line).await;
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// A daemon's state, every now and then.
    async fn ask(&self, number: usize) {
        loop {
            match hear(&self.daemons[number]).await {
                Ok((heard, connections)) => {
                    self.graph().connections(number, &connections, self.now());
                    self.heard()[number] = heard;
                }
                Err(error) => self.heard()[number].error = Some(format!("{error:#}")),
            }
            let text = serde_json::to_string(&self.mesh()).unwrap_or_default();
            self.mesh_text.send_if_modified(|before| replace(before, text));
            tokio::time::sleep(ASK).await;
        }
    }

    async fn tell(&self) {
        loop {
            let view = self.graph().view(self.now());
            let text = serde_json::to_string(&view).unwrap_or_default();
            self.graph_text.send_if_modified(|before| replace(before, text));
            tokio::time::sleep(TELL).await;
        }
    }

    fn mesh(&self) -> MeshView {
        let heard = self.heard();
        let nodes = self.daemons.iter().zip(heard.iter()).map(|(daemon, heard)| DaemonView {
            name: heard.status.as_ref().map_or_else(|| daemon.name(), |status| status.node.clone()),
            error: heard.error.clone(),
            status: heard.status.clone(),
            certificates: heard.certificates.clone(),
        });
        let nodes = nodes.collect();
        // Every daemon knows the whole configuration.
        let namespaces = heard.iter().find(|heard| !heard.workloads.is_empty());
        MeshView { nodes, namespaces: namespaces.map(|heard| self.readiness(heard)).unwrap_or_default() }
    }

    fn readiness(&self, heard: &Heard) -> Vec<NamespaceView> {
        let mut found: BTreeMap<&str, NamespaceView> = BTreeMap::new();
        for workload in &heard.workloads {
            let view = found.entry(&workload.namespace).or_default();
            view.pods += 1;
            view.enrolled += usize::from(workload.enrolled);
            if !workload.enrolled && view.outside.len() < SHOWN {
                let reason = workload.outside.as_deref().unwrap_or_default();
                view.outside.push(format!("{}: {reason}", workload.name));
            }
        }
        let graph = self.graph();
        let mode = |scope: &str, namespace: Option<&str>| {
            let mut all =
                heard.policies.iter().filter(|policy| policy.kind == "PeerAuthentication" && policy.scope == scope);
            all.find(|policy| namespace.is_none_or(|it| policy.namespace == it)).map(|policy| policy.action.clone())
        };
        for (namespace, view) in &mut found {
            view.name = (*namespace).to_owned();
            view.mode = mode("namespace", Some(namespace)).or_else(|| mode("mesh", None));
            let pairs = graph.plaintext_into(namespace).take(SHOWN);
            view.plaintext = pairs.map(|(from, to)| format!("{from} -> {to}")).collect();
        }
        found.into_values().collect()
    }

    fn now(&self) -> u64 {
        self.started.elapsed().as_secs()
    }

    fn graph(&self) -> MutexGuard<'_, Graph> {
        self.graph.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn heard(&self) -> MutexGuard<'_, Vec<Heard>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Puts the text in place of the one before; whether it is another.
fn replace(before: &mut String, text: String) -> bool {
    let differs = *before != text;
    *before = text;
    differs
}

async fn hear(daemon: &Daemon) -> anyhow::Result<(Heard, Vec<Connection>)> {
    let query = Selection { limit: Some(MAX_LIMIT), ..Selection::default() }.to_query();
    let status = daemon.get(path::STATUS, &[]).await?;
    let certificates: List<Certificate> = daemon.get(path::CERTIFICATES, &query).await?;
    let workloads: List<Workload> = daemon.get(path::WORKLOADS, &query).await?;
    let policies: List<Policy> = daemon.get(path::POLICIES, &query).await?;
    let heard = Heard {
        status: Some(status),
        certificates: certificates.items,
        workloads: workloads.items,
        policies: policies.items,
        error: None,
    };
    Ok((heard, connections(daemon).await?))
}

async fn connections(daemon: &Daemon) -> anyhow::Result<Vec<Connection>> {
    let query = Selection { limit: Some(MAX_LIMIT), ..Selection::default() }.to_query();
    Ok(daemon.get::<List<Connection>>(path::CONNECTIONS, &query).await?.items)
}
