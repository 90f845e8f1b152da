//! What a policy for waypoints is attached to (`targetRefs`).

use std::sync::Arc;

use mesh_core::PolicyName;
use mesh_core::policy::PolicyTarget;
use serde::Deserialize;

use super::Flaw;

#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct TargetRef {
    /// API group of what it is attached to; empty for a Service.
    group: Option<String>,
    /// Gateway or Service.
    kind: String,
    /// Its name.
    name: String,
    /// Its namespace; the policy's own.
    namespace: Option<String>,
}

/// Reads the targets of a policy in `namespace`.
pub(super) fn targets(given: Vec<TargetRef>, namespace: &Arc<str>) -> Result<Vec<PolicyTarget>, Flaw> {
    let numbered = given.into_iter().enumerate();
    numbered.map(|(index, target)| target.read(&format!("spec.targetRefs[{index}]"), namespace)).collect()
}

/// The targets of a policy in `namespace`, in either way of writing them. It may not select workloads besides.
pub(super) fn exclusive_targets(
    one: Option<TargetRef>,
    listed: Option<Vec<TargetRef>>,
    selects: bool,
    namespace: &Arc<str>,
) -> Result<Vec<PolicyTarget>, Flaw> {
    let given: Vec<_> = one.into_iter().chain(listed.unwrap_or_default()).collect();
    if !given.is_empty() && selects {
        return Err(Flaw::value("spec.targetRefs", "a policy has a selector or targetRefs, not both"));
    }
    targets(given, namespace)
}

impl TargetRef {
    /// One in the policy's own namespace.
    pub(crate) const fn new(group: Option<String>, kind: String, name: String) -> Self {
        Self { group, kind, name, namespace: None }
    }

    pub(crate) fn read(self, field: &str, namespace: &Arc<str>) -> Result<PolicyTarget, Flaw> {
        if self.namespace.is_some_and(|other| *other != **namespace) {
            return Err(Flaw::value(format!("{field}.namespace"), "a policy's targets are in its own namespace"));
        }
        if self.name.is_empty() {
            return Err(Flaw::value(format!("{field}.name"), "it names nothing"));
        }
        let name: Arc<str> = self.name.into();
        let named = || Arc::new(PolicyName { namespace: Arc::clone(namespace), name: Arc::clone(&name) });
        match (self.group.as_deref().unwrap_or_default(), self.kind.as_str()) {
            ("gateway.networking.k8s.io", "Gateway") => Ok(PolicyTarget::Gateway(named())),
            ("gateway.networking.k8s.io", "GatewayClass") => Ok(PolicyTarget::GatewayClass(name)),
            ("" | "core", "Service") => Ok(PolicyTarget::Service(named())),
            ("networking.istio.io", "ServiceEntry") => Ok(PolicyTarget::ServiceEntry(named())),
            (group, kind) => {
                let message =
                    format!("{kind} of group {group:?} is neither Gateway, GatewayClass, Service nor ServiceEntry");
                Err(Flaw::value(format!("{field}.kind"), message))
            }
        }
    }
}
