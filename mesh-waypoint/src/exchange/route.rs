//! What becomes of a request: the rule that it belongs to, and what the rule asks for.

use std::{borrow::Cow, rc::Rc, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header::LOCATION, response};
use mesh_core::{
    Snapshot, SpiffeId,
    l7::{
        Abort, Action, Backend, PathMatch, RequestView as _, Retry, RetryOn, RouteTable, Rule, Timeouts,
        cors::{Crossing, Field},
        gateway::Entered,
        routes_for,
        rule::Mirror,
        service_meant, split,
    },
};
use tokio::time::sleep;

use super::{
    body::ReplyBody,
    edits,
    head::Head,
    ledger::Ledger,
    reply::{Flag, Refusal},
    session::Held,
};
use crate::{
    inbound::{Connection, Entrance, Target},
    limits,
    upstream::ClusterKey,
    worker::NumberedSnapshot,
};

/// Where a request goes, and how.
pub(super) struct Plan {
    /// The endpoints that it may go to.
    pub(super) cluster: ClusterKey,
    /// When it is tried again.
    pub(super) retry: Retry,
    /// Whether a rule has it tried again after it was sent.
    pub(super) repeats: bool,
    /// How long it may take.
    pub(super) timeouts: Timeouts,
    /// The session that it is of.
    pub(super) session: Option<Held>,
    rule: Option<Arc<Rule>>,
    backend: usize,
    cors: Vec<Field>,
}

/// What becomes of it.
pub(super) enum Course {
    /// It goes on.
    Forward(Plan),
    /// It is answered here.
    Answer(Response<ReplyBody>),
}

/// What is tried again: as the rule has it, or the mesh configuration; and whether somebody has asked for that.
fn retry_of(rule: Option<&Rule>, snapshot: &Snapshot) -> (Retry, bool) {
    let said = rule.and_then(|rule| rule.retry.as_ref()).or(snapshot.l7().defaults().retry.as_ref());
    let repeats = said.is_some_and(|retry| retry.attempts > 0);
    (said.cloned().unwrap_or_else(default_retry), repeats)
}

/// What Istio tries again where nobody has said anything: what the endpoint has certainly not begun to serve.
fn default_retry() -> Retry {
    let on = RetryOn { connect_failure: true, refused_stream: true, reset_before_request: true, ..RetryOn::default() };
    let backoff = Retry::DEFAULT_BACKOFF;
    Retry { attempts: 2, per_try_timeout: None, on, backoff, backoff_is_least: false, same_again: false }
}

impl Plan {
    fn of_cluster(cluster: ClusterKey, (retry, repeats): (Retry, bool)) -> Self {
        Self {
            cluster,
            retry,
            repeats,
            timeouts: Timeouts::default(),
            session: None,
            rule: None,
            backend: 0,
            cors: Vec::new(),
        }
    }

    fn backend(&self) -> Option<&Backend> {
        match &self.rule.as_ref()?.action {
            Action::Forward(backends) => backends.get(self.backend),
            Action::Redirect(_) | Action::Respond(_) => None,
        }
    }

    /// Where copies go.
    pub(super) fn mirrors(&self) -> &[Mirror] {
        self.rule.as_ref().map_or(&[], |rule| &rule.mirrors)
    }

    /// Changes a response's header as the backend, and then the rule, ask for.
    pub(super) fn edit_response(&self, response: &mut response::Parts, head: &Head, ledger: &Ledger) {
        let backend = self.backend().map(|backend| &backend.response_headers);
        for edits in backend.into_iter().chain(self.rule.as_ref().map(|rule| &rule.response_headers)) {
            edits::apply_to_response(edits, (response.status, &mut response.headers), head, ledger);
        }
        edits::set(&self.cors, &mut response.headers);
    }
}

fn no_route() -> Refusal {
    Refusal::new(404, "no route matches the request", Flag::NoRoute)
}

/// What there is for a request, by where it came in.
enum Routing {
    Rules(Arc<RouteTable>),
    /// Nobody has said anything.
    Nothing,
    /// The same by https, and nothing else.
    ByHttps(HeaderValue),
}

