//! Who talks to whom: flows and connections of several daemons, added up by pairs of workloads. No clock, no I/O.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use mesh_admin::{Connection, Flow, Party, RequestFlow, Talk, Verdict};

use super::edge_report::{EdgeReport, WINDOW};
use super::recent::Recent;
use super::requests::{Requests, Sum};
use super::services::short;
use super::view::{Ask, EdgeView, GraphView, NodeView, RequestView, Trouble};
use crate::flows::in_words;

/// Seconds after which an edge without traffic is left out.
const FORGET: u64 = 300;
/// Edges that are kept.
const MAX_EDGES: usize = 4_000;
/// Troubles that an edge remembers.
const TROUBLES: usize = 5;
/// Octets of a text that an edge remembers: peers choose their paths.
const MAX_TEXT: usize = 2_048;

/// Reporters, of which each end of a connection is one.
const SOURCE: usize = 0;
const DESTINATION: usize = 1;

/// A pair of ends, by their names.
type Pair = (String, String);

#[derive(Debug, Default)]
struct Edge {
    told: [EdgeReport; 2],
    service: Option<String>,
    way: &'static str,
    policy: Option<String>,
    source: String,
    destination: String,
    /// Who both ends are, as far as that is known.
    principals: [Option<String>; 2],
    requests: Requests,
    recent: Recent,
    ask: Option<Ask>,
    troubles: VecDeque<Trouble>,
}

/// A waypoint or gateway that tells of requests.
#[derive(Debug, Clone)]
pub(super) struct Proxy {
    /// Its own identity.
    pub(super) identity: String,
    /// Itself.
    pub(super) node: NodeView,
    /// Where it is a gateway, which one, as `NAMESPACE/NAME`; none for a waypoint.
    pub(super) gateway: Option<String>,
}

/// The graph.
#[derive(Debug, Default)]
pub(super) struct Graph {
    edges: BTreeMap<Pair, Edge>,
    nodes: BTreeMap<String, NodeView>,
    /// Those that tell of themselves, by the number of who is asked.
    proxies: BTreeMap<usize, Proxy>,
    /// Bytes that were told of connections that are open: by daemon and connection.
    carried: HashMap<(usize, u64), u64>,
    /// Who came to whom in plaintext, by the namespace that it came to.
    plaintext: BTreeMap<String, BTreeSet<Pair>>,
    lost: u64,
    crowded_out: bool,
}

impl Graph {
    /// A daemon or proxy tells of a flow. `now` is in seconds.
    pub(super) fn flow(&mut self, daemon: usize, flow: &Flow, now: u64) {
        let gateway = self.proxies.get(&daemon).and_then(|proxy| proxy.gateway.as_ref());
        if flow.talk.reporter == "gateway" && gateway.is_none() {
            // It has not said yet which one it is.
            return;
        }
        if let Some(request) = &flow.request {
            return self.request(daemon, flow, request, now);
        }
        let bytes = match &*flow.event {
            "opened" => 0,
            _ => (flow.talk.bytes_from_client + flow.talk.bytes_to_client)
                .saturating_sub(self.carried.remove(&(daemon, flow.id)).unwrap_or(0)),
        };
        let Some(edge) = self.edge(daemon, &flow.talk) else { return };
        let second = edge.told[reporter(&flow.talk)].second(now);
        second.bytes += bytes;
        let end = flow.end.as_deref().unwrap_or_default();
        let denied = matches!(end, "policy_denied" | "plaintext_under_strict" | "rule_not_met");
        match &*flow.event {
            "opened" => second.opened += 1,
            "refused" | "cut" if denied => second.denied += 1,
            "refused" => (second.opened, second.errors) = (second.opened + 1, second.errors + 1),
            "cut" => second.errors += 1,
            _ => {}
        }
        if matches!(&*flow.event, "refused" | "cut" | "dropped") {
            edge.trouble(flow, end, flow.detail.clone(), None);
        }
        if denied {
            edge.policy = flow.talk.policy.clone().or_else(|| edge.policy.take());
        }
    }

