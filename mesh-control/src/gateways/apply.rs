//! Writing objects of any kind, by server-side apply.

use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams};
use kube::{Client, ResourceExt as _};
use serde_json::Value;

use super::manifest::{MANAGED, MANAGED_BY_US};
use super::object::GatewayObject;

/// Who owns the fields that are written.
const MANAGER: &str = "mesh-control-gateways";
/// HTTP's "not found".
const NOT_FOUND: u16 = 404;

/// Why an object of a Gateway is not what it should be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApplyError {
    /// The API server did not take it. Worth a retry.
    #[error("{kind} {name}: {source}")]
    Refused {
        /// The object's kind.
        kind: String,
        /// Its name.
        name: String,
        /// What the API server said.
        source: Box<kube::Error>,
    },
    /// Somebody else's object has the name.
    #[error("there is a {kind} {name} that was not made for this Gateway: rename the Gateway, or delete it")]
    Taken {
        /// The object's kind.
        kind: String,
        /// Its name.
        name: String,
    },
}

/// The way to objects of a kind.
fn api(client: &Client, namespace: &str, api_version: &str, kind: &str) -> Api<DynamicObject> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    Api::namespaced_with(client.clone(), namespace, &resource)
}

/// Makes an object as it is written, unless its name is another's.
pub(crate) async fn apply(client: &Client, gateway: &GatewayObject, object: &Value) -> Result<(), ApplyError> {
    let text = |pointer| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let (kind, name) = (text("/kind"), text("/metadata/name"));
    let refused =
        |source| ApplyError::Refused { kind: kind.to_owned(), name: name.to_owned(), source: Box::new(source) };
    let api = api(client, text("/metadata/namespace"), text("/apiVersion"), kind);
    if let Some(there) = api.get_metadata_opt(name).await.map_err(refused)? {
        let is_its_own = there.owner_references().iter().any(|owner| Some(&owner.uid) == gateway.uid().as_ref());
        if !is_its_own {
            return Err(ApplyError::Taken { kind: kind.to_owned(), name: name.to_owned() });
        }
    }
    let parameters = PatchParams::apply(MANAGER).force();
    api.patch(name, &parameters, &Patch::Apply(object)).await.map(drop).map_err(refused)
}

/// Removes what was made for a Gateway and is not asked for any more.
pub(crate) async fn remove(
    client: &Client,
    gateway: &GatewayObject,
    (api_version, kind, name): (&str, &str, &str),
) -> Result<(), ApplyError> {
    let namespace = gateway.namespace().unwrap_or_default();
    let refused =
        |source| ApplyError::Refused { kind: kind.to_owned(), name: name.to_owned(), source: Box::new(source) };
    let api = api(client, &namespace, api_version, kind);
    let there = api.get_metadata_opt(name).await.map_err(refused)?;
    let is_ours = |labels: &std::collections::BTreeMap<String, String>| {
        labels.get(MANAGED).is_some_and(|value| value == MANAGED_BY_US)
    };
    if !there.is_some_and(|there| is_ours(there.labels())) {
        return Ok(());
    }
    match api.delete(name, &DeleteParams::default()).await {
        Err(kube::Error::Api(status)) if status.code == NOT_FOUND => Ok(()),
        other => other.map(drop).map_err(refused),
    }
}
