//! The chart is installed, the namespace labelled, and the pods that run join without a restart.

use std::time::Instant;

use anyhow::Result;
use mesh_kube_cluster::mesh::{NAMESPACE as MESH, install_gateway_api};
use mesh_shop::catalogue::NAMESPACE;
use serde_json::Value;

use super::{Kube, workload};
use crate::claim::claim;
use crate::screen::Screen;
use crate::stage::NODES;
use crate::table::Table;

/// A container of the shop: with its id and its start it is this one and no other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Container {
    pod: String,
    node: String,
    id: String,
    started: String,
    restarts: u64,
}

/// The containers that run.
pub(super) fn containers(pods: &[Value]) -> Vec<Container> {
    let all = pods.iter().flat_map(|pod| {
        let statuses = pod["status"]["containerStatuses"].as_array();
        statuses.into_iter().flatten().map(move |status| {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            Container {
                pod: workload(pod),
                node: text(&pod["spec"]["nodeName"]),
                id: text(&status["containerID"]).trim_start_matches("containerd://").chars().take(12).collect(),
                started: text(&status["state"]["running"]["startedAt"]),
                restarts: status["restartCount"].as_u64().unwrap_or_default(),
            }
        })
    });
    all.collect()
}

pub(super) fn show(kube: &mut Kube, screen: &Screen) -> Result<String> {
    install_gateway_api(&kube.cluster)?;
    screen.command("you", &format!("helm upgrade --install mesh charts/mesh -n {MESH} --create-namespace --wait"));
    screen.progress("installing the mesh");
    let started = Instant::now();
    kube.mesh.install(&["node.log=info"])?;
    screen.say(format!("installed and ready after {:.1} s", started.elapsed().as_secs_f32()));
    for node in NODES {
        let status = kube.mesh.ctl(node, &["status"])?;
        let enrolled = status["pods"]["enrolled"].as_u64();
        claim(enrolled == Some(0), format!("no pod of {node} in the mesh before the label"), format!("{enrolled:?}"))?;
    }
    kube.show(screen, &["label", "namespace", NAMESPACE, "mesh.dev/join=enabled"])?;
    let labelled = Instant::now();
    for node in NODES {
        kube.mesh.wait_enrolled(node, kube.before.iter().filter(|it| it.node == node).count())?;
    }
    let took = labelled.elapsed();
    let after = containers(&kube.pods()?);
    let mut table = Table::new(["pod", "node", "container", "started at", "restarts", "now"]).numbers(&[4]);
    for it in &kube.before {
        let now = if after.contains(it) { "the same" } else { "gone" };
        let cells = [&it.pod, &it.node, &it.id, &it.started, &it.restarts.to_string()];
        table.row(cells.map(String::clone).into_iter().chain([now.to_owned()]));
    }
    screen.table(&table);
    claim(kube.before == after, "every container to run on, and no other", format!("{after:?}"))?;
    Ok(format!("{} pods joined within {} ms; no container restarted", after.len(), took.as_millis()))
}
