//! What becomes of a request that nobody sends: at the client's node, at the waypoint or gateway that reads it, and at the
//! servers' nodes. Each of them is asked by the code that decides for traffic; nothing is decided here.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use super::imagined::Imagined;
use super::onward::{Failure, Forwarder, Share};
use super::reading::Reading;
use super::{Answer, Client, MAX_WAYS, Path, SameNode, why};
use crate::identity::SpiffeId;
use crate::l7::gateway::{Listener, PortListeners, Serves, Tls};
use crate::l7::{GATEWAY_NAME, GatewayPlace, Place, RequestView as _, Rule, Waypoint, routes_for, service_meant};
use crate::model::{Protocol, Service, Speaks, Workload};
use crate::policy::request::Token;
use crate::policy::{PolicyName, RequestExplanation, TokenRule};
use crate::rate_limit::Applied;
use crate::resolve::{service_at, waypoint_replicas};
use crate::snapshot::Snapshot;

/// What is said of the token that a request carries, by the rules that are asked about it.
pub trait Tokens {
    /// The token that the rules believe; none where the request has none.
    ///
    /// # Errors
    /// None of the rules believes it.
    fn believed(&self, rules: &[&Arc<TokenRule>]) -> Result<Option<Token>, Failure>;
}

/// A request without a token.
#[derive(Debug, Clone, Copy)]
pub struct NoToken;

impl Tokens for NoToken {
    fn believed(&self, _: &[&Arc<TokenRule>]) -> Result<Option<Token>, Failure> {
        Ok(None)
    }
}

/// Who reads a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reader {
    /// The waypoint of where it was sent.
    Waypoint(Arc<Waypoint>),
    /// A gateway, and its listener that has the request's host.
    Gateway(PolicyName, Option<Arc<Listener>>),
}

/// What becomes of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Its connection does not come to be, or never gets to whoever would read it.
    NotConnected(String),
    /// Nobody reads requests there: it goes where its connection goes.
    Unread,
    /// One of the shares' servers gets it.
    Forwarded,
    /// It is answered on the way.
    Answered {
        /// HTTP's status; for gRPC's clients it is translated.
        status: u16,
        /// By what, in a few words.
        why: String,
        /// Whether that is what somebody has written down as the answer: a redirect, a response, a preflight's.
        wanted: bool,
    },
}

/// What becomes of a request, and all that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestAnswer {
    /// The client's connection; none for who comes in at a gateway.
    pub connection: Option<Answer>,
    /// Who reads it, if anybody does.
    pub reader: Option<Reader>,
    /// The Service that it is for, where it is sent to one.
    pub service: Option<Arc<Service>>,
    /// The rules about tokens that are asked, as the RequestAuthentication that has them.
    pub authentication: Vec<Arc<PolicyName>>,
    /// The identity that its token stands for.
    pub principal: Option<String>,
    /// What policies say.
    pub judged: Option<RequestExplanation>,
    /// The limits that want a token of it, in their order.
    pub limits: Vec<Applied>,
    /// The rule that it belongs to.
    pub rule: Option<Arc<Rule>>,
    /// Of the rule's matches the one that holds, in words.
    pub matched: Option<String>,
    /// What becomes of it.
    pub outcome: Outcome,
    /// Who may get it.
    pub shares: Vec<Share>,
}

/// What is asked of, and by what.
#[derive(Clone, Copy)]
pub struct RequestQuestion<'a> {
    /// The cluster.
    pub snapshot: &'a Snapshot,
    /// What is said of the request's token.
    pub tokens: &'a dyn Tokens,
    /// The pod of a waypoint or gateway that is asked itself; none for others, who know as much of all its pods.
    pub reader: Option<&'a Arc<Workload>>,
}

/// A gateway, as somebody names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayFound {
    /// The Gateway that it runs for.
    pub name: PolicyName,
    /// Its pod, where one is known.
    pub pod: Option<Arc<Workload>>,
}

/// The gateway of that name: a Gateway of the Gateway API, a pod or workload that is one, or an Istio Gateway whose selector
/// finds its pods. None where there is no such thing.
#[must_use]
pub fn find_gateway(snapshot: &Snapshot, namespace: &str, name: &str) -> Option<GatewayFound> {
    let in_namespace = |pod: &&Arc<Workload>| *pod.namespace == *namespace;
    let runs_for = |pod: &&Arc<Workload>| pod.labels.get(GATEWAY_NAME) == Some(name);
    let is_named = |pod: &&Arc<Workload>| *pod.name == *name || *pod.workload_name == *name;
    let mut pods = snapshot.workloads().filter(in_namespace);
    let pod = pods.find(runs_for).or_else(|| snapshot.workloads().filter(in_namespace).find(is_named));
    let gateways = snapshot.l7().gateways();
    let named = gateways.iter().find(|gateway| *gateway.namespace == *namespace && *gateway.name == *name);
    let selected = || {
        let gateway = named?;
        snapshot.workloads().find(|pod| gateway.runs_as("", "", Some(&pod.labels)))
    };
    let found = |pod: &Arc<Workload>| {
        let own = pod.labels.get(GATEWAY_NAME).unwrap_or(&pod.workload_name);
        let name = PolicyName { namespace: Arc::clone(&pod.namespace), name: own.into() };
        GatewayFound { name, pod: Some(Arc::clone(pod)) }
    };
    let by_pod = pod.or_else(selected).map(found);
    by_pod.or_else(|| {
        named?;
        Some(GatewayFound { name: PolicyName { namespace: namespace.into(), name: name.into() }, pod: None })
    })
}

