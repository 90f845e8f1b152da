//! A Node.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Node as KubeNode;
use mesh_core::Locality;
use mesh_core::labels::Labels;
use mesh_core::locality::{REGION, SUBZONE, ZONE};

use crate::texts;

/// What Kubernetes called region and zone before 1.17.
const OLD_NAMES: [(&str, &str); 2] =
    [(REGION, "failure-domain.beta.kubernetes.io/region"), (ZONE, "failure-domain.beta.kubernetes.io/zone")];

/// What matters of a Node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Where it is.
    pub locality: Arc<Locality>,
}

impl Node {
    pub(crate) fn of(node: &KubeNode) -> Self {
        let labels = node.metadata.labels.as_ref();
        let part = |key: &str| texts::text(value(labels, key).unwrap_or_default());
        Self { locality: Arc::new(Locality { region: part(REGION), zone: part(ZONE), subzone: part(SUBZONE) }) }
    }
}

fn value<'a>(labels: Option<&'a Labels>, key: &str) -> Option<&'a str> {
    let labels = labels?;
    let old = || OLD_NAMES.iter().find(|(name, _)| *name == key).and_then(|(_, old)| labels.get(*old));
    labels.get(key).or_else(old).map(String::as_str)
}
