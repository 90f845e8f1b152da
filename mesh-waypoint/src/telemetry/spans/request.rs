//! The span of a request.

use std::{cell::RefCell, net::SocketAddr, rc::Rc, sync::Arc};

use http::{HeaderMap, HeaderValue, Method, Version, header::USER_AGENT, request::Parts};
use mesh_core::{Service, SpiffeId, TraceContext, Workload, l7::Rule, propagation::Form, telemetry::Tracing};
use mesh_otlp::{Placed, tag_values};

use super::{AttemptSpan, Finished, Tracer, Upstream, inject};
use crate::inbound::Arrival;

/// What is known of a request when it comes, for its span and those below.
#[derive(Debug)]
pub(crate) struct RequestFacts {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) version: Version,
    pub(super) scheme: &'static str,
    /// Whom it asks, as it is written.
    pub(super) authority: Option<String>,
    pub(super) user_agent: Option<HeaderValue>,
    pub(super) client: SocketAddr,
    pub(super) client_workload: Option<Arc<Workload>>,
    pub(super) client_identity: Option<SpiffeId>,
    /// The Service that the tunnel is for.
    pub(super) service: Option<Arc<Service>>,
    /// The port that it is for.
    pub(super) port: u16,
    /// What was asked for besides.
    pub(super) tags: Vec<(Arc<str>, String)>,
}

impl RequestFacts {
    fn of(parts: &Parts, arrival: &Arrival, tags: Vec<(Arc<str>, String)>) -> Self {
        let host = parts.headers.get(http::header::HOST).and_then(|host| host.to_str().ok());
        let authority = parts.uri.authority().map(http::uri::Authority::as_str).or(host);
        let client = &arrival.client;
        Self {
            method: parts.method.clone(),
            path: parts.uri.path().to_owned(),
            version: parts.version,
            scheme: arrival.target.scheme(),
            authority: authority.map(str::to_owned),
            user_agent: parts.headers.get(USER_AGENT).cloned(),
            client: client.address,
            client_workload: client.workload.clone(),
            client_identity: client.identity.clone(),
            service: arrival.target.service().cloned(),
            port: arrival.target.port(),
            tags,
        }
    }
}

/// What a request came to.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The status; 0 where there was no answer.
    pub(crate) status: u16,
    /// gRPC's status, where there is one.
    pub(crate) grpc: Option<u16>,
    /// The response flags.
    pub(crate) flags: &'static str,
    /// Bytes of the request's body.
    pub(crate) sent: u64,
    /// Bytes of the response's body.
    pub(crate) received: u64,
    /// Who answered.
    pub(crate) upstream: Option<Upstream>,
    /// The rule that it belongs to.
    pub(crate) rule: Option<Arc<Rule>>,
    /// `x-request-id`.
    pub(crate) request_id: Option<HeaderValue>,
}

/// A request's span, until the request is over.
pub(crate) struct RequestSpan {
    tracer: Arc<Tracer>,
    request: Arc<RequestFacts>,
    placed: RefCell<Placed>,
    form: Form,
    /// The span of the tunnel that the request came in, where it is not the one above.
    beside: Option<TraceContext>,
}

impl RequestSpan {
    /// Begins a request's span, where it is recorded. From then on the request's headers name it.
    pub(crate) fn begin(
        tracer: &Arc<Tracer>,
        asked: &Tracing,
        arrival: &Arrival,
        first: bool,
        parts: &mut Parts,
    ) -> Option<Rc<Self>> {
        if asked.disabled == Some(true) {
            return None;
        }
        let (placed, form) = tracer.place(asked, &mut parts.headers, arrival.trace.filter(|_| first))?;
        let header = |name: &str| parts.headers.get(name)?.to_str().ok().map(str::to_owned);
        let tags = tag_values(asked.tags.as_ref(), header);
        inject(&placed.context, form, &mut parts.headers);
        let beside = arrival.trace.filter(|tunnel| placed.parent != Some(tunnel.span_id));
        let request = Arc::new(RequestFacts::of(parts, arrival, tags));
        Some(Rc::new(Self { tracer: tracer.clone(), request, placed: RefCell::new(placed), form, beside }))
    }

    /// Its place in the trace.
    pub(crate) fn context(&self) -> TraceContext {
        self.placed.borrow().context
    }

    /// Notes that something happened now.
    pub(crate) fn event(&self, name: &'static str, detail: Option<String>) {
        self.placed.borrow_mut().event(name, detail);
    }

    /// Begins the span of an attempt, the `number`th from 1, and names it in the headers that go out.
    pub(crate) fn attempt(&self, number: u32, upstream: Upstream, headers: &mut HeaderMap) -> AttemptSpan {
        let above = self.placed.borrow().context;
        let placed = Placed::begin(above.child(fastrand::u64(..)), Some(above.span_id));
        inject(&placed.context, self.form, headers);
        AttemptSpan::new(self.tracer.clone(), self.request.clone(), placed, number, upstream)
    }

    /// The request is over.
    pub(crate) fn finish(&self, outcome: Outcome) {
        let nothing = Placed::begin(self.placed.borrow().context, None);
        let (placed, request) = (self.placed.replace(nothing), self.request.clone());
        self.tracer.put(Finished::request(placed, request, self.beside, outcome));
    }
}
