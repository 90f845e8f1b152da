//! Who may tell of a request: daemons of the client's and servers' nodes, and the waypoint's replicas.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mesh_admin::{Connection, Flow, FlowSelection, List, MAX_LIMIT, Selection, WAYPOINT_SOCKET, Why, Workload, path};

use super::goes_by_waypoint;
use super::hops::{Heard, Hop, Role};
use super::listening::Listening;
use super::sender::Marks;
use crate::daemon::Daemon;

/// Streams of flows of servers' nodes, and of the waypoint's replicas, that are read at once.
const MAX_LISTENED: usize = 32;

/// Those who may tell of a request.
#[derive(Debug)]
pub(super) struct Witnesses {
    /// The daemon of the client's node.
    pub(super) client: Daemon,
    /// Replicas of the waypoint.
    pub(super) waypoints: Vec<Daemon>,
    /// Pods that may serve it, as NAMESPACE/NAME, each with a daemon that may be its node's.
    pub(super) servers: Vec<(String, Daemon)>,
}

impl Witnesses {
    /// Those of this machine.
    pub(super) fn of_machine(client: Daemon, waypoints: &[PathBuf], peers: &[PathBuf], servers: &[String]) -> Self {
        let usual = Path::new(WAYPOINT_SOCKET);
        let usual = (waypoints.is_empty() && usual.exists()).then(|| usual.to_owned());
        let waypoints = waypoints.iter().cloned().chain(usual).map(Daemon::waypoint_at).collect();
        let peers: Vec<_> = peers.iter().cloned().map(Daemon::at).collect();
        let daemons = || std::iter::once(&client).chain(&peers);
        let servers = servers.iter().flat_map(|pod| daemons().map(|daemon| (pod.clone(), daemon.clone()))).collect();
        Self { waypoints, servers, client }
    }

    /// Who should tell: what a waypoint sends on is on connections of its own, which other clients share.
    pub(super) fn wanted(&self, why: &Why) -> Vec<Role> {
        let is_direct = why.ways.iter().any(|way| way.path == "direct");
        let is_seen = is_direct || self.are_several() && why.ways.iter().any(|way| way.path == "tunnel");
        let wanted = [(Role::Node, true), (Role::Waypoint, goes_by_waypoint(why)), (Role::Server, is_seen)];
        wanted.into_iter().filter_map(|(role, is_wanted)| is_wanted.then_some(role)).collect()
    }

    /// Whether somebody may be of another node: with one machine's daemon alone, nobody is.
    fn are_several(&self) -> bool {
        self.servers.iter().any(|(_, daemon)| daemon.name() != self.client.name())
    }

    /// Listens to all, who have begun to tell when this is done.
    pub(super) async fn listen(&self, why: &Why, marks: &Marks, limit: Duration) -> anyhow::Result<Listening> {
        let mut listening = Listening::default();
        let events = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        let of_client = events(&["closed", "refused", "cut", "request"]);
        let source = why.source.namespace.as_ref().zip(why.source.pod.as_ref());
        let pod = source.map(|(namespace, pod)| format!("{namespace}/{pod}"));
        listening.begin(&self.client, FlowSelection { events: of_client, pod, ..FlowSelection::default() });
        for waypoint in self.waypoints.iter().take(MAX_LISTENED) {
            let selection = FlowSelection { trace: Some(marks.trace.clone()), ..FlowSelection::default() };
            listening.begin_at_waypoint(waypoint, selection);
        }
        for (pod, daemon) in self.servers.iter().take(MAX_LISTENED) {
            let events = events(&["opened", "closed", "refused", "cut", "request"]);
            listening.begin(daemon, FlowSelection { events, pod: Some(pod.clone()), ..FlowSelection::default() });
        }
        listening.begun(limit).await?;
        Ok(listening)
    }

    /// Which connection of the waypoint's carried it to the server, by the server's node: it was refused or opened meanwhile, or is
    /// open still.
    pub(super) async fn ask_behind_the_waypoint(&self, listening: &mut Listening, heard: &mut Heard) {
        let Some(onward) = heard.onward() else { return };
        if self.are_several() {
            heard.wanted.push(Role::Server);
        }
        if let Some(hop) = heard.opened(&onward) {
            return heard.add(hop);
        }
        if let Some((pod, _)) = &onward.server {
            for (_, daemon) in self.servers.iter().filter(|(server, _)| server == pod) {
                // One that does not answer has told nothing.
                let Ok(connections) = connections(daemon, pod, &onward).await else { continue };
                if let Some(hop) = carried(connections, heard.at_milliseconds()) {
                    return heard.add(hop);
                }
            }
        }
        if let Some(hop) = listening.onward(heard, &onward).await {
            heard.add(hop);
        }
    }
}

/// Each of these pods with its node, as a daemon has it.
pub(super) async fn nodes_of(daemon: &Daemon, pods: Vec<String>) -> anyhow::Result<Vec<(String, String)>> {
    if pods.is_empty() {
        return Ok(Vec::new());
    }
    let selection = Selection { limit: Some(MAX_LIMIT), ..Selection::default() };
    let list: List<Workload> = daemon.get(path::WORKLOADS, &selection.to_query()).await?;
    let nodes: BTreeMap<String, String> =
        list.items.into_iter().map(|pod| (format!("{}/{}", pod.namespace, pod.name), pod.node)).collect();
    Ok(pods.into_iter().filter_map(|pod| nodes.get(&pod).cloned().map(|node| (pod, node))).collect())
}

/// From a waypoint's replica to a server.
#[derive(Debug, Clone)]
pub(super) struct Onward {
    /// The replica, as namespace and name.
    pub(super) replica: (String, String),
    /// The server's pod, as NAMESPACE/NAME, and its address; none where the replica reached nobody.
    pub(super) server: Option<(String, SocketAddr)>,
}

impl Onward {
    /// Whether it is a connection of that replica to that server, or to any.
    pub(super) fn is(&self, talk: &mesh_admin::Talk) -> bool {
        let (namespace, name) = &self.replica;
        talk.reporter == "destination"
            && talk.source.namespace.as_ref() == Some(namespace)
            && talk.source.pod.as_ref() == Some(name)
            && self.server.as_ref().is_none_or(|(_, address)| talk.destination.address == Some(*address))
    }
}

/// The open ones, as the daemon of the server's node has them.
async fn connections(daemon: &Daemon, pod: &str, onward: &Onward) -> anyhow::Result<Vec<Connection>> {
    let namespace = pod.split_once('/').map(|(namespace, _)| namespace.to_owned());
    let selection = Selection { namespace, offset: 0, limit: Some(MAX_LIMIT) };
    let list: List<Connection> = daemon.get(path::CONNECTIONS, &selection.to_query()).await?;
    let is_wanted = |connection: &Connection| connection.open && onward.is(&connection.talk);
    Ok(list.items.into_iter().filter(is_wanted).collect())
}

/// The hop of a request that one of these carried; the youngest stands for them.
fn carried(connections: Vec<Connection>, now: u64) -> Option<Hop> {
    let count = connections.len();
    let youngest = connections.into_iter().min_by_key(|connection| connection.age_seconds)?;
    let flow = Flow {
        at_milliseconds: now.saturating_sub(youngest.age_seconds.saturating_mul(1_000)),
        event: "opened".to_owned(),
        id: youngest.id,
        talk: youngest.talk,
        end: None,
        detail: None,
        request: None,
    };
    Some(Hop::new(Role::Server, flow).one_of(count))
}