    /// Each request is told of once, by a waypoint or else a node; at a gateway's door, by the gateway.
    fn request(&mut self, daemon: usize, flow: &Flow, request: &RequestFlow, now: u64) {
        let gateway = self.proxies.get(&daemon).and_then(|proxy| proxy.gateway.clone());
        let verdict = flow.verdict();
        let Some(edge) = self.edge(daemon, &flow.talk) else { return };
        edge.requests.add(request, verdict, now);
        edge.recent.add(flow, request, now);
        edge.told[reporter(&flow.talk)].last = Some(now);
        if request.url.as_deref().is_some_and(|url| url.starts_with("https:")) {
            edge.way = "tls";
        }
        let url = request.url.clone().filter(|url| url.len() <= MAX_TEXT);
        let ask =
            url.zip(request.method.clone()).map(|(url, method)| Ask { src: edge.source.clone(), gateway, method, url });
        let refused_here = request.status >= 400 && request.flags != "-";
        if verdict != Verdict::Allowed || refused_here {
            let policy = flow.talk.policy.as_ref().map(|policy| format!("; {policy}"));
            let detail = flow.detail.as_ref().map(|detail| format!("; {detail}"));
            let parts = [Some(in_words(request)), policy, detail];
            edge.trouble(flow, "request", Some(parts.into_iter().flatten().collect()), ask.clone());
        }
        edge.ask = ask.or_else(|| edge.ask.take());
        if verdict == Verdict::Denied {
            edge.policy = flow.talk.policy.clone().or_else(|| edge.policy.take());
        }
    }

    /// A waypoint or gateway has said who it is.
    pub(super) fn proxy(&mut self, number: usize, proxy: Proxy) {
        self.proxies.insert(number, proxy);
    }

    /// A daemon or proxy is gone.
    pub(super) fn forget(&mut self, number: usize) {
        self.proxies.remove(&number);
        self.carried.retain(|(of, _), _| *of != number);
        for told in self.edges.values_mut().flat_map(|edge| &mut edge.told) {
            told.open.remove(&number);
        }
    }

    /// A daemon has lost events.
    pub(super) fn lost(&mut self, count: u64) {
        self.lost += count;
    }

    /// All connections that a daemon carries now.
    pub(super) fn connections(&mut self, daemon: usize, connections: &[Connection], now: u64) {
        for edge in self.edges.values_mut() {
            for told in &mut edge.told {
                told.open.remove(&daemon);
            }
        }
        let mut carried = HashMap::new();
        for connection in connections.iter().filter(|connection| connection.open) {
            let talk = &connection.talk;
            let total = talk.bytes_from_client + talk.bytes_to_client;
            let before = self.carried.get(&(daemon, connection.id)).copied().unwrap_or(0);
            carried.insert((daemon, connection.id), total);
            if let Some(edge) = self.edge(daemon, talk) {
                let told = &mut edge.told[reporter(talk)];
                *told.open.entry(daemon).or_default() += 1;
                told.second(now).bytes += total.saturating_sub(before);
            }
        }
        self.carried.retain(|(of, _), _| *of != daemon);
        self.carried.extend(carried);
    }

    /// The last requests of an edge.
    pub(super) fn requests_of(&self, from: &str, to: &str, now: u64) -> Vec<RequestView> {
        let edge = self.edges.get(&(from.to_owned(), to.to_owned()));
        edge.map(|edge| edge.recent.view(now)).unwrap_or_default()
    }

    /// Who came in plaintext to a namespace.
    pub(super) fn plaintext_into(&self, namespace: &str) -> impl Iterator<Item = &Pair> {
        self.plaintext.get(namespace).into_iter().flatten()
    }

    /// The graph as it is now; what has had no traffic for long is forgotten.
    pub(super) fn view(&mut self, now: u64) -> GraphView {
        self.edges.retain(|_, edge| edge.is_alive(now));
        let mut asked: BTreeMap<&str, Sum> = BTreeMap::new();
        let mut edges = Vec::with_capacity(self.edges.len());
        // A waypoint may tell of itself later than nodes of its connections.
        let waypoints = self.proxies.values().filter(|proxy| proxy.gateway.is_none());
        let waypoints: BTreeSet<&str> = waypoints.map(|proxy| &*proxy.identity).collect();
        for ((from, to), edge) in &mut self.edges {
            let sum = edge.requests.sum(now);
            let leg = edge.principals.iter().flatten().any(|principal| waypoints.contains(&**principal));
            edges.push(edge.view((from, to), leg, &sum, now));
            asked.entry(to).or_default().merge(&sum);
        }
        for node in self.nodes.values_mut() {
            node.requests = asked.get(&*node.id).and_then(Sum::view);
        }
        let used: BTreeSet<&String> = self.edges.keys().flat_map(|(from, to)| [from, to]).collect();
        self.nodes.retain(|id, _| used.contains(id));
        GraphView {
            nodes: self.nodes.values().cloned().collect(),
            edges,
            lost: self.lost,
            crowded_out: self.crowded_out,
        }
    }

