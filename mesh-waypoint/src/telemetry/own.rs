//! Metrics that are only ours.

use mesh_otlp::SpanFate;
use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// What became of a copy of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MirrorOutcome {
    /// It was answered, and nobody looked how.
    Answered,
    /// It was not.
    Failed,
    /// It was not made: its body is too long, or too many are under way.
    Dropped,
}

impl MirrorOutcome {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Failed => "failed",
            Self::Dropped => "dropped",
        }
    }
}

/// Counters of what no request's own labels tell.
pub(crate) struct OwnMetrics {
    /// Requests that were sent again.
    pub(crate) retries: IntCounter,
    /// Retries that were wanted, and not made for want of budget.
    pub(crate) retries_refused: IntCounter,
    mirrors: IntCounterVec,
    admin_requests: IntCounterVec,
    /// Spans by what became of them.
    pub(crate) spans: IntCounterVec,
    /// Endpoints that were left alone from then on.
    pub(crate) ejections: IntCounter,
    /// Sets of labels that were too many to be kept apart.
    pub(crate) series_overflow: IntCounter,
    /// The configuration's generation, as this process counts.
    pub(crate) generation: IntGauge,
}

impl OwnMetrics {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let options = Opts::new("mesh_waypoint_mirrors_total", "Copies of requests that rules asked for");
        let mirrors = IntCounterVec::new(options, &["outcome"])?;
        registry.register(Box::new(mirrors.clone()))?;
        let options = Opts::new("mesh_waypoint_admin_requests_total", "Requests to the admin API");
        let admin_requests = IntCounterVec::new(options, &["code"])?;
        registry.register(Box::new(admin_requests.clone()))?;
        let spans = IntCounterVec::new(Opts::new("mesh_spans_total", "Spans by what became of them"), &["result"])?;
        registry.register(Box::new(spans.clone()))?;
        for fate in SpanFate::ALL {
            spans.with_label_values(&[fate.as_str()]);
        }
        let generation = IntGauge::new("mesh_waypoint_config_generation", "Configurations that came into force")?;
        registry.register(Box::new(generation.clone()))?;
        Ok(Self {
            retries: counter("mesh_waypoint_retries_total", "Requests that were sent to an endpoint again")?,
            retries_refused: counter(
                "mesh_waypoint_retries_refused_total",
                "Retries not made since the budget for them was used up",
            )?,
            ejections: counter("mesh_waypoint_ejections_total", "Endpoints ejected by outlier detection")?,
            series_overflow: counter(
                "mesh_waypoint_series_overflow_total",
                "Sets of labels that were counted with unknown parties, since there were too many",
            )?,
            mirrors,
            admin_requests,
            spans,
            generation,
        })
    }

    /// One request to the admin API more, answered with that status.
    pub(crate) fn admin_request(&self, status: u16) {
        self.admin_requests.with_label_values(&[status.to_string()]).inc();
    }

    /// One copy of a request more.
    pub(crate) fn mirror(&self, outcome: MirrorOutcome) {
        self.mirrors.with_label_values(&[outcome.as_str()]).inc();
    }
}
