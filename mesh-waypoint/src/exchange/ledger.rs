//! What one exchange came to, told once at its end.

use std::{
    cell::{Cell, OnceCell, RefCell},
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, request::Parts};

use mesh_core::{l7::Rule, policy::request::Token, telemetry::EffectiveTelemetry};
use mesh_jwt::TokenError;

use super::{
    fields::is_grpc,
    reply::{Flag, Refusal},
};
use crate::{
    inbound::{Arrival, Chunk, Connection, Flow},
    listeners::Listeners,
    telemetry::{self, AttemptSpan, BadInput, Ended, NotedHead, Outcome, Parties, RequestSpan, Sender, Upstream},
    upstream::{Cluster, Endpoint},
};

/// The account of one exchange. Both bodies and the exchange itself hold it, and the last of them to go is the end.
pub(crate) struct Ledger {
    connection: Rc<Connection>,
    /// Who sends it, and to what.
    pub(super) arrival: Rc<Arrival>,
    /// What moves of it.
    pub(super) flow: Rc<Flow>,
    began: Instant,
    /// The endpoint that was asked last.
    endpoint: OnceCell<Rc<Endpoint>>,
    /// Where it was sent on to.
    cluster: OnceCell<Rc<Cluster>>,
    is_grpc: bool,
    is_http2: bool,
    /// gRPC's status, once it has come.
    grpc: Cell<Option<u16>>,
    /// Zero until there is a response.
    status: Cell<u16>,
    flag: Cell<Flag>,
    /// The rule that it belongs to.
    rule: OnceCell<Arc<Rule>>,
    /// Which of the rule's backends it was sent to.
    backend: Cell<Option<usize>>,
    /// Its span, where it has one.
    span: Option<Rc<RequestSpan>>,
    /// The span of the attempt that was answered.
    attempt: RefCell<Option<AttemptSpan>>,
    /// What is told of it.
    told: Rc<EffectiveTelemetry>,
    /// Its head, where there may be a line about it.
    noted: Option<Box<NotedHead>>,
    /// How long the answer's head took.
    answered_after: Cell<Option<Duration>>,
    /// The policy that refused it, in words.
    denial: OnceCell<String>,
    /// `x-request-id`, where anybody is told it.
    request_id: OnceCell<HeaderValue>,
    /// The token that it is judged by, or why its tokens are not believed.
    token: OnceCell<Result<Rc<Token>, TokenError>>,
    /// Bytes of the request's body.
    pub(super) sent: Cell<u64>,
    /// Bytes of the response's body.
    pub(super) received: Cell<u64>,
    /// The request's body is not done with.
    pub(super) uploading: Cell<bool>,
    /// The request's body ended before its end.
    pub(super) is_broken_off: Cell<bool>,
}

impl Ledger {
    /// An exchange begins. Where it has a span, the request's headers name it from here on.
    pub(super) fn open(connection: &Rc<Connection>, request: &mut Parts) -> Rc<Self> {
        connection.worker.counts.begin();
        let told = connection.told();
        let noted = NotedHead::of(&told, connection.worker.shared.telemetry.flows.is_heard(), request);
        let arrival = connection.arrival.of_request(&request.headers);
        let span = connection.begin_span(&told, &arrival, request);
        let flow = connection.begin();
        let is_grpc = is_grpc(&request.headers);
        if is_grpc {
            flow.is_stream();
        }
        Rc::new(Self {
            flow,
            arrival,
            span,
            told,
            noted,
            answered_after: Cell::default(),
            denial: OnceCell::new(),
            attempt: RefCell::default(),
            request_id: OnceCell::new(),
            connection: connection.clone(),
            began: Instant::now(),
            endpoint: OnceCell::new(),
            cluster: OnceCell::new(),
            is_grpc,
            is_http2: request.version == http::Version::HTTP_2,
            grpc: Cell::default(),
            rule: OnceCell::new(),
            backend: Cell::default(),
            token: OnceCell::new(),
            status: Cell::new(0),
            flag: Cell::new(Flag::None),
            sent: Cell::default(),
            received: Cell::default(),
            uploading: Cell::default(),
            is_broken_off: Cell::default(),
        })
    }

    /// Octets of the response on their way to the client.
    pub(super) fn chunk(&self, octets: Bytes) -> Chunk {
        if self.is_http2 {
            Chunk::owed(octets, &self.flow, &self.connection.worker)
        } else {
            Chunk::free(octets, &self.flow)
        }
    }

