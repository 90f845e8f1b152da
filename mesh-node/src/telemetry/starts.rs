//! Metrics of pods that start while the container runtime waits for the daemon's word.

use std::time::Duration;

use mesh_metrics::Registry;
use prometheus::{Histogram, HistogramOpts, IntCounterVec, IntGauge, Opts};

/// Seconds, up to what a runtime waits.
const BUCKETS: [f64; 9] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0];

/// What was said of a pod that starts: a closed set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodStart {
    /// It is in the mesh.
    Enrolled,
    /// It is not to be in the mesh.
    Outside,
    /// It is on the node's own network.
    HostNetwork,
    /// It is kubelet's own, and the API server knows it by another uid.
    Static,
    /// Nothing is known of it, and it is one of those that start nevertheless.
    Exempt,
    /// A successor is asked, too.
    Successor,
    /// Refused: nothing is known of it.
    Unknown,
    /// Refused: it should be in the mesh, and is not.
    NotEnrolled,
    /// Refused: the daemon is about to end.
    Stopping,
}

impl PodStart {
    const ALL: [Self; 9] = [
        Self::Enrolled,
        Self::Outside,
        Self::HostNetwork,
        Self::Static,
        Self::Exempt,
        Self::Successor,
        Self::Unknown,
        Self::NotEnrolled,
        Self::Stopping,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Enrolled => "enrolled",
            Self::Outside => "outside",
            Self::HostNetwork => "host_network",
            Self::Static => "static",
            Self::Exempt => "exempt",
            Self::Successor => "successor",
            Self::Unknown => "refused_unknown",
            Self::NotEnrolled => "refused_not_enrolled",
            Self::Stopping => "refused_stopping",
        }
    }
}

/// The metrics.
pub struct StartMetrics {
    asked: IntGauge,
    decided: IntCounterVec,
    held: Histogram,
}

impl StartMetrics {
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let about =
            "Whether the container runtime asks before a pod's containers run (NRI); else pods are found by cgroups";
        let asked = IntGauge::new("mesh_nri_connected", about)?;
        let about = "What the container runtime was told when it asked about a pod, or a container of one, that starts";
        let decided = IntCounterVec::new(Opts::new("mesh_nri_pod_starts_total", about), &["result"])?;
        for start in PodStart::ALL {
            decided.with_label_values(&[start.as_str()]);
        }
        let about = "How long a pod's containers were held back until it was enrolled, by sandbox";
        let held = HistogramOpts::new("mesh_nri_enrolment_seconds", about).buckets(BUCKETS.to_vec());
        let held = Histogram::with_opts(held)?;
        registry.register(Box::new(asked.clone()))?;
        registry.register(Box::new(decided.clone()))?;
        registry.register(Box::new(held.clone()))?;
        Ok(Self { asked, decided, held })
    }

    /// Whether the runtime asks.
    pub fn set_asked(&self, asked: bool) {
        self.asked.set(i64::from(asked));
    }

    /// That was said, after so long; of a pod's sandbox, or of a container in it.
    pub fn decided(&self, start: PodStart, of_sandbox: bool, after: Duration) {
        self.decided.with_label_values(&[start.as_str()]).inc();
        if of_sandbox && start == PodStart::Enrolled {
            self.held.observe(after.as_secs_f64());
        }
    }
}
