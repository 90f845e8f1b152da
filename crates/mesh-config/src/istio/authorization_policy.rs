//! AuthorizationPolicy of security.istio.io.

use std::sync::Arc;

use mesh_core::policy::{self, Action, PolicyTarget, TargetedPolicy};
use serde::Deserialize;
use serde_json::Value;

use super::policy_target::{TargetRef, exclusive_targets};
use super::rule::{RawRule, rule};
use super::{Age, Flaw, Remark, WorkloadSelector, decode, policy_name, selector};
use crate::code::Code;
use crate::finding::ObjectName;

const DRY_RUN: &str = "istio.io/dry-run";

/// An AuthorizationPolicy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorizationPolicy {
    /// The policy.
    pub policy: Arc<policy::AuthorizationPolicy>,
    /// The targets of a policy for waypoints; none for one that connections are judged by.
    pub targets: Vec<PolicyTarget>,
    /// When it was made.
    pub age: Age,
    /// What is worth a finding.
    pub remarks: Vec<Remark>,
}

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Spec {
    /// The workloads that it is for; without it, all of the namespace.
    selector: Option<WorkloadSelector>,
    /// The Gateway or Service that it is attached to, in a waypoint.
    target_ref: Option<TargetRef>,
    /// The Gateways or Services that it is attached to, in a waypoint.
    target_refs: Option<Vec<TargetRef>>,
    /// What becomes of what a rule matches; ALLOW where nothing is said.
    action: Option<RawAction>,
    /// Who is asked where the action is CUSTOM.
    provider: Option<Provider>,
    /// What it is about: whatever one of them matches. With none, nothing.
    rules: Option<Vec<RawRule>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct Provider {
    /// Name of an extension provider of the mesh's configuration.
    name: Option<String>,
}

impl AuthorizationPolicy {
    pub(crate) fn read(value: &Value, name: &ObjectName) -> Result<Self, Flaw> {
        let resource = decode::<Spec>(value)?;
        let age = Age::of(&resource.metadata);
        let annotations = resource.metadata.annotations.unwrap_or_default();
        let mut spec = resource.spec.unwrap_or_default();
        let mut remarks = Vec::new();
        let name = policy_name(name);
        let (target, listed) = (spec.target_ref.take(), spec.target_refs.take());
        let targets = exclusive_targets(target, listed, spec.selector.is_some(), &name.namespace)?;
        let action = action(&spec)?;
        let provider = spec.provider.take().and_then(|provider| provider.name).filter(|name| !name.is_empty());
        let provider = provider.map(Into::into);
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
        let policy = policy::AuthorizationPolicy { name, selector, action, provider, dry_run, rules };
        if !targets.is_empty() {
            remarks.retain(|remark| remark.code != Code::FieldNeedsRequest);
        }
        Ok(Self { policy: Arc::new(policy), targets, age, remarks })
    }

    /// The policy with what it is attached to, if it is for waypoints.
    pub(crate) fn targeted(&self) -> Option<Arc<TargetedPolicy>> {
        TargetedPolicy::of(&self.targets, &self.policy)
    }
}

fn action(spec: &Spec) -> Result<Action, Flaw> {
    let action = match spec.action {
        None | Some(RawAction::Allow) => Action::Allow,
        Some(RawAction::Deny) => Action::Deny,
        Some(RawAction::Audit) => Action::Audit,
        Some(RawAction::Custom) => Action::Custom,
    };
    match spec.provider {
        Some(_) if action != Action::Custom => Err(Flaw::value("spec.provider", "only action CUSTOM has a provider")),
        _ => Ok(action),
    }
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
