//! Collectors that Telemetries name: lines of requests and spans for each, and what sends them there.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, PoisonError, RwLock},
    time::SystemTime,
};

use mesh_config::Config;
use mesh_core::{
    Protocol as Transport, TraceContext,
    provider::{OtlpCollector, Provider},
};
use mesh_otlp::{Collector, Fate, Line, Protocol, Queue, Source, queue_to};
use prometheus::IntCounterVec;
use tokio::{sync::watch, task::JoinSet};

use super::{Finished, Tracer};

/// One collector.
struct Export {
    provider: Arc<OtlpCollector>,
    lines: Queue<Line>,
    tracer: Arc<Tracer>,
}

/// All of them, by the names of their providers.
pub(crate) struct Exports {
    known: RwLock<HashMap<Arc<str>, Export>>,
    sampling: f64,
    /// Lines by what became of them.
    lines: IntCounterVec,
    /// The same of spans.
    spans: IntCounterVec,
}

impl Exports {
    /// None yet. Of the traces that begin here and are told to one of them, the share `sampling` is recorded where no Telemetry says it.
    pub(crate) fn new(sampling: f64, lines: IntCounterVec, spans: IntCounterVec) -> Self {
        Self { known: RwLock::default(), sampling, lines, spans }
    }

    /// A line for a provider. Nobody waits: where too many are on their way, or there is no such provider, it is dropped and counted.
    pub(crate) fn put(&self, provider: &str, line: &str, trace: Option<TraceContext>) {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let taken = known
            .get(provider)
            .is_some_and(|export| export.lines.put(Line { at: SystemTime::now(), text: line.to_owned(), trace }));
        if !taken {
            self.lines.with_label_values(&[Fate::Dropped.as_str()]).inc();
        }
    }

    /// Where spans for a provider go.
    pub(crate) fn tracer(&self, provider: &str) -> Option<Arc<Tracer>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).get(provider).map(|export| export.tracer.clone())
    }

    /// Has a queue for each provider of the configuration, and sends what is put there, for good.
    pub(crate) async fn follow(&self, mut config: watch::Receiver<Arc<Config>>, source: Source) {
        let mut sending = JoinSet::new();
        loop {
            let snapshot = config.borrow_and_update().snapshot.clone();
            let wanted: HashMap<Arc<str>, Arc<OtlpCollector>> = snapshot
                .providers()
                .iter()
                .filter_map(|(name, provider)| match provider {
                    Provider::Collector(collector) => Some((name.clone(), collector.clone())),
                    Provider::Authorizer(_) => None,
                })
                .collect();
            {
                let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
                // The queue of one that is gone is at its end with what is in it.
                known.retain(|name, export| wanted.get(name) == Some(&export.provider));
                for (name, provider) in wanted {
                    known.entry(name).or_insert_with(|| self.begin(provider, &config, &source, &mut sending));
                }
            }
            loop {
                tokio::select! {
                    changed = config.changed() => match changed {
                        Ok(()) => break,
                        // What is no longer followed does not change.
                        Err(_) => std::future::pending().await,
                    },
                    Some(_) = sending.join_next() => {}
                }
            }
        }
    }

    fn begin(
        &self,
        provider: Arc<OtlpCollector>,
        config: &watch::Receiver<Arc<Config>>,
        source: &Source,
        sending: &mut JoinSet<()>,
    ) -> Export {
        let place = || {
            let (provider, config) = (provider.clone(), config.clone());
            move || found(&provider, &config)
        };
        let source = match &provider.log_name {
            Some(name) => source.clone().with("log_name", name),
            None => source.clone(),
        };
        let (lines, exporter) = queue_to::<Line>(place());
        let (told, of_lines) = (self.lines.clone(), source.clone());
        sending.spawn(async move {
            exporter.run(&of_lines, |fate, count| told.with_label_values(&[fate.as_str()]).inc_by(count)).await;
        });
        let (spans, exporter) = queue_to::<Finished>(place());
        let told = self.spans.clone();
        sending.spawn(async move {
            exporter.run(&source, |fate, count| told.with_label_values(&[fate.as_str()]).inc_by(count)).await;
        });
        Export { provider, lines, tracer: Tracer::of(spans, self.sampling, self.spans.clone()) }
    }
}

/// One of the collector's endpoints that are ready.
fn found(provider: &OtlpCollector, config: &watch::Receiver<Arc<Config>>) -> Option<Collector> {
    let snapshot = config.borrow().snapshot.clone();
    let service = provider.address.service(&snapshot)?;
    let port = service.port(provider.address.port, Transport::Tcp)?;
    let mut addresses = port.endpoints.iter().map(|endpoint| endpoint.address);
    // The same as long as it is there, so that its connection is kept.
    let address: SocketAddr = addresses.next()?;
    let (path, protocol) = match &provider.http_path {
        Some(path) => (&**path, Protocol::Http),
        None => ("", Protocol::Grpc),
    };
    Collector::new(&format!("http://{address}{path}"), protocol).ok()
}
