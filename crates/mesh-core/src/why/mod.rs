//! Why a connection goes where it goes, and whether it may: everything that [`resolve`] and [`crate::policy::explain`] say of
//! it, for people. Nothing is decided here.

mod imagined;
mod onward;
mod ranks;
mod reading;
mod reference;
mod request;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

pub use imagined::Imagined;
pub use onward::{Failure, MAX_SERVERS, Onward, Share};
pub use ranks::{Preferred, Rank};
pub use reference::{Client, ReferenceError, Target, find_client, find_target};
pub use request::{
    GatewayFound, NoToken, Outcome, Reader, RequestAnswer, RequestQuestion, Tokens, find_gateway, why_request,
    why_request_at_gateway,
};

use crate::direct::{DirectServer, kernel_may_pick};
use crate::entry::Resolution;
use crate::identity::SpiffeId;
use crate::l7::Waypoint;
use crate::locality::{Candidates, Reason, candidates};
use crate::model::{Endpoint, Enrolment, OutsideReason, Protocol, Service, Workload};
use crate::policy::{ClientTlsRule, Denial, Explanation, Facts, Peer, explain};
use crate::resolve::{Destination, PlaintextReason, Refusal, Transport, resolve, service_at, waypoint_replicas};
use crate::snapshot::{Snapshot, canonical};

/// Endpoints of a Service that are looked at one by one.
pub const MAX_WAYS: usize = 64;

/// How a node connects its own pods to each other, where policy allows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SameNode {
    /// By the kernel, which attests who they are.
    Direct,
    /// As pods of other nodes.
    Tunnel,
}

/// What becomes of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Who connects.
    pub client: Client,
    /// The address that it connects to.
    pub asked: SocketAddr,
    /// The Service whose address that is.
    pub service: Option<Arc<Service>>,
    /// What becomes of it by each endpoint that may be chosen, of which the first [`MAX_WAYS`]; the only one if no Service is
    /// asked for. Each new connection takes one of them at random.
    pub ways: Result<Vec<Way>, Refusal>,
    /// How many endpoints there are to choose from.
    pub endpoints: usize,
    /// Why only these may be chosen, or not all alike, and how many others there are; none where all are alike.
    pub preferred: Option<(Reason, usize)>,
}

/// What becomes of a connection to one endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// The application's own address.
    pub endpoint: SocketAddr,
    /// Its workload, where known.
    pub workload: Option<Arc<Workload>>,
    /// The DestinationRule that is about it.
    pub rule: Option<Arc<ClientTlsRule>>,
    /// How it is reached.
    pub path: Path,
    /// What the destination's node decides; none where it is not part of the mesh, and decides nothing.
    pub decision: Option<Explanation>,
}

/// How a destination is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Path {
    /// By the node's kernel, with nothing in between; it attests that the client is who it is.
    Direct,
    /// Through a tunnel of mTLS to exactly this identity.
    Tunnel(SpiffeId),
    /// Through a tunnel of mTLS to a waypoint's replica of this identity, which decides how it goes on.
    Waypoint(Arc<Waypoint>, SpiffeId),
    /// By mTLS to exactly this identity, with the destination's own sidecar.
    Sidecar(SpiffeId),
    /// As plaintext.
    Plaintext(PlaintextCause),
    /// Not: the client's node refuses it.
    Refused(Refusal),
    /// Without leaving the pod.
    WithinPod,
}

/// Why a connection is plaintext.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlaintextCause {
    /// No workload is known at the client's address.
    ClientUnknown,
    /// The client is not part of the mesh.
    ClientOutside(OutsideReason),
    /// The client is not part of the mesh, and has a sidecar of Istio's, which may begin mutual TLS.
    ClientHasSidecar,
    /// The client's node says so.
    Destination(PlaintextReason),
}

impl Way {
    /// Why the connection comes to nothing, if so it is.
    #[must_use]
    pub fn stop(&self) -> Option<Stop<'_>> {
        if let Path::Refused(refusal) = &self.path {
            return Some(Stop::Refused(refusal));
        }
        let verdict = &self.decision.as_ref()?.authorization.verdict;
        verdict.as_ref().err().map(Stop::Denied)
    }
}

/// What stops a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop<'a> {
    /// The client's node does not know how to reach what is asked for.
    Refused(&'a Refusal),
    /// The destination's node denies it.
    Denied(&'a Denial),
}

impl std::fmt::Display for Stop<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused(refusal) => refusal.fmt(f),
            Self::Denied(denial) => denial.fmt(f),
        }
    }
}

