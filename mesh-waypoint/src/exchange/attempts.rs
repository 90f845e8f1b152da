//! A request to an endpoint, and to another one where that is asked for and does no harm.

use std::{net::SocketAddr, pin::pin, rc::Rc, sync::atomic::Ordering, time::Duration};

use http::HeaderValue;
use hyper::Request;
use mesh_core::l7::{
    RequestView as _,
    traffic::{Algorithm, HashKey},
};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::{
    RequestBody,
    attempt::{Attempt, Failure, Sent},
    head::Head,
    ledger::Ledger,
    reply::{self, Flag, Refusal},
    route::{Plan, backoff},
    session::Held,
};
use crate::{
    inbound::Connection,
    telemetry::{AttemptEnd, AttemptSpan, Upstream},
    upstream::{Answer, Cluster, Count, Endpoint, Moves, UpstreamError, Version, Wish, hash_of},
};

/// A request on its way.
pub(super) struct Attempts<'a> {
    pub(super) connection: &'a Rc<Connection>,
    pub(super) cluster: &'a Rc<Cluster>,
    pub(super) plan: &'a Plan,
    pub(super) head: &'a Head,
    pub(super) ledger: &'a Ledger,
    pub(super) version: Version,
    /// When all has to be over.
    pub(super) deadline: Option<Instant>,
}

/// How one attempt ended.
enum End {
    Answered(Box<Sent>),
    /// Nothing of it went out.
    Unsent(UpstreamError),
    /// It may have gone out; the refusal is what the client is told if that was the last.
    Broken {
        refusal: Refusal,
        refused_stream: bool,
        clients: bool,
        /// Most likely the endpoint has not heard of it: it answers nothing at all.
        lost: bool,
    },
    TimedOut,
}

impl End {
    /// How an attempt ended; `None` if it had no answer in its time. The body of what was not sent is given back.
    fn of(sent: Option<Result<Sent, Failure>>, body: &mut RequestBody, ledger: &Ledger) -> Self {
        match sent {
            None => Self::TimedOut,
            Some(Ok(sent)) => Self::Answered(Box::new(sent)),
            Some(Err(Failure::Unsent(error, request))) => {
                *body = request.into_body();
                Self::Unsent(error)
            }
            Some(Err(Failure::Broken(mut broken))) => {
                // HTTP/2 tells of a client's body that broke off as of any stream that ended.
                broken.is_clients |= ledger.is_broken_off.get();
                Self::Broken {
                    refused_stream: broken.is_refused_stream,
                    clients: broken.is_clients,
                    lost: broken.is_lost,
                    refusal: broken.into_refusal(),
                }
            }
        }
    }

    /// As spans have it.
    fn told(&self) -> AttemptEnd {
        match self {
            Self::Answered(sent) => AttemptEnd::Answered(sent.response.status().as_u16()),
            Self::Unsent(error) => AttemptEnd::Failed("not_sent", error.to_string()),
            Self::Broken { clients: true, .. } => {
                AttemptEnd::Failed("client", "the client's own body broke off".to_owned())
            }
            Self::Broken { refusal, .. } => AttemptEnd::Failed("broken_off", refusal.reason().to_owned()),
            Self::TimedOut => AttemptEnd::Failed("timeout", "no answer in the time for one attempt".to_owned()),
        }
    }
}

