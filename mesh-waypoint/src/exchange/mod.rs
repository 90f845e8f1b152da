//! One request and its response.

mod attempt;
mod attempts;
mod authority;
mod authorizer;
mod body;
mod edits;
mod fields;
mod filling;
mod framing;
mod head;
mod kept;
mod lease;
mod ledger;
mod mirror;
mod other;
mod reply;
mod route;
mod session;
mod token;
mod upgrade;

use std::rc::Rc;

use bytes::Bytes;
use http::{HeaderValue, header::CONNECTION, request::Parts, response};
use hyper::{Request, Response, body::Incoming};
use mesh_core::Speaks;
use mesh_ext_authz::Changes;
use tokio::time::Instant;

use self::body::MAX_HELD;
pub(crate) use self::body::{ReplyBody, RequestBody, RequestError};
pub(crate) use self::other::Other;
pub(crate) use self::reply::Flag;
use self::{
    attempt::Sent,
    attempts::Attempts,
    authorizer::Asking,
    head::Head,
    ledger::Ledger,
    reply::Refusal,
    route::{Course, Plan},
    upgrade::Upgrading,
};
use crate::{
    inbound::{Connection, Target},
    upstream::{Cluster, Version},
};

/// Requests under way on one thread beyond which no more are taken: each may hold a connection to an endpoint, with buffers of some
/// tens of KiB.
const MOST_REQUESTS: u64 = 16_384;
/// Octets of responses that clients of one thread may leave untaken before it takes no more requests.
const MOST_OWED: u64 = 512 << 20;

