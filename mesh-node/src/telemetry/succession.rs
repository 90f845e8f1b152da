//! Metrics of one daemon after another.

use mesh_metrics::Registry;
use prometheus::{IntCounter, IntCounterVec, Opts};

use super::metrics::register;
use crate::handover::HandoverOutcome;

/// Counts how daemons followed each other.
pub struct SuccessionMetrics {
    handovers: IntCounterVec,
    restarts: IntCounter,
}

impl SuccessionMetrics {
    /// Registers them.
    ///
    /// # Errors
    /// Their names are taken.
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let handovers = Opts::new(
            "mesh_handovers_total",
            "Successors that this daemon declined or that went away before they took over, and daemons that it took over from",
        );
        let handovers = register(registry, IntCounterVec::new(handovers, &["result"])?)?;
        for outcome in HandoverOutcome::ALL {
            handovers.with_label_values(&[outcome.as_str()]);
        }
        let restarts = IntCounter::new(
            "mesh_daemon_restarts_total",
            "Times that this daemon was started again after a crash, by the process that keeps its listeners",
        )?;
        Ok(Self { handovers, restarts: register(registry, restarts)? })
    }

    /// A handover has come to this.
    pub fn handover(&self, outcome: HandoverOutcome) {
        self.handovers.with_label_values(&[outcome.as_str()]).inc();
    }

    /// This daemon was started again so often.
    pub fn restarted(&self, times: u64) {
        self.restarts.inc_by(times);
    }
}
