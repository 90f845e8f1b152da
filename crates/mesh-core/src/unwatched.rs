//! Ports at which nodes do not look for requests.

use std::sync::Arc;

use crate::labels::Lookup;

/// The label, of a Pod or its Namespace: `all`, or port numbers with dots between them.
pub const NO_REQUEST_METRICS: &str = "mesh.dev/no-request-metrics";

/// Ports of a workload at which nodes do not look for requests in what they carry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub enum Unwatched {
    /// None of them.
    #[default]
    Nowhere,
    /// All of them.
    Everywhere,
    /// These.
    At(Arc<[u16]>),
}

impl Unwatched {
    /// What the labels ask for; the Pod's come before its Namespace's. What means nothing asks for nothing.
    #[must_use]
    pub fn of(namespace: &impl Lookup, pod: &impl Lookup) -> Self {
        let given = pod.value(NO_REQUEST_METRICS).or_else(|| namespace.value(NO_REQUEST_METRICS));
        given.and_then(Self::read).unwrap_or_default()
    }

    /// Reads the label's value; none where it means nothing.
    #[must_use]
    pub fn read(value: &str) -> Option<Self> {
        match value {
            "all" => Some(Self::Everywhere),
            "none" => Some(Self::Nowhere),
            ports => {
                let ports: Result<Arc<[u16]>, _> = ports.split('.').map(str::parse).collect();
                ports.ok().map(Self::At)
            }
        }
    }

    /// Whether that port is one of them.
    #[must_use]
    pub fn covers(&self, port: u16) -> bool {
        match self {
            Self::Nowhere => false,
            Self::Everywhere => true,
            Self::At(ports) => ports.contains(&port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::labels::Labels;

    #[test]
    fn a_pods_label_comes_before_its_namespaces() {
        let labels = |value: &str| Labels::from([(NO_REQUEST_METRICS.to_owned(), value.to_owned())]);
        let nothing = Labels::new();
        assert!(!Unwatched::of(&nothing, &nothing).covers(80));
        assert!(Unwatched::of(&labels("all"), &nothing).covers(80));
        assert!(!Unwatched::of(&labels("all"), &labels("none")).covers(80));
        let some = Unwatched::of(&nothing, &labels("5432.6379"));
        assert!(some.covers(6379) && !some.covers(80));
        assert_eq!(Unwatched::read("5432,6379"), None);
        assert_eq!(Unwatched::read("70000"), None);
    }
}
