//! Which workloads a policy is about.

use std::fmt;
use std::sync::Arc;

use crate::label_set::LabelSet;

/// Labels that a workload must have, all of them. Never empty: a policy without labels to match is about all.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Selector(Box<[(Arc<str>, Arc<str>)]>);

impl Selector {
    /// A selector of those labels; none where there are none, which selects everything in Istio's kinds.
    #[must_use]
    pub fn new<K: Into<Arc<str>>, V: Into<Arc<str>>>(labels: impl IntoIterator<Item = (K, V)>) -> Option<Self> {
        let labels: Box<[_]> = labels.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
        (!labels.is_empty()).then_some(Self(labels))
    }

    /// Whether a workload with those labels is selected.
    #[must_use]
    pub fn selects(&self, labels: &LabelSet) -> bool {
        self.0.iter().all(|(key, value)| labels.get(key) == Some(value))
    }

    /// The labels.
    #[must_use]
    pub fn labels(&self) -> &[(Arc<str>, Arc<str>)] {
        &self.0
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (key, value)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{key}={value}")?;
        }
        Ok(())
    }
}

/// How far a policy reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// All workloads of the mesh: it stands in the root namespace and selects nothing.
    Mesh,
    /// All workloads of its namespace.
    Namespace,
    /// The workloads that it selects: in its namespace, or from the root namespace in all.
    Selected,
    /// What it names with `targetRefs`.
    Target,
}

impl Scope {
    /// The scope of a policy in `namespace`.
    #[must_use]
    pub fn of(namespace: &str, root_namespace: &str, selector: Option<&Selector>) -> Self {
        match selector {
            Some(_) => Self::Selected,
            None if namespace == root_namespace => Self::Mesh,
            None => Self::Namespace,
        }
    }

    /// As text, for people.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mesh => "mesh",
            Self::Namespace => "namespace",
            Self::Selected => "workload",
            Self::Target => "target",
        }
    }
}