    /// The edge of a connection or request; none when there are too many.
    fn edge(&mut self, daemon: usize, talk: &Talk) -> Option<&mut Edge> {
        let from = node(&talk.source, None);
        let to = match self.proxies.get(&daemon) {
            // Its requests come to the gateway; what it sends on is told of by nodes and waypoints.
            Some(proxy) if talk.reporter == "gateway" => proxy.node.clone(),
            _ => node(&talk.destination, talk.service.as_deref()),
        };
        let pair = (from.id.clone(), to.id.clone());
        if !self.edges.contains_key(&pair) && self.edges.len() >= MAX_EDGES {
            self.crowded_out = true;
            return None;
        }
        if talk.security == "none" && reporter(talk) == DESTINATION && talk.source.principal.is_none() {
            let pairs = self.plaintext.entry(to.namespace.clone()).or_default();
            if pairs.len() < MAX_EDGES {
                pairs.insert(pair.clone());
            }
        }
        self.nodes.entry(from.id.clone()).or_insert(from);
        self.nodes.entry(to.id.clone()).or_insert(to);
        let edge = self.edges.entry(pair).or_default();
        edge.remember(talk);
        Some(edge)
    }
}

impl Edge {
    fn remember(&mut self, talk: &Talk) {
        self.way = match &*talk.security {
            _ if talk.reporter == "waypoint" => "waypoint",
            "mutual_tls" => "hbone",
            "kernel_attested" => "direct",
            // A connection that was refused has no way; one that was carried before keeps its own.
            _ if !self.way.is_empty() => self.way,
            _ => "plaintext",
        };
        if talk.service.is_some() {
            self.service.clone_from(&talk.service);
        }
        self.principals = [&talk.source, &talk.destination].map(|party| party.principal.clone());
        self.source = match (&talk.source.namespace, &talk.source.pod, talk.source.address) {
            (Some(namespace), Some(pod), _) => format!("{namespace}/{pod}"),
            (_, _, Some(address)) => address.ip().to_string(),
            _ => std::mem::take(&mut self.source),
        };
        // The client's word for it is the Service's address.
        let asked = talk.original_destination.or(talk.destination.address);
        if let Some(asked) = asked
            && (reporter(talk) == SOURCE || self.destination.is_empty())
        {
            self.destination = asked.to_string();
        }
    }

    fn trouble(&mut self, flow: &Flow, end: &str, detail: Option<String>, ask: Option<Ask>) {
        let detail = detail.map(|text| text.chars().take(MAX_TEXT).collect());
        let trace = flow.request.as_ref().and_then(|request| request.trace_id.clone());
        self.troubles.push_front(Trouble { at: flow.at_milliseconds, end: end.to_owned(), detail, ask, trace });
        self.troubles.truncate(TROUBLES);
    }

    /// Both ends tell of one connection: the client's word is taken where it has any.
    fn told(&self) -> &EdgeReport {
        let [source, destination] = &self.told;
        if source.last.is_some() { source } else { destination }
    }

    fn is_alive(&self, now: u64) -> bool {
        self.told.iter().any(|told| !told.open.is_empty() || told.last.is_some_and(|last| last + FORGET > now))
    }

    fn view(&self, (from, to): (&str, &str), leg: bool, requests: &Sum, now: u64) -> EdgeView {
        let told = self.told();
        let window = WINDOW as f64;
        let (opened, errors) = (told.sum(now, |second| second.opened), told.sum(now, |second| second.errors));
        let denied = self.told.iter().map(|told| told.sum(now, |second| second.denied)).fold(0.0, f64::max);
        EdgeView {
            from: from.to_owned(),
            to: to.to_owned(),
            service: self.service.clone(),
            service_name: self.service.as_deref().map(|host| short(host).to_owned()),
            way: self.way,
            leg,
            requests: requests.view(),
            rate: opened / window,
            bytes: told.sum(now, |second| second.bytes) / window,
            errors: if opened > 0.0 { (errors / opened).min(1.0) } else { 0.0 },
            denied: denied / window + requests.denied(),
            open: told.open.values().sum(),
            policy: self.policy.clone(),
            source: self.source.clone(),
            destination: self.destination.clone(),
            ask: self.ask.clone(),
            troubles: self.troubles.iter().cloned().collect(),
        }
    }
}