impl GatewayFound {
    /// Whether this is a pod of it.
    fn runs_as(&self, pod: &Arc<Workload>) -> bool {
        self.pod.as_ref().is_some_and(|known| {
            let name = |pod: &Workload| pod.labels.get(GATEWAY_NAME).unwrap_or(&pod.workload_name).to_owned();
            known.namespace == pod.namespace && name(known) == name(pod)
        })
    }
}

impl RequestAnswer {
    fn new(outcome: Outcome) -> Self {
        Self {
            connection: None,
            reader: None,
            service: None,
            authentication: Vec::new(),
            principal: None,
            judged: None,
            limits: Vec::new(),
            rule: None,
            matched: None,
            outcome,
            shares: Vec::new(),
        }
    }

    /// Whether a server may get it, or somebody has written down what it is answered with.
    #[must_use]
    pub fn is_served(&self) -> bool {
        let connected =
            |answer: &Answer| answer.ways.as_ref().is_ok_and(|ways| ways.iter().any(|way| way.stop().is_none()));
        match &self.outcome {
            Outcome::NotConnected(_) => false,
            Outcome::Unread => self.connection.as_ref().is_none_or(connected),
            Outcome::Forwarded => self.shares.iter().any(|share| share.fails.is_none()),
            Outcome::Answered { wanted, .. } => *wanted,
        }
    }
}

pub(super) fn refused(status: u16, why: impl Into<String>) -> Outcome {
    Outcome::Answered { status, why: why.into(), wanted: false }
}

/// Says what becomes of a request of `client` to `asked`; without a client, of one of somebody whose connection comes to whoever
/// reads it.
#[must_use]
pub fn why_request(
    question: RequestQuestion<'_>,
    client: Option<Client>,
    asked: SocketAddr,
    mut request: Imagined,
    same_node: SameNode,
) -> RequestAnswer {
    let snapshot = question.snapshot;
    let mut answer = RequestAnswer::new(Outcome::Unread);
    let reached = reached_at(snapshot, client.as_ref(), asked);
    answer.service.clone_from(&reached);
    let place = reached.as_ref().map_or(Place::Workload(asked), |reached| Place::Service(reached, asked.port()));
    let hop = match &client {
        Some(client) => {
            let connection = answer.connection.insert(why(snapshot, client.clone(), asked, same_node));
            if let Err(refusal) = &connection.ways {
                answer.outcome = Outcome::NotConnected(refusal.to_string());
                return answer;
            }
            by_waypoint(connection)
        }
        None => {
            place.waypoint(snapshot).map(|(waypoint, _)| (Arc::clone(waypoint), waypoint.identities.first().cloned()))
        }
    };
    let Some((waypoint, own)) = hop else { return answer };
    request.port = asked.port();
    let sender = client.as_ref().and_then(|client| client.workload.as_ref());
    request.client = sender.cloned();
    let meant = reached.as_ref().map(|reached| service_meant(snapshot, reached, request.host()).clone());
    let identity = sender.map(|workload| &workload.identity);
    let address = client.as_ref().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |client| client.address_towards(asked));
    let replicas = replicas(question, &waypoint, asked.is_ipv6());
    let gateway = (&*waypoint.namespace, &*waypoint.name);
    let reading = Reading {
        question,
        place,
        meant: meant.as_ref(),
        identity,
        client: address,
        forwarded: address,
        own: Forwarder { gateway, identity: own.as_ref(), replicas: &replicas, nearby: sender },
    };
    answer.reader = Some(Reader::Waypoint(Arc::clone(&waypoint)));
    let declared = reached.as_ref().and_then(|service| service.port(asked.port(), Protocol::Tcp));
    if declared.is_some_and(|port| port.speaks == Speaks::Opaque) {
        reading.carry(&mut answer);
        return answer;
    }
    if !reading.admit(&mut answer, &mut request) {
        return answer;
    }
    let clients = identity.map(SpiffeId::namespace);
    let routes = |service: &Arc<Service>| routes_for(snapshot, clients, (service, asked.port()), request.host());
    reading.route(&mut answer, &request, meant.as_ref().and_then(routes).map(|table| &**table));
    answer.service.clone_from(&meant);
    answer
}

