//! A demonstration that is left up: what to try in it, and its removal.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context as _, Result};
use mesh_lab::{Daemon, Lab, Place as _};

use crate::processes::{self, main_of};
use crate::screen::Screen;
use crate::stage::{NODES, SHOPPER, Stage};

/// A file for each lab that is left up, by its name: other programs keep labs as well.
const RECORDS: &str = "/run/mesh-demo";

/// Builds a lab of these nodes and furnishes it; whether it stays is noted before anything is in it.
pub fn build<T>(nodes: &[&str], keep: bool, furnish: impl FnOnce(Lab) -> Result<T>) -> Result<T> {
    let builder = nodes.iter().fold(Lab::builder(), |builder, node| builder.node(node));
    let lab = if keep { builder.keep() } else { builder }.build()?;
    let id = lab.id();
    if keep {
        note(&id)?;
    }
    // A lab that is to be kept would stay.
    furnish(lab).inspect_err(|_| drop(mesh_lab::remove(&id)))
}

/// Takes a lab down. Says what stayed.
pub fn take_down(lab: Lab) -> Result<()> {
    let id = lab.id();
    lab.take_down()?;
    let left = mesh_lab::remains(&id)?;
    anyhow::ensure!(left.is_empty(), "left behind: {left:?}");
    Ok(())
}

/// Notes that a lab is to be left up.
fn note(lab: &str) -> Result<()> {
    let record = Path::new(RECORDS).join(lab);
    fs::create_dir_all(RECORDS)
        .and_then(|()| fs::write(&record, ""))
        .with_context(|| format!("noting {}", record.display()))
}

/// Removes every demonstration that was left up. Returns the labs' names.
pub fn remove() -> Result<Vec<String>> {
    let mut removed = Vec::new();
    for lab in mesh_lab::kept()? {
        if Path::new(RECORDS).join(&lab).exists() {
            mesh_lab::remove(&lab)?;
            removed.push(lab);
        }
    }
    // Records of labs that were taken down in another way are of no use.
    match fs::remove_dir_all(RECORDS) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error).with_context(|| format!("removing {RECORDS}")),
        _ => Ok(removed),
    }
}

/// Says how to look around. Every line can be pasted into a shell.
pub fn say(screen: &Screen, stage: &Stage) -> Result<()> {
    screen.write("Everything is left up. To try:");
    for (what, command) in [looks(stage)?, asks(stage)?, changes(stage)?].concat() {
        screen.write("");
        screen.say(format!("# {what}"));
        screen.say(command);
    }
    Ok(())
}

/// What it is for, and the command.
type Hint = (&'static str, String);

/// A program in the shopper's pod.
fn in_pod(stage: &Stage) -> Result<String> {
    let running = processes::of(&stage.pods)?;
    Ok(format!("sudo nsenter --net --mount --target {}", main_of(&running, SHOPPER)?.pid))
}

fn looks(stage: &Stage) -> Result<Vec<Hint>> {
    let (pod, node) = (in_pod(stage)?, stage.lab.node(NODES[0])?);
    let (wire, port) = stage.lab.link(NODES[0])?;
    let (inside, laptop) = (node.netns(), stage.outside.netns());
    let frontend = stage.pod("frontend-v1")?.ipv4();
    let path = "checkout?user=you&item=book";
    let (manifests, logs) = (stage.lab.config_dir().display(), stage.lab.home().join("logs"));
    Ok(vec![
        ("a checkout, from the shopper's pod", format!("{pod} curl 'http://frontend.shop:8080/{path}'")),
        (
            "the same from a machine outside",
            format!("sudo ip netns exec {laptop} curl 'http://{frontend}:8080/{path}'"),
        ),
        ("a shell in the pod", format!("{pod} sh")),
        (
            "who talked to whom",
            format!("sudo ip netns exec {inside} curl -s http://localhost:15020/metrics | grep connections_opened"),
        ),
        ("the wire between the nodes", format!("sudo ip netns exec {wire} tcpdump -n -A -i {port} tcp")),
        ("the manifests, which the daemons watch", format!("ls {manifests}")),
        ("the log of a daemon", format!("tail -f {}/{}.mesh-node.*.out", logs.display(), NODES[0])),
    ])
}

/// What a node's daemon says when it is asked.
fn asks(stage: &Stage) -> Result<Vec<Hint>> {
    let ctl = mesh_lab::binary("mesh-ctl")?;
    let socket = stage.lab.admin_socket(NODES[0]);
    let ask = |what: &str| format!("sudo {} {what} --socket {}", ctl.display(), socket.display());
    Ok(vec![
        ("how a node's daemon is", ask("status")),
        ("the shop's pods, and whether they are in the mesh", ask("workload list -n shop")),
        ("where a connection goes, how, and which policies are asked", ask("why shop/shopper cart.shop:8080")),
        ("connections that are open now, with their identities and bytes", ask("connection list -n shop")),
        ("connections as they open and end", ask("flows -f")),
    ])
}

fn changes(stage: &Stage) -> Result<Vec<Hint>> {
    let namespace = stage.lab.config_dir().join("namespace.shop.yaml");
    let relabel =
        |from: &str, to: &str| format!("sudo sed -i '/mesh.dev\\/join/s/{from}/{to}/' {}", namespace.display());
    Ok(vec![
        ("the namespace out of the mesh, with no restart", relabel("enabled", "disabled")),
        ("and in again", relabel("disabled", "enabled")),
        ("a daemon away: its pods' connections are refused", format!("sudo kill -9 {}", stage.daemon(1)?.id())),
        ("and back, in the foreground", start(stage.daemon(1)?)?),
        ("everything removed", "cargo xtask demo --down".to_owned()),
    ])
}

/// How a daemon is started by hand: in its cgroup and its node's network namespace, with its own arguments.
fn start(daemon: &Daemon) -> Result<String> {
    let read = |path: &str| fs::read_to_string(path).with_context(|| format!("reading {path}"));
    let arguments = read(&format!("/proc/{}/cmdline", daemon.id()))?.replace('\0', " ");
    let cgroups = read(&format!("/proc/{}/cgroup", daemon.id()))?;
    let cgroup = cgroups.lines().find_map(|line| line.strip_prefix("0::")).context("the daemon has no cgroup v2")?;
    let mounts = read("/proc/self/mounts")?;
    let root = mounts.lines().map(|line| line.split(' ')).find_map(|mut fields| {
        let place = fields.nth(1)?;
        (fields.next() == Some("cgroup2")).then_some(place)
    });
    let root = root.context("no cgroup v2 is mounted")?.trim_end_matches('/');
    let netns = daemon.node().netns();
    let arguments = arguments.trim_end();
    Ok(format!(
        "sudo sh -c 'echo 0 > {root}{cgroup}/cgroup.procs && exec nsenter --net=/run/netns/{netns} {arguments}'"
    ))
}