fn reporter(talk: &Talk) -> usize {
    if talk.reporter == "destination" { DESTINATION } else { SOURCE }
}

/// A workload by its name; else the Service that was asked for, or the address without its port.
fn node(party: &Party, service: Option<&str>) -> NodeView {
    if let (Some(namespace), Some(workload)) = (&party.namespace, &party.workload) {
        return NodeView {
            id: format!("{namespace}/{workload}"),
            namespace: namespace.clone(),
            name: workload.clone(),
            requests: None,
        };
    }
    let address = || party.address.map_or_else(|| "unknown".to_owned(), |address| address.ip().to_string());
    let id = service.map_or_else(address, str::to_owned);
    NodeView { name: short(&id).to_owned(), id, namespace: String::new(), requests: None }
}

/// Whether a connection is of an edge.
pub(super) fn is_of(talk: &Talk, from: &str, to: &str) -> bool {
    node(&talk.source, None).id == from && node(&talk.destination, talk.service.as_deref()).id == to
}

#[cfg(test)]
mod tests {
    use super::*;

    fn party(workload: &str) -> Party {
        let text = |text: &str| Some(text.to_owned());
        Party { namespace: text("shop"), workload: text(workload), pod: text(workload), ..Party::default() }
    }

    fn talk(reporter: &str, from: &str, to: &str) -> Talk {
        Talk {
            reporter: reporter.into(),
            source: party(from),
            destination: party(to),
            service: None,
            original_destination: None,
            security: "mutual_tls".into(),
            policy: None,
            bytes_from_client: 0,
            bytes_to_client: 0,
        }
    }

    fn flow(event: &str, id: u64, talk: Talk, end: Option<&str>) -> Flow {
        Flow {
            at_milliseconds: 1,
            event: event.into(),
            id,
            talk,
            end: end.map(str::to_owned),
            detail: None,
            request: None,
        }
    }

    #[test]
    fn a_connection_that_both_ends_tell_of_is_counted_once() {
        let mut graph = Graph::default();
        for id in 0..20 {
            graph.flow(0, &flow("opened", id, talk("source", "a", "b"), None), 5);
            graph.flow(1, &flow("opened", id, talk("destination", "a", "b"), None), 5);
        }
        let view = graph.view(6);
        assert_eq!((view.nodes.len(), view.edges.len()), (2, 1));
        assert_eq!((view.edges[0].rate, view.edges[0].way), (2.0, "hbone"));
        // Out of the window, and then forgotten.
        assert_eq!(graph.view(5 + WINDOW).edges[0].rate, 0.0);
        assert_eq!(graph.view(5 + FORGET), GraphView::default());
    }

    #[test]
    fn what_policy_denied_is_no_error_and_names_the_policy_of_either_end() {
        let mut graph = Graph::default();
        graph.flow(0, &flow("opened", 1, talk("source", "a", "b"), None), 1);
        graph.flow(0, &flow("refused", 2, talk("source", "a", "b"), Some("policy_denied")), 1);
        let mut by = talk("destination", "a", "b");
        by.policy = Some("AuthorizationPolicy shop/b".into());
        graph.flow(1, &flow("refused", 3, by, Some("policy_denied")), 1);
        graph.flow(0, &flow("refused", 4, talk("source", "a", "b"), Some("unreachable")), 1);
        let edge = &graph.view(2).edges[0];
        assert_eq!((edge.denied, edge.errors, edge.rate), (0.1, 0.5, 0.2));
        assert_eq!(edge.policy.as_deref(), Some("AuthorizationPolicy shop/b"));
        let ends: Vec<_> = edge.troubles.iter().map(|trouble| trouble.end.as_str()).collect();
        assert_eq!(ends, ["unreachable", "policy_denied", "policy_denied"]);
    }

    fn request(reporter: &str, to: &str, status: u16, flags: &str) -> Flow {
        let asked = RequestFlow {
            status,
            flags: flags.into(),
            duration_microseconds: 4_000,
            method: Some("GET".into()),
            url: Some("http://b.shop.svc.cluster.local:80/x".into()),
            ..RequestFlow::default()
        };
        let talk = Talk { service: Some("b.shop.svc.cluster.local".into()), ..talk(reporter, "a", to) };
        Flow { request: Some(Box::new(asked)), ..flow("request", 1, talk, None) }
    }

