//! Who may: the policies that are attached to this waypoint, or to the Service that something is for.

use std::{net::SocketAddr, sync::Arc};

use mesh_core::{
    Service, Snapshot,
    l7::{RequestView, Waypoint},
    policy::{
        Answered, Authorization, AuthorizationPolicy, Decision, Denial, Facts, Peer, Question, RequestFacts,
        authorize_connection, authorize_request, request::Token,
    },
};

use super::{Arrival, Target};
use crate::worker::Worker;

/// Judges one request, which those who answered allow. An authorizer that is to be asked first is given.
///
/// # Errors
/// Why it may not go on.
pub(crate) fn of_request(
    worker: &Worker,
    snapshot: &Snapshot,
    arrival: &Arrival,
    view: &dyn RequestView,
    token: Option<&Token>,
    answered: &Answered,
) -> Result<Option<Question>, Denial> {
    let policies = policies_of(worker, snapshot, &arrival.target);
    if policies.is_empty() {
        return Ok(None);
    }
    let request = RequestFacts { view, token };
    match authorize_request(&policies, &facts_of(arrival), &request, answered) {
        Decision::Ask(question) => Ok(Some(question)),
        Decision::Settled(settled) => told(settled, arrival).map(|()| None),
    }
}

/// Judges a connection in which nobody reads requests.
///
/// # Errors
/// Why it may not go on.
pub(super) fn of_connection(worker: &Worker, arrival: &Arrival) -> Result<(), Denial> {
    let (snapshot, _) = worker.snapshot();
    let policies = policies_of(worker, &snapshot, &arrival.target);
    if policies.is_empty() {
        return Ok(());
    }
    told(authorize_connection(&policies, &facts_of(arrival)), arrival)
}

fn facts_of(arrival: &Arrival) -> Facts<'_> {
    let client = &arrival.client;
    Facts {
        peer: client.identity.as_ref().map_or(Peer::Unproven, Peer::Certificate),
        client: client.peer.ip(),
        forwarded: Some(client.address.ip()),
        destination: destination_of(&arrival.target),
    }
}

fn told(decided: Authorization, arrival: &Arrival) -> Result<(), Denial> {
    for policy in &decided.audited {
        tracing::info!(target: "access", identity = arrival.client.name(), %policy, "audited");
    }
    decided.verdict.map(drop)
}

fn policies_of<'a>(worker: &Worker, snapshot: &'a Snapshot, target: &Target) -> Vec<&'a Arc<AuthorizationPolicy>> {
    let policies = snapshot.policies();
    if let Target::Gateway(_) = target {
        // What comes in at a gateway is for the gateway's own pod, whose policies see requests here.
        let own = &worker.shared.own.gateway;
        return policies.authorization_for_gateway(&own.namespace, &own.name, worker.listeners().own.as_deref());
    }
    if policies.targeted().is_empty() {
        return Vec::new();
    }
    waypoint_of(snapshot, target).map_or_else(Vec::new, |(waypoint, service)| policies.for_waypoint(waypoint, service))
}

/// The waypoint that is asked for a target, and the Service if it is one.
pub(crate) fn waypoint_of<'a>(
    snapshot: &'a Snapshot,
    target: &'a Target,
) -> Option<(&'a Waypoint, Option<&'a Service>)> {
    match target {
        Target::Service(service, _) => Some((snapshot.l7().waypoint_of(service)?, Some(service))),
        Target::Workload(address) => {
            let workload = snapshot.workload_by_address(address.ip())?;
            Some((snapshot.l7().waypoint_of_workload(workload)?, None))
        }
        Target::Gateway(_) => None,
    }
}

/// What a policy's ports are about: the port that was asked for.
pub(crate) fn destination_of(target: &Target) -> SocketAddr {
    match target {
        Target::Workload(address) => *address,
        Target::Service(service, port) => {
            let vip = service.vips.first().copied().unwrap_or(std::net::Ipv4Addr::UNSPECIFIED.into());
            SocketAddr::new(vip, *port)
        }
        Target::Gateway(entrance) => SocketAddr::new(std::net::Ipv4Addr::UNSPECIFIED.into(), entrance.port),
    }
}
