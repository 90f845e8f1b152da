//! Prometheus' registry, which also says what is in it: documentation is made of that.

use std::sync::Mutex;

use mesh_core::lock::UnpoisonedMutex as _;
use prometheus::{
    Error,
    core::Collector,
    proto::{MetricFamily, MetricType},
};

/// What is told of a metric.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listed {
    /// As Prometheus has it.
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// The labels' names.
    pub labels: Vec<String>,
    /// What it counts.
    pub help: String,
}

/// Where a program's metrics are registered.
#[derive(Default)]
pub struct Registry {
    inner: prometheus::Registry,
    listed: Mutex<Vec<Listed>>,
}

impl Registry {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers a metric, or several that are read together.
    ///
    /// # Errors
    /// Another one has its name.
    pub fn register(&self, metric: Box<dyn Collector>) -> Result<(), Error> {
        let listed = Listed::all_of(&*metric);
        self.inner.register(metric)?;
        self.listed.lock_unpoisoned().extend(listed);
        Ok(())
    }

    /// Every metric that has a series, with its series.
    #[must_use]
    pub fn gather(&self) -> Vec<MetricFamily> {
        self.inner.gather()
    }

    /// Every metric, whether it has a series or not, in the order in which they were registered.
    #[must_use]
    pub fn listed(&self) -> Vec<Listed> {
        self.listed.lock_unpoisoned().clone()
    }
}

impl Listed {
    fn all_of(collector: &dyn Collector) -> Vec<Self> {
        let families = collector.collect();
        let kind = |name: &str| match families.iter().find(|family| family.name() == name) {
            Some(family) => match family.get_field_type() {
                MetricType::COUNTER => "counter",
                MetricType::GAUGE => "gauge",
                MetricType::HISTOGRAM => "histogram",
                MetricType::SUMMARY => "summary",
                MetricType::UNTYPED => "untyped",
            },
            None => "untyped",
        };
        let told = collector.desc().into_iter().map(|desc| Self {
            name: desc.fq_name.clone(),
            kind: kind(&desc.fq_name),
            labels: desc.variable_labels.clone(),
            help: desc.help.clone(),
        });
        told.collect()
    }
}

#[cfg(test)]
mod tests {
    use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGauge, Opts};

    use super::*;

    #[test]
    fn metrics_are_listed_also_without_a_series_and_only_once_they_are_registered() {
        let registry = Registry::new();
        let counter = IntCounterVec::new(Opts::new("b_total", "Things seen"), &["what"]).unwrap();
        let histogram = HistogramVec::new(HistogramOpts::new("a_seconds", "Time"), &["x"]).unwrap();
        registry.register(Box::new(counter.clone())).unwrap();
        registry.register(Box::new(histogram)).unwrap();
        registry.register(Box::new(IntGauge::new("c", "Now").unwrap())).unwrap();
        assert!(registry.register(Box::new(counter)).is_err());
        let kinds: Vec<_> = registry.listed().into_iter().map(|listed| (listed.name, listed.kind)).collect();
        assert_eq!(kinds, [("b_total".into(), "counter"), ("a_seconds".into(), "histogram"), ("c".into(), "gauge")]);
        assert_eq!(registry.listed()[0].labels, ["what"]);
        assert_eq!(registry.gather().len(), 1);
    }
}
