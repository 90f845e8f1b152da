//! Spans of the tunnels' set-up: how long a connection took to be opened, and what took it. Off unless a collector is named, by a flag
//! or by the Telemetry of this end's pod.
//!
//! The client's node begins the trace and names its span in the CONNECT; the server's node continues it.

mod otlp;

use std::sync::Arc;
use std::time::Instant;

use mesh_core::TraceContext;
use mesh_core::telemetry::Tracing;
use mesh_otlp::{Collector, Exporter, Fate, Placed, Queue, queue, tag_values};

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
    /// What was asked for besides.
    tags: Vec<(Arc<str>, String)>,
    export: Queue<Finished>,
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

    /// Ends it. `error` is why nothing came of it.
    pub(super) fn finish(self, report: &Report, error: Option<(Refused, &str)>, metrics: &Metrics) {
        let Self { placed, kind, tags, export } = self;
        let error = error.map(|(reason, text)| (reason.as_str(), text.to_owned()));
        let ended = Instant::now();
        if !export.put(Finished { placed, kind, tags, ended, report: report.clone(), error }) {
            metrics.spans(Fate::Dropped, 1);
        }
    }
}

/// A span that has ended.
#[derive(Debug)]
pub struct Finished {
    placed: Placed,
    kind: SpanKind,
    tags: Vec<(Arc<str>, String)>,
    ended: Instant,
    report: Report,
    error: Option<(&'static str, String)>,
}

/// Where spans begin.
pub struct Spans {
    /// Where they go unless a Telemetry names a collector; none while no flag does.
    export: Option<Queue<Finished>>,
    sampling: f64,
}

impl Spans {
    /// Spans for those collectors alone that Telemetries name. Of the traces that begin here the share `sampling`, from 0 to 1, is
    /// recorded where no Telemetry says it.
    #[must_use]
    pub const fn named_alone(sampling: f64) -> Self {
        Self { export: None, sampling }
    }

    /// The same, and for that collector where no Telemetry names one.
    #[must_use]
    pub fn to(collector: Collector, sampling: f64) -> (Self, Exporter<Finished>) {
        let (export, exporter) = queue(collector);
        (Self { export: Some(export), sampling }, exporter)
    }

    /// Begins a span, below `traceparent` where that is one, as it is `asked` for; `named` is where those go whom a Telemetry sends
    /// elsewhere. None where it is not recorded.
    #[must_use]
    pub(super) fn begin(
        &self,
        kind: SpanKind,
        traceparent: Option<&str>,
        asked: &Tracing,
        named: Option<Queue<Finished>>,
    ) -> Option<Box<Span>> {
        let export = named.or_else(|| self.export.clone()).filter(|_| asked.disabled != Some(true))?;
        let above = traceparent.and_then(|text| text.parse::<TraceContext>().ok());
        let begins = || match asked.sampling {
            Some(share) => share.includes(fastrand::u64(..)),
            None => fastrand::f64() < self.sampling,
        };
        let sampled = above.map_or_else(begins, |above| above.sampled);
        sampled.then(|| {
            let span = fastrand::u64(..);
            let context = match above {
                Some(above) => above.child(span),
                None => TraceContext::root(fastrand::u128(..), span, true),
            };
            let placed = Placed::begin(context, above.map(|above| above.span_id));
            // A connection has no header.
            let tags = tag_values(asked.tags.as_ref(), |_| None);
            Box::new(Span { placed, kind, tags, export })
        })
    }
}

#[cfg(test)]
mod tests {
    use mesh_core::l7::Percent;
    use mesh_otlp::Protocol;

    use super::*;

    fn collector() -> Collector {
        Collector::new("http://127.0.0.1:4317", Protocol::Http).expect("a collector")
    }

    fn spans(sampling: f64) -> Spans {
        Spans::to(collector(), sampling).0
    }

    /// A span as nobody but the flags asks for it.
    fn begin(spans: &Spans, kind: SpanKind, traceparent: Option<&str>) -> Option<Box<Span>> {
        spans.begin(kind, traceparent, &Tracing::default(), None)
    }

    #[test]
    fn without_a_collector_nothing_begins() {
        let parent = TraceContext::root(1, 2, true).to_string();
        assert!(begin(&Spans::named_alone(1.0), SpanKind::Server, Some(&parent)).is_none());
    }

    #[test]
    fn whoever_began_the_trace_decides_whether_it_is_recorded() {
        for (sampled, sampling) in [(true, 0.0), (false, 1.0)] {
            let above = TraceContext::root(1, 2, sampled);
            let span = begin(&spans(sampling), SpanKind::Server, Some(&above.to_string()));
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
        let span = begin(&spans(1.0), SpanKind::Server, Some("00-nonsense")).expect("sampled");
        assert_eq!(span.placed.parent, None);
        assert!(begin(&spans(0.0), SpanKind::Client, None).is_none());
    }

    #[test]
    fn a_telemetry_comes_before_the_flags() {
        let asked = |share: f64, disabled| Tracing { sampling: Percent::new(share), disabled, ..Tracing::default() };
        assert!(spans(0.0).begin(SpanKind::Client, None, &asked(100.0, None), None).is_some());
        assert!(spans(1.0).begin(SpanKind::Client, None, &asked(0.0, None), None).is_none());
        let parent = TraceContext::root(1, 2, true).to_string();
        assert!(spans(1.0).begin(SpanKind::Server, Some(&parent), &asked(100.0, Some(true)), None).is_none());
        let (named, _exporter) = queue(collector());
        let off = Spans::named_alone(0.0);
        assert!(off.begin(SpanKind::Client, None, &asked(100.0, None), None).is_none(), "nobody names a collector");
        assert!(off.begin(SpanKind::Client, None, &asked(100.0, None), Some(named)).is_some());
    }
}
