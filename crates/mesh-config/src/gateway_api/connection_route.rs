//! TLSRoute and TCPRoute of gateway.networking.k8s.io: where connections go.

use std::sync::Arc;

use mesh_core::PolicyName;
use mesh_core::l7::{Backend, RuleRef};
use serde::Deserialize;
use serde_json::Value;

use super::reference::{BackendRef, Parent, RawBackendRef};
use super::route::{RawRule, Unread};
use crate::code::Code;
use crate::finding::ObjectName;
use crate::istio::{Age, Flaw, Remark};

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
struct ConnectionRouteRule {
    name: Option<String>,
    #[serde(default)]
    backend_refs: Vec<RawBackendRef>,
}

impl RawRule for ConnectionRouteRule {}

/// Reads an object of that kind, which is one of the two.
pub(crate) fn read(kind: &'static str, value: &Value, name: &ObjectName) -> Result<ConnectionRoute, Flaw> {
    let Unread { name, parents, hostnames, rules, age, generation, mut remarks } =
        Unread::<ConnectionRouteRule>::of(value, name)?;
    if !hostnames.is_empty() && kind == "TCPRoute" {
        return Err(Flaw::value("spec.hostnames", "a connection without TLS names no host"));
    }
    let mut rules = rules.into_iter();
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
    Ok(ConnectionRoute { at, name, parents, hostnames, backends, age, generation, remarks })
}