/// The replicas of a waypoint that may have the request.
fn replicas(question: RequestQuestion<'_>, waypoint: &Waypoint, ipv6: bool) -> Vec<Arc<Workload>> {
    if let Some(itself) = question.reader.filter(|reader| waypoint.runs_as(reader)) {
        return vec![Arc::clone(itself)];
    }
    let each = waypoint_replicas(question.snapshot, None, waypoint, ipv6).each();
    each.into_iter().take(MAX_WAYS).filter_map(|(replica, _)| replica.workload.clone()).collect()
}

/// The Service that is reached at an address, or whose endpoint it is where no pod is there.
fn reached_at(snapshot: &Snapshot, client: Option<&Client>, asked: SocketAddr) -> Option<Arc<Service>> {
    let workload = client.and_then(|client| client.workload.as_deref());
    let by_address = service_at(snapshot, workload, asked);
    let is_pod = || snapshot.workload_by_address(asked.ip()).is_some();
    let headless = || snapshot.headless_service(asked).filter(|_| !is_pod()).map(|(service, _)| service);
    by_address.or_else(headless).cloned()
}

/// The waypoint that a connection goes to, and its replicas' identity.
fn by_waypoint(connection: &Answer) -> Option<(Arc<Waypoint>, Option<SpiffeId>)> {
    connection.ways.iter().flatten().find_map(|way| match &way.path {
        Path::Waypoint(waypoint, identity) => Some((Arc::clone(waypoint), Some(identity.clone()))),
        _ => None,
    })
}

/// Says what becomes of a request that somebody outside, at that address, sends to a port of a gateway.
#[must_use]
pub fn why_request_at_gateway(
    question: RequestQuestion<'_>,
    gateway: &GatewayFound,
    (from, port): (IpAddr, u16),
    mut request: Imagined,
) -> RequestAnswer {
    let snapshot = question.snapshot;
    request.port = port;
    let (GatewayFound { name, pod }, mut answer) = (gateway, RequestAnswer::new(Outcome::Forwarded));
    let itself = question.reader.filter(|reader| gateway.runs_as(reader)).cloned();
    let pod = itself.or_else(|| pod.clone());
    let labels = pod.as_ref().map(|pod| &pod.labels);
    let mut by_port = snapshot.l7().listeners_of(&name.namespace, &name.name, labels);
    answer.reader = Some(Reader::Gateway(name.clone(), None));
    let Some(listeners) = by_port.remove(&port).map(PortListeners::new) else {
        let known: Vec<_> = by_port.keys().map(u16::to_string).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        answer.outcome =
            Outcome::NotConnected(format!("the gateway does not listen at port {port}; its ports: {known}"));
        return answer;
    };
    let place = GatewayPlace { namespace: &name.namespace, name: &name.name, pod: pod.as_deref(), port };
    let own = pod.as_ref().map(|pod| &pod.identity);
    let pod_name = pod.as_ref().map(|pod| (&*pod.namespace, &*pod.name));
    let topology = snapshot.l7().topologies().of((&name.namespace, &name.name), pod_name);
    let forwarded = request.by_proxies(topology.trusted_proxies);
    let reading = Reading {
        question,
        place: Place::Gateway(place),
        meant: None,
        identity: None,
        client: from,
        forwarded: forwarded.unwrap_or(from),
        own: Forwarder {
            gateway: (&name.namespace, &name.name),
            identity: own,
            replicas: pod.as_slice(),
            nearby: pod.as_ref(),
        },
    };
    let listener = match listener_for(&listeners, &request) {
        Ok(listener) => listener,
        Err(why) => {
            answer.outcome = Outcome::NotConnected(format!("{why} (port {port})"));
            return answer;
        }
    };
    let server = request.tls.then(|| request.server.clone());
    if listener.tls == Tls::Passthrough || matches!(listener.serves, Serves::Connections(_)) {
        answer.reader = Some(Reader::Gateway(name.clone(), Some(Arc::clone(listener))));
        reading.pass_on(&mut answer, listener, server.as_deref());
    } else if reading.admit(&mut answer, &mut request) {
        let entered = listeners.enter(&request.host, server.as_deref(), (request.tls, request.https));
        reading.enter(&mut answer, name, entered, &request);
    }
    answer
}

/// The listener that takes a connection.
fn listener_for<'a>(listeners: &'a PortListeners, request: &Imagined) -> Result<&'a Arc<Listener>, String> {
    match (request.tls, listeners.is_tls()) {
        (false, false) => listeners.all().first().ok_or_else(|| "nothing is served there".to_owned()),
        (true, true) => {
            listeners.for_host(&request.server).ok_or_else(|| format!("no listener is for {}", request.server))
        }
        (true, false) => Err("no TLS begins there: ask for http".to_owned()),
        (false, true) => Err("clients begin with TLS there: ask for https".to_owned()),
    }
}
