//! Lines of requests, and of connections that nobody looks into: which there are, by Istio's Telemetry, and what is noted for them while a request is under way.

mod connection;
mod ends;
mod flow;
mod json;
mod line;

use std::{borrow::Cow, fmt, rc::Rc, sync::Arc, time::SystemTime};

use http::{
    HeaderValue, Method, Version,
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
pub(crate) use self::json::Moment;
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
    ended: &impl filter::Attributes,
    trace: Option<TraceContext>,
    write: impl FnOnce(&mut String),
) {
    let random = fastrand::u64(..);
    let admits = |choice: &Choice| choice.admits(ended, random);
    let at_output = logs && admits(&told.choice);
    let mut elsewhere = told.log_to.iter().filter(|(_, choice)| admits(choice)).peekable();
    if !at_output && elsewhere.peek().is_none() {
        return;
    }
    let mut line = worker.line.borrow_mut();
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
    told.logs && tracing::enabled!(target: "access", tracing::Level::INFO)
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
    /// Those that the filter asks for.
    headers: Vec<(Arc<str>, HeaderValue)>,
}

impl NotedHead {
    /// Notes it, where there may be a line, labels of metrics ask for it, or somebody listens to flows.
    pub(crate) fn of(told: &EffectiveTelemetry, is_heard: bool, parts: &Parts) -> Option<Box<Self>> {
        let logs = is_logged(told);
        if !logs && !is_heard && told.log_to.is_empty() && told.metrics.is_none() {
            return None;
        }
        let trace = parts.headers.get("traceparent").filter(|_| is_heard);
        let header = |name: &Arc<str>| Some((name.clone(), parts.headers.get(&**name)?.clone()));
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
            headers: told.headers.iter().filter_map(header).collect(),
        }))
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
