//! Whether a request may go on: by policies, and by the authorizers that they have asked.

use std::{future::poll_fn, pin::Pin, rc::Rc, time::SystemTime};

use bytes::{Bytes, BytesMut};
use http::{
    HeaderMap,
    header::CONTENT_LENGTH,
    request::Parts,
    uri::{Authority, PathAndQuery},
};
use http_body::Body as _;
use hyper::Request;
use mesh_core::{
    Snapshot, Speaks, SpiffeId,
    l7::RequestView as _,
    policy::{Answered, Question},
    provider::{AskedBy, Authorizer, BodyInCheck},
};
use mesh_ext_authz::{Answer, Changes, Check, MAX_ANSWER, Malformed, Party, Shown, grpc, http as by_http};
use tokio::time::timeout;

use super::{
    RequestBody,
    attempt::{Attempt, Failure},
    head::{Head, addressed},
    reply::{Flag, Refusal},
};
use crate::{
    inbound::{Connection, admission},
    telemetry::AuthorizerOutcome,
    upstream::{AnswerBody, Cluster, ClusterKey, UpstreamError, Version, Wish},
    worker::Worker,
};

/// Questions of one thread under way; a request beyond gets no answer.
const MAX_UNDER_WAY: usize = 4_096;
/// Endpoints of an authorizer that are tried, where connections cannot be made.
const MAX_ENDPOINTS: usize = 3;

/// Why an authorizer gave no answer.
#[derive(Debug, thiserror::Error)]
enum Unanswered {
    /// The provider's Service is not there.
    #[error("no Service {0}")]
    NoService(Box<str>),
    /// It cannot be reached.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// Its connection ended.
    #[error("its connection ended")]
    Broken,
    /// It took too long.
    #[error("it took too long")]
    Timeout,
    /// Its answer is longer than any may be.
    #[error("its answer is longer than {MAX_ANSWER} octets")]
    TooLong,
    /// Its answer is none.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// Too many requests wait for answers.
    #[error("too many requests wait for answers")]
    TooMany,
}

/// One question under way.
struct UnderWay<'a>(&'a Worker);

impl<'a> UnderWay<'a> {
    fn begin(worker: &'a Worker) -> Result<Self, Unanswered> {
        let count = &worker.questions;
        if count.get() >= MAX_UNDER_WAY {
            return Err(Unanswered::TooMany);
        }
        count.set(count.get() + 1);
        Ok(Self(worker))
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.questions.set(self.0.questions.get() - 1);
    }
}

/// A request that wants on.
pub(super) struct Asking<'a> {
    pub(super) connection: &'a Rc<Connection>,
    pub(super) snapshot: &'a Snapshot,
    /// Whether it came by HTTP/2.
    pub(super) is_http2: bool,
    /// Whether it becomes another protocol, and has no body before that.
    pub(super) upgrades: bool,
}

