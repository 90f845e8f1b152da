//! Metrics of the configuration that mesh-control serves.

use mesh_xds::{Progress, Standing};
use prometheus::{
    IntGauge,
    core::{Collector, Desc},
    proto::MetricFamily,
};

/// Reads what it tells when it is asked.
pub(super) struct ControlMetrics {
    progress: Progress,
    connected: IntGauge,
    generation: IntGauge,
    rejected: IntGauge,
}

impl ControlMetrics {
    pub(super) fn new(progress: Progress) -> Result<Self, prometheus::Error> {
        Ok(Self {
            progress,
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
        let Standing { connected, version, rejected, .. } = self.progress.standing();
        self.connected.set(i64::from(connected.is_some()));
        let generation = version.map_or(0, |version| version.generation);
        self.generation.set(i64::try_from(generation).unwrap_or(i64::MAX));
        self.rejected.set(i64::try_from(rejected).unwrap_or(i64::MAX));
        self.all().into_iter().flat_map(Collector::collect).collect()
    }
}
