//! Who may: the policies that are attached to this waypoint, or to the Service that something is for.

use std::{net::SocketAddr, sync::Arc};

use mesh_core::{
    Snapshot,
    l7::RequestView,
    policy::{
        Authorization, AuthorizationPolicy, Denial, Facts, Peer, RequestFacts, authorize_connection, authorize_request,
    },
};

use super::{Arrival, Target};
use crate::worker::Worker;

/// Judges one request.
///
/// # Errors
/// Why it may not go on.
pub(crate) fn of_request(
    worker: &Worker,
    snapshot: &Snapshot,
    arrival: &Arrival,
    view: &dyn RequestView,
) -> Result<(), Denial> {
    let request = RequestFacts { view, token: None };
    judge(worker, snapshot, arrival, |policies, facts| authorize_request(policies, facts, &request))
}

/// Judges a connection in which nobody reads requests.
///
/// # Errors
/// Why it may not go on.
pub(super) fn of_connection(worker: &Worker, arrival: &Arrival) -> Result<(), Denial> {
    judge(worker, &worker.snapshot().0, arrival, authorize_connection)
}

fn judge(
    worker: &Worker,
    snapshot: &Snapshot,
    arrival: &Arrival,
    authorize: impl FnOnce(&[&Arc<AuthorizationPolicy>], &Facts<'_>) -> Authorization,
) -> Result<(), Denial> {
    let policies = policies_of(worker, snapshot, &arrival.target);
    if policies.is_empty() {
        return Ok(());
    }
    let client = &arrival.client;
    let facts = Facts {
        peer: client.identity.as_ref().map_or(Peer::Unproven, Peer::Certificate),
        client: client.address.ip(),
        destination: destination_of(&arrival.target),
    };
    let decided = authorize(&policies, &facts);
    for policy in &decided.audited {
        tracing::info!(target: "access", identity = client.name(), %policy, "audited");
    }
    decided.verdict.map(drop)
}

fn policies_of<'a>(worker: &Worker, snapshot: &'a Snapshot, target: &Target) -> Vec<&'a Arc<AuthorizationPolicy>> {
    let policies = snapshot.policies();
    if let Target::Gateway(_) = target {
        // What comes in at a gateway is for the gateway's own pod, whose policies see requests here.
        let listeners = worker.listeners();
        return listeners.own.as_deref().map_or_else(Vec::new, |workload| policies.authorization_of(workload));
    }
    if policies.targeted().is_empty() {
        return Vec::new();
    }
    let (waypoint, service) = match target {
        Target::Service(service, _) => (snapshot.l7().waypoint_of(service), Some(&**service)),
        Target::Workload(address) => {
            let workload = snapshot.workload_by_address(address.ip());
            (workload.and_then(|workload| snapshot.l7().waypoint_of_workload(workload)), None)
        }
        Target::Gateway(_) => (None, None),
    };
    waypoint.map_or_else(Vec::new, |waypoint| policies.for_waypoint(waypoint, service))
}

/// What a policy's ports are about: the port that was asked for.
fn destination_of(target: &Target) -> SocketAddr {
    match target {
        Target::Workload(address) => *address,
        Target::Service(service, port) => {
            let vip = service.vips.first().copied().unwrap_or(std::net::Ipv4Addr::UNSPECIFIED.into());
            SocketAddr::new(vip, *port)
        }
        Target::Gateway(entrance) => SocketAddr::new(std::net::Ipv4Addr::UNSPECIFIED.into(), entrance.port),
    }
}
