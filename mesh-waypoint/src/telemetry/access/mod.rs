//! Lines of requests, and of connections that nobody looks into: which there are, by Istio's Telemetry, and what is noted for them while a request is under way.

mod connection;
mod ends;
mod flow;
mod format;
mod json;
mod line;

use std::{borrow::Cow, cell::OnceCell, fmt, rc::Rc, sync::Arc, time::SystemTime};

use http::{
    HeaderMap, HeaderValue, Method, Version,
    header::{HOST, USER_AGENT},
    request::Parts,
    uri::Authority,
};
use mesh_core::{
    TraceContext,
    policy::PolicyTarget,
    telemetry::{Choice, EffectiveTelemetry, Side, TelemetryScope, filter},
};

pub(crate) use self::connection::EndedConnection;
pub(super) use self::connection::connection_fields;
pub(crate) use self::ends::Ends;
pub(crate) use self::flow::opened;
pub(crate) use self::format::{put_address, put_of_arrival, put_start};
pub(crate) use self::line::Ended;
pub(super) use self::line::label_fields;
use crate::{
    inbound::{Arrival, Target},
    worker::{NumberedSnapshot, Worker},
};

/// What is in force for what arrives so, as the thread has looked it up.
pub(crate) fn told(worker: &Worker, arrival: &Arrival) -> Rc<EffectiveTelemetry> {
    let NumberedSnapshot { snapshot, number } = worker.numbered_snapshot();
    let service = arrival.target.service();
    worker.told.of(number, service, || {
        let waypoint = service.and_then(|service| snapshot.l7().waypoint_of(service));
        let (gateway, listeners) = (&worker.shared.own.gateway, worker.listeners());
        let asked = service.map(|service| PolicyTarget::of_service(service));
        let teller = TelemetryScope {
            side: if matches!(arrival.target, Target::Gateway(_)) { Side::Client } else { Side::Server },
            gateway: (&gateway.namespace, &gateway.name, waypoint.map_or("", |waypoint| &*waypoint.class)),
            labels: listeners.own.as_ref().map(|workload| &workload.labels),
            service: asked.as_ref(),
        };
        Rc::new(snapshot.telemetries().told(&teller))
    })
}

/// Writes a line of what has ended, where it is wanted: at standard output if it `logs`, and for the providers that are `told`.
pub(crate) fn tell(
    worker: &Worker,
    (told, logs): (&EffectiveTelemetry, bool),
    ended: &(impl filter::Attributes + format::Values),
    trace: Option<TraceContext>,
    write: impl FnOnce(&mut String),
) {
    let random = fastrand::u64(..);
    let admits = |choice: &Choice| choice.admits(ended, random);
    let mut line = worker.line.borrow_mut();
    let mut at_output = false;
    for output in told.outputs.iter().filter(|output| logs && admits(&output.choice)) {
        let Some(format) = &output.format else {
            at_output = true;
            continue;
        };
        line.clear();
        format::write(format, ended, &worker.shared.own.hostname, &mut line);
        worker.shared.log.gather(&line);
    }
    let mut elsewhere = told.log_to.iter().filter(|(_, choice)| admits(choice)).peekable();
    if !at_output && elsewhere.peek().is_none() {
        return;
    }
    line.clear();
    write(&mut line);
    if at_output {
        worker.shared.log.gather(&line);
    }
    for (provider, _) in elsewhere {
        worker.shared.exports.put(provider, &line, trace);
    }
}

/// Whether standard output is to have lines of what ends.
pub(crate) fn is_logged(told: &EffectiveTelemetry) -> bool {
    !told.outputs.is_empty() && tracing::enabled!(target: "access", tracing::Level::INFO)
}