/// Says what becomes of a connection of `client` to `asked`.
#[must_use]
pub fn why(snapshot: &Snapshot, client: Client, asked: SocketAddr, same_node: SameNode) -> Answer {
    let asked = canonical(asked);
    let service = service_at(snapshot, client.workload.as_deref(), asked).cloned();
    let mut answer = Answer { client, asked, service, ways: Ok(Vec::new()), endpoints: 1, preferred: None };
    let picked_by_kernel = answer.service.as_ref().is_none_or(|service| kernel_may_pick(snapshot, service));
    let question = Question { snapshot, asked, direct: same_node == SameNode::Direct && picked_by_kernel };
    let waypoint = match question.first_hop(&answer.client) {
        Some(Err(refusal)) => return Answer { ways: Err(refusal), endpoints: 0, ..answer },
        Some(Ok(waypoint)) => Some(waypoint),
        None => None,
    };
    // Of the endpoints that a client outside the mesh gets, kube-proxy decides.
    let member = answer.client.workload.clone().filter(|workload| workload.is_enrolled());
    let member = member.as_deref();
    let replicas = |waypoint: &Waypoint| waypoint_replicas(snapshot, member, waypoint, asked.is_ipv6());
    let of_waypoint = waypoint.as_deref().map(replicas);
    let is_itself = |service: &Arc<Service>| service.resolution() == Resolution::None;
    if answer.service.as_ref().is_none_or(is_itself) && of_waypoint.is_none() {
        let workload = snapshot.workload_by_address(asked.ip()).cloned();
        answer.ways = Ok(vec![question.way(&answer.client, Endpoint::new(asked, workload), 0)]);
        return answer;
    }
    let of_service = answer.service.as_ref().and_then(|service| service.port(asked.port(), Protocol::Tcp));
    let of_service = of_service.zip(answer.service.as_deref());
    let of_service = || Some(candidates(snapshot, member, of_service?.1, of_service?.0, asked.is_ipv6()));
    let candidates = of_waypoint.or_else(of_service).unwrap_or(Candidates::All(&[]));
    (answer.endpoints, answer.preferred) = (candidates.len(), candidates.reason());
    let each = candidates.each();
    answer.ways = if each.is_empty() {
        // kube-proxy refuses such a connection of a client outside the mesh as well.
        resolve(snapshot, member, asked, 0).map(|_| Vec::new())
    } else {
        let first = each.into_iter().take(MAX_WAYS);
        Ok(first.map(|(endpoint, random)| question.way(&answer.client, endpoint.clone(), random)).collect())
    };
    answer
}

/// What is asked of each endpoint.
#[derive(Clone, Copy)]
struct Question<'a> {
    snapshot: &'a Snapshot,
    asked: SocketAddr,
    /// Whether the kernel may connect pods of one node.
    direct: bool,
}

impl Question<'_> {
    fn way(&self, client: &Client, endpoint: Endpoint, random: u64) -> Way {
        let (path, rule) = self.path(client, &endpoint, random);
        let Endpoint { address, workload, .. } = endpoint;
        let peer = match (&path, &client.workload) {
            (Path::Tunnel(_), Some(workload)) => Peer::Certificate(&workload.identity),
            (Path::Direct, Some(workload)) => Peer::Kernel(&workload.identity),
            _ => Peer::Unproven,
        };
        let facts = Facts {
            peer,
            client: client.address_towards(address),
            forwarded: None,
            server: None,
            destination: address,
        };
        let judged = !matches!(path, Path::Refused(_) | Path::WithinPod);
        let judge = workload.as_deref().filter(|workload| judged && workload.is_enrolled());
        let decision = judge.map(|workload| explain(self.snapshot, workload, &facts));
        Way { endpoint: address, workload, rule, path, decision }
    }

    /// The waypoint that stands between, if one does; or that none of its replicas can.
    fn first_hop(&self, client: &Client) -> Option<Result<Arc<Waypoint>, Refusal>> {
        let workload = client.workload.as_deref().filter(|workload| workload.is_enrolled())?;
        if client.owns(self.asked.ip()) {
            return None;
        }
        match resolve(self.snapshot, Some(workload), self.asked, 0) {
            Ok(Destination { transport: Transport::Waypoint { waypoint, .. }, .. }) => Some(Ok(waypoint)),
            Err(refusal @ Refusal::WaypointWithoutReplicas { .. }) => Some(Err(refusal)),
            _ => None,
        }
    }

    fn path(&self, client: &Client, endpoint: &Endpoint, random: u64) -> (Path, Option<Arc<ClientTlsRule>>) {
        let workload = match &client.workload {
            Some(workload) => workload,
            None => return (Path::Plaintext(PlaintextCause::ClientUnknown), None),
        };
        if workload.has_sidecar() {
            return (Path::Plaintext(PlaintextCause::ClientHasSidecar), None);
        }
        if let Enrolment::Outside(reason) = workload.enrolment {
            return (Path::Plaintext(PlaintextCause::ClientOutside(reason)), None);
        }
        if client.owns(self.asked.ip()) {
            return (Path::WithinPod, None);
        }
        match resolve(self.snapshot, Some(workload), self.asked, random) {
            Ok(destination) => {
                debug_assert_eq!(destination.endpoint, endpoint.address);
                let path = match destination.transport {
                    Transport::Hbone { .. } if self.is_direct(workload, endpoint) => Path::Direct,
                    Transport::Hbone { identity } => Path::Tunnel(identity),
                    Transport::Waypoint { waypoint, identity, .. } => Path::Waypoint(waypoint, identity),
                    Transport::Sidecar { identity } => Path::Sidecar(identity),
                    Transport::Plaintext(reason) => Path::Plaintext(PlaintextCause::Destination(reason)),
                };
                (path, destination.rule)
            }
            Err(refusal) => (Path::Refused(refusal), None),
        }
    }

    /// Whether the kernel connects them: it does so for other pods of the client's node, where that is permitted.
    fn is_direct(&self, client: &Workload, endpoint: &Endpoint) -> bool {
        let server =
            endpoint.workload.as_deref().filter(|server| server.node == client.node && server.uid != client.uid);
        self.direct
            && server.is_some_and(|server| {
                DirectServer::new(self.snapshot, server).ports_for(client).allow(endpoint.address.port())
            })
    }
}

impl Client {
    /// The address that a destination of this family sees.
    fn address_towards(&self, destination: SocketAddr) -> IpAddr {
        let own = self.workload.as_ref().map_or(&[][..], |workload| &workload.addresses);
        let same_family = own.iter().map(IpAddr::to_canonical).find(|ip| ip.is_ipv4() == destination.is_ipv4());
        if self.address.is_ipv4() == destination.is_ipv4() { self.address } else { same_family.unwrap_or(self.address) }
    }

    fn owns(&self, address: IpAddr) -> bool {
        let mut own = self.workload.iter().flat_map(|workload| &workload.addresses);
        own.any(|ip| ip.to_canonical() == address)
    }
}
