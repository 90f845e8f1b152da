//! One attempt: a request to one endpoint, over a connection that is there or a new one.

use std::{error::Error, rc::Rc, time::Duration};

use hyper::{Request, Response, body::Incoming, client::conn::TrySendError};
use mesh_core::l7::TrafficPolicy;
use tokio::{sync::oneshot, time::timeout};

use super::{
    RequestBody,
    lease::{Hold, Lease},
    reply::{Flag, Refusal},
};
use crate::{
    duplex::Duplex,
    upstream::{Cluster, ClusterState, Count, Endpoint, Http1Line, UpstreamError, Version, dial_http1, dial_http2},
    worker::Worker,
};

/// How long a request waits for a connection where there are as many as there may be.
const WAIT: Duration = Duration::from_secs(10);

/// One attempt.
pub(super) struct Attempt<'a> {
    pub(super) worker: &'a Rc<Worker>,
    pub(super) cluster: &'a Rc<Cluster>,
    pub(super) endpoint: &'a Rc<Endpoint>,
    pub(super) version: Version,
}

/// An answer.
pub(super) struct Sent {
    pub(super) response: Response<Incoming>,
    /// The connection that it comes by.
    pub(super) lease: Lease,
    /// The connection's stream, should it stop being HTTP's; of HTTP/1.1 alone.
    pub(super) upgrade: Option<oneshot::Receiver<Box<dyn Duplex>>>,
}

/// No answer.
pub(super) enum Failure {
    /// Nothing of the request has gone out.
    Unsent(UpstreamError, Box<Request<RequestBody>>),
    /// It may have gone out, or some of it.
    Broken(Broken),
}

/// How a connection ended under a request.
#[derive(Debug)]
pub(super) struct Broken {
    error: hyper::Error,
    /// The endpoint says that it has not looked at the request (RFC 9113, section 8.7).
    pub(super) is_refused_stream: bool,
    /// The client's own body broke off.
    pub(super) is_clients: bool,
}

impl Broken {
    fn new(error: hyper::Error) -> Self {
        let http2 = error.source().and_then(|source| source.downcast_ref::<h2::Error>());
        let is_refused_stream = http2.and_then(h2::Error::reason) == Some(h2::Reason::REFUSED_STREAM);
        let is_clients = error.is_user() && error.is_body_write_aborted();
        Self { error, is_refused_stream, is_clients }
    }

    /// What the client is told.
    pub(super) fn into_refusal(self) -> Refusal {
        let reason = if self.error.is_parse() { "protocol error" } else { "connection termination" };
        let flag = if self.error.is_parse() { Flag::UpstreamProtocol } else { Flag::UpstreamTermination };
        tracing::debug!(error = %self.error, refused = self.is_refused_stream, "endpoint gave no answer");
        let status = if self.error.is_parse() { 502 } else { 503 };
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
            return Err(Failure::Unsent(UpstreamError::Overflow("max requests"), Box::new(request)));
        };
        let active = (of_cluster, Count::one(&self.endpoint.state, |state| &state.active));
        // A connection that turns out to be closed gives the request back; each is tried once.
        loop {
            let (hold, result, upgrade) = match self.version {
                Version::Http1 => match self.http1(&policy).await {
                    Ok(mut line) => {
                        let upgrade = is_upgrade(&request).then(|| line.await_upgrade());
                        let result = line.sender.try_send_request(request).await;
                        (Hold::Http1(line), result, upgrade)
                    }
                    Err(error) => return Err(Failure::Unsent(error, Box::new(request))),
                },
                Version::Http2 => match self.http2(&policy).await {
                    Ok(place) => {
                        let mut sender = place.0.sender.clone();
                        let result = sender.try_send_request(request).await;
                        (Hold::Http2 { _place: place }, result, None)
                    }
                    Err(error) => return Err(Failure::Unsent(error, Box::new(request))),
                },
            };
            match result {
                Ok(response) => {
                    let (cluster, endpoint) = (self.cluster.clone(), self.endpoint.clone());
                    let lease = Lease { cluster, endpoint, hold, _active: active };
                    return Ok(Sent { response, lease, upgrade });
                }
                Err(error) => request = given_back(error)?,
            }
        }
    }

    async fn http1(&self, policy: &Rc<TrafficPolicy>) -> Result<Http1Line, UpstreamError> {
        if let Some(line) = self.endpoint.lines.take_http1().await {
            return Ok(line);
        }
        let waiting = async {
            loop {
                if let Some(counted) = self.room(policy) {
                    return dial_http1(self.worker, self.endpoint, policy, counted).await;
                }
                let freed = self.cluster.freed.notified();
                if let Some(line) = self.endpoint.lines.take_http1().await {
                    return Ok(line);
                }
                freed.await;
            }
        };
        self.within_bounds(policy, waiting).await
    }

    async fn http2(&self, policy: &Rc<TrafficPolicy>) -> Result<crate::upstream::Http2Place, UpstreamError> {
        if let Some(place) = self.endpoint.lines.take_http2(policy) {
            return Ok(place);
        }
        let waiting = async {
            loop {
                if let Some(counted) = self.room(policy) {
                    return dial_http2(self.worker, self.endpoint, policy, counted).await;
                }
                let freed = self.cluster.freed.notified();
                if let Some(place) = self.endpoint.lines.take_http2(policy) {
                    return Ok(place);
                }
                freed.await;
            }
        };
        self.within_bounds(policy, waiting).await
    }

    /// A place among the cluster's connections.
    fn room(&self, policy: &TrafficPolicy) -> Option<Count<ClusterState>> {
        let most = policy.pool.as_ref().and_then(|pool| pool.max_connections);
        Count::within(&self.cluster.state, most, |state| &state.connections)
    }

    /// A request that waits for a connection, to be made or to be free, is pending; too many are not let wait.
    async fn within_bounds<T>(
        &self,
        policy: &TrafficPolicy,
        waiting: impl Future<Output = Result<T, UpstreamError>>,
    ) -> Result<T, UpstreamError> {
        let most = policy.pool.as_ref().and_then(|pool| pool.max_pending_requests);
        let pending = Count::within(&self.cluster.state, most, |state| &state.pending);
        let _pending = pending.ok_or(UpstreamError::Overflow("max pending requests"))?;
        timeout(WAIT, waiting).await.unwrap_or(Err(UpstreamError::ConnectTimeout))
    }
}

/// The request, where it did not go out.
fn given_back(mut error: TrySendError<Request<RequestBody>>) -> Result<Request<RequestBody>, Failure> {
    match error.take_message() {
        Some(request) => Ok(request),
        None => Err(Failure::Broken(Broken::new(error.into_error()))),
    }
}

fn is_upgrade(request: &Request<RequestBody>) -> bool {
    request.method() == http::Method::CONNECT || request.headers().contains_key(http::header::UPGRADE)
}
