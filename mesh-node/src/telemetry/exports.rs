//! What Telemetries say of connections, and the collectors that they name: lines of the access log and spans for each.

use std::sync::Arc;
use std::time::SystemTime;

use mesh_admin_server::LogOutput;
use mesh_config::Config;
use mesh_core::telemetry::{EffectiveTelemetry, Side, TelemetryScope};
use mesh_otlp::{Fate, Line, Named, NamedCollectors, Queue, Source};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::access_log::Ended;
use super::{Finished, Metrics, Report, Reporter};

/// One collector.
#[derive(Clone)]
struct Export {
    lines: Queue<Line>,
    spans: Queue<Finished>,
}

/// Who gets lines and spans, by the configuration in force.
pub struct Exports {
    config: watch::Receiver<Arc<Config>>,
    known: NamedCollectors<Export>,
    log: LogOutput,
}

impl Exports {
    /// By that configuration and those that follow; lines for standard output are given to `log`.
    #[must_use]
    pub fn new(config: watch::Receiver<Arc<Config>>, log: LogOutput) -> Self {
        Self { config, known: NamedCollectors::default(), log }
    }

    /// What Telemetries say of a connection: of the mesh, of the namespace of this end's pod, of that pod. None where there are none,
    /// which is to say that all connections have a line at standard output, and spans as the flags say.
    pub(super) fn told(&self, report: &Report) -> Option<EffectiveTelemetry> {
        let snapshot = self.config.borrow().snapshot.clone();
        if snapshot.telemetries().all().is_empty() {
            return None;
        }
        let (side, own) = match report.reporter {
            Reporter::Source => (Side::Client, &report.source),
            Reporter::Destination => (Side::Server, &report.destination),
        };
        let own = own.workload.as_deref();
        // No Gateway's: none has an empty name.
        let gateway = (own.map_or("", |workload| &*workload.namespace), "", "");
        let labels = own.map(|workload| &workload.labels);
        Some(snapshot.telemetries().told(&TelemetryScope { side, gateway, labels, service: None }))
    }

    /// Tells of a connection that is over. Nobody waits: where too many lines are on their way, or there is no such collector, they
    /// are dropped and counted.
    pub(super) fn tell(&self, ended: &Ended<'_>, metrics: &Metrics) {
        let told = self.told(ended.report);
        ended.tell(told.as_ref(), metrics.cluster(), &self.log, |provider, line| {
            let line = || Line { at: SystemTime::now(), text: line.to_owned(), trace: None };
            if !self.known.get(provider).is_some_and(|export| export.lines.put(line())) {
                metrics.log_lines(Fate::Dropped, 1);
            }
        });
    }

    /// Where spans for a provider go; none where there is no such collector.
    pub(super) fn spans(&self, provider: &str) -> Option<Queue<Finished>> {
        self.known.get(provider).map(|export| export.spans)
    }

    /// Has queues for each collector of the configuration, and sends what is put there, for good.
    pub async fn follow(&self, source: &Source, metrics: &Arc<Metrics>) {
        let begin = |named: &Named<_>, sending: &mut JoinSet<()>| {
            let (lines, exporter) = named.queue::<Line>();
            let (of_lines, told) = (named.source(source), metrics.clone());
            sending.spawn(async move { exporter.run(&of_lines, |fate, count| told.log_lines(fate, count)).await });
            let (spans, exporter) = named.queue::<Finished>();
            let (of_spans, told) = (named.source(source), metrics.clone());
            sending.spawn(async move { exporter.run(&of_spans, |fate, count| told.spans(fate, count)).await });
            Export { lines, spans }
        };
        self.known.follow(self.config.clone(), |config| config.snapshot.clone(), begin).await;
    }
}
