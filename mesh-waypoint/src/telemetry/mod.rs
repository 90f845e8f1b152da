//! What Prometheus is told: Istio's standard metrics of requests, and what is only ours.

mod cache;
mod labels;
mod own;
mod scrape;
mod series;

use prometheus::{Encoder as _, Registry, TextEncoder};

pub(crate) use self::cache::SeriesCache;
pub(crate) use self::labels::{Parties, Protocol};
pub(crate) use self::own::{MirrorOutcome, OwnMetrics};
pub(crate) use self::scrape::Scrape;
use self::series::RequestMetrics;

/// Everything that is measured, over all threads.
pub(crate) struct Telemetry {
    registry: Registry,
    /// Of requests.
    pub(crate) requests: RequestMetrics,
    /// Ours.
    pub(crate) own: OwnMetrics,
}

impl Telemetry {
    /// Registers everything; `cluster` is the name of the cluster in Istio's labels.
    ///
    /// # Errors
    /// Two metrics have one name.
    pub(crate) fn new(cluster: String) -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        Ok(Self { requests: RequestMetrics::new(cluster, &registry)?, own: OwnMetrics::new(&registry)?, registry })
    }

    /// All of it in Prometheus' text format.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "metrics not encoded");
        }
        text
    }
}