/// What a line, or whoever listens to flows, is told of a request's head, kept until then.
pub(crate) struct NotedHead {
    /// There may be a line.
    pub(crate) logs: bool,
    /// The trace that the client says it belongs to, where somebody listens.
    trace: Option<TraceContext>,
    at: SystemTime,
    method: Method,
    /// As it came.
    path: String,
    version: Version,
    query: Option<String>,
    authority: Option<Authority>,
    host: Option<HeaderValue>,
    user_agent: Option<HeaderValue>,
    forwarded_for: Option<HeaderValue>,
    /// Those that filters, or formats of lines, ask for.
    headers: Vec<(Arc<str>, HeaderValue)>,
    /// Those of the answer that formats of lines ask for.
    answered: OnceCell<Vec<(Arc<str>, HeaderValue)>>,
}

impl NotedHead {
    /// Notes it, where there may be a line, labels of metrics ask for it, or somebody listens to flows.
    pub(crate) fn of(told: &EffectiveTelemetry, is_heard: bool, parts: &Parts) -> Option<Box<Self>> {
        let logs = is_logged(told);
        if !logs && !is_heard && told.log_to.is_empty() && told.metrics.is_none() {
            return None;
        }
        let trace = parts.headers.get("traceparent").filter(|_| is_heard);
        Some(Box::new(Self {
            logs,
            trace: text(trace).and_then(|trace| trace.parse().ok()),
            at: SystemTime::now(),
            method: parts.method.clone(),
            path: parts.uri.path().to_owned(),
            version: parts.version,
            query: parts.uri.query().map(str::to_owned),
            authority: parts.uri.authority().cloned(),
            host: parts.headers.get(HOST).cloned(),
            user_agent: parts.headers.get(USER_AGENT).cloned(),
            forwarded_for: parts.headers.get("x-forwarded-for").cloned(),
            headers: asked(&told.headers, &parts.headers),
            answered: OnceCell::new(),
        }))
    }

    /// Notes of an answer what a line is to tell of it.
    pub(crate) fn note_answer(&self, told: &EffectiveTelemetry, headers: &HeaderMap) {
        if !told.response_headers.is_empty() {
            // There is one answer.
            let _ = self.answered.set(asked(&told.response_headers, headers));
        }
    }

    /// A field of the request, or what HTTP/2 has in its place.
    fn request_field(&self, name: &str, scheme: &'static str) -> Option<Cow<'_, str>> {
        match name {
            ":authority" | "host" => Some(self.authority()?.into()),
            ":method" => Some(self.method.as_str().into()),
            ":path" => Some(self.target()),
            ":scheme" => Some(scheme.into()),
            name => field(&self.headers, name).map(Cow::Borrowed),
        }
    }

    /// A field of the answer.
    fn response_field(&self, name: &str) -> Option<&str> {
        field(self.answered.get()?, name)
    }

    /// Path and query.
    fn target(&self) -> Cow<'_, str> {
        match &self.query {
            Some(query) => Cow::Owned(format!("{}?{query}", self.path)),
            None => Cow::Borrowed(&self.path),
        }
    }

    fn authority(&self) -> Option<&str> {
        self.authority.as_ref().map(Authority::as_str).or_else(|| text(self.host.as_ref()))
    }
}

/// Those of these fields that are there.
fn asked(names: &[Arc<str>], headers: &HeaderMap) -> Vec<(Arc<str>, HeaderValue)> {
    names.iter().filter_map(|name| Some((name.clone(), headers.get(&**name)?.clone()))).collect()
}

fn field<'a>(fields: &'a [(Arc<str>, HeaderValue)], name: &str) -> Option<&'a str> {
    let (_, value) = fields.iter().find(|(known, _)| **known == *name)?;
    text(Some(value))
}

/// A version of HTTP, as Envoy writes it.
pub(crate) const fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_10 => "HTTP/1.0",
        _ => "HTTP/1.1",
    }
}

/// The trace that a context is of, as its users write it.
fn trace_id(context: TraceContext) -> impl fmt::Display {
    fmt::from_fn(move |f| write!(f, "{:032x}", u128::from_be_bytes(context.trace_id)))
}

/// A field's value where it is text.
fn text(value: Option<&HeaderValue>) -> Option<&str> {
    value.and_then(|value| value.to_str().ok())
}
