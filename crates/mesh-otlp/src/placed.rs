//! A span while it goes on: its place in a trace and in time, and what happened meanwhile.

use std::time::{Instant, SystemTime};

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
    at: Instant,
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
    /// When it began, by the clock and by what no clock that is set changes: all later is told from here.
    started: (SystemTime, Instant),
    moments: Vec<Moment>,
}

impl Placed {
    /// Begins now.
    #[must_use]
    pub fn begin(context: TraceContext, parent: Option<[u8; 8]>) -> Self {
        Self { context, parent, started: (SystemTime::now(), Instant::now()), moments: Vec::new() }
    }

    /// Notes that something happened now.
    pub fn event(&mut self, name: &'static str, detail: Option<String>) {
        if self.moments.len() < MAX_EVENTS {
            self.moments.push(Moment { at: Instant::now(), name, detail });
        }
    }

    /// The span as far as its place tells, with nothing else said of it.
    #[must_use]
    pub fn into_span(self, kind: SpanKind, name: String, ended: Instant) -> Span {
        let (clock, started) = self.started;
        let at = |moment: Instant| nanoseconds(clock + moment.saturating_duration_since(started));
        let event = |moment: Moment| Event {
            time_unix_nano: at(moment.at),
            name: moment.name.to_owned(),
            attributes: moment.detail.iter().map(|detail| text("detail", detail)).collect(),
            dropped_attributes_count: 0,
        };
        Span {
            name,
            kind: kind.into(),
            start_time_unix_nano: nanoseconds(clock),
            end_time_unix_nano: at(ended),
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_clock_that_is_set_back_or_forth_meanwhile_makes_a_span_no_longer_or_shorter() {
        let mut placed = Placed::begin(TraceContext::root(1, 2, true), None);
        placed.event("retry", None);
        let (_, started) = placed.started;
        placed.moments[0].at = started + Duration::from_millis(3);
        // As a clock that stood an hour ahead when the span began, or a year behind.
        for clock in
            [SystemTime::now() + Duration::from_secs(3_600), SystemTime::now() - Duration::from_secs(31_536_000)]
        {
            let placed = Placed {
                context: placed.context,
                parent: None,
                started: (clock, started),
                moments: placed.moments.iter().map(|it| Moment { at: it.at, name: it.name, detail: None }).collect(),
            };
            let span = placed.into_span(SpanKind::Client, "connect".to_owned(), started + Duration::from_millis(7));
            assert_eq!(span.end_time_unix_nano - span.start_time_unix_nano, 7_000_000);
            assert_eq!(span.events[0].time_unix_nano - span.start_time_unix_nano, 3_000_000);
        }
    }
}