/// What a request is for, of what shares the address that it was sent to.
fn asked_for<'a>(snapshot: &Snapshot, target: &'a Target, head: &Head) -> Cow<'a, Target> {
    let Target::Service(service, port) = target else { return Cow::Borrowed(target) };
    let meant = service_meant(snapshot, service, head.host());
    if Arc::ptr_eq(meant, service) { Cow::Borrowed(target) } else { Cow::Owned(Target::Service(meant.clone(), *port)) }
}

fn at_arrival(connection: &Connection, target: &Target, snapshot: &Snapshot, head: &Head) -> Result<Routing, Refusal> {
    match target {
        Target::Service(service, port) => {
            let client = head.arrival.client.identity.as_ref().map(SpiffeId::namespace);
            let table = routes_for(snapshot, client, (service, *port), head.host());
            Ok(table.map_or(Routing::Nothing, |table| Routing::Rules(table.clone())))
        }
        Target::Workload(_) => Ok(Routing::Nothing),
        Target::Gateway(entrance) => at_gateway(connection, entrance, head),
    }
}

/// The rules of the listener that a request's host belongs to.
fn at_gateway(connection: &Connection, entrance: &Entrance, head: &Head) -> Result<Routing, Refusal> {
    let listeners = connection.worker.listeners();
    let port = listeners.port(entrance.port).ok_or_else(no_route)?;
    let entered = port.listeners.enter(head.host(), entrance.server.as_deref(), (entrance.tls, entrance.https));
    match entered.map_err(|error| Refusal::new(error.status(), error.to_string(), Flag::NoRoute))? {
        Entered::Rules(_, table) => Ok(Routing::Rules(table.clone())),
        Entered::ByHttps(_) => {
            let target = head.target.as_str();
            let location = HeaderValue::try_from(format!("https://{}{target}", head.authority.host()));
            location.map(Routing::ByHttps).map_err(|_| Refusal::new(400, "malformed target", Flag::NoRoute))
        }
    }
}

/// Decides; a delay that a rule injects passes here.
pub(super) async fn course(
    connection: &Connection,
    seen: &NumberedSnapshot,
    head: &mut Head,
    ledger: &Rc<Ledger>,
) -> Result<Course, Refusal> {
    let snapshot = &*seen.snapshot;
    let target = asked_for(snapshot, &ledger.arrival.target, head);
    let table = match at_arrival(connection, &target, snapshot, head)? {
        Routing::Rules(table) => Some(table),
        Routing::Nothing => None,
        Routing::ByHttps(location) => {
            let mut response = answered(301, None, ledger);
            response.headers_mut().insert(LOCATION, location);
            return Ok(Course::Answer(response));
        }
    };
    let found = table.as_ref().map(|table| table.find(head));
    let rule = found.iter().flatten().map(|found| &**found.rule).next();
    limits::judge(&connection.worker, seen, &head.arrival, &target, head, rule).map_err(Refusal::of_limit)?;
    let Some(found) = found else {
        let cluster = ClusterKey::of_target(&target).ok_or_else(no_route)?;
        return Ok(Course::Forward(Plan::of_cluster(cluster, retry_of(None, snapshot))));
    };
    let found = found.ok_or_else(no_route)?;
    let (rule, matched) = (Arc::clone(found.rule), found.path().clone());
    ledger.note_rule(&rule);
    let cors = match rule.cors.as_ref().map(|cors| cors.judge(head)) {
        Some(Crossing::Preflight(fields)) => {
            let mut response = answered(200, None, ledger);
            edits::set(&fields, response.headers_mut());
            return Ok(Course::Answer(response));
        }
        Some(Crossing::Allowed(fields)) => fields,
        Some(Crossing::Silent) | None => Vec::new(),
    };
    injected(&rule, ledger).await?;
    let answer = match &rule.action {
        Action::Forward(backends) => {
            let retry = retry_of(Some(&rule), snapshot);
            return forward((&rule, retry), backends, &matched, head, &target, cors, ledger).map(Course::Forward);
        }
        Action::Redirect(redirect) => {
            let location = redirect.location(head, &matched);
            let mut response = answered(redirect.status, None, ledger);
            let location = HeaderValue::try_from(location)
                .map_err(|_| Refusal::new(500, "the redirect leads to no reference", Flag::NoRoute))?;
            response.headers_mut().insert(LOCATION, location);
            response
        }
        Action::Respond(direct) => answered(direct.status, direct.body.as_deref(), ledger),
    };
    let mut answer = answer;
    edits::apply_to_response(&rule.response_headers, (answer.status(), answer.headers_mut()), head, ledger);
    edits::set(&cors, answer.headers_mut());
    Ok(Course::Answer(answer))
}

