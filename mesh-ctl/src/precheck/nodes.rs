//! The nodes: their kernels, as kubelet says; where a daemon runs already, what it says of its own.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, NodeSystemInfo};
use kube::ResourceExt as _;
use kube::api::{Api, ListParams};
use mesh_admin::{Found, Requirement, Status, path};

use super::requirement;
use crate::cluster::Cluster;
use crate::fleet;

/// The oldest kernel that the programs are written for.
const KERNEL: (u32, u32) = (5, 15);
/// Architectures that there are images for.
const ARCHITECTURES: [&str; 2] = ["amd64", "arm64"];

/// A line for each kind of node, and one for the daemons where there are any.
pub(super) async fn look(cluster: &Cluster) -> anyhow::Result<Vec<Requirement>> {
    let api: Api<Node> = Api::all(cluster.client.clone());
    let nodes = cluster.within("nodes", api.list(&ListParams::default())).await?.items;
    let mut alike: BTreeMap<(String, String, String), Vec<String>> = BTreeMap::new();
    for node in &nodes {
        let info = node.status.as_ref().and_then(|status| status.node_info.clone()).unwrap_or_default();
        let NodeSystemInfo { kernel_version, architecture, operating_system, .. } = info;
        alike.entry((operating_system, architecture, kernel_version)).or_default().push(node.name_any());
    }
    let mut told: Vec<_> = alike.into_iter().map(|(kind, names)| kernel(&kind, &names)).collect();
    if told.is_empty() {
        told.push(requirement("nodes", Found::Warning, "the cluster has none yet"));
    }
    told.extend(daemons(cluster).await?);
    Ok(told)
}

fn kernel((system, architecture, kernel): &(String, String, String), names: &[String]) -> Requirement {
    let (name, what) = ("nodes", format!("{}: {system}/{architecture} {kernel}", listed(names)));
    if system != "linux" {
        return requirement(
            name,
            Found::Warning,
            format!("{what}; no daemon runs there, and its pods stay outside the mesh"),
        );
    }
    if !ARCHITECTURES.contains(&&**architecture) {
        let remedy =
            "there is no image for it: keep the daemon from it by node.nodeSelector; its pods stay outside the mesh";
        return requirement(name, Found::Warning, format!("{what}; {remedy}"));
    }
    if release(kernel) < KERNEL {
        let least = format!("{}.{}", KERNEL.0, KERNEL.1);
        return requirement(name, Found::Missing, format!("{what}; the mesh needs Linux {least} or newer, with BTF"));
    }
    requirement(name, Found::Ok, what)
}

/// `6.1.0-18-amd64` as numbers.
fn release(kernel: &str) -> (u32, u32) {
    let mut numbers = kernel.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or_default());
    (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default())
}

/// The first few of many names.
pub(super) fn listed(names: &[String]) -> String {
    const SHOWN: usize = 5;
    let more = names.len().saturating_sub(SHOWN);
    let shown = names[..names.len().min(SHOWN)].join(", ");
    if more > 0 { format!("{shown} and {more} more") } else { shown }
}

/// BTF, cgroup v2 and the hooks are what a daemon has or does not run: those that run say what they found.
async fn daemons(cluster: &Cluster) -> anyhow::Result<Vec<Requirement>> {
    const NAME: &str = "BTF, cgroup v2, hooks";
    // Whoever has no daemon yet is told by kubelet's word alone.
    let Ok(targets) = cluster.daemons(None).await else {
        let detail = "not seen from here before a daemon runs, which says what its node lacks; on a node: `mesh-ctl precheck --machine`";
        return Ok(vec![requirement(NAME, Found::Ok, detail)]);
    };
    let said = fleet::ask(targets, |daemon| async move { daemon.get::<Status>(path::STATUS, &[]).await }).await;
    let told = said.into_iter().map(|said| match said.answer {
        Ok(status) => {
            let missing: Vec<String> =
                status.data_path.hooks.iter().filter(|hook| !hook.present).map(|hook| hook.name.clone()).collect();
            let what = format!(
                "{}: {}, {} hooks, cgroup {}",
                said.name, status.kernel, status.data_path.pod_hooks, status.data_path.cgroup
            );
            match missing.is_empty() {
                true => requirement(NAME, Found::Ok, what),
                false => {
                    let detail =
                        format!("{what}; not attached now: {}; `mesh-ctl status` says more", missing.join(", "));
                    requirement(NAME, Found::Warning, detail)
                }
            }
        }
        Err(error) => {
            requirement(NAME, Found::Warning, format!("{}: its daemon does not answer: {error:#}", said.name))
        }
    });
    Ok(told.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_is_judged_by_its_numbers() {
        let state = |system: &str, architecture: &str, kernel_: &str| {
            kernel(&(system.into(), architecture.into(), kernel_.into()), &["a".into()]).state
        };
        assert_eq!(state("linux", "amd64", "6.1.0-18-amd64"), Found::Ok);
        assert_eq!(state("linux", "arm64", "5.15.0"), Found::Ok);
        assert_eq!(state("linux", "amd64", "5.4.0-150-generic"), Found::Missing);
        assert_eq!(state("linux", "amd64", "?"), Found::Missing);
        assert_eq!(state("linux", "riscv64", "6.6"), Found::Warning);
        assert_eq!(state("windows", "amd64", "10.0.20348.1"), Found::Warning);
    }
}
