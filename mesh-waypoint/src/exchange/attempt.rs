//! One attempt: a request to one endpoint, over a connection that is there or a new one.

use std::{error::Error, net::SocketAddr, rc::Rc, sync::atomic::Ordering, time::Duration};

use http_body::Body as _;
use hyper::{Request, Response, ext::Protocol};
use mesh_core::{TraceContext, l7::TrafficPolicy};
use mesh_http1::HeadError;
use tokio::time::timeout;

use super::{
    RequestBody, framing,
    lease::{Hold, Lease},
    reply::{Flag, Refusal},
};
use crate::{
    inbound::Arrival,
    telemetry::{BadInput, BadInputs, Sender},
    upstream::{
        AnswerBody, Behalf, Cluster, ClusterState, Count, Dial, Endpoint, Http1Error, Http1Line, Http2Place, Needs,
        SharedBody, Unanswered, UpstreamError, Version, connect_timeout, dial_http1, dial_http2,
    },
    worker::Worker,
};

/// How long a request waits for a connection where there are as many as there may be.
const WAIT: Duration = Duration::from_secs(10);

/// One attempt.
pub(super) struct Attempt<'a> {
    pub(super) worker: &'a Rc<Worker>,
    pub(super) cluster: &'a Rc<Cluster>,
    pub(super) endpoint: &'a Rc<Endpoint>,
    /// Endpoints that the request was with already.
    pub(super) avoid: &'a [SocketAddr],
    pub(super) version: Version,
    /// Whose it is; none of our own.
    pub(super) arrival: Option<&'a Arrival>,
    /// The span that it is, where it is one.
    pub(super) trace: Option<TraceContext>,
}

/// An answer.
pub(super) struct Sent {
    pub(super) response: Response<AnswerBody>,
    /// The connection that it comes by.
    pub(super) lease: Lease,
}

/// No answer.
pub(super) enum Failure {
    /// Nothing of the request has gone out.
    Unsent(UpstreamError, Box<Request<RequestBody>>),
    /// It may have gone out, or some of it.
    Broken(Broken),
}

/// How a connection ended under a request, or why its answer is none.
#[derive(Debug)]
pub(super) struct Broken {
    cause: Cause,
    /// The endpoint says that it has not looked at the request (RFC 9113, section 8.7).
    pub(super) is_refused_stream: bool,
    /// The client's own body broke off.
    pub(super) is_clients: bool,
    /// The endpoint was found not to answer at all meanwhile: most likely it has not heard of the request.
    pub(super) is_lost: bool,
}

#[derive(Debug)]
enum Cause {
    Http1(Http1Error),
    Http2(hyper::Error),
    /// The answer breaks HTTP's rules.
    Lie(BadInput),
}

impl Broken {
    fn http1(error: Http1Error) -> Self {
        let is_clients = error.is_clients();
        let cause = match error {
            Http1Error::Head(HeadError::Malformed | HeadError::Interim) => Cause::Lie(BadInput::MalformedHead),
            Http1Error::Head(HeadError::TooLarge) => Cause::Lie(BadInput::HeadTooLarge),
            Http1Error::Head(HeadError::Framing) => Cause::Lie(BadInput::Framing),
            error => Cause::Http1(error),
        };
        Self { cause, is_refused_stream: false, is_clients, is_lost: false }
    }

    fn http2(error: hyper::Error) -> Self {
        let http2 = error.source().and_then(|source| source.downcast_ref::<h2::Error>());
        let is_refused_stream = http2.and_then(h2::Error::reason) == Some(h2::Reason::REFUSED_STREAM);
        // What is ours to do wrong is the body, and that is the client's.
        let is_clients = error.is_user();
        Self { cause: Cause::Http2(error), is_refused_stream, is_clients, is_lost: false }
    }

    const fn lie(what: BadInput) -> Self {
        Self { cause: Cause::Lie(what), is_refused_stream: false, is_clients: false, is_lost: false }
    }

    /// Counts an answer that breaks HTTP's rules.
    fn count(&self, counters: &BadInputs) {
        match &self.cause {
            Cause::Http1(_) => {}
            Cause::Http2(error) => counters.count_error(Sender::Endpoint, error),
            Cause::Lie(what) => counters.count(Sender::Endpoint, *what),
        }
    }

    /// Whether what came breaks HTTP's rules.
    fn breaks_rules(&self) -> bool {
        match &self.cause {
            Cause::Http1(error) => error.is_malformed(),
            Cause::Http2(error) => breaks_http2(error),
            Cause::Lie(_) => true,
        }
    }

