//! Nodes whose daemon is not ready take no new pods.

use anyhow::{Context as _, Result, ensure};
use mesh_kube_cluster::apps::{Apps, PATIENCE};
use mesh_kube_cluster::mesh::{Mesh, NAMESPACE};
use mesh_kube_cluster::{Cluster, Kubectl};
use mesh_lab::wait_until;

const KEY: &str = "mesh.dev/agent-not-ready";
const NODES: [&str; 2] = ["node-a", "node-b"];

fn is_tainted(kubectl: &Kubectl, node: &str) -> Result<bool> {
    let taints = kubectl.get(&["node", node])?["spec"]["taints"].clone();
    Ok(taints.as_array().into_iter().flatten().any(|taint| taint["key"] == KEY))
}

fn wait_tainted(kubectl: &Kubectl, node: &str, is: bool) -> Result<()> {
    let what = format!("{node} to be {}", if is { "tainted" } else { "without the taint" });
    wait_until(&what, PATIENCE, || Ok((is_tainted(kubectl, node)? == is).then_some(())))
}

#[test]
fn a_node_takes_no_new_pods_while_its_daemon_is_not_ready() -> Result<()> {
    let cluster = Cluster::of_tests()?;
    let kubectl = cluster.kubectl();
    // As kubelet does for a node that is new.
    kubectl.run(&["taint", "node", "node-b", &format!("{KEY}=:NoSchedule")])?;
    // An image that is not there is not looked for anywhere else.
    let mesh = Mesh::installed(&cluster, &["node.notReadyTaint=true", "image.pullPolicy=Never"])?;
    NODES.iter().try_for_each(|node| wait_tainted(&kubectl, node, false)).with_context(|| mesh.logs())?;

    let daemons = ["-n", NAMESPACE, "daemonset", "mesh-node"];
    let image = kubectl.get(&daemons)?["spec"]["template"]["spec"]["containers"][0]["image"].clone();
    let run = |image: &str| {
        let container = format!("mesh-node={image}");
        kubectl.run(&["-n", NAMESPACE, "set", "image", "daemonset/mesh-node", &container])
    };
    run("mesh.dev/no-such-image:1")?;
    // The new ones never become ready; the old ones would stay for as long.
    let daemons = ["-n", NAMESPACE, "delete", "pods", "-l", "app.kubernetes.io/name=mesh-node", "--wait=false"];
    kubectl.run(&daemons)?;
    let node = wait_until("a node without a daemon to be tainted", PATIENCE, || {
        NODES
            .into_iter()
            .find_map(|node| is_tainted(&kubectl, node).map(|is| is.then_some(node)).transpose())
            .transpose()
    })
    .with_context(|| mesh.logs())?;
    let apps = Apps::new(&kubectl, "taint")?;
    apps.label("mesh.dev/join=enabled")?;
    apps.schedule("late", node)?;
    let why = wait_until("the scheduler to find no node", PATIENCE, || apps.why_pending("late"))?;
    ensure!(why.contains("untolerated taint"), "{why}");

    run(image.as_str().context("the daemons' image")?)?;
    wait_tainted(&kubectl, node, false).with_context(|| mesh.logs())?;
    apps.wait_ready("late")?;
    mesh.wait_enrolled(node, 1)?;
    mesh.uninstall()?;
    for node in NODES {
        ensure!(!is_tainted(&kubectl, node)?, "{node} is tainted after the mesh is gone");
    }
    Ok(())
}
