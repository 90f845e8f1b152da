//! Which CUSTOM policies have nobody to ask.

use mesh_core::Providers;
use mesh_core::l7::GATEWAY_NAME;
use mesh_core::policy::{Action, AuthorizationPolicy};

use crate::code::Code;
use crate::finding::Finding;
use crate::gateway_api::Role;
use crate::object::ObjectSet;

/// Says where an authorizer is missing, or nobody is there to ask it.
pub(super) fn report_missing(objects: &ObjectSet, providers: &Providers, findings: &mut Vec<Finding>) {
    for located in objects.authorization_policies.values() {
        let policy = &*located.object.policy;
        if policy.action != Action::Custom {
            continue;
        }
        let message = match &policy.provider {
            None => "no provider is named: what a rule matches is refused".to_owned(),
            Some(name) if providers.authorizer(name).is_none() => {
                format!("the mesh configuration has no authorizer {name:?}: what a rule matches is refused")
            }
            Some(name) if located.object.targets.is_empty() && !is_for_gateways(policy, objects) => {
                format!("nodes see connections and ask {name:?} about none: they refuse what a rule matches")
            }
            Some(_) => continue,
        };
        findings.push(Finding::new(Code::NoAuthorizer, (*located.origin).clone(), message).at("spec.provider"));
    }
}

/// Whether its selector picks pods of gateways and no others.
fn is_for_gateways(policy: &AuthorizationPolicy, objects: &ObjectSet) -> bool {
    let Some(selector) = &policy.selector else { return false };
    let selects = |key: &str, value: &str| selector.labels().iter().any(|(k, v)| **k == *key && **v == *value);
    let by_labels = objects.istio_gateways.values().any(|located| {
        let pods = located.object.selector.as_ref();
        pods.is_some_and(|pods| pods.labels().iter().all(|(key, value)| selects(key, value)))
    });
    let is_ingress = |role: &Role| matches!(role, Role::Ingress(_));
    by_labels
        || objects.gateways.iter().any(|((namespace, name), located)| {
            *namespace == policy.name.namespace && is_ingress(&located.object.role) && selects(GATEWAY_NAME, name)
        })
}
