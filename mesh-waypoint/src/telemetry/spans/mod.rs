//! Spans of requests: one of the request as it came (`SERVER`), below it one of each attempt at an endpoint (`CLIENT`). Off unless a
//! collector is named; then what the request says of its trace is heeded, and whoever began the trace decides whether it is recorded.

mod attempt;
mod otlp;
mod request;

use std::sync::Arc;

use http::{HeaderMap, HeaderValue};
use mesh_core::{
    TraceContext,
    propagation::{self, Carried, Form},
    telemetry::Tracing,
};
use mesh_otlp::{Collector, Exporter, Fate, Placed, Queue, queue};
use prometheus::IntCounterVec;

pub(crate) use self::attempt::{AttemptEnd, AttemptSpan, Upstream};
pub(crate) use self::otlp::Finished;
pub(crate) use self::request::{Outcome, RequestFacts, RequestSpan};

/// Where spans go, as they end.
#[derive(Debug)]
pub(crate) struct Tracer {
    queue: Queue<Finished>,
    /// Of the traces that begin here, the share that is recorded.
    sampling: f64,
    /// How many became what.
    told: IntCounterVec,
}

impl Tracer {
    /// Spans to a collector, and what sends them there. `told` counts what becomes of them.
    pub(crate) fn to(collector: Collector, sampling: f64, told: IntCounterVec) -> (Arc<Self>, Exporter<Finished>) {
        let (queue, exporter) = queue(collector);
        (Self::of(queue, sampling, told), exporter)
    }

    /// Spans to that queue.
    pub(crate) fn of(queue: Queue<Finished>, sampling: f64, told: IntCounterVec) -> Arc<Self> {
        Arc::new(Self { queue, sampling, told })
    }

    fn put(&self, span: Finished) {
        if !self.queue.put(span) {
            self.told.with_label_values(&[Fate::Dropped.as_str()]).inc();
        }
    }

    /// The place of a request's span, and the form in which the trace goes on; none where it is not recorded. A request that says
    /// nothing of a trace belongs to that of the `tunnel` that it came first in.
    fn place(&self, asked: &Tracing, headers: &mut HeaderMap, tunnel: Option<TraceContext>) -> Option<(Placed, Form)> {
        let carried = propagation::read(|name| headers.get(name)?.to_str().ok());
        let decided = carried.is_some();
        let Carried { parent, sampled, form } = carried.unwrap_or(Carried {
            parent: tunnel,
            sampled: tunnel.map(|tunnel| tunnel.sampled),
            form: Form::W3c,
        });
        let sampled = sampled.unwrap_or_else(|| match asked.sampling {
            Some(share) => share.includes(fastrand::u64(..)),
            None => fastrand::f64() < self.sampling,
        });
        let context = match parent {
            Some(parent) => TraceContext { sampled, ..parent.child(fastrand::u64(..)) },
            None => TraceContext::root(fastrand::u128(..), fastrand::u64(..), sampled),
        };
        if form != Form::W3c || parent.is_none() {
            // It belonged to another trace, or to none (W3C Trace Context, section 4.3).
            headers.remove("tracestate");
        }
        if sampled {
            return Some((Placed::begin(context, parent.map(|parent| parent.span_id)), form));
        }
        if !decided {
            // The next ones are to decide the same.
            inject(&context, form, headers);
        }
        None
    }
}

/// Names a span as the one that is above whatever comes of the request.
fn inject(context: &TraceContext, form: Form, headers: &mut HeaderMap) {
    let mut insert = |name: &'static str, value: String| {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    };
    insert("traceparent", context.to_string());
    for (name, value) in propagation::also(context, form) {
        insert(name, value);
    }
    if form == Form::B3Multi {
        for name in propagation::REPLACED {
            headers.remove(name);
        }
    }
}