impl Attempts<'_> {
    /// Sends it, as often as the plan allows.
    pub(super) async fn send(&self, body: &mut RequestBody) -> Result<Sent, Refusal> {
        // Once, where it is: each move doubles what a request needs.
        let mut whole = pin!(self.all(body));
        match self.deadline {
            None => whole.await,
            Some(deadline) => timeout_at(deadline, whole.as_mut()).await.unwrap_or_else(|_| Err(reply::timed_out())),
        }
    }

    async fn all(&self, body: &mut RequestBody) -> Result<Sent, Refusal> {
        let arrival = &self.connection.arrival;
        let node = self.cluster.only_node(&self.connection.worker, arrival.client.workload.as_deref());
        let kept = self.plan.session.as_ref().and_then(Held::endpoint);
        let mut wish = Wish { hash: self.hash(), asked: arrival.asked, kept, node, avoid: Vec::new() };
        let (mut retries, mut moves) = (0, Moves::default());
        let mut under_way: Option<Count<_>> = None;
        loop {
            let endpoint = self.cluster.pick(&wish).map_err(|error| reply::of_upstream(&error))?;
            let (before, avoid) = (retries + moves.count(), &wish.avoid);
            let mut end = self.once((&endpoint, avoid), self.version, body, before).await;
            if matches!(end, End::Unsent(UpstreamError::NoProtocols)) {
                // Servers of both versions are common, and those of HTTP/1.1 know upgrades.
                end = self.once((&endpoint, avoid), Version::Http1, body, before).await;
            }
            self.note(&endpoint, &end);
            if self.may_move(&end, body) && moves.past(self.cluster, &endpoint, &mut wish) {
                self.ledger.event("retry", || Some(format!("{} does not answer", endpoint.address())));
                continue;
            }
            let again = retries < self.plan.retry.attempts && self.is_worth_it(&end, body);
            if !again {
                return self.last(end, retries);
            }
            drop(under_way.take());
            let state = &self.cluster.state;
            let policy = self.cluster.policy();
            let most = policy.pool.as_ref().and_then(|pool| pool.max_retries).filter(|_| policy.retries.is_none());
            let active = state.requests.load(Ordering::Relaxed);
            let budget = most.unwrap_or_else(|| policy.retries.unwrap_or_default().of(active));
            under_way = Count::within(state, Some(budget), |state| &state.retries);
            let own = &self.connection.worker.shared.telemetry.own;
            if under_way.is_none() {
                own.retries_refused.inc();
                state.overflows.retries.fetch_add(1, Ordering::Relaxed);
                return self.last(end, retries);
            }
            retries += 1;
            own.retries.inc();
            self.ledger.event("retry", || Some(format!("attempt {} at another endpoint", retries + 1)));
            if !self.plan.retry.same_again {
                wish.avoid.push(endpoint.address());
            }
            // A connection that could not be made costs the endpoint nothing; a least pause is one all the same.
            if self.plan.retry.backoff_is_least || !matches!(end, End::Unsent(_)) {
                drop(end);
                sleep(backoff(&self.plan.retry, retries)).await;
            }
        }
    }

    async fn once(
        &self,
        (endpoint, avoid): (&Rc<Endpoint>, &[SocketAddr]),
        version: Version,
        body: &mut RequestBody,
        before: u32,
    ) -> End {
        let worker = &self.connection.worker;
        let mut parts = self.head.for_upstream(version, &self.head.authority);
        parts.headers.insert("x-envoy-attempt-count", HeaderValue::from(before + 1));
        let span = self
            .ledger
            .span()
            .map(|span| span.attempt(before + 1, Upstream::of(endpoint, &self.cluster.key), &mut parts.headers));
        let trace = span.as_ref().map(AttemptSpan::context);
        let arrival = Some(&*self.head.arrival);
        let attempt = Attempt { worker, cluster: self.cluster, endpoint, avoid, version, arrival, trace };
        let request = Request::from_parts(parts, body.take());
        let mut sending = pin!(attempt.send(request));
        let limits = [self.plan.retry.per_try_timeout, self.plan.timeouts.backend_request];
        let sent = match limits.into_iter().flatten().min() {
            None => Some(sending.await),
            Some(limit) => timeout(limit, sending.as_mut()).await.ok(),
        };
        let end = End::of(sent, body, self.ledger);
        if let Some(span) = span {
            span.note(end.told());
            if matches!(end, End::Answered(_)) {
                self.ledger.note_attempt(span);
            }
        }
        end
    }

    /// What the endpoint's health is told.
    fn note(&self, endpoint: &Endpoint, end: &End) {
        let answer = match end {
            End::Answered(sent) => {
                endpoint.state.answered();
                Answer::of_status(sent.response.status().as_u16())
            }
            End::Unsent(UpstreamError::Overflow(_)) | End::Broken { clients: true, .. } => return,
            End::Unsent(_) | End::Broken { .. } | End::TimedOut => Answer::None,
        };
        self.cluster.note(&self.connection.worker, endpoint, answer);
    }

    /// Whether it is no retry to send it to another endpoint, whatever the plan says of those: the endpoint answers nothing at all,
    /// and has not heard of it. Where it was sent nobody knows that for certain, and it has to be one that does no harm twice (RFC 9110,
    /// section 9.2.2).
    fn may_move(&self, end: &End, body: &RequestBody) -> bool {
        match end {
            End::Unsent(UpstreamError::Unanswered(_)) => body.is_there(),
            End::Broken { lost: true, .. } => body.is_there() && self.head.parts.method.is_idempotent(),
            _ => false,
        }
    }

    /// Whether the plan has such an end tried again, and the request is still there to be sent.
    fn is_worth_it(&self, end: &End, body: &RequestBody) -> bool {
        let on = &self.plan.retry.on;
        let wanted = match end {
            End::Answered(sent) => {
                let grpc = sent.response.headers().get("grpc-status").and_then(|status| status.to_str().ok());
                let grpc = grpc.and_then(|status| status.parse().ok());
                on.status(sent.response.status().as_u16()) || grpc.is_some_and(|status| on.grpc.contains(&status))
            }
            End::Unsent(error) => {
                let connected = on.connect_failure || on.reset_before_request || on.server_error || on.gateway_error;
                error.is_worth_another_endpoint() && connected
            }
            End::Broken { clients: true, .. } => false,
            End::Broken { refused_stream: true, .. } if on.refused_stream => true,
            // Envoy: what does not answer counts as a 5xx, and as a gateway's error.
            End::Broken { .. } => on.reset || on.server_error || on.gateway_error,
            End::TimedOut => on.per_try_timeout,
        };
        wanted && body.is_there()
    }

    fn last(&self, end: End, retries: u32) -> Result<Sent, Refusal> {
        match end {
            End::Answered(sent) => Ok(*sent),
            End::Unsent(error) => Err(reply::of_upstream(&error)),
            End::Broken { refusal, .. } => Err(refusal),
            End::TimedOut if retries > 0 => Err(reply::timed_out().because(Flag::RetriesExhausted)),
            End::TimedOut => Err(reply::timed_out()),
        }
    }

    /// What consistent hashing goes by.
    fn hash(&self) -> Option<u64> {
        let policy = self.cluster.policy();
        let Some(Algorithm::ConsistentHash(key)) = policy.load_balancer.as_ref().map(|balancer| &balancer.algorithm)
        else {
            return None;
        };
        Some(match key {
            HashKey::Header(name) => hash_of(self.head.header(name)?),
            HashKey::QueryParameter(name) => hash_of(self.head.query_parameter(name)?),
            HashKey::SourceAddress => hash_of(self.head.arrival.client.address.ip()),
            HashKey::Cookie { name, .. } => hash_of(self.head.cookie(name)?),
        })
    }

    /// A cookie for a client that has none, by which its requests stay with one endpoint.
    pub(super) fn new_cookie(cluster: &Cluster, head: &mut Head) -> Option<HeaderValue> {
        let policy = cluster.policy();
        let Some(Algorithm::ConsistentHash(HashKey::Cookie { name, path, ttl: Some(ttl), attributes })) =
            policy.load_balancer.as_ref().map(|balancer| &balancer.algorithm)
        else {
            return None;
        };
        if head.cookie(name).is_some() {
            return None;
        }
        let value = format!("{:016x}", fastrand::u64(..));
        let pair = HeaderValue::try_from(format!("{name}={value}")).ok()?;
        head.parts.headers.append(http::header::COOKIE, pair);
        let path = path.as_deref().map_or_else(String::new, |path| format!("; Path={path}"));
        let age = if *ttl > Duration::ZERO { format!("; Max-Age={}", ttl.as_secs()) } else { String::new() };
        HeaderValue::try_from(format!("{name}={value}{path}{age}; HttpOnly{attributes}")).ok()
    }
}
