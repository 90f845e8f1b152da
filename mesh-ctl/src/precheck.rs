//! `mesh-ctl precheck`: what this machine has of what a node daemon needs. The daemon's own program looks, since only it
//! knows; this one finds it and shows what it says.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use clap::Args;
use mesh_admin::Precheck;

use crate::Outcome;
use crate::output::{Format, print, print_value, table};

const PROGRAM: &str = "mesh-node";

/// Says what this machine has of what a node daemon needs, and what to do about what it lacks.
#[derive(Debug, Args)]
#[command(after_help = crate::EXIT_CODES)]
pub(crate) struct PrecheckArguments {
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
    /// The form of the output.
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
    /// Leaves the line of headings out.
    #[arg(long)]
    no_headers: bool,
}

impl PrecheckArguments {
    pub(crate) fn run(&self) -> anyhow::Result<Outcome> {
        let precheck = self.ask()?;
        match self.output {
            Format::Table => {
                let rows = precheck.requirements.iter();
                let rows: Vec<_> =
                    rows.map(|it| vec![it.name.clone(), it.state.to_string(), it.detail.clone()]).collect();
                print(&table(if self.no_headers { &[] } else { &["REQUIREMENT", "STATE", "WHAT"] }, &rows))?;
            }
            format => print_value(&precheck, format)?,
        }
        Ok(if precheck.nothing_is_missing() { Outcome::Good } else { Outcome::Bad })
    }

    fn ask(&self) -> anyhow::Result<Precheck> {
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
