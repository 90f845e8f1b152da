//! The mesh: a daemon on each node. The pods are in it or out of it by their namespace's label.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use mesh_lab::{Daemon, DaemonOptions, Lab, Pod, Waypoint, wait_until};

use super::Subject;
use crate::stage::{NAMESPACE, PATIENCE, SERVER_NODE, Settings};

const LABEL: &str = "mesh.dev/join";
/// How long a daemon may take to end; connections are over by then.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// The daemons that run.
#[derive(Debug)]
pub(crate) struct Daemons {
    subject: Subject,
    /// The client's node's first.
    daemons: Vec<Daemon>,
}

impl Daemons {
    pub(crate) fn start(lab: &Lab, settings: &Settings, subject: Subject, nodes: &[&str]) -> Result<Self> {
        let start = |node: &&str| {
            let mut args = vec!["--workers".to_owned(), settings.workers.to_string()];
            if subject == Subject::MeshH2 {
                args.extend(["--tunnels", "h2"].map(str::to_owned));
            }
            args.extend(settings.mesh_args.iter().cloned());
            lab.start_daemon(node, DaemonOptions { args, ..DaemonOptions::default() })
        };
        Ok(Self { subject, daemons: nodes.iter().map(start).collect::<Result<_>>()? })
    }

    /// Whether these are what `subject` is.
    pub(crate) fn are(&self, subject: Subject, nodes: &[&str]) -> bool {
        self.subject == subject && self.daemons.iter().map(|daemon| daemon.node().name()).eq(nodes.iter().copied())
    }

    /// Puts the pods into the mesh.
    pub(crate) fn enrol(&self, lab: &Lab, settings: &Settings) -> Result<()> {
        lab.label_namespace(NAMESPACE, LABEL, "enabled")?;
        let pods = if settings.one_node { 2 } else { 1 };
        self.wait_enrolled(pods)
    }

    /// Takes the pods out of the mesh.
    pub(crate) fn withdraw(&self, lab: &Lab) -> Result<()> {
        lab.unlabel_namespace(NAMESPACE, LABEL)?;
        self.wait_enrolled(0)
    }

    fn wait_enrolled(&self, pods: u32) -> Result<()> {
        for daemon in &self.daemons {
            wait_until(&format!("{pods} pods to be enrolled"), PATIENCE, || {
                let enrolled = daemon.metrics()?.sum("mesh_pods", &[("state", "enrolled")]);
                Ok((enrolled == f64::from(pods)).then_some(()))
            })
            .with_context(|| format!("the daemon's log: {}", tail(&daemon.logs())))?;
        }
        Ok(())
    }

    /// Connections of the client's pod to a server with a proven identity: over mTLS, or by the kernel.
    pub(crate) fn carried(&self) -> Result<u64> {
        let client = self.daemons.first().context("no daemon runs")?;
        let metrics = client.metrics()?;
        let opened = metrics.of("istio_tcp_connections_opened_total", &[("reporter", "source")]);
        let proven = opened.filter(|sample| !sample.has(&[("destination_principal", "unknown")]));
        Ok(proven.map(|sample| sample.value as u64).sum())
    }

    pub(crate) fn processes(&self) -> Vec<u32> {
        self.daemons.iter().map(Daemon::id).collect()
    }

    /// Ends the daemons and removes what they pinned, which detaches it.
    pub(crate) fn stop(self, lab: &Lab) -> Result<()> {
        for daemon in self.daemons {
            let node = daemon.node().name().to_owned();
            daemon.terminate(STOP_LIMIT)?;
            remove_pins(&lab.home().join(format!("bpf.{node}")).join("mesh"))?;
        }
        Ok(())
    }
}

/// Starts a waypoint for the namespace's Services.
pub(crate) fn start_waypoint(lab: &Lab, settings: &Settings) -> Result<Pod> {
    let waypoint = Waypoint::declare_in(lab, NAMESPACE, "waypoint")?;
    let replica = waypoint.replica_with(lab, "waypoint", SERVER_NODE, &["--workers", &settings.workers.to_string()])?;
    waypoint.serve_namespace(lab)?;
    Ok(replica)
}

/// Removes everything below a directory of a BPF file system.
fn remove_pins(directory: &Path) -> Result<()> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries.with_context(|| format!("reading {}", directory.display()))?,
    };
    for entry in entries.flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_pins(&path)?;
            fs::remove_dir(&path).with_context(|| format!("removing {}", path.display()))?;
        } else {
            fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
        }
    }
    Ok(())
}

/// The last lines of a log.
fn tail(log: &str) -> String {
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}
