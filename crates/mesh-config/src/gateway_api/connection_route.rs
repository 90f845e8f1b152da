//! TLSRoute and TCPRoute of gateway.networking.k8s.io: where connections go.

use std::sync::Arc;

use mesh_core::PolicyName;
use mesh_core::l7::{Backend, RuleRef};
use serde::Deserialize;
use serde_json::Value;

use super::reference::{BackendRef, Parent, RawBackendRef, RawParentRef};
use super::route::{hostnames, no_default_gateways};
use crate::code::Code;
use crate::finding::ObjectName;
use crate::istio::{Age, Flaw, Remark, decode, policy_name};

/// A TLSRoute or a TCPRoute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionRoute {
    /// Its kind, name and place.
    pub at: RuleRef,
    /// Its namespace and name.
    pub name: Arc<PolicyName>,
    /// What it attaches itself to.
    pub parents: Vec<Parent>,
    /// The servers' names that it is for; all where it names none.
    pub hostnames: Vec<String>,
    /// Where connections go, with what each is to be made of.
    pub backends: Vec<(BackendRef, Backend)>,
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
    #[serde(default)]
    parent_refs: Vec<RawParentRef>,
    hostnames: Option<Vec<String>>,
    #[serde(default)]
    rules: Vec<RawRule>,
    use_default_gateways: Option<Value>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawRule {
    name: Option<String>,
    #[serde(default)]
    backend_refs: Vec<RawBackendRef>,
}

/// Reads an object of that kind, which is one of the two.
pub(crate) fn read(kind: &'static str, value: Value, name: &ObjectName) -> Result<ConnectionRoute, Flaw> {
    let resource = decode::<Spec>(value)?;
    let (age, generation) = (Age::of(&resource.metadata), resource.metadata.generation);
    let name = policy_name(name);
    let Some(spec) = resource.spec else {
        return Err(Flaw::value("spec.parentRefs", "the route attaches itself to nothing"));
    };
    let mut remarks: Vec<_> = no_default_gateways(spec.use_default_gateways.as_ref()).into_iter().collect();
    if spec.hostnames.is_some() && kind == "TCPRoute" {
        return Err(Flaw::value("spec.hostnames", "a connection without TLS names no host"));
    }
    let mut rules = spec.rules.into_iter();
    let rule = rules.next();
    if rules.next().is_some() {
        let message = "a connection has nothing by which a second rule could be told from the first";
        remarks.push(Remark::new(Code::FieldNotHonoured, "spec.rules[1]", message));
    }
    let at = RuleRef {
        kind,
        namespace: Arc::clone(&name.namespace),
        object: Arc::clone(&name.name),
        index: 0,
        name: rule.as_ref().and_then(|rule| rule.name.as_deref().map(Into::into)),
    };
    let mut backends = Vec::new();
    for (index, raw) in rule.into_iter().flat_map(|rule| rule.backend_refs).enumerate() {
        let field = format!("spec.rules[0].backendRefs[{index}]");
        if raw.has_filters() {
            let message = "connections have nothing that a filter could change";
            remarks.push(Remark::new(Code::WithoutEffect, format!("{field}.filters"), message));
        }
        backends.push(raw.read(&name.namespace, &field, &mut Vec::new())?);
    }
    if backends.iter().all(|(_, backend)| backend.weight == 0) {
        let message = if backends.is_empty() { "there is none" } else { "the weight of each is 0" };
        remarks.push(Remark::new(Code::NoWeight, "spec.rules[0].backendRefs", message));
    }
    let parents = spec.parent_refs.into_iter().map(|parent| parent.read(&name.namespace)).collect();
    Ok(ConnectionRoute { at, name, parents, hostnames: hostnames(spec.hostnames)?, backends, age, generation, remarks })
}
