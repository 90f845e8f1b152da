//! The Gateway API's definitions, by which waypoints, gateways and routes are asked for.

use kube::ResourceExt as _;
use kube::api::{DynamicObject, ListParams};
use mesh_admin::{Found, Requirement};
use serde_json::Value;

use super::requirement;
use crate::cluster::{Cluster, kind};

const NAME: &str = "Gateway API";
const GROUP: &str = ".gateway.networking.k8s.io";
/// The kinds that are read, each in the version that is asked for first.
const KINDS: [(&str, &str); 9] = [
    ("gatewayclasses", "v1"),
    ("gateways", "v1"),
    ("httproutes", "v1"),
    ("grpcroutes", "v1"),
    ("referencegrants", "v1beta1"),
    ("backendtlspolicies", "v1"),
    ("tlsroutes", "v1"),
    ("tcproutes", "v1"),
    ("listenersets", "v1"),
];
/// Without these there is neither waypoint nor gateway.
const NEEDED: usize = 3;

/// Which release is installed, and what it lacks.
pub(super) async fn look(cluster: &Cluster) -> anyhow::Result<Requirement> {
    let kinds = kind("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    let list = cluster.list(&kinds, None, &ListParams::default()).await?;
    let there: Vec<DynamicObject> = list.into_iter().flat_map(|list| list.items).collect();
    Ok(judge(&there))
}

fn judge(there: &[DynamicObject]) -> Requirement {
    let remedy = "install the definitions of its standard channel (https://gateway-api.sigs.k8s.io, `kubectl apply --server-side`)";
    let find = |plural: &str| there.iter().find(|it| it.name_any().strip_suffix(GROUP) == Some(plural));
    let missing: Vec<&str> = KINDS
        .iter()
        .filter(|(plural, version)| !find(plural).is_some_and(|it| serves(it, version)))
        .map(|it| it.0)
        .collect();
    if KINDS[..NEEDED].iter().any(|(plural, _)| missing.contains(plural)) {
        let detail = format!("not installed: waypoints and gateways cannot be asked for; {remedy}");
        return requirement(NAME, Found::Warning, detail);
    }
    let annotation = |name: &str| {
        let found = find("gateways").and_then(|it| it.annotations().get(&format!("gateway.networking.k8s.io/{name}")));
        found.cloned().unwrap_or_else(|| "unknown".to_owned())
    };
    let release = format!("{}, {} channel", annotation("bundle-version"), annotation("channel"));
    match missing.is_empty() {
        true => requirement(NAME, Found::Ok, release),
        false => {
            let detail =
                format!("{release}; without {}: objects of these kinds are not served; {remedy}", missing.join(", "));
            requirement(NAME, Found::Warning, detail)
        }
    }
}

fn serves(definition: &DynamicObject, version: &str) -> bool {
    let versions = definition.data.pointer("/spec/versions").and_then(Value::as_array);
    versions.into_iter().flatten().any(|it| it["name"] == version && it["served"] == true)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn definitions(kinds: &[(&str, &str)]) -> Vec<DynamicObject> {
        let made = kinds.iter().map(|(plural, version)| {
            let annotations = json!({"gateway.networking.k8s.io/bundle-version": "v1.6.3", "gateway.networking.k8s.io/channel": "standard"});
            let versions = json!([{"name": version, "served": true}]);
            let metadata = json!({"name": format!("{plural}{GROUP}"), "annotations": annotations});
            serde_json::from_value(json!({"metadata": metadata, "spec": {"versions": versions}})).unwrap()
        });
        made.collect()
    }

    #[test]
    fn what_is_missing_is_named() {
        let all = judge(&definitions(&KINDS));
        assert_eq!((all.state, &*all.detail), (Found::Ok, "v1.6.3, standard channel"));
        let few = judge(&definitions(&KINDS[..5]));
        assert!(few.state == Found::Warning && few.detail.contains("backendtlspolicies, tlsroutes"), "{few:?}");
        assert!(judge(&[]).detail.starts_with("not installed"));
    }
}
