//! One request and its response.

mod attempt;
mod body;
mod fields;
mod head;
mod lease;
mod ledger;
mod reply;
mod upgrade;

use std::rc::Rc;

use http::request::Parts;
use hyper::{Request, Response, body::Incoming};

pub(crate) use self::body::{ReplyBody, RequestBody};
use self::{
    attempt::{Attempt, Failure, Sent},
    head::Head,
    ledger::Ledger,
    reply::Refusal,
    upgrade::Upgrading,
};
use crate::{
    inbound::{Connection, admission},
    upstream::{Answer, Cluster, UpstreamError, Version, Wish},
};

/// How often a request that could not go out is tried elsewhere; Istio's default.
const RETRIES: usize = 2;

/// Answers one request.
pub(crate) async fn serve(connection: Rc<Connection>, request: Request<Incoming>) -> Response<ReplyBody> {
    let is_grpc = fields::is_grpc(request.headers());
    let mut request = request;
    let upgrading = Upgrading::of(&connection, &mut request);
    let (parts, body) = request.into_parts();
    let ledger = Ledger::open(&connection, &parts);
    let forwarded = forward(&connection, parts, body, upgrading, &ledger).await;
    let response = forwarded.unwrap_or_else(|refusal| refusal.into_response(is_grpc, ledger.clone()));
    ledger.note_status(response.status().as_u16());
    response
}

async fn forward(
    connection: &Rc<Connection>,
    parts: Parts,
    body: Incoming,
    upgrading: Option<Upgrading>,
    ledger: &Rc<Ledger>,
) -> Result<Response<ReplyBody>, Refusal> {
    let version = if parts.version == http::Version::HTTP_2 { Version::Http2 } else { Version::Http1 };
    let mut head = Head::read(parts, &connection.arrival)?;
    let (snapshot, _) = connection.worker.snapshot();
    admission::of_request(&snapshot, &connection.arrival, &head).map_err(|denial| Refusal::of_denial(&denial))?;
    fields::prepare_request(&mut head.parts, &connection.arrival, upgrading.is_some());
    let worker = &connection.worker;
    let cluster = Cluster::of_target(worker, &connection.arrival.target).map_err(|error| reply::of_upstream(&error))?;
    let body = RequestBody::live(body, ledger.clone());
    let request = Request::from_parts(head.for_upstream(version), body);
    let sent = attempted(connection, &cluster, version, request).await?;
    ledger.note_endpoint(&sent.lease.endpoint);
    let mut response = sent.response;
    let becomes_other = upgrading.is_some_and(|upgrading| upgrading.agreed(&mut response, sent.upgrade));
    let (mut parts, body) = response.into_parts();
    fields::prepare_response(&mut parts, becomes_other);
    Ok(Response::from_parts(parts, ReplyBody::upstream(body, ledger.clone(), sent.lease)))
}

/// Sends a request to an endpoint; where nothing of it could go out, to another one.
async fn attempted(
    connection: &Connection,
    cluster: &Rc<Cluster>,
    version: Version,
    mut request: Request<RequestBody>,
) -> Result<Sent, Refusal> {
    let (worker, mut wish) = (&connection.worker, Wish::default());
    loop {
        let endpoint = cluster.pick(&wish).map_err(|error| reply::of_upstream(&error))?;
        let outlier = cluster.policy().outlier.clone();
        let attempt = Attempt { worker, cluster, endpoint: &endpoint, version };
        match attempt.send(request).await {
            Ok(sent) => {
                let answer = Answer::of_status(sent.response.status().as_u16());
                cluster.state.note(&endpoint.state, answer, outlier.as_ref());
                return Ok(sent);
            }
            Err(Failure::Unsent(error, unsent)) => {
                if !matches!(error, UpstreamError::Overflow(_)) {
                    cluster.state.note(&endpoint.state, Answer::Gateway, outlier.as_ref());
                }
                if !error.is_worth_another_endpoint() || wish.avoid.len() >= RETRIES {
                    return Err(reply::of_upstream(&error));
                }
                wish.avoid.push(endpoint.address());
                request = *unsent;
            }
            Err(Failure::Broken(broken)) => {
                if !broken.is_clients {
                    cluster.state.note(&endpoint.state, Answer::Gateway, outlier.as_ref());
                }
                return Err(broken.into_refusal());
            }
        }
    }
}
