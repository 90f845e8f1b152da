//! What is left of the mesh where its release is gone: what mesh-control made, and the taint of nodes.

use kube::ResourceExt;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::definitions;
use crate::cluster::{Cluster, kind, namespaces};

/// The controller of the classes that mesh-control makes.
const CONTROLLER: &str = "mesh.dev/gateway-controller";
/// The label of what mesh-control runs for Gateways.
const FOR_GATEWAYS: &str = "gateway.istio.io/managed=mesh.dev-gateway-controller";
/// The taint of nodes whose daemon is not ready.
const TAINT: &str = "mesh.dev/agent-not-ready";
/// What mesh-control has in its own namespace.
const OWN: [(&str, &str, &str, &str); 2] =
    [("coordination.k8s.io", "v1", "Lease", "mesh-control"), ("", "v1", "ConfigMap", "mesh-ca-root")];
/// The kinds that are made for Gateways.
const RUN: [(&str, &str, &str); 8] = [
    ("apps", "v1", "Deployment"),
    ("autoscaling", "v2", "HorizontalPodAutoscaler"),
    ("policy", "v1", "PodDisruptionBudget"),
    ("", "v1", "Service"),
    ("", "v1", "ConfigMap"),
    ("", "v1", "ServiceAccount"),
    ("rbac.authorization.k8s.io", "v1", "RoleBinding"),
    ("rbac.authorization.k8s.io", "v1", "Role"),
];
/// What Kubernetes itself puts into every namespace.
const OF_EVERY_NAMESPACE: [&str; 2] = ["kube-root-ca.crt", "default"];

/// One thing that is left.
#[derive(Debug, Clone)]
pub(super) struct Remnant {
    what: What,
    /// For people.
    pub(super) name: String,
}

#[derive(Debug, Clone)]
enum What {
    Object {
        kind: ApiResource,
        namespace: Option<String>,
        name: String,
    },
    /// The taint of a node.
    Taint {
        node: String,
    },
}

impl Remnant {
    fn object(kind: &ApiResource, object: &DynamicObject) -> Self {
        let (namespace, name) = (object.namespace(), object.name_any());
        let place = namespace.as_ref().map_or_else(String::new, |namespace| format!("{namespace}/"));
        let shown = format!("{} {place}{name}", kind.kind);
        Self { what: What::Object { kind: kind.clone(), namespace, name }, name: shown }
    }

    fn taint(node: &DynamicObject) -> Option<Self> {
        other_taints(node)?;
        let node = node.name_any();
        let name = format!("taint {TAINT} of node {node}");
        Some(Self { what: What::Taint { node }, name })
    }

    /// Takes it away; where it is gone already, nothing.
    pub(super) async fn remove(&self, cluster: &Cluster) -> anyhow::Result<()> {
        match &self.what {
            What::Object { kind, namespace, name } => {
                let api = cluster.objects(kind, namespace.as_deref());
                let gone = async {
                    match api.delete(name, &DeleteParams::background()).await {
                        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
                        done => done.map(drop),
                    }
                };
                cluster.within(&self.name, gone).await
            }
            What::Taint { node } => {
                let nodes = cluster.objects(&kind("", "v1", "Node"), None);
                cluster.within(&self.name, untaint(&nodes, node)).await
            }
        }
    }
}

/// The taints that a node has beside the mesh's; none where it does not have that one.
fn other_taints(node: &DynamicObject) -> Option<Vec<Value>> {
    let taints = node.data.pointer("/spec/taints")?.as_array()?;
    let others: Vec<Value> = taints.iter().filter(|taint| taint["key"] != TAINT).cloned().collect();
    (others.len() < taints.len()).then_some(others)
}

/// Takes the mesh's taint off a node, by the version of it that is there; whoever else writes to it meanwhile has gone on, so that
/// it is tried again.
async fn untaint(nodes: &Api<DynamicObject>, name: &str) -> Result<(), kube::Error> {
    loop {
        let Some(node) = nodes.get_opt(name).await? else { return Ok(()) };
        let Some(others) = other_taints(&node) else { return Ok(()) };
        // The list is one value: what others wrote meanwhile must not be lost.
        let patch = json!({"metadata": {"resourceVersion": node.resource_version()}, "spec": {"taints": others}});
        match nodes.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await {
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            done => return done.map(drop),
        }
    }
}

/// What mesh-control made for others and for itself, and the taint; of what a person wrote nothing.
pub(super) async fn of_control(cluster: &Cluster) -> anyhow::Result<Vec<Remnant>> {
    let mut found = Vec::new();
    let run = ListParams::default().labels(FOR_GATEWAYS);
    for (group, version, name) in RUN {
        let kind = kind(group, version, name);
        let list = cluster.list(&kind, None, &run).await?;
        found.extend(list.iter().flat_map(|list| &list.items).map(|object| Remnant::object(&kind, object)));
    }
    let classes = kind("gateway.networking.k8s.io", "v1", "GatewayClass");
    let list = cluster.list(&classes, None, &ListParams::default()).await?;
    let ours = |class: &&DynamicObject| {
        class.data.pointer("/spec/controllerName").and_then(Value::as_str) == Some(CONTROLLER)
            && ["mesh", "mesh-waypoint"].contains(&&*class.name_any())
    };
    found.extend(list.iter().flat_map(|list| &list.items).filter(ours).map(|class| Remnant::object(&classes, class)));
    for (group, version, name, object) in OWN {
        let kind = kind(group, version, name);
        let there = cluster.find(&kind, Some(&cluster.mesh_namespace), object).await?;
        found.extend(there.map(|there| Remnant::object(&kind, &there)));
    }
    let nodes = cluster.list(&kind("", "v1", "Node"), None, &ListParams::default()).await?;
    found.extend(nodes.iter().flat_map(|list| &list.items).filter_map(Remnant::taint));
    Ok(found)
}

/// What outlives a release on purpose: the authority, unless a person gave it, and the definitions of the mesh's kinds, with all
/// objects of them.
pub(super) async fn kept(cluster: &Cluster, authority: &str) -> anyhow::Result<Vec<Remnant>> {
    let mut found = Vec::new();
    let secrets = kind("", "v1", "Secret");
    let secret = cluster.find(&secrets, Some(&cluster.mesh_namespace), authority).await?;
    let made = |secret: &DynamicObject| {
        secret.labels().get("app.kubernetes.io/managed-by").map(String::as_str) == Some("mesh-control")
    };
    found.extend(secret.filter(made).map(|secret| Remnant::object(&secrets, &secret)));
    let kinds = definitions::resource();
    let ours = ListParams::default().labels(definitions::OURS);
    let list = cluster.list(&kinds, None, &ours).await?;
    found.extend(list.iter().flat_map(|list| &list.items).map(|definition| Remnant::object(&kinds, definition)));
    Ok(found)
}

/// The mesh's namespace, where nothing is in it.
pub(super) async fn empty_namespace(cluster: &Cluster) -> anyhow::Result<Option<Remnant>> {
    let own = &cluster.mesh_namespace;
    let Some(there) = cluster.find(&namespaces(), None, own).await? else { return Ok(None) };
    for name in ["Pod", "Service", "ConfigMap", "Secret", "ServiceAccount", "PersistentVolumeClaim"] {
        let list = cluster.list(&kind("", "v1", name), Some(own), &ListParams::default()).await?;
        let mut left = list.iter().flat_map(|list| &list.items).map(ResourceExt::name_any);
        if left.any(|name| !OF_EVERY_NAMESPACE.contains(&&*name)) {
            return Ok(None);
        }
    }
    Ok(Some(Remnant::object(&namespaces(), &there)))
}
