//! Lines of the access log for the collectors that Telemetries name.

use std::sync::Arc;
use std::time::SystemTime;

use mesh_config::Config;
use mesh_otlp::{Fate, Line, Named, NamedCollectors, Queue, Source};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::Metrics;
use super::access_log::{self, Ended};

/// Who gets lines, by the configuration in force.
pub struct Lines {
    config: watch::Receiver<Arc<Config>>,
    collectors: NamedCollectors<Queue<Line>>,
}

impl Lines {
    /// By that configuration and those that follow.
    #[must_use]
    pub fn new(config: watch::Receiver<Arc<Config>>) -> Self {
        Self { config, collectors: NamedCollectors::default() }
    }

    /// Tells of a connection that is over. Nobody waits: where too many lines are on their way, or there is no such collector, they
    /// are dropped and counted.
    pub(super) fn tell(&self, ended: &Ended<'_>, metrics: &Metrics) {
        let told = access_log::told(&self.config.borrow().snapshot, ended.report);
        ended.tell(told.as_ref(), |provider, line| {
            let line = || Line { at: SystemTime::now(), text: line.to_owned(), trace: None };
            if !self.collectors.get(provider).is_some_and(|queue| queue.put(line())) {
                metrics.log_lines(Fate::Dropped, 1);
            }
        });
    }

    /// Has a queue for each collector of the configuration, and sends what is put there, for good.
    pub async fn export(&self, source: &Source, metrics: &Arc<Metrics>) {
        let begin = |named: &Named<_>, sending: &mut JoinSet<()>| {
            let (queue, exporter) = named.queue::<Line>();
            let (source, metrics) = (named.source(source), metrics.clone());
            sending.spawn(async move { exporter.run(&source, |fate, count| metrics.log_lines(fate, count)).await });
            queue
        };
        self.collectors.follow(self.config.clone(), |config| config.snapshot.clone(), begin).await;
    }
}
