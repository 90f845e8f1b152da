//! Which CUSTOM policies have nobody to ask.

use mesh_core::Providers;
use mesh_core::policy::Action;

use super::selected::Selected;
use crate::code::Code;
use crate::finding::Finding;

/// Says where an authorizer is missing, or nobody is there to ask it.
pub(super) fn report_missing(selected: &Selected<'_>, providers: &Providers, findings: &mut Vec<Finding>) {
    for located in selected.objects.authorization_policies.values() {
        let policy = &*located.object.policy;
        if policy.action != Action::Custom {
            continue;
        }
        let message = match &policy.provider {
            None => "no provider is named: what a rule matches is refused".to_owned(),
            Some(name) if providers.authorizer(name).is_none() => {
                format!("the mesh configuration has no authorizer {name:?}: what a rule matches is refused")
            }
            Some(name) if located.object.targets.is_empty() && !selected.is_by_gateways(policy) => {
                format!("nodes see connections and ask {name:?} about none: they refuse what a rule matches")
            }
            Some(_) => continue,
        };
        findings.push(Finding::new(Code::NoAuthorizer, (*located.origin).clone(), message).at("spec.provider"));
    }
}
