//! ReferenceGrant of gateway.networking.k8s.io: who may refer to what in its namespace.

use serde::Deserialize;
use serde_json::Value;

use crate::istio::{Flaw, decode};

/// A ReferenceGrant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReferenceGrant {
    from: Vec<From>,
    to: Vec<To>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Spec {
    from: Vec<From>,
    to: Vec<To>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct From {
    group: String,
    kind: String,
    namespace: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct To {
    group: String,
    kind: String,
    name: Option<String>,
}

impl ReferenceGrant {
    pub(crate) fn read(value: Value) -> Result<Self, Flaw> {
        let Some(spec) = decode::<Spec>(value)?.spec else {
            return Err(Flaw::value("spec.from", "it grants nobody anything"));
        };
        Ok(Self { from: spec.from, to: spec.to })
    }

    /// Whether a route of that kind and namespace may send requests to a Service of the grant's namespace.
    pub(crate) fn allows(&self, kind: &str, namespace: &str, service: &str) -> bool {
        self.allows_kind((kind, namespace), ("Service", service))
    }

    /// Whether an object of a kind and namespace may refer to one of the core's of that kind and name in the grant's namespace.
    pub(crate) fn allows_kind(&self, (kind, namespace): (&str, &str), (of_kind, named): (&str, &str)) -> bool {
        let from =
            |from: &From| from.group == "gateway.networking.k8s.io" && from.kind == kind && from.namespace == namespace;
        let to =
            |to: &To| to.group.is_empty() && to.kind == of_kind && to.name.as_ref().is_none_or(|name| name == named);
        self.from.iter().any(from) && self.to.iter().any(to)
    }
}
