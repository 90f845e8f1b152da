//! `mesh-ctl precheck` of a machine: what it has of what a node daemon needs. The daemon's own program looks, since only it
//! knows; this one finds it and shows what it says.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use clap::Args;
use mesh_admin::Precheck;

const PROGRAM: &str = "mesh-node";

/// Of which machine, as its daemon would be told.
#[derive(Debug, Args)]
#[command(next_help_heading = "Of this machine")]
pub(super) struct Machine {
    /// Looks at this machine, also where there is a kubeconfig.
    #[arg(long)]
    machine: bool,
    /// The mesh-node program; the one beside this program, or in PATH, without it.
    #[arg(long, value_name = "PATH", env = "MESH_NODE")]
    mesh_node: Option<PathBuf>,
    /// Directory on a BPF file system that the daemon is to use.
    #[arg(long, value_name = "DIR")]
    bpf_dir: Option<PathBuf>,
    /// Root of the cgroup v2 hierarchy that the daemon is to use.
    #[arg(long, value_name = "DIR")]
    cgroup_root: Option<PathBuf>,
    /// Cgroup of kubelet that the daemon is to be told of.
    #[arg(long, value_name = "DIR")]
    kubelet_cgroup: Option<PathBuf>,
}

impl Machine {
    /// Whether a flag is about this machine.
    pub(super) fn is_meant(&self) -> bool {
        let named = [&self.mesh_node, &self.bpf_dir, &self.cgroup_root, &self.kubelet_cgroup];
        self.machine || named.iter().any(|named| named.is_some())
    }

    /// Asks the daemon's program, which alone knows.
    pub(super) fn ask(&self) -> anyhow::Result<Precheck> {
        let program = self.program();
        let mut command = Command::new(&program);
        command.args(["precheck", "--json"]).stdin(Stdio::null());
        let directories = [
            ("--bpf-dir", &self.bpf_dir),
            ("--cgroup-root", &self.cgroup_root),
            ("--kubelet-cgroup", &self.kubelet_cgroup),
        ];
        for (flag, value) in directories {
            if let Some(value) = value {
                command.arg(flag).arg(value);
            }
        }
        let name = program.to_string_lossy().into_owned();
        let ran = command.output();
        let output = ran.with_context(|| format!("cannot run {name}; name the mesh-node program with --mesh-node"))?;
        match serde_json::from_slice(&output.stdout) {
            Ok(precheck) => Ok(precheck),
            Err(error) => {
                let said = String::from_utf8_lossy(&output.stderr);
                bail!(
                    "{name} precheck ended with {} and said nothing to be read ({error}): {}",
                    output.status,
                    said.trim()
                )
            }
        }
    }

    fn program(&self) -> OsString {
        if let Some(program) = &self.mesh_node {
            return program.into();
        }
        let beside = std::env::current_exe().ok().map(|own| own.with_file_name(PROGRAM));
        beside.filter(|path| path.is_file()).map_or_else(|| PROGRAM.into(), Into::into)
    }
}
