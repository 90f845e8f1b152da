//! What the tests of the whole mesh share: two nodes with daemons, and a namespace in the mesh.
#![forbid(unsafe_code)]

use std::time::Duration;

use mesh_lab::{Daemon, DaemonOptions, Lab, wait_until};

/// How long anything may take that is awaited by its event.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A two-node mesh whose namespace `app` is enrolled.
pub struct Mesh {
    /// Daemon of `node-a`.
    pub a: Daemon,
    /// Daemon of `node-b`.
    pub b: Daemon,
    /// The machines; last, so that the daemons end first.
    pub lab: Lab,
}

impl Mesh {
    /// Builds the lab, labels the namespace `app` and starts both daemons.
    ///
    /// # Errors
    /// Whatever the lab says.
    pub fn start() -> anyhow::Result<Self> {
        let lab = Lab::builder().node("node-a").node("node-b").build()?;
        lab.namespace("app")?;
        lab.label_namespace("app", "mesh.dev/join", "enabled")?;
        let a = lab.start_daemon("node-a", DaemonOptions::default())?;
        let b = lab.start_daemon("node-b", DaemonOptions::default())?;
        Ok(Self { a, b, lab })
    }

    /// Waits until each daemon has enrolled so many pods.
    ///
    /// # Errors
    /// It has not within [`PATIENCE`].
    pub fn wait_enrolled(&self, on_a: usize, on_b: usize) -> anyhow::Result<()> {
        wait_enrolled(&self.a, on_a)?;
        wait_enrolled(&self.b, on_b)
    }
}

/// Waits until a daemon has enrolled so many pods.
///
/// # Errors
/// It has not within [`PATIENCE`].
pub fn wait_enrolled(daemon: &Daemon, count: usize) -> anyhow::Result<()> {
    wait_until("pods to be enrolled", PATIENCE, || {
        let enrolled = daemon.metrics()?.sum("mesh_pods", &[("state", "enrolled")]);
        Ok((enrolled as usize == count).then_some(()))
    })?;
    Ok(())
}
