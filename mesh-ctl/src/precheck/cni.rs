//! Whose programs besides the mesh's see pods' connections: the network's, and other meshes'.

use kube::ResourceExt as _;
use kube::api::{DynamicObject, ListParams};
use mesh_admin::{Found, Requirement};
use serde_json::Value;

use super::requirement;
use crate::cluster::{Cluster, kind, namespaces};

/// Networks by the label or name of their agents' DaemonSet.
const NETWORKS: [(&str, &str); 8] = [
    ("cilium", "Cilium"),
    ("calico-node", "Calico"),
    ("kube-flannel-ds", "Flannel"),
    ("aws-node", "Amazon VPC CNI"),
    ("azure-cns", "Azure CNI"),
    ("antrea-agent", "Antrea"),
    ("weave-net", "Weave Net"),
    ("kindnet", "kindnet"),
];
/// Meshes by their node agents.
const AGENTS: [(&str, &str); 3] = [("ztunnel", "Istio ambient"), ("kmesh", "Kmesh"), ("linkerd-cni", "Linkerd")];

/// What else there is, each with what to do about it.
pub(super) async fn look(cluster: &Cluster) -> anyhow::Result<Vec<Requirement>> {
    let listed = cluster.list(&kind("apps", "v1", "DaemonSet"), None, &ListParams::default()).await?;
    let agents: Vec<DynamicObject> = listed.into_iter().flat_map(|list| list.items).collect();
    let has = |name: &str| agents.iter().any(|agent| agent.name_any() == name);
    let networks: Vec<&str> = NETWORKS.iter().filter(|(agent, _)| has(agent)).map(|(_, network)| *network).collect();
    let mut told = Vec::new();
    let named = if networks.is_empty() { "none of those known by name".to_owned() } else { networks.join(", ") };
    told.push(requirement("network", Found::Ok, format!("{named}; the mesh adds no plugin to it")));
    if has("cilium") {
        told.push(cilium(cluster).await?);
    }
    let proxies = if has("kube-proxy") {
        "kube-proxy's DaemonSet"
    } else {
        "no DaemonSet kube-proxy: it runs on the nodes, or something else does its work"
    };
    told.push(requirement("Services", Found::Ok, format!("{proxies}; the mesh sees Services' addresses before it")));
    for (agent, mesh) in AGENTS {
        if has(agent) {
            told.push(other_mesh(cluster, mesh).await?);
        }
    }
    told.extend(istiod(cluster).await?);
    Ok(told)
}

/// Its load balancing of sockets runs at connect() as the mesh's hooks do, and before them puts endpoints in Services' place.
async fn cilium(cluster: &Cluster) -> anyhow::Result<Requirement> {
    const NAME: &str = "Cilium";
    let configs = kind("", "v1", "ConfigMap");
    let found = cluster.find(&configs, Some("kube-system"), "cilium-config").await?;
    let Some(found) = found else {
        let detail =
            "its configuration is not at kube-system/cilium-config: see to it that socketLB.hostNamespaceOnly=true";
        return Ok(requirement(NAME, Found::Warning, detail));
    };
    Ok(judge_cilium(&|key| found.data["data"][key].as_str().unwrap_or_default() == "true"))
}

fn judge_cilium(is: &dyn Fn(&str) -> bool) -> Requirement {
    const NAME: &str = "Cilium";
    let balances = is("kube-proxy-replacement") || is("bpf-lb-sock");
    if balances && !is("bpf-lb-sock-hostns-only") {
        let detail = "its load balancing of sockets hides Services' addresses from the mesh: set socketLB.hostNamespaceOnly=true";
        return requirement(NAME, Found::Missing, detail);
    }
    let detail = "it leaves pods' connect() alone; its network policies see the mesh's tunnels: port 15008 between pods must be allowed";
    requirement(NAME, Found::Ok, detail)
}

/// Two meshes that capture the same pods would each undo the other's work.
async fn other_mesh(cluster: &Cluster, mesh: &str) -> anyhow::Result<Requirement> {
    let ambient = ListParams::default().labels("istio.io/dataplane-mode=ambient");
    let list = cluster.list(&namespaces(), None, &ambient).await?;
    let both: Vec<String> = list.into_iter().flat_map(|list| list.items).map(|it| it.name_any()).collect();
    Ok(match (&both[..], mesh) {
        ([], _) => requirement(
            mesh,
            Found::Warning,
            "its agents are here; let each namespace join one mesh only (mesh.dev/join)",
        ),
        (both, "Istio ambient" | "Kmesh") => {
            let named = super::nodes::listed(both);
            let detail = format!(
                "its agents capture what istio.io/dataplane-mode=ambient labels, as this mesh would: {named}; take \
                                  the agents away, or the label and use mesh.dev/join=enabled"
            );
            requirement(mesh, Found::Missing, detail)
        }
        _ => requirement(mesh, Found::Warning, "its plugin is here; a pod of its mesh must not join this one"),
    })
}

/// Istio's own control plane would serve the same objects.
async fn istiod(cluster: &Cluster) -> anyhow::Result<Option<Requirement>> {
    let labelled = ListParams::default().labels("app=istiod");
    let list = cluster.list(&kind("apps", "v1", "Deployment"), None, &labelled).await?;
    let found = list.into_iter().flat_map(|list| list.items).next();
    Ok(found.map(|found| {
        let version = found.labels().get("istio.io/rev").map_or_else(String::new, |rev| format!(", revision {rev}"));
        let place = found.namespace().unwrap_or_default();
        let ready = found.data.pointer("/status/readyReplicas").and_then(Value::as_u64).unwrap_or_default();
        let detail = format!(
            "istiod runs in {place}{version} ({ready} ready): both read the same policies; Gateways of the class istio stay its \
             own; its sidecars are spoken to by mTLS where both have the same root (the Secret cacerts)"
        );
        requirement("Istio", Found::Warning, detail)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cilium_is_told_of_where_it_hides_addresses() {
        let state = |set: &[&str]| judge_cilium(&|key| set.contains(&key)).state;
        assert_eq!(state(&[]), Found::Ok);
        assert_eq!(state(&["kube-proxy-replacement"]), Found::Missing);
        assert_eq!(state(&["bpf-lb-sock"]), Found::Missing);
        assert_eq!(state(&["kube-proxy-replacement", "bpf-lb-sock-hostns-only"]), Found::Ok);
    }
}