    /// Whether the client asked by HTTP/2.
    pub(super) const fn is_http2(&self) -> bool {
        self.is_http2
    }

    /// Whether it is gRPC's.
    pub(super) const fn is_grpc(&self) -> bool {
        self.is_grpc
    }

    /// When it began.
    pub(super) fn began_at(&self) -> SystemTime {
        SystemTime::now() - self.began.elapsed()
    }

    /// The address of the endpoint that answered.
    pub(super) fn answered_by(&self) -> Option<SocketAddr> {
        self.endpoint.get().map(|endpoint| endpoint.address())
    }

    /// What the host is called that this process runs on.
    pub(super) fn hostname(&self) -> &str {
        &self.connection.worker.shared.own.hostname
    }

    /// Its span, where it has one.
    pub(super) const fn span(&self) -> Option<&Rc<RequestSpan>> {
        self.span.as_ref()
    }

    /// What it is called in logs.
    pub(super) fn note_request_id(&self, headers: &HeaderMap) {
        if (self.span.is_some() || self.noted.is_some())
            && let Some(id) = headers.get("x-request-id")
        {
            // It has one.
            let _ = self.request_id.set(id.clone());
        }
    }

    /// The span of the attempt that was answered, which goes on as long as the answer comes.
    pub(super) fn note_attempt(&self, span: AttemptSpan) {
        // One that was answered before and was tried again ends here.
        drop(self.attempt.replace(Some(span)));
    }

    /// Why it is answered here.
    pub(super) fn note_refusal(&self, refusal: &Refusal) {
        if refusal.flag() == Flag::Denied {
            // One is enough.
            let _ = self.denial.set(refusal.reason().to_owned());
        }
        let name = match refusal.flag() {
            Flag::FaultInjected => "fault.abort",
            Flag::Denied | Flag::Unauthorized => "denied",
            Flag::RateLimited => "rate_limited",
            _ => "refused",
        };
        self.event(name, || Some(refusal.reason().to_owned()));
    }

    /// Something happened that its span is to tell.
    pub(super) fn event(&self, name: &'static str, detail: impl FnOnce() -> Option<String>) {
        if let Some(span) = &self.span {
            span.event(name, detail());
        }
    }

    /// What the client is answered.
    pub(super) fn note_answer(&self, status: u16, headers: &HeaderMap) {
        self.status.set(status);
        self.note_grpc(headers);
        if let Some(noted) = &self.noted {
            noted.note_answer(&self.told, headers);
        }
    }

    /// Where it is sent on to.
    pub(super) fn note_cluster(&self, cluster: &Rc<Cluster>) {
        // It is one.
        let _ = self.cluster.set(cluster.clone());
    }

    /// gRPC's status, where a header or trailers have it.
    pub(super) fn note_grpc(&self, fields: &HeaderMap) {
        if let Some(status) = fields.get("grpc-status").and_then(|status| status.to_str().ok()?.parse().ok()) {
            self.grpc.set(Some(status));
        }
    }

    /// Who answered.
    pub(super) fn note_endpoint(&self, endpoint: &Rc<Endpoint>) {
        self.flow.answered();
        self.answered_after.set(Some(self.began.elapsed()));
        // One answers, or none.
        let _ = self.endpoint.set(endpoint.clone());
    }

    /// The rule that it belongs to.
    pub(super) fn note_rule(&self, rule: &Arc<Rule>) {
        // It belongs to one.
        let _ = self.rule.set(rule.clone());
    }

    /// Which of the rule's backends it is sent to.
    pub(super) fn note_backend(&self, index: usize) {
        self.backend.set(Some(index));
    }

    /// The token that it is judged by.
    pub(super) fn note_token(&self, token: Option<&Rc<Token>>) {
        if let Some(token) = token {
            // It is judged by one.
            let _ = self.token.set(Ok(token.clone()));
        }
    }

    /// Why its tokens are not believed.
    pub(super) fn note_refused_token(&self, error: TokenError) {
        // They are refused once.
        let _ = self.token.set(Err(error));
    }

    /// It was made to wait.
    pub(super) fn note_delay(&self) {
        self.note_flag(Flag::DelayInjected);
        self.event("fault.delay", || None);
    }

    /// Why the response is what it is. The first reason stays.
    pub(super) fn note_flag(&self, flag: Flag) {
        if self.flag.get() == Flag::None {
            self.flag.set(flag);
        }
    }

