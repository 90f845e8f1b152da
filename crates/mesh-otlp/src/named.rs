//! Collectors that Telemetries name: what a program keeps for each, as the configuration comes and goes.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, RwLock},
};

use mesh_core::lock::UnpoisonedRwLock as _;
use mesh_core::{
    Protocol as Transport, Snapshot,
    provider::{OtlpCollector, Provider},
};
use tokio::{sync::watch, task::JoinSet};

use crate::{Collector, Exporter, Protocol, Queue, Record, Source, queue_to};

/// What is kept of each collector of the configuration, by its provider's name: queues, as a rule.
#[derive(Debug)]
pub struct NamedCollectors<E> {
    known: RwLock<HashMap<Arc<str>, Kept<E>>>,
}

/// A collector, and what is kept of it.
type Kept<E> = (Arc<OtlpCollector>, E);

/// A collector that the configuration has come to name.
pub struct Named<C> {
    provider: Arc<OtlpCollector>,
    config: watch::Receiver<C>,
    snapshot: fn(&C) -> Arc<Snapshot>,
}

impl<E> Default for NamedCollectors<E> {
    fn default() -> Self {
        Self { known: RwLock::default() }
    }
}

impl<E: Clone> NamedCollectors<E> {
    /// What is kept of a provider; none where the configuration names none of that name.
    pub fn get(&self, provider: &str) -> Option<E> {
        let known = self.known.read_unpoisoned();
        known.get(provider).map(|(_, kept)| kept.clone())
    }

    /// Keeps what `begin` makes of each provider of the configuration, and runs what it spawns, for good. What is kept of one that is
    /// gone, or is another now, is let go: its queues then end with what is in them.
    pub async fn follow<C: Send + Sync + 'static>(
        &self,
        mut config: watch::Receiver<C>,
        snapshot: fn(&C) -> Arc<Snapshot>,
        begin: impl Fn(&Named<C>, &mut JoinSet<()>) -> E,
    ) {
        let mut sending = JoinSet::new();
        loop {
            let now = snapshot(&config.borrow_and_update());
            let collectors = now.providers().iter().filter_map(|(name, provider)| match provider {
                Provider::Collector(collector) => Some((name.clone(), collector.clone())),
                Provider::Authorizer(_) => None,
            });
            let wanted: HashMap<_, _> = collectors.collect();
            {
                let mut known = self.known.write_unpoisoned();
                known.retain(|name, (provider, _)| wanted.get(name) == Some(provider));
                for (name, provider) in wanted {
                    known.entry(name).or_insert_with(|| {
                        let named = Named { provider: provider.clone(), config: config.clone(), snapshot };
                        (provider, begin(&named, &mut sending))
                    });
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
}

impl<C: Send + Sync + 'static> Named<C> {
    /// A queue to it, and what sends there what is put into it.
    #[must_use]
    pub fn queue<R: Record>(&self) -> (Queue<R>, Exporter<R>) {
        let Self { provider, config, snapshot } = self;
        let (provider, config, snapshot) = (provider.clone(), config.clone(), *snapshot);
        queue_to(move || found(&provider, &snapshot(&config.borrow())))
    }

    /// Who sends, as it is to be told.
    #[must_use]
    pub fn source(&self, source: &Source) -> Source {
        match &self.provider.log_name {
            Some(name) => source.clone().with("log_name", name),
            None => source.clone(),
        }
    }
}

/// One of the collector's endpoints that are ready: the same as long as it is there, so that its connection is kept.
fn found(provider: &OtlpCollector, snapshot: &Snapshot) -> Option<Collector> {
    let service = provider.address.service(snapshot)?;
    let port = service.port(provider.address.port, Transport::Tcp)?;
    let address: SocketAddr = port.endpoints.iter().map(|endpoint| endpoint.address).next()?;
    let (path, protocol) = match &provider.http_path {
        Some(path) => (&**path, Protocol::Http),
        None => ("", Protocol::Grpc),
    };
    Collector::new(&format!("http://{address}{path}"), protocol).ok()
}
