//! Into a node: a process enters the node's cgroups and network, takes namespaces of its own and starts the node's first process.

use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};
use nix::sched::{CloneFlags, setns, unshare};

use crate::home::Home;
use crate::{cgroups, network};

/// Starts `mesh-kube-cluster enter-node`, which ends once the node's first process runs.
pub(crate) fn start(home: &Home, node: &str) -> Result<()> {
    let log = home.log(node);
    let output = File::create(&log).with_context(|| format!("making {}", log.display()))?;
    let own = std::env::current_exe().context("finding this program's file")?;
    let mut command = Command::new(own);
    command.args(["--number", &home.number().to_string(), "enter-node", node]);
    command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).process_group(0);
    let status = command.status().with_context(|| format!("starting {node}"))?;
    anyhow::ensure!(status.success(), "{node} did not start; see {}", log.display());
    Ok(())
}

/// Enters the node's namespaces and starts its first process, which is number 1 there.
///
/// # Errors
/// When a namespace cannot be made or entered.
pub fn enter(home: &Home, node: &str) -> Result<()> {
    cgroups::enter(&format!("{}/{node}", home.name()))?;
    let netns = network::netns(home, node);
    let file = File::open(&netns).with_context(|| format!("opening {}", netns.display()))?;
    setns(file, CloneFlags::CLONE_NEWNET).context("entering the node's network")?;
    let own = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWCGROUP
        | CloneFlags::CLONE_NEWIPC;
    unshare(own).context("making the node's namespaces")?;
    let program = std::env::current_exe().context("finding this program's file")?;
    let mut command = Command::new(program);
    command.args(["--number", &home.number().to_string(), "init-node", node]);
    let child = command.spawn().context("starting the node's first process")?;
    crate::home::write(&home.node(node).join("pid"), &child.id().to_string())?;
    Ok(())
}
