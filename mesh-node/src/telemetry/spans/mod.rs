//! Spans of the tunnels' set-up: how long a connection took to be opened, and what took it. Off unless a collector is named.
//!
//! The client's node begins the trace and names its span in the CONNECT; the server's node continues it.

mod otlp;

use std::time::SystemTime;

use mesh_core::TraceContext;
use mesh_otlp::{Collector, Exporter, Fate, Placed, Queue, queue};

use super::{Metrics, Refused, Report};

/// Which side of the set-up a span tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanKind {
    /// The client's node.
    Client,
    /// The server's node.
    Server,
}

/// A span that has begun.
#[derive(Debug)]
pub struct Span {
    placed: Placed,
    kind: SpanKind,
}

impl Span {
    /// The `traceparent` by which the other end continues the trace.
    #[must_use]
    pub fn traceparent(&self) -> String {
        self.placed.context.to_string()
    }

    /// Notes that something happened now.
    pub fn event(&mut self, name: &'static str, detail: Option<String>) {
        self.placed.event(name, detail);
    }
}

/// A span that has ended.
#[derive(Debug)]
pub struct Finished {
    span: Span,
    ended: SystemTime,
    report: Report,
    error: Option<(&'static str, String)>,
}

/// Where spans begin and end.
pub struct Spans {
    /// None while no collector is named.
    export: Option<Queue<Finished>>,
    sampling: f64,
}

impl Spans {
    /// Spans that go nowhere: every [`Self::begin`] gives none.
    #[must_use]
    pub fn off() -> Self {
        Self { export: None, sampling: 0.0 }
    }

    /// Spans for a collector. Of the traces that begin here the share `sampling`, from 0 to 1, is recorded.
    #[must_use]
    pub fn to(collector: Collector, sampling: f64) -> (Self, Exporter<Finished>) {
        let (export, exporter) = queue(collector);
        (Self { export: Some(export), sampling }, exporter)
    }

    /// Begins a span, below `traceparent` where that is one. None where it is not recorded.
    #[must_use]
    pub fn begin(&self, kind: SpanKind, traceparent: Option<&str>) -> Option<Box<Span>> {
        self.export.as_ref()?;
        let above = traceparent.and_then(|text| text.parse::<TraceContext>().ok());
        let sampled = above.map_or_else(|| fastrand::f64() < self.sampling, |above| above.sampled);
        sampled.then(|| {
            let span = fastrand::u64(..);
            let context = match above {
                Some(above) => above.child(span),
                None => TraceContext::root(fastrand::u128(..), span, true),
            };
            let parent = above.map(|above| above.span_id);
            Box::new(Span { placed: Placed::begin(context, parent), kind })
        })
    }

    /// Ends a span. `error` is why nothing came of it.
    pub(super) fn finish(
        &self,
        span: Option<Box<Span>>,
        report: &Report,
        error: Option<(Refused, &str)>,
        metrics: &Metrics,
    ) {
        let (Some(span), Some(export)) = (span, &self.export) else {
            return;
        };
        let error = error.map(|(reason, text)| (reason.as_str(), text.to_owned()));
        let finished = Finished { span: *span, ended: SystemTime::now(), report: report.clone(), error };
        if !export.put(finished) {
            metrics.spans(Fate::Dropped, 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use mesh_otlp::Protocol;

    use super::*;

    fn spans(sampling: f64) -> Spans {
        let collector = Collector::new("http://127.0.0.1:4317", Protocol::Http).expect("a collector");
        Spans::to(collector, sampling).0
    }

    #[test]
    fn without_a_collector_nothing_begins() {
        let parent = TraceContext::root(1, 2, true).to_string();
        assert!(Spans::off().begin(SpanKind::Server, Some(&parent)).is_none());
    }

    #[test]
    fn whoever_began_the_trace_decides_whether_it_is_recorded() {
        for (sampled, sampling) in [(true, 0.0), (false, 1.0)] {
            let above = TraceContext::root(1, 2, sampled);
            let span = spans(sampling).begin(SpanKind::Server, Some(&above.to_string()));
            assert_eq!(span.is_some(), sampled);
            if let Some(span) = span {
                let Placed { context, parent, .. } = span.placed;
                assert_eq!((context.trace_id, parent), (above.trace_id, Some(above.span_id)));
                assert_ne!(context.span_id, above.span_id);
            }
        }
    }

    #[test]
    fn a_broken_parent_begins_a_new_trace() {
        let span = spans(1.0).begin(SpanKind::Server, Some("00-nonsense")).expect("sampled");
        assert_eq!(span.placed.parent, None);
        assert!(spans(0.0).begin(SpanKind::Client, None).is_none());
    }
}
