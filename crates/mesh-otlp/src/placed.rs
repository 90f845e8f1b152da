//! A span while it goes on: its place in a trace and in time, and what happened meanwhile.

use std::time::SystemTime;

use mesh_core::TraceContext;
use opentelemetry_proto::tonic::{
    common::v1::KeyValue,
    trace::v1::{
        Span, Status,
        span::{Event, SpanKind},
        status::StatusCode,
    },
};

use crate::attributes::{nanoseconds, of_context, text};

/// Events that one span keeps.
const MAX_EVENTS: usize = 32;

/// A moment in a span.
#[derive(Debug)]
struct Moment {
    at: SystemTime,
    name: &'static str,
    detail: Option<String>,
}

/// A span that has begun.
#[derive(Debug)]
pub struct Placed {
    /// Its place in its trace.
    pub context: TraceContext,
    /// The span above.
    pub parent: Option<[u8; 8]>,
    started: SystemTime,
    moments: Vec<Moment>,
}

impl Placed {
    /// Begins now.
    #[must_use]
    pub fn begin(context: TraceContext, parent: Option<[u8; 8]>) -> Self {
        Self { context, parent, started: SystemTime::now(), moments: Vec::new() }
    }

    /// Notes that something happened now.
    pub fn event(&mut self, name: &'static str, detail: Option<String>) {
        if self.moments.len() < MAX_EVENTS {
            self.moments.push(Moment { at: SystemTime::now(), name, detail });
        }
    }

    /// The span as far as its place tells, with nothing else said of it.
    #[must_use]
    pub fn into_span(self, kind: SpanKind, name: String, ended: SystemTime) -> Span {
        let event = |moment: Moment| Event {
            time_unix_nano: nanoseconds(moment.at),
            name: moment.name.to_owned(),
            attributes: moment.detail.iter().map(|detail| text("detail", detail)).collect(),
            dropped_attributes_count: 0,
        };
        Span {
            name,
            kind: kind.into(),
            start_time_unix_nano: nanoseconds(self.started),
            end_time_unix_nano: nanoseconds(ended),
            events: self.moments.into_iter().map(event).collect(),
            ..of_context(&self.context, self.parent)
        }
    }
}

/// The status of what has failed, with its kind, from a closed set, among the attributes.
pub fn failed(kind: &str, message: String, attributes: &mut Vec<KeyValue>) -> Status {
    attributes.push(text("error.type", kind));
    Status { code: StatusCode::Error.into(), message }
}
