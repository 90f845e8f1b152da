//! AuthorizationPolicy of security.istio.io.

use std::sync::Arc;

use mesh_core::policy::{self, Action};
use serde::Deserialize;
use serde_json::Value;

use super::rule::{RawRule, rule};
use super::{Age, Flaw, Remark, WorkloadSelector, decode, policy_name, selector};
use crate::code::Code;
use crate::finding::ObjectName;

const DRY_RUN: &str = "istio.io/dry-run";

/// An AuthorizationPolicy as far as connections are concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorizationPolicy {
    /// What is enforced; nothing where the policy is for waypoints (`targetRefs`).
    pub policy: Option<Arc<policy::AuthorizationPolicy>>,
    /// When it was made.
    pub age: Age,
    /// What is worth a finding.
    pub remarks: Vec<Remark>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Spec {
    selector: Option<WorkloadSelector>,
    target_ref: Option<Value>,
    target_refs: Option<Vec<Value>>,
    action: Option<RawAction>,
    provider: Option<Provider>,
    rules: Option<Vec<RawRule>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
enum RawAction {
    #[serde(rename = "ALLOW")]
    Allow,
    #[serde(rename = "DENY")]
    Deny,
    #[serde(rename = "AUDIT")]
    Audit,
    #[serde(rename = "CUSTOM")]
    Custom,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Provider {
    name: Option<String>,
}

impl AuthorizationPolicy {
    pub(crate) fn read(value: Value, name: &ObjectName) -> Result<Self, Flaw> {
        let resource = decode::<Spec>(value)?;
        let age = Age::of(&resource.metadata);
        let annotations = resource.metadata.annotations.unwrap_or_default();
        let mut spec = resource.spec.unwrap_or_default();
        let mut remarks = Vec::new();
        let targets = targets(&spec)?;
        let action = action(&spec, &mut remarks)?;
        let name = policy_name(name);
        let mut rules = Vec::new();
        for (index, raw) in spec.rules.take().unwrap_or_default().into_iter().enumerate() {
            rules.push(rule(raw, &format!("spec.rules[{index}]"), &name.namespace, action, &mut remarks)?);
        }
        if rules.is_empty() && action != Action::Allow {
            let message = format!("a policy that is to {} and has no rules matches nothing", action.as_str());
            remarks.push(Remark::new(Code::NeverMatches, "spec.rules", message));
        }
        let selector = selector(spec.selector, "spec.selector")?;
        let dry_run = dry_run(annotations.get(DRY_RUN).map(String::as_str))?;
        let policy = policy::AuthorizationPolicy { name, selector, action, dry_run, rules };
        if targets {
            let message = "it is for waypoints; connections are not judged by it";
            remarks = vec![Remark::new(Code::PolicyForWaypoint, "spec.targetRefs", message)];
            return Ok(Self { policy: None, age, remarks });
        }
        Ok(Self { policy: Some(Arc::new(policy)), age, remarks })
    }
}

/// Whether the policy is for waypoints.
fn targets(spec: &Spec) -> Result<bool, Flaw> {
    let listed = spec.target_refs.as_ref().is_some_and(|list| !list.is_empty());
    let targets = spec.target_ref.is_some() || listed;
    if targets && spec.selector.is_some() {
        return Err(Flaw::value("spec.targetRefs", "a policy has a selector or targetRefs, not both"));
    }
    Ok(targets)
}

fn action(spec: &Spec, remarks: &mut Vec<Remark>) -> Result<Action, Flaw> {
    let provider = spec.provider.as_ref();
    let action = match spec.action {
        None | Some(RawAction::Allow) => Action::Allow,
        Some(RawAction::Deny) => Action::Deny,
        Some(RawAction::Audit) => Action::Audit,
        Some(RawAction::Custom) => Action::Custom,
    };
    match (action, provider) {
        (Action::Custom, provider) => {
            let named = provider.and_then(|provider| provider.name.as_deref()).unwrap_or_default();
            let message =
                format!("provider {named:?} cannot be asked about a connection: what a rule matches is refused");
            remarks.push(Remark::new(Code::NoAuthorizer, "spec.provider", message));
        }
        (_, Some(_)) => return Err(Flaw::value("spec.provider", "only action CUSTOM has a provider")),
        (_, None) => {}
    }
    Ok(action)
}

/// As Go's `strconv.ParseBool`, which Istio reads it with.
fn dry_run(annotation: Option<&str>) -> Result<bool, Flaw> {
    match annotation {
        Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
        None | Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
        Some(other) => {
            let message = format!("{other:?} is neither true nor false");
            Err(Flaw::value(format!("metadata.annotations[{DRY_RUN:?}]"), message))
        }
    }
}
