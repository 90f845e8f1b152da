//! Collectors that Telemetries name: lines of requests and spans for each.

use std::{sync::Arc, time::SystemTime};

use mesh_config::Config;
use mesh_core::TraceContext;
use mesh_otlp::{Fate, Line, Named, NamedCollectors, Queue, Source};
use prometheus::IntCounterVec;
use tokio::{sync::watch, task::JoinSet};

use super::{Finished, Tracer};

/// One collector.
#[derive(Clone)]
struct Export {
    lines: Queue<Line>,
    tracer: Arc<Tracer>,
}

/// All of them, by the names of their providers.
pub(crate) struct Exports {
    known: NamedCollectors<Export>,
    sampling: f64,
    /// Lines by what became of them.
    lines: IntCounterVec,
    /// The same of spans.
    spans: IntCounterVec,
}

impl Exports {
    /// None yet. Of the traces that begin here and are told to one of them, the share `sampling` is recorded where no Telemetry says it.
    pub(crate) fn new(sampling: f64, lines: IntCounterVec, spans: IntCounterVec) -> Self {
        Self { known: NamedCollectors::default(), sampling, lines, spans }
    }

    /// A line for a provider. Nobody waits: where too many are on their way, or there is no such provider, it is dropped and counted.
    pub(crate) fn put(&self, provider: &str, line: &str, trace: Option<TraceContext>) {
        let line = || Line { at: SystemTime::now(), text: line.to_owned(), trace };
        let taken = self.known.get(provider).is_some_and(|export| export.lines.put(line()));
        if !taken {
            self.lines.with_label_values(&[Fate::Dropped.as_str()]).inc();
        }
    }

    /// Where spans for a provider go.
    pub(crate) fn tracer(&self, provider: &str) -> Option<Arc<Tracer>> {
        self.known.get(provider).map(|export| export.tracer)
    }

    /// Has a queue for each provider of the configuration, and sends what is put there, for good.
    pub(crate) async fn follow(&self, config: watch::Receiver<Arc<Config>>, source: Source) {
        let begin = |named: &Named<_>, sending: &mut JoinSet<()>| self.begin(named, &source, sending);
        self.known.follow(config, |config| config.snapshot.clone(), begin).await;
    }

    fn begin(&self, named: &Named<Arc<Config>>, source: &Source, sending: &mut JoinSet<()>) -> Export {
        let source = named.source(source);
        let (lines, exporter) = named.queue::<Line>();
        let (told, of_lines) = (self.lines.clone(), source.clone());
        sending.spawn(async move {
            exporter.run(&of_lines, |fate, count| told.with_label_values(&[fate.as_str()]).inc_by(count)).await;
        });
        let (spans, exporter) = named.queue::<Finished>();
        let told = self.spans.clone();
        sending.spawn(async move {
            exporter.run(&source, |fate, count| told.with_label_values(&[fate.as_str()]).inc_by(count)).await;
        });
        Export { lines, tracer: Tracer::of(spans, self.sampling, self.spans.clone()) }
    }
}
