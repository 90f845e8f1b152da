//! ReferenceGrant of gateway.networking.k8s.io: who may refer to what in its namespace.

use serde::Deserialize;
use serde_json::Value;

use crate::istio::{Flaw, decode};
use crate::object::ObjectSet;

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
    pub(crate) fn read(value: &Value) -> Result<Self, Flaw> {
        let Some(spec) = decode::<Spec>(value)?.spec else {
            return Err(Flaw::value("spec.from", "it grants nobody anything"));
        };
        Ok(Self { from: spec.from, to: spec.to })
    }

    /// Whether an object of a kind and namespace may refer to one of the core's of that kind and name in the grant's namespace.
    fn allows(&self, (kind, namespace): (&str, &str), (of_kind, named): (&str, &str)) -> bool {
        let from =
            |from: &From| from.group == "gateway.networking.k8s.io" && from.kind == kind && from.namespace == namespace;
        let to =
            |to: &To| to.group.is_empty() && to.kind == of_kind && to.name.as_ref().is_none_or(|name| name == named);
        self.from.iter().any(from) && self.to.iter().any(to)
    }
}

impl ObjectSet {
    /// Whether an object of a kind and namespace may refer to one of the core's of that kind and name in the namespace `at`: in its
    /// own to all, in another one to what is granted there.
    pub(crate) fn may_refer(&self, (kind, namespace): (&str, &str), at: &str, to: (&str, &str)) -> bool {
        let mut granted = self.reference_grants.iter().filter(|((place, _), _)| **place == *at);
        at == namespace || granted.any(|(_, grant)| grant.object.allows((kind, namespace), to))
    }
}
