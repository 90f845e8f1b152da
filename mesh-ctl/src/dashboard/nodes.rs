//! The daemons and proxies that the page is about: each is followed and asked once, however many viewers there are.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mesh_admin::{
    Certificate, Connection, FlowLine, FlowSelection, List, MAX_LIMIT, Policy, RequestQuestion, RequestWhy, Selection,
    Status, Traffic, WaypointCluster, WaypointRoute, WaypointStatus, Why, Workload, path,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::graph::{Graph, Proxy, is_of};
use super::links::Links;
use super::services::{Readings, services};
use super::view::{DaemonView, MeshView, NamespaceView, NodeView, ProxyView, ServicesView};
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

/// What a waypoint or gateway has said of itself.
#[derive(Debug, Default)]
struct HeardProxy {
    status: Option<WaypointStatus>,
    routes: Vec<WaypointRoute>,
    clusters: Vec<WaypointCluster>,
    error: Option<String>,
}

/// All daemons and proxies, and what is known by them.
pub(super) struct Nodes {
    daemons: Vec<Daemon>,
    /// Waypoints and gateways; where both are numbered, these come after the daemons.
    proxies: Vec<Daemon>,
    /// Other tools that the page leads to.
    links: Links,
    graph: Mutex<Graph>,
    heard: Mutex<Vec<Heard>>,
    heard_proxies: Mutex<Vec<HeardProxy>>,
    /// Of daemons, then proxies.
    readings: Mutex<Vec<Readings>>,
    started: Instant,
    /// The texts that every viewer gets: the graph, Services, and the rest.
    graph_text: watch::Sender<String>,
    services_text: watch::Sender<String>,
    mesh_text: watch::Sender<String>,
}

type Task<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

impl Nodes {
    pub(super) fn new(daemons: Vec<Daemon>, proxies: Vec<Daemon>, links: Links) -> Self {
        Self {
            heard: Mutex::new(daemons.iter().map(|_| Heard::default()).collect()),
            heard_proxies: Mutex::new(proxies.iter().map(|_| HeardProxy::default()).collect()),
            readings: Mutex::new(daemons.iter().chain(&proxies).map(|_| Readings::default()).collect()),
            daemons,
            proxies,
            links,
            graph: Mutex::default(),
            started: Instant::now(),
            graph_text: watch::Sender::default(),
            services_text: watch::Sender::default(),
            mesh_text: watch::Sender::default(),
        }
    }

    /// The graph as JSON, and each that follows.
    pub(super) fn graphs(&self) -> watch::Receiver<String> {
        self.graph_text.subscribe()
    }

    /// Services as JSON, and each that follows.
    pub(super) fn services(&self) -> watch::Receiver<String> {
        self.services_text.subscribe()
    }

    /// Everything else as JSON, and each that follows.
    pub(super) fn meshes(&self) -> watch::Receiver<String> {
        self.mesh_text.subscribe()
    }