    /// Somebody broke HTTP's rules.
    pub(super) fn note_bad_input(&self, sender: Sender, what: BadInput) {
        self.connection.worker.shared.telemetry.bad_inputs.count(sender, what);
    }

    /// A body ended before its end, and whose it was.
    pub(super) fn note_broken_body(&self, sender: Sender, is_malformed: bool) {
        if sender == Sender::Client {
            self.is_broken_off.set(true);
        }
        if is_malformed {
            self.note_bad_input(sender, BadInput::MalformedBody);
        }
    }

    /// Whom it was between, and how it ended, as labels tell it.
    fn parties<'a>(&'a self, listeners: &'a Listeners) -> Parties<'a> {
        Parties {
            arrival: &self.arrival,
            source: self.arrival.source(listeners),
            endpoint: self.endpoint.get().map(|endpoint| &**endpoint),
            cluster: self.cluster.get().map(|cluster| &**cluster),
            is_grpc: self.is_grpc,
            status: self.status.get(),
            grpc: self.grpc.get(),
            flags: self.flag.get().as_str(),
        }
    }

    fn count(&self, parties: &Parties<'_>) {
        let worker = &self.connection.worker;
        let noted = self.noted.as_ref();
        let changes = self.told.metrics.as_ref().zip(noted).map(|(metrics, noted)| metrics.of(&self.ended(noted)));
        let reached = (self.endpoint.get(), self.cluster.get());
        let series = worker.series.of(&worker.shared.telemetry, parties, reached, changes);
        series.count(self.began.elapsed(), self.sent.get(), self.received.get());
        worker.counts.end();
        if let Some(rule) = self.rule.get() {
            let failed = !(1..500).contains(&self.status.get());
            worker.rules.count(&worker.shared.rules, rule, self.backend.get(), failed);
        }
    }

    fn end_span(&mut self) {
        // The attempt's span is below, and ends no later.
        drop(self.attempt.take());
        let Some(span) = &self.span else { return };
        let upstream = self.endpoint.get().zip(self.cluster.get());
        span.finish(Outcome {
            status: self.status.get(),
            grpc: self.grpc.get(),
            flags: self.flag.get().as_str(),
            sent: self.sent.get(),
            received: self.received.get(),
            upstream: upstream.map(|(endpoint, cluster)| Upstream::of(endpoint, &cluster.key)),
            rule: self.rule.get().cloned(),
            request_id: self.request_id.take(),
        });
    }

    /// All that is known of it at its end.
    fn ended<'a>(&'a self, noted: &'a NotedHead) -> Ended<'a> {
        let token = self.token.get().map(|token| token.as_ref());
        Ended {
            noted,
            arrival: &self.arrival,
            status: self.status.get(),
            grpc: self.grpc.get(),
            flags: self.flag.get().as_str(),
            details: self.flag.get().details(self.endpoint.get().is_some()),
            policy: self.denial.get().map(String::as_str),
            request_principal: token.and_then(|token| token.ok()?.principal.as_deref()),
            token_refused: token.and_then(Result::err).map(|error| error.reason()),
            sent: self.sent.get(),
            received: self.received.get(),
            duration: self.began.elapsed(),
            answered_after: self.answered_after.get(),
            endpoint: self.endpoint.get().map(|endpoint| &**endpoint),
            cluster: self.cluster.get().map(|cluster| &cluster.key),
            rule: self.rule.get().map(|rule| &**rule),
            request_id: self.request_id.get(),
            trace: self.span.as_ref().map(|span| span.context()),
        }
    }

    fn tell(&self, parties: &Parties<'_>) {
        let Some(noted) = &self.noted else { return };
        let ended = self.ended(noted);
        let worker = &self.connection.worker;
        worker.shared.telemetry.flows.tell(|id| ended.flow(id));
        let reached = (self.endpoint.get(), self.cluster.get());
        telemetry::tell(worker, (&self.told, noted.logs), &ended, ended.trace, |line| {
            ended.write(&worker.series.fields(&worker.shared.telemetry, parties, reached), line);
        });
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        if self.flow.why_cut().is_some() {
            self.note_flag(Flag::StreamIdle);
        }
        // A client that goes away shows by nothing but its exchange being dropped.
        if self.status.get() == 0 {
            self.note_flag(Flag::DownstreamTermination);
        }
        let listeners = self.connection.worker.listeners();
        let parties = self.parties(&listeners);
        self.count(&parties);
        self.tell(&parties);
        self.end_span();
    }
}
