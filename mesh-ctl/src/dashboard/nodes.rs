//! The daemons and proxies that the page is about: each is followed and asked once, however many viewers there are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use mesh_admin::{
    Certificate, Connection, FlowLine, FlowSelection, List, MAX_LIMIT, Policy, RequestQuestion, RequestWhy, Selection,
    Status, Traffic, WaypointCluster, WaypointRoute, WaypointStatus, Why, Workload, path,
};
use mesh_core::lock::UnpoisonedMutex as _;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{Semaphore, watch};
use tokio::task::AbortHandle;

use super::graph::{Graph, Proxy, is_of};
use super::links::Links;
use super::members::{Member, Members, Numbers};
use super::services::services;
use super::view::{DaemonView, FlowsView, MeshView, NamespaceView, NodeView, ProxyView, ServicesView};
use crate::cluster::Roster;
use crate::daemon::{Daemon, Next};

/// How often connections, and everything else, are asked for.
const ASK: Duration = Duration::from_secs(2);
/// How often the page is told of a graph that has changed.
const TELL: Duration = Duration::from_secs(1);
/// Pause after a daemon broke off.
const AGAIN: Duration = Duration::from_secs(1);
/// Questions at once.
const AT_ONCE: usize = 16;
/// Lines of a list for people: the rest is counted.
const SHOWN: usize = 50;

/// What a daemon has said of itself and of the configuration.
#[derive(Debug, Default)]
pub(super) struct Heard {
    status: Option<Status>,
    certificates: Vec<Certificate>,
    workloads: Vec<Workload>,
    policies: Vec<Policy>,
    error: Option<String>,
}

/// What a waypoint or gateway has said of itself.
#[derive(Debug, Default)]
pub(super) struct HeardProxy {
    status: Option<WaypointStatus>,
    routes: Vec<WaypointRoute>,
    clusters: Vec<WaypointCluster>,
    error: Option<String>,
}

/// What a member says of itself when it is asked.
trait State: Send + Sized + 'static {
    /// Asks every now and then.
    fn ask(nodes: &Nodes, member: &Member<Self>, daemon: &Daemon) -> impl Future<Output = ()> + Send;
}

impl State for Heard {
    fn ask(nodes: &Nodes, member: &Member<Self>, daemon: &Daemon) -> impl Future<Output = ()> + Send {
        nodes.ask(member, daemon)
    }
}

impl State for HeardProxy {
    fn ask(nodes: &Nodes, member: &Member<Self>, daemon: &Daemon) -> impl Future<Output = ()> + Send {
        nodes.ask_proxy(member, daemon)
    }
}

/// All daemons and proxies, and what is known by them.
pub(super) struct Nodes {
    daemons: Members<Heard>,
    /// Waypoints and gateways.
    proxies: Members<HeardProxy>,
    numbers: Numbers,
    /// Other tools that the page leads to.
    links: Links,
    graph: Mutex<Graph>,
    started: Instant,
    /// For questions at once: on a cluster each is a connection to the API server and to a kubelet.
    places: Semaphore,
    /// The texts that every viewer gets: the graph, Services, and the rest.
    graph_text: watch::Sender<String>,
    services_text: watch::Sender<String>,
    mesh_text: watch::Sender<String>,
}

impl Nodes {
    pub(super) fn new(links: Links) -> Self {
        Self {
            daemons: Members::default(),
            proxies: Members::default(),
            numbers: Numbers::default(),
            links,
            graph: Mutex::default(),
            started: Instant::now(),
            places: Semaphore::new(AT_ONCE),
            graph_text: watch::Sender::default(),
            services_text: watch::Sender::default(),
            mesh_text: watch::Sender::default(),
        }
    }

    /// Takes over who there is; each is followed while it is there.
    pub(super) fn update(self: &Arc<Self>, roster: Roster) {
        let mut gone = self.daemons.update(roster.daemons, &self.numbers, |member| self.follow(member));
        gone.extend(self.proxies.update(roster.proxies, &self.numbers, |member| self.follow(member)));
        gone.into_iter().for_each(|number| self.graph().forget(number));
        send(&self.mesh_text, &self.mesh());
    }

