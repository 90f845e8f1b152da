//! What Telemetries change of Istio's standard metrics of requests.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Side;
use super::filter::Attributes;
use super::value::Value;

/// A metric of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Metric {
    /// `istio_requests_total`
    RequestCount,
    /// `istio_request_duration_milliseconds`
    RequestDuration,
    /// `istio_request_bytes`
    RequestSize,
    /// `istio_response_bytes`
    ResponseSize,
}

impl Metric {
    /// All of them, in the order in which [`MetricChanges`] has them.
    pub const ALL: [Self; 4] = [Self::RequestCount, Self::RequestDuration, Self::RequestSize, Self::ResponseSize];
}

/// An entry about metrics. What is not said is as above.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricOverride {
    /// Of one side; none for both.
    pub side: Option<Side>,
    /// The metrics that it is about.
    pub metrics: Vec<Metric>,
    /// Whether they are not told.
    pub disabled: Option<bool>,
    /// Labels that are there, are others, or are not there.
    pub tags: BTreeMap<Arc<str>, TagChange>,
}

/// What is done to a label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TagChange {
    /// It goes.
    Remove,
    /// It says that.
    Set(Value),
}

/// What is in force of one metric.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EffectiveMetric {
    /// Whether it is not told.
    pub disabled: bool,
    /// Its labels that are not as they are by default.
    pub tags: BTreeMap<Arc<str>, TagChange>,
}

/// What becomes of one metric of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub enum MetricChange {
    /// It is told as by default.
    #[default]
    None,
    /// It is not told.
    Disabled,
    /// It is told with these labels set, or without them.
    Tags(Vec<(Arc<str>, Option<String>)>),
}

/// What becomes of each metric, in the order of [`Metric::ALL`].
pub type MetricChanges = [MetricChange; Metric::ALL.len()];

/// What is in force of all metrics, in the order of [`Metric::ALL`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EffectiveMetrics([EffectiveMetric; Metric::ALL.len()]);

impl EffectiveMetrics {
    /// What `nearer` says counts.
    pub(super) fn take(&mut self, nearer: &MetricOverride) {
        for (metric, told) in Metric::ALL.iter().zip(&mut self.0) {
            if !nearer.metrics.contains(metric) {
                continue;
            }
            told.disabled = nearer.disabled.unwrap_or(told.disabled);
            told.tags.extend(nearer.tags.iter().map(|(name, change)| (name.clone(), change.clone())));
        }
    }

    /// Whether anything is other than by default.
    #[must_use]
    pub fn changes_something(&self) -> bool {
        self.0.iter().any(|told| *told != EffectiveMetric::default())
    }

    /// Adds the names of the request headers that labels ask for.
    pub(super) fn headers(&self, into: &mut Vec<Arc<str>>) {
        for change in self.0.iter().flat_map(|told| told.tags.values()) {
            if let TagChange::Set(value) = change {
                value.headers(into);
            }
        }
    }

    /// What becomes of the metrics of a request.
    #[must_use]
    pub fn of(&self, request: &impl Attributes) -> MetricChanges {
        self.0.each_ref().map(|told| {
            if told.disabled {
                return MetricChange::Disabled;
            }
            if told.tags.is_empty() {
                return MetricChange::None;
            }
            let tags = told.tags.iter().map(|(name, change)| match change {
                TagChange::Remove => (name.clone(), None),
                TagChange::Set(value) => (name.clone(), Some(value.of(request))),
            });
            MetricChange::Tags(tags.collect())
        })
    }
}
