//! Metrics of the configuration that mesh-control serves, as whoever is told of it tells them.

use prometheus::{
    IntGauge,
    core::{Collector, Desc},
    proto::MetricFamily,
};

/// How far a program is with what mesh-control serves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ControlStanding {
    /// Whether it is told now.
    pub connected: bool,
    /// The generation that is in force as a whole; 0 before the first.
    pub generation: u64,
    /// Objects of which it has not taken the newest version.
    pub rejected: usize,
}

/// Reads what it tells when it is asked.
pub struct ControlMetrics {
    read: Box<dyn Fn() -> ControlStanding + Send + Sync>,
    connected: IntGauge,
    generation: IntGauge,
    rejected: IntGauge,
}

impl ControlMetrics {
    /// Of what `read` says.
    ///
    /// # Errors
    /// A name that Prometheus does not take, which is a mistake in this file.
    pub fn new(read: impl Fn() -> ControlStanding + Send + Sync + 'static) -> Result<Self, prometheus::Error> {
        Ok(Self {
            read: Box::new(read),
            connected: IntGauge::new(
                "mesh_config_control_connected",
                "Whether mesh-control tells of the configuration now; the last one stays in force while it does not",
            )?,
            generation: IntGauge::new(
                "mesh_config_control_generation",
                "Generation of mesh-control's that is in force as a whole; each of its replicas counts its own",
            )?,
            rejected: IntGauge::new(
                "mesh_config_control_rejected",
                "Objects of which the newest version that mesh-control serves was not taken",
            )?,
        })
    }

    fn all(&self) -> [&IntGauge; 3] {
        [&self.connected, &self.generation, &self.rejected]
    }
}

impl Collector for ControlMetrics {
    fn desc(&self) -> Vec<&Desc> {
        self.all().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let ControlStanding { connected, generation, rejected } = (self.read)();
        self.connected.set(i64::from(connected));
        self.generation.set(i64::try_from(generation).unwrap_or(i64::MAX));
        self.rejected.set(i64::try_from(rejected).unwrap_or(i64::MAX));
        self.all().into_iter().flat_map(Collector::collect).collect()
    }
}