    fn follow<H: State>(self: &Arc<Self>, member: Arc<Member<H>>) -> AbortHandle {
        let nodes = self.clone();
        let following = tokio::spawn(async move {
            let Ok(daemon) = &member.daemon else { return };
            tokio::join!(
                nodes.listen(member.number, daemon),
                nodes.read(&member, daemon),
                H::ask(&nodes, &member, daemon)
            );
        });
        following.abort_handle()
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

    /// Tells viewers what has changed; runs until dropped.
    pub(super) async fn tell(&self) {
        tokio::join!(self.tell_graph(), self.tell_services());
    }

    /// What passes at an edge: connections that are open now, by the end that is told of, and the last requests.
    pub(super) async fn flows_of(&self, from: &str, to: &str) -> FlowsView {
        let mut found = Vec::new();
        for member in self.daemons.all() {
            let Ok(daemon) = &member.daemon else { continue };
            let Ok(list) = connections(daemon).await else { continue };
            found.extend(list.into_iter().filter(|connection| is_of(&connection.talk, from, to)));
        }
        // Both ends tell of it where both are nodes of ours.
        if found.iter().any(|connection| connection.talk.reporter == "source") {
            found.retain(|connection| connection.talk.reporter == "source");
        }
        found.truncate(SHOWN);
        FlowsView { connections: found, requests: self.graph().requests_of(from, to, self.now()) }
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
        for member in self.daemons.all() {
            let Ok(daemon) = &member.daemon else { continue };
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
    async fn read<H>(&self, member: &Member<H>, daemon: &Daemon) {
        loop {
            let place = self.places.acquire().await;
            // Why it does not answer is told by `ask`.
            if let Ok(traffic) = daemon.get::<Traffic>(path::TRAFFIC, &[]).await {
                member.readings.lock_unpoisoned().add(self.started.elapsed().as_secs_f64(), traffic);
            }
            drop(place);
            tokio::time::sleep(ASK).await;
        }
    }

    /// A daemon's state, every now and then.
    async fn ask(&self, member: &Member<Heard>, daemon: &Daemon) {
        loop {
            let place = self.places.acquire().await;
            match hear(daemon, &member.heard).await {
                Ok(connections) => self.graph().connections(member.number, &connections, self.now()),
                Err(error) => member.heard.lock_unpoisoned().error = Some(format!("{error:#}")),
            }
            drop(place);
            send(&self.mesh_text, &self.mesh());
            tokio::time::sleep(ASK).await;
        }
    }

    /// A proxy's state, every now and then.
    async fn ask_proxy(&self, member: &Member<HeardProxy>, proxy: &Daemon) {
        loop {
            let place = self.places.acquire().await;
            match hear_proxy(proxy).await {
                Ok(heard) => {
                    if let Some(proxy) = heard.status.as_ref().and_then(|status| self.proxy(status)) {
                        self.graph().proxy(member.number, proxy);
                    }
                    *member.heard.lock_unpoisoned() = heard;
                }
                Err(error) => member.heard.lock_unpoisoned().error = Some(format!("{error:#}")),
            }
            drop(place);
            tokio::time::sleep(ASK).await;
        }
    }

    /// Who a proxy is among the graph's nodes: the workload with its identity, or what its Gateway is called. None while no daemon
    /// has told of workloads.
    fn proxy(&self, status: &WaypointStatus) -> Option<Proxy> {
        let daemons = self.daemons.all();
        let heard: Vec<_> = daemons.iter().map(|daemon| daemon.heard.lock_unpoisoned()).collect();
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

    async fn tell_services(&self) {
        loop {
            send(&self.services_text, &self.services_view());
            tokio::time::sleep(ASK).await;
        }
    }

    fn services_view(&self) -> ServicesView {
        let (daemons, proxies) = (self.daemons.all(), self.proxies.all());
        let readings = daemons.iter().map(|it| &it.readings).chain(proxies.iter().map(|it| &it.readings));
        let readings: Vec<_> = readings.map(|readings| readings.lock_unpoisoned()).collect();
        let told: Vec<_> = proxies.iter().map(|proxy| proxy.heard.lock_unpoisoned()).collect();
        let told: Vec<_> = told.iter().map(|heard| (&*heard.routes, &*heard.clusters)).collect();
        let now = self.started.elapsed().as_secs_f64();
        let services = services(readings.iter().map(|readings| &**readings), now, &told);
        let heard: Vec<_> = daemons.iter().map(|daemon| daemon.heard.lock_unpoisoned()).collect();
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

    async fn tell_graph(&self) {
        loop {
            let view = self.graph().view(self.now());
            send(&self.graph_text, &view);
            tokio::time::sleep(TELL).await;
        }
    }

    fn mesh(&self) -> MeshView {
        let daemons = self.daemons.all();
        let nodes = daemons.iter().map(|daemon| {
            let heard = daemon.heard.lock_unpoisoned();
            DaemonView {
                name: heard.status.as_ref().map_or_else(|| daemon.name.clone(), |status| status.node.clone()),
                error: heard.error.clone().or_else(|| daemon.daemon.clone().err()),
                status: heard.status.clone(),
                certificates: heard.certificates.clone(),
            }
        });
        let nodes = nodes.collect();
        let proxies = self.proxies.all().into_iter().map(|proxy| {
            let heard = proxy.heard.lock_unpoisoned();
            ProxyView {
                name: heard.status.as_ref().and_then(|it| it.pod.clone()).unwrap_or_else(|| proxy.name.clone()),
                error: heard.error.clone().or_else(|| proxy.daemon.clone().err()),
                status: heard.status.clone(),
            }
        });
        let proxies = proxies.collect();
        // Every daemon knows the whole configuration.
        let heard =
            daemons.iter().map(|daemon| daemon.heard.lock_unpoisoned()).find(|heard| !heard.workloads.is_empty());
        let namespaces = heard.map(|heard| self.readiness(&heard)).unwrap_or_default();
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
        self.graph.lock_unpoisoned()
    }
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

/// Pods and policies are asked for where the configuration is another than it was.
async fn hear(daemon: &Daemon, before: &Mutex<Heard>) -> anyhow::Result<Vec<Connection>> {
    let query = Selection { limit: Some(MAX_LIMIT), ..Selection::default() }.to_query();
    let status: Status = daemon.get(path::STATUS, &[]).await?;
    let certificates: List<Certificate> = daemon.get(path::CERTIFICATES, &query).await?;
    let is_known = {
        let known = before.lock_unpoisoned();
        // One that was started again counts generations anew.
        let is_same = |then: &Status| {
            then.config.generation == status.config.generation && then.uptime_seconds <= status.uptime_seconds
        };
        known.error.is_none() && known.status.as_ref().is_some_and(is_same)
    };
    let mut configuration = None;
    if !is_known {
        let workloads: List<Workload> = daemon.get(path::WORKLOADS, &query).await?;
        let policies: List<Policy> = daemon.get(path::POLICIES, &query).await?;
        configuration = Some((workloads.items, policies.items));
    }
    let connections = connections(daemon).await?;
    let mut heard = before.lock_unpoisoned();
    if let Some((workloads, policies)) = configuration {
        (heard.workloads, heard.policies) = (workloads, policies);
    }
    (heard.status, heard.certificates, heard.error) = (Some(status), certificates.items, None);
    Ok(connections)
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