fn answered(status: u16, body: Option<&[u8]>, ledger: &Rc<Ledger>) -> Response<ReplyBody> {
    let body = body.map_or_else(Bytes::new, Bytes::copy_from_slice);
    let mut response = Response::new(ReplyBody::text(body, ledger.clone()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
}

/// Faults: a delay first, then perhaps an answer in place of the upstream's.
async fn injected(rule: &Rule, ledger: &Rc<Ledger>) -> Result<(), Refusal> {
    if let Some((percent, delay)) = rule.fault.delay
        && percent.includes(fastrand::u64(..))
    {
        ledger.note_delay();
        sleep(delay).await;
    }
    let Some((percent, abort)) = rule.fault.abort else { return Ok(()) };
    if !percent.includes(fastrand::u64(..)) {
        return Ok(());
    }
    Err(match abort {
        Abort::Http(status) => Refusal::new(status, "fault filter abort", Flag::FaultInjected),
        Abort::Grpc(status) => Refusal::of_grpc(status, "fault filter abort", Flag::FaultInjected),
    })
}

fn forward(
    (rule, (retry, repeats)): (&Arc<Rule>, (Retry, bool)),
    backends: &[Backend],
    matched: &PathMatch,
    head: &mut Head,
    target: &Target,
    cors: Vec<Field>,
    ledger: &Ledger,
) -> Result<Plan, Refusal> {
    let (session, with) = Held::of(rule, backends, head, target.port()).unzip();
    let with = with.flatten().and_then(|index| backends.get(index));
    let chosen = with.or_else(|| split::pick(backends, fastrand::u64(..)));
    let chosen = chosen.ok_or_else(|| Refusal::new(500, "no destination has a weight", Flag::NoCluster))?;
    let backend = backends.iter().position(|backend| std::ptr::eq(backend, chosen)).unwrap_or_default();
    ledger.note_backend(backend);
    let cluster = ClusterKey::of_backend(&chosen.target, target.port())
        .map_err(|(status, reason)| Refusal::new(status, reason.to_owned(), Flag::NoCluster))?;
    edits::apply_to_request(&rule.request_headers, head, ledger);
    edits::apply_to_request(&chosen.request_headers, head, ledger);
    let own = &chosen.rewrite;
    let authority = own.authority.as_ref().or(rule.rewrite.authority.as_ref());
    edits::rewrite(head, authority.map(|text| &**text), own.path.as_ref().or(rule.rewrite.path.as_ref()), matched)?;
    Ok(Plan { cluster, retry, repeats, timeouts: rule.timeouts, session, rule: Some(rule.clone()), backend, cors })
}

/// The pause before the n-th retry, from 1: it doubles up to ten times itself, and is anything below that, so that clients that
/// failed together do not come back together. Where it is the least, it is that and up to a quarter more, or longer.
pub(super) fn backoff(retry: &Retry, times: u32) -> Duration {
    let most = retry.backoff.saturating_mul(1 << times.saturating_sub(1).min(4)).min(retry.backoff.saturating_mul(10));
    let pause = most.mul_f64(fastrand::f64());
    if !retry.backoff_is_least {
        return pause;
    }
    pause.max(retry.backoff + retry.backoff.mul_f64(fastrand::f64() / 4.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_least_pause_is_never_cut_short_and_another_is_random() {
        let written = Retry { backoff: Duration::from_millis(100), ..default_retry() };
        let least = Retry { backoff_is_least: true, ..written.clone() };
        let pauses = |retry: &Retry| (1..=1_000).map(|times| backoff(retry, times % 8 + 1)).collect::<Vec<_>>();
        let bounds = Duration::from_millis(100)..=Duration::from_secs(1);
        assert!(pauses(&least).iter().all(|pause| bounds.contains(pause)));
        assert!(pauses(&written).iter().any(|pause| *pause < Duration::from_millis(100)));
    }
}
