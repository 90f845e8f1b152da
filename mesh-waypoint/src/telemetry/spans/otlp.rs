//! Requests' spans in OTLP's form: OpenTelemetry's "Semantic Conventions for HTTP Spans", and for who it was between the names that the
//! nodes' spans have.

use std::{sync::Arc, time::Instant};

use mesh_core::{SpiffeId, TraceContext, Workload};
use mesh_otlp::{
    KeyValue, Placed, Record, Span, Status, failed, integer, party_attributes, span, text, workload_attributes,
};

use super::{AttemptEnd, Outcome, RequestFacts, Upstream};

/// A span that has ended.
#[derive(Debug)]
pub(crate) struct Finished {
    placed: Placed,
    ended: Instant,
    request: Arc<RequestFacts>,
    of: Of,
}

#[derive(Debug)]
enum Of {
    Request { beside: Option<TraceContext>, outcome: Box<Outcome> },
    Attempt { number: u32, upstream: Box<Upstream>, end: AttemptEnd },
}

impl Finished {
    pub(super) fn request(
        placed: Placed,
        request: Arc<RequestFacts>,
        beside: Option<TraceContext>,
        outcome: Outcome,
    ) -> Self {
        let of = Of::Request { beside, outcome: Box::new(outcome) };
        Self { placed, ended: Instant::now(), request, of }
    }

    pub(super) fn attempt(
        placed: Placed,
        request: Arc<RequestFacts>,
        number: u32,
        upstream: Upstream,
        end: AttemptEnd,
    ) -> Self {
        let of = Of::Attempt { number, upstream: Box::new(upstream), end };
        Self { placed, ended: Instant::now(), request, of }
    }
}

impl Record for Finished {
    type Item = Span;

    fn into_item(self) -> Span {
        let Self { placed, ended, request, of } = self;
        let mut attributes = common(&request);
        let (kind, asked, status, links) = match of {
            Of::Request { beside, outcome } => {
                attributes.extend(of_client(&request));
                attributes.extend(request.tags.iter().map(|(name, value)| text(name, value)));
                let links = beside.iter().map(link).collect();
                let asked = request.service.as_ref().map(|service| format!("{}:{}", service.hostname, request.port));
                let asked = asked.or_else(|| outcome.upstream.as_ref().map(|upstream| upstream.cluster.to_string()));
                (span::SpanKind::Server, asked, of_outcome(&outcome, &mut attributes), links)
            }
            Of::Attempt { number, upstream, end } => {
                attributes.extend(party_attributes("server", Some(upstream.address), None, None));
                attributes.extend(of_upstream(&upstream));
                if number > 1 {
                    attributes.push(integer("http.request.resend_count", i64::from(number) - 1));
                }
                let status = of_end(end, &mut attributes);
                (span::SpanKind::Client, Some(upstream.cluster.to_string()), status, Vec::new())
            }
        };
        let name = asked.map_or_else(|| request.method.to_string(), |asked| format!("{} {asked}", request.method));
        Span { attributes, links, status, ..placed.into_span(kind, name, ended) }
    }
}

fn common(request: &RequestFacts) -> Vec<KeyValue> {
    let version = match request.version {
        http::Version::HTTP_2 => "2",
        http::Version::HTTP_10 => "1.0",
        _ => "1.1",
    };
    vec![
        text("http.request.method", request.method.as_str()),
        text("url.path", &request.path),
        text("url.scheme", request.scheme),
        text("network.protocol.name", "http"),
        text("network.protocol.version", version),
    ]
}

fn of_client(request: &RequestFacts) -> Vec<KeyValue> {
    let mut attributes = party_attributes(
        "client",
        Some(request.client),
        request.client_workload.as_deref(),
        request.client_identity.as_ref(),
    );
    if let Some(authority) = &request.authority {
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) => (host, port.parse().unwrap_or(request.port)),
            None => (authority.as_str(), request.port),
        };
        attributes.extend([text("server.address", host), integer("server.port", port.into())]);
    }
    if let Some(agent) = request.user_agent.as_ref().and_then(|agent| agent.to_str().ok()) {
        attributes.push(text("user_agent.original", agent));
    }
    if let Some(service) = &request.service {
        attributes.push(text("mesh.server.service", &service.hostname));
    }
    attributes
}

fn of_upstream(upstream: &Upstream) -> Vec<KeyValue> {
    let identity = upstream.identity.as_ref().or(upstream.workload.as_deref().map(|workload| &workload.identity));
    let mut attributes = of_workload(upstream.workload.as_deref(), identity);
    attributes.push(text("upstream_cluster", &upstream.cluster.to_string()));
    attributes
}

fn of_workload(workload: Option<&Workload>, identity: Option<&SpiffeId>) -> Vec<KeyValue> {
    let mut attributes = workload_attributes("server", workload, identity);
    if let Some(workload) = workload {
        attributes.push(text("istio.canonical_service", &workload.canonical_service));
        attributes.push(text("istio.canonical_revision", &workload.canonical_revision));
        attributes.push(text("istio.namespace", &workload.namespace));
    }
    attributes
}

fn of_outcome(outcome: &Outcome, attributes: &mut Vec<KeyValue>) -> Option<Status> {
    let size = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    attributes.push(text("response_flags", outcome.flags));
    attributes.push(integer("http.request.body.size", size(outcome.sent)));
    attributes.push(integer("http.response.body.size", size(outcome.received)));
    if let Some(rule) = &outcome.rule {
        attributes.push(text("mesh.route", &rule.at.to_string()));
    }
    if let Some(upstream) = &outcome.upstream {
        attributes.extend(of_upstream(upstream));
    }
    if let Some(id) = outcome.request_id.as_ref().and_then(|id| id.to_str().ok()) {
        attributes.push(text("guid:x-request-id", id));
    }
    if let Some(grpc) = outcome.grpc {
        attributes.extend([text("rpc.system", "grpc"), integer("rpc.grpc.status_code", grpc.into())]);
    }
    match outcome.status {
        0 => Some(failed("no_response", "the client went away before there was an answer".to_owned(), attributes)),
        status => of_status(status, 500, attributes),
    }
}

fn of_end(end: AttemptEnd, attributes: &mut Vec<KeyValue>) -> Option<Status> {
    match end {
        AttemptEnd::Answered(status) => of_status(status, 400, attributes),
        AttemptEnd::Failed(kind, message) => Some(failed(kind, message, attributes)),
        AttemptEnd::Abandoned => {
            Some(failed("abandoned", "nobody waited for the answer any longer".to_owned(), attributes))
        }
    }
}

/// A status; from `worst` on it is an error, which for who asks is 400 and for who is asked 500.
fn of_status(status: u16, worst: u16, attributes: &mut Vec<KeyValue>) -> Option<Status> {
    attributes.push(integer("http.response.status_code", status.into()));
    (status >= worst).then(|| failed(&status.to_string(), String::new(), attributes))
}

fn link(context: &TraceContext) -> span::Link {
    span::Link {
        trace_id: context.trace_id.into(),
        span_id: context.span_id.into(),
        attributes: vec![text("mesh.link", "the set-up of the tunnel that it came by")],
        ..span::Link::default()
    }
}
