//! Policies by namespace and label, so that a workload finds its own among any number of others.

use std::collections::HashMap;
use std::sync::Arc;

use super::Selector;
use crate::label_set::LabelSet;

/// A policy that is about some workloads.
pub(super) trait Scoped {
    /// Where it stands.
    fn namespace(&self) -> &Arc<str>;
    /// The workloads that it is about; none for all.
    fn selector(&self) -> Option<&Selector>;
}

/// Policies of one kind, in the order given.
#[derive(Debug, Clone)]
pub(super) struct Indexed<T> {
    all: Vec<Arc<T>>,
    by_namespace: HashMap<Arc<str>, ByLabel>,
}

/// The policies of one namespace.
#[derive(Debug, Clone, Default)]
struct ByLabel {
    /// Those about all workloads.
    whole: Vec<usize>,
    /// Those with a selector, by the one of its labels that the fewest others have.
    selected: HashMap<Arc<str>, HashMap<Arc<str>, Vec<usize>>>,
}

impl<T: PartialEq> PartialEq for Indexed<T> {
    fn eq(&self, other: &Self) -> bool {
        self.all == other.all
    }
}

impl<T: Eq> Eq for Indexed<T> {}

impl<T: Scoped> Indexed<T> {
    pub(super) fn build(all: Vec<Arc<T>>) -> Self {
        let mut commonness: HashMap<(&str, &str, &str), usize> = HashMap::new();
        for policy in &all {
            for (key, value) in policy.selector().map_or(&[][..], Selector::labels) {
                *commonness.entry((policy.namespace(), key, value)).or_default() += 1;
            }
        }
        let mut by_namespace: HashMap<Arc<str>, ByLabel> = HashMap::new();
        for (index, policy) in all.iter().enumerate() {
            let namespace = by_namespace.entry(Arc::clone(policy.namespace())).or_default();
            let labels = policy.selector().map_or(&[][..], Selector::labels);
            let rarest = labels.iter().min_by_key(|(key, value)| {
                commonness.get(&(&**policy.namespace(), &**key, &**value)).copied().unwrap_or(0)
            });
            match rarest {
                None => namespace.whole.push(index),
                Some((key, value)) => {
                    let values = namespace.selected.entry(Arc::clone(key)).or_default();
                    values.entry(Arc::clone(value)).or_default().push(index);
                }
            }
        }
        Self { all, by_namespace }
    }

    pub(super) fn all(&self) -> &[Arc<T>] {
        &self.all
    }

    /// The policies of `namespace` and of `root` that are about a workload in `namespace` with those labels, in order.
    pub(super) fn applying(&self, namespace: &str, root: &str, labels: &LabelSet) -> Vec<&Arc<T>> {
        let mut found = Vec::new();
        if self.all.is_empty() {
            return Vec::new();
        }
        self.gather(namespace, labels, &mut found);
        if root != namespace {
            self.gather(root, labels, &mut found);
        }
        found.sort_unstable();
        found.into_iter().filter_map(|index| self.all.get(index)).collect()
    }

    fn gather(&self, namespace: &str, labels: &LabelSet, found: &mut Vec<usize>) {
        let Some(policies) = self.by_namespace.get(namespace) else {
            return;
        };
        found.extend_from_slice(&policies.whole);
        let mut look = |value: Option<&str>, values: &HashMap<Arc<str>, Vec<usize>>| {
            let Some(candidates) = value.and_then(|value| values.get(value)) else {
                return;
            };
            let selects = |index: &&usize| {
                let selector = self.all.get(**index).and_then(|policy| policy.selector());
                selector.is_some_and(|selector| selector.selects(labels))
            };
            found.extend(candidates.iter().filter(selects));
        };
        // Most selectors of a namespace agree on one or two keys; a namespace may have any number of them.
        if policies.selected.len() <= labels.len() {
            for (key, values) in &policies.selected {
                look(labels.get(key), values);
            }
        } else {
            for (key, value) in labels.iter() {
                if let Some(values) = policies.selected.get(key) {
                    look(Some(value), values);
                }
            }
        }
    }
}
