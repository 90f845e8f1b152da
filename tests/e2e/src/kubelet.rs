//! Something named kubelet on a node, in a cgroup of its own.

use std::os::unix::fs::symlink;

use anyhow::{Context as _, Result};
use mesh_lab::{Lab, NodeService, Place as _, Process};

use crate::PATIENCE;

/// Starts it. Returns the place whose processes the node's daemon takes for kubelet's, and the process that it finds.
pub fn kubelet(lab: &Lab, node: &str) -> Result<(NodeService, Process)> {
    let service = lab.node(node)?.service("kubelet.service");
    let program = lab.home().join("kubelet");
    symlink(mesh_lab::binary("mesh-traffic")?, &program).context("naming a program kubelet")?;
    let mut process = service.spawn(&[&program.display().to_string(), "echo", "--listen", "127.0.0.1:10250"])?;
    process.wait_for_line("listening", PATIENCE)?;
    Ok((service, process))
}
