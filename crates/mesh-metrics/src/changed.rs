//! Series whose labels are not those of all: their names are a Telemetry's.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use mesh_core::lock::UnpoisonedMutex as _;
use mesh_core::{standard_labels::UNKNOWN, telemetry::MetricChange};
use prometheus::{
    core::{Collector, Desc, Metric},
    proto::{LabelPair, MetricFamily},
};

use crate::{MAX_SETS, REQUEST_LABELS, RequestLabels};

/// Labels that are set, or, where there is no value, are not there.
type Tags = [(Arc<str>, Option<String>)];
/// Names and values, in the order of names.
type Labels = Box<[(Arc<str>, String)]>;

/// A metric under one name: series of all labels, and those whose labels were changed.
pub(crate) struct Family<V, M> {
    /// With the labels of all.
    pub(crate) plain: V,
    changed: Arc<Mutex<HashMap<Labels, Changed<M>>>>,
}

/// A series.
struct Changed<M> {
    series: M,
    /// Whether it is one of those with the labels of all.
    is_plain: bool,
}

impl<V: Clone, M> Clone for Family<V, M> {
    fn clone(&self) -> Self {
        Self { plain: self.plain.clone(), changed: self.changed.clone() }
    }
}

impl<V, M: Clone> Family<V, M> {
    pub(crate) fn new(plain: V) -> Self {
        Self { plain, changed: Arc::default() }
    }

    /// The series of these labels as they are changed; none where there is to be none. Where there are too many, that of `unknown`, in
    /// which no label that is set has a value. `plain` is the series of all labels with these values, `make` one of other labels.
    pub(crate) fn changed(
        &self,
        labels: &RequestLabels,
        change: &MetricChange,
        unknown: &dyn Fn() -> RequestLabels,
        plain: impl FnOnce(&V, &[&str]) -> M,
        make: impl FnOnce() -> Option<M>,
    ) -> Option<M> {
        let tags: &Tags = match change {
            MetricChange::Disabled => return None,
            MetricChange::None => &[],
            MetricChange::Tags(tags) => tags,
        };
        let mut changed = self.changed.lock_unpoisoned();
        let mut labels = applied(labels, tags, None);
        if !changed.contains_key(&labels) && changed.len() >= MAX_SETS {
            labels = applied(&unknown(), tags, Some(UNKNOWN));
        }
        if let Some(known) = changed.get(&labels) {
            return Some(known.series.clone());
        }
        // Two series of the same labels would be one too many for who scrapes.
        let values = standard_values(&labels);
        let is_plain = values.is_some();
        let series = match values {
            Some(values) => plain(&self.plain, &values),
            None => make()?,
        };
        changed.insert(labels, Changed { series: series.clone(), is_plain });
        Some(series)
    }
}

impl<V: Collector, M: Metric> Collector for Family<V, M> {
    fn desc(&self) -> Vec<&Desc> {
        self.plain.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut families = self.plain.collect();
        let changed = self.changed.lock_unpoisoned();
        if let Some(family) = families.first_mut() {
            for (labels, known) in changed.iter().filter(|(_, known)| !known.is_plain) {
                let mut metric = known.series.metric();
                metric.set_label(labels.iter().map(|(name, value)| pair(name, value)).collect());
                family.mut_metric().push(metric);
            }
        }
        families
    }
}

fn pair(name: &str, value: &str) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.to_owned());
    pair.set_value(value.to_owned());
    pair
}

/// The values in the order of [`REQUEST_LABELS`], where these are the labels and no others.
fn standard_values(labels: &Labels) -> Option<Vec<&str>> {
    if labels.len() != REQUEST_LABELS.len() {
        return None;
    }
    let value = |name: &&str| {
        let index = labels.binary_search_by(|(known, _)| (**known).cmp(*name)).ok()?;
        labels.get(index).map(|(_, value)| value.as_str())
    };
    REQUEST_LABELS.iter().map(value).collect()
}

/// The labels with those of `tags` set, or left out; with `instead`, all that are set say that.
fn applied(labels: &RequestLabels, tags: &Tags, instead: Option<&str>) -> Labels {
    let is_kept = |name: &str| tags.iter().all(|(tag, _)| **tag != *name);
    let kept = REQUEST_LABELS.iter().zip(labels).filter(|(name, _)| is_kept(name));
    let mut all: Vec<(Arc<str>, String)> = kept.map(|(name, value)| ((*name).into(), value.clone())).collect();
    let set = tags.iter().filter_map(|(name, value)| Some((name, value.as_deref()?)));
    all.extend(set.map(|(name, value)| (name.clone(), instead.unwrap_or(value).to_owned())));
    all.sort_unstable();
    all.into()
}
