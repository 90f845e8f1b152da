//! Metrics of the connections that pods had before they joined.

use mesh_metrics::Registry;
use prometheus::{IntCounterVec, IntGauge, Opts};

/// What became of a connection from before its pod joined: a closed set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// The daemon ended it.
    Reset,
    /// It goes on.
    Kept,
    /// It was to end, and the kernel did not end it.
    Failed,
}

impl Existing {
    const ALL: [Self; 3] = [Self::Reset, Self::Kept, Self::Failed];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Reset => "reset",
            Self::Kept => "kept",
            Self::Failed => "failed",
        }
    }
}

/// The metrics.
pub struct ExistingMetrics {
    became: IntCounterVec,
    open: IntGauge,
}

impl ExistingMetrics {
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let about = "Connections that pods had before they joined, by what became of them";
        let became = IntCounterVec::new(Opts::new("mesh_existing_connections_total", about), &["result"])?;
        for what in Existing::ALL {
            became.with_label_values(&[what.as_str()]);
        }
        let about = "Connections from before their pods joined that live on";
        let open = IntGauge::new("mesh_existing_connections", about)?;
        registry.register(Box::new(became.clone()))?;
        registry.register(Box::new(open.clone()))?;
        Ok(Self { became, open })
    }

    /// That became of so many.
    pub fn became(&self, what: Existing, count: usize) {
        self.became.with_label_values(&[what.as_str()]).inc_by(u64::try_from(count).unwrap_or(u64::MAX));
    }

    /// So many live on.
    pub fn set_open(&self, count: usize) {
        self.open.set(i64::try_from(count).unwrap_or(i64::MAX));
    }
}
