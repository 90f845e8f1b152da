//! RequestAuthentication of security.istio.io.

use std::sync::Arc;

use mesh_core::policy::{self, PolicyTarget, TargetedPolicy};
use serde::Deserialize;
use serde_json::Value;

use super::policy_target::{TargetRef, exclusive_targets};
use super::token_rule::{RawTokenRule, token_rule};
use super::{Age, Flaw, Remark, WorkloadSelector, decode, policy_name, selector};
use crate::code::Code;
use crate::finding::ObjectName;

/// A RequestAuthentication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestAuthentication {
    /// What is enforced.
    pub policy: Arc<policy::RequestAuthentication>,
    /// What it is attached to; nothing where it selects gateways' pods.
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
    /// The gateways' pods that it is for; without it, all of the namespace.
    selector: Option<WorkloadSelector>,
    /// The Gateway or Service that it is for.
    target_ref: Option<TargetRef>,
    /// The Gateways or Services that it is for.
    target_refs: Option<Vec<TargetRef>>,
    /// Whose tokens are believed: any of these.
    jwt_rules: Option<Vec<RawTokenRule>>,
}

impl RequestAuthentication {
    pub(crate) fn read(value: &Value, name: &ObjectName) -> Result<Self, Flaw> {
        let resource = decode::<Spec>(value)?;
        let age = Age::of(&resource.metadata);
        let spec = resource.spec.unwrap_or_default();
        let name = policy_name(name);
        let targets = exclusive_targets(spec.target_ref, spec.target_refs, spec.selector.is_some(), &name.namespace)?;
        let mut rules = Vec::new();
        for (index, raw) in spec.jwt_rules.unwrap_or_default().into_iter().enumerate() {
            rules.push(Arc::new(token_rule(raw, &format!("spec.jwtRules[{index}]"))?));
        }
        let mut remarks = Vec::new();
        if rules.is_empty() {
            let message = "without rules no token is looked for, and none is believed";
            remarks.push(Remark::new(Code::NeverMatches, "spec.jwtRules", message));
        }
        let selector = selector(spec.selector, "spec.selector")?;
        let policy = policy::RequestAuthentication { name, selector, rules };
        Ok(Self { policy: Arc::new(policy), targets, age, remarks })
    }

    /// The policy with what it is attached to, if it names anything.
    pub(crate) fn targeted(&self) -> Option<Arc<TargetedPolicy<policy::RequestAuthentication>>> {
        TargetedPolicy::of(&self.targets, &self.policy)
    }
}