/// Answers one request.
pub(crate) async fn serve(connection: Rc<Connection>, request: Request<Incoming>) -> Response<ReplyBody> {
    let mut request = request;
    let upgrading = Upgrading::of(&connection, &mut request);
    let (mut parts, body) = request.into_parts();
    let is_http1 = parts.version != http::Version::HTTP_2;
    let ledger = Ledger::open(&connection, &mut parts);
    let mut added = Vec::new();
    let forwarded = tokio::select! {
        // First: what is cut off fails everywhere, and the client is told why.
        biased;
        why = ledger.flow.cut() => Err(reply::stalled(why)),
        forwarded = forward(&connection, parts, body, upgrading, &ledger, &mut added) => forwarded,
    };
    let mut response = forwarded.unwrap_or_else(|refusal| {
        let closes = is_http1 && refusal.ends_connection();
        let mut response = refusal.into_response(ledger.clone());
        if closes {
            // Whoever wrote that may mean something else by what comes next, too.
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    });
    added.iter().for_each(|changes| changes.write_response(response.headers_mut()));
    if is_http1 && connection.is_parting() {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    ledger.note_answer(response.status().as_u16(), response.headers());
    response
}

async fn forward(
    connection: &Rc<Connection>,
    parts: Parts,
    body: Incoming,
    upgrading: Option<Upgrading>,
    ledger: &Rc<Ledger>,
    added: &mut Vec<Changes>,
) -> Result<Response<ReplyBody>, Refusal> {
    let (under_way, _) = connection.worker.counts.now();
    if under_way > MOST_REQUESTS || connection.worker.owed.get() > MOST_OWED {
        return Err(reply::overloaded());
    }
    upgrading.as_ref().map_or(Ok(()), |upgrading| upgrading.check(&parts.headers))?;
    let came_by = if parts.version == http::Version::HTTP_2 { Version::Http2 } else { Version::Http1 };
    let mut head = Head::read(parts, &ledger.arrival)?;
    let worker = &connection.worker;
    let seen = worker.numbered_snapshot();
    // First: a policy sees what goes on, and neither what stays behind nor what a client claims of itself.
    fields::prepare_request(&mut head.parts, connection, &head.arrival, upgrading.is_some());
    ledger.note_request_id(&head.parts.headers);
    if seen.snapshot.policies().has_request_authentication() {
        Box::pin(token::read(connection, &seen, &mut head, ledger)).await?;
    }
    let body = RequestBody::live(body, ledger.clone());
    let (is_http2, upgrades) = (came_by == Version::Http2, upgrading.is_some());
    let asking = Asking { connection, snapshot: &seen.snapshot, is_http2, upgrades };
    let body = asking.admit(&mut head, body, added).await?;
    let plan = match route::course(connection, &seen, &mut head, ledger).await? {
        Course::Forward(plan) => plan,
        Course::Answer(response) => return Ok(response),
    };
    let cluster = Cluster::ready(worker, &plan.cluster).await.map_err(|error| reply::of_upstream(&error))?;
    ledger.note_cluster(&cluster);
    let deadline = plan.timeouts.request.map(|limit| Instant::now() + limit);
    let cookie = Attempts::new_cookie(&cluster, &mut head);
    let version = version(&cluster, &connection.arrival.target, came_by, &head, upgrading.as_ref());
    let mut body = if upgrading.is_none() { repeatable(body, &plan).await? } else { body };
    // A body that is still arriving is mirrored once it is complete.
    let is_coming = body.is_kept();
    if !is_coming {
        mirror::send(connection, &plan, &head, version, &body);
    }
    let attempts = Attempts { connection, cluster: &cluster, plan: &plan, head: &head, ledger, version, deadline };
    let sent = attempts.send(&mut body).await?;
    if is_coming {
        mirror::send(connection, &plan, &head, version, &body);
    }
    ledger.note_endpoint(&sent.lease.endpoint);
    let endpoint = sent.lease.endpoint.address();
    let (mut parts, body) = answer(sent, &head, upgrading, ledger, deadline)?;
    plan.edit_response(&mut parts, &head, ledger);
    if let Some(session) = &plan.session {
        session.tell((&plan.cluster, endpoint), &mut parts.headers);
    }
    if let Some(cookie) = cookie {
        parts.headers.append(http::header::SET_COOKIE, cookie);
    }
    Ok(Response::from_parts(parts, body))
}

/// The body as it can be sent more than once, where the plan may want that; where it does not, what there is to be held is nothing.
async fn repeatable(body: RequestBody, plan: &Plan) -> Result<RequestBody, Refusal> {
    let may_repeat = plan.repeats || !plan.mirrors().is_empty();
    let body = body.held(if may_repeat { MAX_HELD } else { 0 }).await?;
    Ok(if may_repeat { body.kept() } else { body })
}

/// The endpoint's answer as one to the client, which may be that the connection is another protocol's from here on.
fn answer(
    mut sent: Sent,
    head: &Head,
    upgrading: Option<Upgrading>,
    ledger: &Rc<Ledger>,
    deadline: Option<Instant>,
) -> Result<(response::Parts, ReplyBody), Refusal> {
    let agreed = |upgrading: &Upgrading| upgrading.agreed(&head.parts.headers, &mut sent.response);
    let becomes_other = upgrading.as_ref().map_or(Ok(false), agreed)?;
    let (mut parts, body) = match upgrading.filter(|_| becomes_other) {
        Some(upgrading) => {
            let (parts, _) = upgrading.hand_over(sent, ledger).into_parts();
            (parts, ReplyBody::text(Bytes::new(), ledger.clone()))
        }
        None => {
            let (parts, body) = sent.response.into_parts();
            let body = ReplyBody::upstream(body, ledger.clone(), sent.lease);
            (parts, body.until(deadline))
        }
    };
    fields::prepare_response(&mut parts, becomes_other);
    Ok((parts, body))
}

/// Which version of HTTP goes on. In the mesh a client speaks what the server does; who is outside has agreed on one with the
/// gateway, and knows nothing of the server.
fn version(
    cluster: &Cluster,
    target: &Target,
    came_by: Version,
    head: &Head,
    upgrading: Option<&Upgrading>,
) -> Version {
    if upgrading.is_some_and(Upgrading::is_connect) {
        return came_by;
    }
    let policy = cluster.policy();
    match &policy.pool {
        Some(pool) if pool.as_client => return came_by,
        // A client of HTTP/1.1 that asks for another protocol is not asked to find out whether HTTP/2's streams may be one.
        Some(pool) if pool.http2 && upgrading.is_none() => return Version::Http2,
        _ => {}
    }
    match target {
        Target::Service(..) | Target::Workload(_) if !cluster.begins_tls() => came_by,
        _ if cluster.speaks() == Speaks::Http2 || fields::is_grpc(&head.parts.headers) => Version::Http2,
        _ => Version::Http1,
    }
}
