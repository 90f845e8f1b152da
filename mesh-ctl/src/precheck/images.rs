//! The images that would run, and whether nodes have them.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use mesh_admin::{Found, Requirement};
use serde_json::Value;

use super::nodes::listed;
use super::requirement;
use crate::cluster::Cluster;

const NAME: &str = "images";

/// Whether nodes have the daemon's image, or how they would come by it.
pub(super) async fn look(cluster: &Cluster, wanted: &[Value]) -> anyhow::Result<Requirement> {
    let Some((image, policy, has_secrets)) = daemons_image(wanted) else {
        return Ok(requirement(NAME, Found::Warning, "not known without Helm"));
    };
    let api: Api<Node> = Api::all(cluster.client.clone());
    let nodes = cluster.within("nodes", api.list(&ListParams::default())).await?.items;
    let without: Vec<String> = nodes.iter().filter(|node| !has(node, &image)).map(ResourceExt::name_any).collect();
    let failures = failures(cluster).await?;
    if let Some(failure) = failures.first() {
        let remedy = "push the images to a registry that nodes reach, and name it with --set image.registry=...; \
                      image.pullSecrets has its credentials";
        return Ok(requirement(NAME, Found::Missing, format!("{failure}; {remedy}")));
    }
    Ok(match (&without[..], &*policy) {
        ([], _) => requirement(NAME, Found::Ok, format!("{image} is on every node")),
        (without, "Never") => {
            let remedy = "image.pullPolicy=Never forbids to pull it: load it there, or say IfNotPresent";
            requirement(NAME, Found::Missing, format!("{image} is not on {}; {remedy}", listed(without)))
        }
        (without, _) => {
            let secrets = if has_secrets { "with image.pullSecrets" } else { "without credentials" };
            let what =
                format!("{image} is not on {}, as far as kubelet tells; it is pulled {secrets}", listed(without));
            requirement(NAME, Found::Warning, format!("{what}: is its registry reached from there?"))
        }
    })
}

/// The image, the policy of pulling it, and whether Secrets are named for that.
fn daemons_image(wanted: &[Value]) -> Option<(String, String, bool)> {
    let daemons = wanted.iter().find(|object| object["kind"] == "DaemonSet")?;
    let pod = daemons.pointer("/spec/template/spec")?;
    let container = pod.pointer("/containers/0")?;
    let text = |field: &str| container[field].as_str().map(str::to_owned);
    let has_secrets = pod["imagePullSecrets"].as_array().is_some_and(|secrets| !secrets.is_empty());
    Some((text("image")?, text("imagePullPolicy").unwrap_or_default(), has_secrets))
}

/// Kubelet tells of its largest images, and may leave a small one out.
fn has(node: &Node, image: &str) -> bool {
    let images = node.status.as_ref().and_then(|status| status.images.as_ref());
    let mut names = images.into_iter().flatten().flat_map(|known| known.names.iter().flatten());
    names.any(|name| name == image)
}

/// Of pods of the mesh that are there: images that could not be pulled, each once.
async fn failures(cluster: &Cluster) -> anyhow::Result<Vec<String>> {
    let pods = cluster.objects(&crate::cluster::kind("", "v1", "Pod"), Some(&cluster.mesh_namespace));
    let ours = ListParams::default().labels("app.kubernetes.io/part-of=mesh");
    let list = cluster.within("the mesh's pods", pods.list(&ours)).await?;
    let mut failed: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for pod in list.items {
        let statuses = pod.data.pointer("/status/containerStatuses").and_then(Value::as_array).cloned();
        for status in statuses.into_iter().flatten() {
            let waiting = &status["state"]["waiting"];
            if ["ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull"]
                .iter()
                .any(|reason| waiting["reason"] == *reason)
            {
                let node = pod.data.pointer("/spec/nodeName").and_then(Value::as_str).unwrap_or("a node");
                failed
                    .entry(status["image"].as_str().unwrap_or_default().to_owned())
                    .or_default()
                    .insert(node.to_owned());
            }
        }
    }
    let told = failed.into_iter().map(|(image, nodes)| {
        format!("{image} cannot be pulled on {}", listed(&nodes.into_iter().collect::<Vec<_>>()))
    });
    Ok(told.collect())
}
