//! ListenerSet of gateway.networking.k8s.io (GEP-1713): listeners of a Gateway that others than its owner write.

use std::sync::Arc;

use mesh_core::PolicyName;
use serde::Deserialize;
use serde_json::Value;

use super::listener::{Listener, RawListener};
use crate::finding::ObjectName;
use crate::istio::{Age, Flaw, Remark, decode, policy_name};
use crate::object::Key;

/// Listeners of one set; the API itself allows 64.
const MAX_LISTENERS: usize = 64;

/// A ListenerSet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerSet {
    /// Its namespace and name.
    pub name: Arc<PolicyName>,
    /// The Gateway that is to open its listeners.
    pub gateway: Key,
    /// Its listeners.
    pub listeners: Vec<Listener>,
    /// When it was made.
    pub age: Age,
    /// Which version of it this is, as the API server counts.
    pub generation: Option<i64>,
    /// What is worth a finding.
    pub remarks: Vec<Remark>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Spec {
    parent_ref: RawParent,
    listeners: Vec<RawListener>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawParent {
    group: Option<String>,
    kind: Option<String>,
    name: String,
    namespace: Option<String>,
}

impl ListenerSet {
    pub(crate) fn read(value: &Value, name: &ObjectName) -> Result<Self, Flaw> {
        let resource = decode::<Spec>(value)?;
        let (age, generation) = (Age::of(&resource.metadata), resource.metadata.generation);
        let Some(Spec { parent_ref, listeners: written }) = resource.spec else {
            return Err(Flaw::value("spec.parentRef", "the ListenerSet is no Gateway's"));
        };
        let name = policy_name(name);
        let RawParent { group, kind, name: gateway, namespace } = parent_ref;
        let group = group.unwrap_or_else(|| "gateway.networking.k8s.io".to_owned());
        let kind = kind.unwrap_or_else(|| "Gateway".to_owned());
        if group != "gateway.networking.k8s.io" || kind != "Gateway" {
            return Err(Flaw::value("spec.parentRef.kind", format!("{kind} of {group:?} is no Gateway")));
        }
        if written.is_empty() || written.len() > MAX_LISTENERS {
            let message = format!("{} listeners: it takes 1 to {MAX_LISTENERS}", written.len());
            return Err(Flaw::value("spec.listeners", message));
        }
        let namespace = namespace.map_or_else(|| Arc::clone(&name.namespace), Arc::from);
        let mut remarks = Vec::new();
        let read = |(index, raw): (usize, RawListener)| {
            raw.read(&format!("spec.listeners[{index}]"), &name.namespace, &mut remarks)
        };
        let listeners = written.into_iter().enumerate().map(read).collect();
        Ok(Self { gateway: (namespace, gateway.into()), listeners, age, generation, remarks, name })
    }
}