    fn proxy(gateway: Option<&str>) -> Proxy {
        let node = node(&party("proxy"), None);
        Proxy { identity: "spiffe://mesh/proxy".into(), node, gateway: gateway.map(str::to_owned) }
    }

    #[test]
    fn a_waypoints_requests_are_an_edge_of_their_own_and_its_connections_are_legs() {
        let mut graph = Graph::default();
        let mut leg = talk("source", "a", "proxy");
        leg.destination.principal = Some("spiffe://mesh/proxy".into());
        graph.flow(0, &flow("opened", 1, leg, None), 1);
        assert!(!graph.view(1).edges[0].leg, "nobody knows of the waypoint");
        graph.proxy(7, proxy(None));
        for _ in 0..9 {
            graph.flow(7, &request("waypoint", "b", 200, "-"), 1);
        }
        graph.flow(7, &request("waypoint", "b", 503, "UH"), 1);
        let view = graph.view(1);
        let [edge, leg] = &view.edges[..] else { panic!("two edges: {view:?}") };
        let requests = edge.requests.expect("there were requests");
        assert_eq!((edge.way, edge.leg, requests.rate, requests.failed), ("waypoint", false, 1.0, 0.1));
        assert!((requests.p99 / 4.0 - 1.0).abs() < 0.2, "{requests:?}");
        assert_eq!((&*leg.to, leg.leg, leg.requests), ("shop/proxy", true, None));
        assert_eq!(edge.service_name.as_deref(), Some("b.shop"));
        let trouble = &edge.troubles[0];
        assert_eq!((edge.troubles.len(), &*trouble.end), (1, "request"));
        assert!(trouble.detail.as_ref().is_some_and(|detail| detail.contains("503 UH")), "{trouble:?}");
        let ask = trouble.ask.as_ref().expect("it was seen as a whole");
        assert_eq!((&*ask.src, &*ask.url), ("shop/a", "http://b.shop.svc.cluster.local:80/x"));
        assert_eq!(view.nodes.iter().filter(|node| node.requests.is_some()).count(), 1);
    }

    #[test]
    fn a_gateways_requests_come_to_the_gateway_and_a_long_path_is_not_kept() {
        let mut graph = Graph::default();
        let mut flow = request("gateway", "b", 403, "RBAC");
        graph.flow(7, &flow, 1);
        assert_eq!(graph.view(1).edges.len(), 0, "nobody has said yet which gateway it is");
        graph.proxy(7, proxy(Some("edge/gateway")));
        graph.flow(7, &flow, 1);
        flow.request.as_mut().expect("one").url = Some(format!("https://h/{}", "x".repeat(MAX_TEXT)));
        graph.flow(7, &flow, 1);
        let edge = &graph.view(1).edges[0];
        assert_eq!((&*edge.to, edge.denied, edge.way), ("shop/proxy", 0.2, "tls"));
        assert_eq!(edge.ask.as_ref().and_then(|ask| ask.gateway.as_deref()), Some("edge/gateway"));
        assert_eq!(edge.troubles[0].ask, None);
    }

    #[test]
    fn bytes_are_told_while_a_connection_is_open_and_not_again_at_its_end() {
        let mut graph = Graph::default();
        let carried = |bytes| Talk { bytes_to_client: bytes, ..talk("source", "a", "b") };
        let open = |bytes| [Connection { id: 7, open: true, age_seconds: 1, talk: carried(bytes) }];
        graph.connections(0, &open(100), 1);
        graph.connections(0, &open(250), 3);
        assert_eq!((graph.view(3).edges[0].bytes, graph.view(3).edges[0].open), (25.0, 1));
        graph.flow(0, &flow("closed", 7, carried(300), Some("closed")), 4);
        graph.connections(0, &[], 4);
        assert_eq!((graph.view(4).edges[0].bytes, graph.view(4).edges[0].open), (30.0, 0));
    }

    #[test]
    fn ever_new_edges_fill_no_memory() {
        let mut graph = Graph::default();
        for number in 0..MAX_EDGES + 10 {
            graph.flow(0, &flow("opened", 1, talk("source", &number.to_string(), "b"), None), 1);
        }
        let view = graph.view(1);
        assert_eq!((view.edges.len(), view.nodes.len(), view.crowded_out), (MAX_EDGES, MAX_EDGES + 1, true));
    }
}
