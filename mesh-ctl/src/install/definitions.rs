//! The definitions of the kinds that the mesh reads. Helm installs such once and never again; here they are brought to this version.

use kube::api::ApiResource;
use serde_json::Value;

use super::chart;
use crate::cluster::{Cluster, kind};

/// The label of those that came with the mesh, as all that is its own has it.
pub(super) const OURS: &str = "app.kubernetes.io/part-of=mesh";
const PART_OF: (&str, &str) = ("app.kubernetes.io/part-of", "mesh");

/// CustomResourceDefinitions.
pub(super) fn resource() -> ApiResource {
    kind("apiextensions.k8s.io", "v1", "CustomResourceDefinition")
}

/// As manifests.
pub(super) fn rendered() -> anyhow::Result<String> {
    let mut text = String::new();
    for definition in chart::definitions()? {
        text += &format!("---\n{}", serde_saphyr::to_string(&definition)?);
    }
    Ok(text)
}

/// Applies them. Those that are not the mesh's, such as Istio's own, stay as they are, which is what is returned.
pub(super) async fn apply(cluster: &Cluster) -> anyhow::Result<Vec<String>> {
    let resource = resource();
    let mut told = Vec::new();
    for definition in chart::definitions()? {
        let name = definition.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
        let there = cluster.find(&resource, None, name).await?;
        let is_foreign = there.is_some_and(|there| {
            let label = there.metadata.labels.as_ref().and_then(|labels| labels.get(PART_OF.0));
            label.map(String::as_str) != Some(PART_OF.1)
        });
        if is_foreign {
            told.push(format!("the cluster's own definition of {name} stays: it did not come with this mesh"));
        } else {
            cluster.apply(&resource, None, name, &definition).await?;
        }
    }
    Ok(told)
}