    /// What the client is told.
    pub(super) fn into_refusal(self) -> Refusal {
        if self.is_clients {
            return Refusal::new(400, "the request's body broke off", Flag::DownstreamProtocol);
        }
        tracing::debug!(cause = ?self.cause, refused = self.is_refused_stream, "endpoint gave no answer");
        let (status, reason, flag) = if self.breaks_rules() {
            (502, "protocol error", Flag::UpstreamProtocol)
        } else {
            (503, "connection termination", Flag::UpstreamTermination)
        };
        let text = format!("upstream connect error or disconnect/reset before headers. reset reason: {reason}");
        Refusal::new(status, text, flag)
    }
}

impl Attempt<'_> {
    /// Sends the request and waits for the head of its response.
    pub(super) async fn send(&self, mut request: Request<RequestBody>) -> Result<Sent, Failure> {
        let policy = self.cluster.policy();
        let most = policy.pool.as_ref().and_then(|pool| pool.max_requests);
        let Some(of_cluster) = Count::within(&self.cluster.state, most, |state| &state.requests) else {
            self.cluster.state.overflows.requests.fetch_add(1, Ordering::Relaxed);
            return Err(Failure::Unsent(UpstreamError::Overflow("max requests"), Box::new(request)));
        };
        let active = (of_cluster, Count::one(&self.endpoint.state, |state| &state.active));
        let protocols = protocols(&request).filter(|_| self.version == Version::Http1);
        // A connection that turns out to be closed gives the request back; each is tried once.
        loop {
            let (hold, answered) = match self.version {
                Version::Http1 => match self.http1(&policy).await {
                    Ok(line) => {
                        let losses = self.endpoint.state.losses();
                        let answered = line.send(request).await.map(|response| response.map(AnswerBody::Http1));
                        let is_new = line.is_new();
                        (Hold::Http1(line), answered.map_err(|error| self.unanswered(error, is_new, losses)))
                    }
                    Err(error) => return Err(Failure::Unsent(error, Box::new(request))),
                },
                Version::Http2 => match self.http2(&policy, !request.body().is_end_stream()).await {
                    Ok(place) => {
                        let is_other = request.extensions().get::<Protocol>().is_some();
                        if is_other && !place.0.takes_protocols().await {
                            return Err(Failure::Unsent(UpstreamError::NoProtocols, Box::new(request)));
                        }
                        let losses = self.endpoint.state.losses();
                        let answered = place.0.send(request).await;
                        let answered = answered.map_err(|mut error| match error.take_message() {
                            Some(unsent) => Ok(unsent.map(SharedBody::into_inner)),
                            None => Err(self.broken(Broken::http2(error.into_error()), losses)),
                        });
                        (Hold::Http2 { _place: place }, answered.map(|response| response.map(AnswerBody::Http2)))
                    }
                    Err(error) => return Err(Failure::Unsent(error, Box::new(request))),
                },
            };
            match answered {
                Ok(response) => {
                    let response = honest(response, protocols.as_deref()).map_err(|what| self.lied(what))?;
                    let (cluster, endpoint) = (self.cluster.clone(), self.endpoint.clone());
                    let lease = Lease { cluster, endpoint, hold, _active: active };
                    return Ok(Sent { response, lease });
                }
                Err(Ok(unsent)) => request = unsent,
                Err(Err(failure)) => return Err(failure),
            }
        }
    }

    /// The request, where it can be sent by another connection; a new one that takes nothing is none.
    fn unanswered(&self, error: Unanswered, is_new: bool, losses: u32) -> Result<Request<RequestBody>, Failure> {
        match error {
            Unanswered::Unsent(request) if is_new => {
                let closed = format!("{}: closed at once", self.endpoint.address());
                Err(Failure::Unsent(UpstreamError::Connect(closed), request))
            }
            Unanswered::Unsent(request) => Ok(*request),
            Unanswered::Failed(error) => Err(self.broken(Broken::http1(error), losses)),
        }
    }

    /// `losses` are the endpoint's from before the request was sent.
    fn broken(&self, mut broken: Broken, losses: u32) -> Failure {
        broken.is_lost = losses != self.endpoint.state.losses() && !broken.is_clients && !broken.breaks_rules();
        broken.count(&self.worker.shared.telemetry.bad_inputs);
        Failure::Broken(broken)
    }

    /// Whoever lies has heard of the request.
    fn lied(&self, what: BadInput) -> Failure {
        self.broken(Broken::lie(what), self.endpoint.state.losses())
    }

    fn behalf(&self) -> Behalf {
        let client = self.arrival.map(|arrival| arrival.client.address);
        Behalf { client, local: self.arrival.and_then(Arrival::local), trace: self.trace }
    }

    fn dial<'a>(&'a self, policy: &'a TrafficPolicy, behalf: &'a Behalf) -> Dial<'a> {
        let Self { cluster, endpoint, avoid, version, .. } = self;
        Dial { cluster, endpoint, avoid, policy, behalf, version: Some(*version) }
    }

    async fn http1(&self, policy: &Rc<TrafficPolicy>) -> Result<Http1Line, UpstreamError> {
        if let Some(line) = self.endpoint.lines.take_http1(policy) {
            return Ok(line);
        }
        let waiting = async {
            let mut waits = false;
            loop {
                if let Some(counted) = self.room(policy, &mut waits) {
                    return dial_http1(self.worker, self.dial(policy, &self.behalf()), counted).await;
                }
                let freed = self.cluster.freed.notified();
                if let Some(line) = self.endpoint.lines.take_http1(policy) {
                    return Ok(line);
                }
                freed.await;
            }
        };
        // Most requests find a connection, and need no room for this.
        Box::pin(self.within_bounds(policy, waiting)).await
    }

    async fn http2(&self, policy: &Rc<TrafficPolicy>, has_body: bool) -> Result<Http2Place, UpstreamError> {
        let most = policy.pool.as_ref().and_then(|pool| pool.max_connections);
        let may_connect = most.is_none_or(|most| self.cluster.state.connections.load(Ordering::Relaxed) < most);
        let needs = if has_body && may_connect { Needs::Upload } else { Needs::Any };
        if let Some(place) = self.endpoint.lines.take_http2(policy, needs) {
            return Ok(place);
        }
        let waiting = async {
            let mut waits = false;
            loop {
                if let Some(counted) = self.room(policy, &mut waits) {
                    return dial_http2(self.worker, self.dial(policy, &self.behalf()), (counted, needs)).await;
                }
                let freed = self.cluster.freed.notified();
                if let Some(place) = self.endpoint.lines.take_http2(policy, Needs::Any) {
                    return Ok(place);
                }
                freed.await;
            }
        };
        // Most requests find a connection, and need no room for this.
        Box::pin(self.within_bounds(policy, waiting)).await
    }

    /// A place among the cluster's connections.
    fn room(&self, policy: &TrafficPolicy, waits: &mut bool) -> Option<Count<ClusterState>> {
        let room = self.cluster.room_for_connection(policy);
        // However often it looks for one, it is one request that had to wait.
        if room.is_none() && !std::mem::replace(waits, true) {
            self.cluster.state.overflows.connections.fetch_add(1, Ordering::Relaxed);
        }
        room
    }

    /// A request that waits for a connection, to be made or to be free, is pending; too many are not let wait.
    async fn within_bounds<T>(
        &self,
        policy: &TrafficPolicy,
        waiting: impl Future<Output = Result<T, UpstreamError>>,
    ) -> Result<T, UpstreamError> {
        let most = policy.pool.as_ref().and_then(|pool| pool.max_pending_requests);
        let Some(_pending) = Count::within(&self.cluster.state, most, |state| &state.pending) else {
            self.cluster.state.overflows.pending.fetch_add(1, Ordering::Relaxed);
            return Err(UpstreamError::Overflow("max pending requests"));
        };
        // A connection that is being made has the time that the policy gives it.
        let limit = WAIT.max(connect_timeout(policy));
        timeout(limit, waiting).await.unwrap_or(Err(UpstreamError::ConnectTimeout))
    }
}

/// Whether it is we who have to say that an answer by HTTP/2 is none.
fn breaks_http2(error: &hyper::Error) -> bool {
    let http2 = error.source().and_then(|source| source.downcast_ref::<h2::Error>());
    http2.is_some_and(|error| error.is_library() || (error.is_reset() && !error.is_remote()))
}

/// The response, where it keeps to HTTP's rules. `protocols` are those that were asked for.
fn honest(response: Response<AnswerBody>, protocols: Option<&str>) -> Result<Response<AnswerBody>, BadInput> {
    let (mut parts, body) = response.into_parts();
    framing::check_response(&mut parts, protocols)?;
    Ok(Response::from_parts(parts, body))
}

/// The protocols that a request asks for in place of HTTP/1.1.
fn protocols(request: &Request<RequestBody>) -> Option<String> {
    let asked = request.headers().get(http::header::UPGRADE)?;
    asked.to_str().ok().map(str::to_owned)
}
