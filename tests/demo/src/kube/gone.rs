//! The mesh is taken away: the shop goes on, and the nodes are as before.

use anyhow::{Context as _, Result};
use mesh_kube_cluster::ctl::Ctl;
use mesh_lab::wait_until;
use mesh_shop::catalogue::NAMESPACE;

use super::{Kube, joined};
use crate::claim::claim;
use crate::screen::Screen;
use crate::stage::{NODES, PATIENCE, SHOPPER};

pub(super) fn show(kube: &mut Kube, screen: &Screen) -> Result<String> {
    kube.show(screen, &["-n", NAMESPACE, "delete", "gateway", "waypoint"])?;
    screen.command("you", "mesh-ctl uninstall --purge");
    let said = Ctl::on(&kube.cluster)?.ok(&["uninstall", "--purge"])?;
    screen.say(format!("{} things removed", said.lines().count()));
    let mut last = String::new();
    let served = wait_until("the shop to be served without the mesh", PATIENCE, || {
        let bought = kube.try_to_buy(NAMESPACE, SHOPPER, 1)?;
        Ok(bought.map_err(|why| last = why).is_ok().then_some(()))
    });
    for node in NODES {
        let left = left_on(kube, node)?;
        claim(left.is_empty(), format!("no program of the mesh on {node}"), left)?;
    }
    served.with_context(|| format!("the last attempt: {last}"))?;
    let after = joined::containers(&kube.pods()?);
    let gone = kube.before.iter().filter(|it| !after.contains(it)).count();
    claim(gone == 0, "every container of the shop to be the one of the beginning", format!("{gone} are not"))?;
    Ok(format!("the shop served; its {} containers are those of the beginning", kube.before.len()))
}

/// The mesh's pins on a node.
fn left_on(kube: &Kube, node: &str) -> Result<String> {
    let pins = ["find", "/sys/fs/bpf", "-mindepth", "1", "-not", "-name", "*.debug"];
    let left = kube.cluster.on_node(node, &pins)?.output()?;
    Ok(String::from_utf8_lossy(&left.stdout).into_owned())
}
