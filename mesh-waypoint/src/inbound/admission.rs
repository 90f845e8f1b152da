//! Who may: the policies that are attached to this waypoint, or to the Service that something is for.

use std::sync::Arc;

use mesh_core::{
    Snapshot,
    l7::{Place, RequestView},
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
    let (policies, facts) = asked(worker, snapshot, arrival);
    if policies.is_empty() {
        return Ok(None);
    }
    let request = RequestFacts { view, token };
    match authorize_request(&policies, &facts, &request, answered) {
        Decision::Ask(question) => Ok(Some(question)),
        Decision::Settled(settled) => told(settled, arrival).map(|()| None),
    }
}

/// Judges a connection in which nobody reads requests.
///
/// # Errors
/// Why it may not go on.
pub(super) fn of_connection(worker: &Worker, arrival: &Arrival) -> Result<(), Denial> {
    let snapshot = worker.snapshot();
    let (policies, facts) = asked(worker, &snapshot, arrival);
    if policies.is_empty() {
        return Ok(());
    }
    told(authorize_connection(&policies, &facts), arrival)
}

/// The policies that are asked, and what they are asked about.
fn asked<'a>(
    worker: &Worker,
    snapshot: &'a Snapshot,
    arrival: &'a Arrival,
) -> (Vec<&'a Arc<AuthorizationPolicy>>, Facts<'a>) {
    at_place(worker, &arrival.target, |place| {
        let client = &arrival.client;
        let facts = Facts {
            peer: client.identity.as_ref().map_or(Peer::Unproven, Peer::Certificate),
            client: client.peer.ip(),
            forwarded: Some(client.address.ip()),
            server: arrival.target.server_name(),
            destination: place.destination(),
        };
        (place.policies(snapshot), facts)
    })
}

/// Calls `ask` with the place where requests for a target are read.
pub(crate) fn at_place<T>(worker: &Worker, target: &Target, ask: impl FnOnce(Place<'_>) -> T) -> T {
    let own = &worker.shared.own.gateway;
    match target {
        // What comes in at a gateway is for the gateway's own pod, whose policies see requests here.
        Target::Gateway(_) => ask(target.place(own, worker.listeners().own.as_deref())),
        Target::Service(..) | Target::Workload(_) => ask(target.place(own, None)),
    }
}

fn told(decided: Authorization, arrival: &Arrival) -> Result<(), Denial> {
    for policy in &decided.audited {
        tracing::info!(target: "access", identity = arrival.client.name(), %policy, "audited");
    }
    decided.verdict.map(drop)
}