impl Asking<'_> {
    /// Lets a request on, changed as authorizers have it; `added` are what they add to its response.
    pub(super) async fn admit(
        &self,
        head: &mut Head,
        mut body: RequestBody,
        added: &mut Vec<Changes>,
    ) -> Result<RequestBody, Refusal> {
        let mut answered = Answered::default();
        loop {
            let worker = &self.connection.worker;
            let arrival = &head.arrival;
            let admitted =
                admission::of_request(worker, self.snapshot, arrival, head, head.token.as_deref(), &answered);
            let Some(question) = admitted.map_err(|denial| Refusal::of_denial(&denial))? else { return Ok(body) };
            // Few requests have anybody asked, and none of the others needs room for that.
            (body, answered) = Box::pin(self.answer(question, head, body, added)).await?;
        }
    }

    async fn answer(
        &self,
        question: Question,
        head: &mut Head,
        mut body: RequestBody,
        added: &mut Vec<Changes>,
    ) -> Result<(RequestBody, Answered), Refusal> {
        let Some(authorizer) = self.snapshot.providers().authorizer(question.provider()).cloned() else {
            return Err(Refusal::of_denial(&question.unanswerable()));
        };
        let mut shown = None;
        if let Some(limit) = authorizer.body.filter(|_| !self.upgrades) {
            let (read, beginning) = shown_body(body, limit).await?;
            (body, shown) = (read, Some(beginning));
        }
        let answer = match timeout(authorizer.timeout, self.ask(&authorizer, head, &body, shown)).await {
            Ok(answer) => answer,
            Err(_) => Err(Unanswered::Timeout),
        };
        let own = &self.connection.worker.shared.telemetry.own;
        match answer {
            Ok(Answer::Allowed(changes)) => {
                own.authorization(AuthorizerOutcome::Allowed);
                changes.write_request(&mut head.parts.headers);
                if let Some(target) = changes.write_target(&head.target) {
                    head.target = target;
                }
                if changes.changes_response() {
                    added.push(changes);
                }
                Ok((body, question.allowed()))
            }
            Ok(Answer::Denied(denied)) => {
                own.authorization(AuthorizerOutcome::Denied);
                Err(Refusal::of_authorizer(denied, question.provider()))
            }
            Err(error) if authorizer.fail_open => {
                own.authorization(AuthorizerOutcome::FailedOpen);
                tracing::warn!(provider = %question.provider(), %error, "authorizer gave no answer; the request goes on");
                Ok((body, question.allowed()))
            }
            Err(error) => {
                own.authorization(AuthorizerOutcome::Failed);
                tracing::warn!(provider = %question.provider(), %error, "authorizer gave no answer; the request is refused");
                Err(Refusal::new(authorizer.status_on_error, "", Flag::Unauthorized))
            }
        }
    }

    async fn ask(
        &self,
        authorizer: &Authorizer,
        head: &Head,
        body: &RequestBody,
        shown: Option<Shown>,
    ) -> Result<Answer, Unanswered> {
        let worker = &self.connection.worker;
        let _under_way = UnderWay::begin(worker)?;
        let address = &authorizer.address;
        let service = address.service(self.snapshot).ok_or_else(|| Unanswered::NoService((&*address.host).into()))?;
        let key = ClusterKey::Service { hostname: service.hostname.clone(), port: address.port, subset: None };
        let cluster = Cluster::ready(worker, &key).await?;
        let check = self.check(head, body, shown);
        let (version, request) = match &authorizer.asked_by {
            AskedBy::Grpc => {
                let authority = format!("{}:{}", address.host, address.port);
                let authority = Authority::try_from(authority).unwrap_or_else(|_| head.authority.clone());
                let target = PathAndQuery::from_static(grpc::PATH);
                let parts = addressed(grpc::head(), Version::Http2, &authority, Some(target));
                (Version::Http2, (parts, grpc::body(&check)))
            }
            AskedBy::Http(asks) => {
                let is_http2 =
                    cluster.speaks() == Speaks::Http2 || cluster.policy().pool.as_ref().is_some_and(|pool| pool.http2);
                let version = if is_http2 { Version::Http2 } else { Version::Http1 };
                let parts = addressed(
                    by_http::head(&check, asks),
                    version,
                    &head.authority,
                    Some(by_http::target(&check, asks)),
                );
                (version, (parts, check.body.map_or_else(Bytes::new, |shown| shown.bytes)))
            }
        };
        let (parts, body, trailers) = call(worker, &cluster, version, request).await?;
        match &authorizer.asked_by {
            AskedBy::Grpc => Ok(grpc::answer(parts.status, &parts.headers, &body, trailers.as_ref())?),
            AskedBy::Http(asks) => Ok(by_http::answer(parts.status, &parts.headers, body, asks)?),
        }
    }

    /// What it is told of the request.
    fn check<'b>(&'b self, head: &'b Head, body: &RequestBody, shown: Option<Shown>) -> Check<'b> {
        let arrival = &head.arrival;
        let (client, shared) = (&arrival.client, &self.connection.worker.shared);
        let headers = &head.parts.headers;
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let said = text(CONTENT_LENGTH.as_str()).and_then(|length| length.parse().ok());
        Check {
            id: text("x-request-id").unwrap_or_default(),
            method: &head.parts.method,
            target: &head.target,
            host: head.authority.as_str(),
            scheme: head.scheme(),
            headers,
            size: said.or_else(|| body.size_hint().exact()),
            is_http2: self.is_http2,
            time: SystemTime::now(),
            source: Party {
                address: client.address,
                principal: client.identity.as_ref().map(SpiffeId::as_str),
                service: client.workload.as_deref().map_or("", |workload| &workload.name),
            },
            destination: Party {
                address: admission::at_place(&self.connection.worker, &arrival.target, |place| place.destination()),
                principal: Some(shared.identity.as_str()),
                service: arrival.target.service().map_or("", |service| &service.hostname),
            },
            server_name: arrival.target.server_name(),
            body: shown,
        }
    }
}

/// As much of a body as an authorizer is shown.
async fn shown_body(body: RequestBody, limit: BodyInCheck) -> Result<(RequestBody, Shown), Refusal> {
    let (body, bytes, is_whole) = body.read_ahead(limit.max_bytes).await?;
    if !is_whole && !limit.allow_partial {
        return Err(Refusal::new(413, "payload too large", Flag::Unauthorized));
    }
    Ok((body, Shown { bytes, is_whole, as_bytes: limit.as_bytes }))
}

/// An answer, read whole.
type Whole = (http::response::Parts, Bytes, Option<HeaderMap>);

async fn call(
    worker: &Rc<Worker>,
    cluster: &Rc<Cluster>,
    version: Version,
    (parts, body): (Parts, Bytes),
) -> Result<Whole, Unanswered> {
    let mut wish = Wish { node: cluster.only_node(worker, None), ..Wish::default() };
    let mut request = Request::from_parts(parts, RequestBody::own(body));
    loop {
        let endpoint = cluster.pick(&wish)?;
        let avoid = &wish.avoid;
        let attempt = Attempt { worker, cluster, endpoint: &endpoint, avoid, version, arrival: None, trace: None };
        match attempt.send(request).await {
            Ok(sent) => {
                let (parts, incoming) = sent.response.into_parts();
                let (body, trailers) = whole(incoming).await?;
                sent.lease.give_back();
                return Ok((parts, body, trailers));
            }
            Err(Failure::Unsent(error, unsent)) => {
                wish.avoid.push(endpoint.address());
                if !error.is_worth_another_endpoint() || wish.avoid.len() >= MAX_ENDPOINTS {
                    return Err(error.into());
                }
                request = *unsent;
            }
            Err(Failure::Broken(_)) => return Err(Unanswered::Broken),
        }
    }
}

async fn whole(mut incoming: AnswerBody) -> Result<(Bytes, Option<HeaderMap>), Unanswered> {
    let (mut data, mut trailers) = (BytesMut::new(), None);
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut incoming).poll_frame(cx)).await {
        match frame.map_err(|_| Unanswered::Broken)?.into_data() {
            Ok(part) if data.len() + part.len() > MAX_ANSWER => return Err(Unanswered::TooLong),
            Ok(part) => data.extend_from_slice(&part),
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    Ok((data.freeze(), trailers))
}