    /// Follows the daemons; runs until dropped.
    pub(super) async fn follow(&self) {
        let mut tasks: Vec<Task<'_>> = vec![Box::pin(self.tell()), Box::pin(self.tell_rest())];
        for (number, member) in self.daemons.iter().chain(&self.proxies).enumerate() {
            tasks.push(Box::pin(self.listen(number, member)));
            tasks.push(Box::pin(self.read(number, member)));
        }
        tasks.extend((0..self.daemons.len()).map(|number| Box::pin(self.ask(number)) as Task<'_>));
        tasks.extend((0..self.proxies.len()).map(|number| Box::pin(self.ask_proxy(number)) as Task<'_>));
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
        self.first(path::WHY, &[("src", source.to_owned()), ("dst", destination.to_owned())]).await
    }

    /// What becomes of a request: every daemon has the whole configuration.
    pub(super) async fn why_request(&self, question: &RequestQuestion) -> Result<RequestWhy, String> {
        self.first(path::REQUEST, &question.to_query()).await
    }

    async fn first<T: DeserializeOwned>(&self, path: &str, query: &[(&str, String)]) -> Result<T, String> {
        let mut refusal = "there is no daemon to ask".to_owned();
        for daemon in &self.daemons {
            match daemon.get::<T>(path, query).await {
                Ok(answer) => return Ok(answer),
                Err(error) => refusal = format!("{error:#}"),
            }
        }
        Err(refusal)
    }

    /// The stream of a daemon's or proxy's flows, again and again.
    async fn listen(&self, number: usize, member: &Daemon) {
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
            let _ = member.lines(path::FLOWS, &query, || Ok(()), on_line).await;
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// A daemon's or proxy's counters, every now and then.
    async fn read(&self, number: usize, member: &Daemon) {
        loop {
            // Why it does not answer is told by `ask`.
            if let Ok(traffic) = member.get::<Traffic>(path::TRAFFIC, &[]).await {
                lock(&self.readings)[number].add(self.started.elapsed().as_secs_f64(), traffic);
            }
            tokio::time::sleep(ASK).await;
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
            send(&self.mesh_text, &self.mesh());
            tokio::time::sleep(ASK).await;
        }
    }

    /// A proxy's state, every now and then.
    async fn ask_proxy(&self, number: usize) {
        loop {
            match hear_proxy(&self.proxies[number]).await {
                Ok(heard) => {
                    if let Some(proxy) = heard.status.as_ref().and_then(|status| self.proxy(status)) {
                        self.graph().proxy(self.daemons.len() + number, proxy);
                    }
                    lock(&self.heard_proxies)[number] = heard;
                }
                Err(error) => lock(&self.heard_proxies)[number].error = Some(format!("{error:#}")),
            }
            tokio::time::sleep(ASK).await;
        }
    }

    /// Who a proxy is among the graph's nodes: the workload with its identity, or what its Gateway is called. None while no daemon
    /// has told of workloads.
    fn proxy(&self, status: &WaypointStatus) -> Option<Proxy> {
        let heard = self.heard();
        if heard.iter().all(|heard| heard.workloads.is_empty() && heard.error.is_none()) {
            return None;
        }
        let mut workloads = heard.iter().flat_map(|heard| &heard.workloads);
        let own = workloads.find(|workload| workload.identity == status.identity);
        let of_gateway = status.gateway.split_once('/').unwrap_or(("", &status.gateway));
        let (namespace, name) = own.map_or(of_gateway, |workload| (&workload.namespace, &workload.workload));
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        Some(Proxy {
            identity: status.identity.clone(),
            node: NodeView { id: format!("{namespace}/{name}"), namespace, name, requests: None },
            gateway: (!status.ports.is_empty()).then(|| status.gateway.clone()),
        })
    }

    async fn tell_rest(&self) {
        loop {
            send(&self.services_text, &self.services_view());
            tokio::time::sleep(ASK).await;
        }
    }

    fn services_view(&self) -> ServicesView {
        let proxies = lock(&self.heard_proxies);
        let told: Vec<_> = proxies.iter().map(|proxy| (&*proxy.routes, &*proxy.clusters)).collect();
        let services = services(&*lock(&self.readings), self.started.elapsed().as_secs_f64(), &told);
        let heard = self.heard();
        let workload = |pod: &str| {
            let (namespace, name) = pod.split_once('/')?;
            let mut all = heard.iter().flat_map(|heard| &heard.workloads);
            let found = all.find(|workload| workload.namespace == namespace && workload.name == name)?;
            Some(format!("{namespace}/{}", found.workload))
        };
        let circuits = services.iter().flat_map(|service| &service.circuits);
        let pods = circuits.flat_map(|circuit| &circuit.ejected).filter_map(|endpoint| endpoint.pod.as_deref());
        let ejected: BTreeSet<String> = pods.filter_map(workload).collect();
        ServicesView { services, ejected: ejected.into_iter().collect() }
    }

    async fn tell(&self) {
        loop {
            let view = self.graph().view(self.now());
            send(&self.graph_text, &view);
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
        let proxies = lock(&self.heard_proxies);
        let proxies = self.proxies.iter().zip(proxies.iter()).map(|(proxy, heard)| ProxyView {
            name: heard.status.as_ref().and_then(|status| status.pod.clone()).unwrap_or_else(|| proxy.name()),
            error: heard.error.clone(),
            status: heard.status.clone(),
        });
        let proxies = proxies.collect();
        // Every daemon knows the whole configuration.
        let namespaces = heard.iter().find(|heard| !heard.workloads.is_empty());
        let namespaces = namespaces.map(|heard| self.readiness(heard)).unwrap_or_default();
        MeshView { nodes, proxies, namespaces, links: self.links.clone() }
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
        lock(&self.graph)
    }

    fn heard(&self) -> MutexGuard<'_, Vec<Heard>> {
        lock(&self.heard)
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Viewers are told where it is another than before.
fn send<T: Serialize>(texts: &watch::Sender<String>, view: &T) {
    let text = serde_json::to_string(view).unwrap_or_default();
    texts.send_if_modified(|before| {
        let differs = *before != text;
        *before = text;
        differs
    });
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

async fn hear_proxy(proxy: &Daemon) -> anyhow::Result<HeardProxy> {
    let query = Selection { limit: Some(MAX_LIMIT), ..Selection::default() }.to_query();
    let routes: List<WaypointRoute> = proxy.get(path::WAYPOINT_ROUTES, &query).await?;
    let clusters: List<WaypointCluster> = proxy.get(path::WAYPOINT_CLUSTERS, &query).await?;
    Ok(HeardProxy {
        status: Some(proxy.get(path::WAYPOINT_STATUS, &[]).await?),
        routes: routes.items,
        clusters: clusters.items,
        error: None,
    })
}

async fn connections(daemon: &Daemon) -> anyhow::Result<Vec<Connection>> {
    let query = Selection { limit: Some(MAX_LIMIT), ..Selection::default() }.to_query();
    Ok(daemon.get::<List<Connection>>(path::CONNECTIONS, &query).await?.items)
}
