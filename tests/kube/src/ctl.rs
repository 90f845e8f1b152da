//! mesh-ctl, as a person uses it from outside the cluster.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::Cluster;

/// mesh-ctl with a kubeconfig that has all rights.
#[derive(Debug, Clone)]
pub struct Ctl {
    program: PathBuf,
    kubeconfig: PathBuf,
    path: OsString,
}

/// What it said.
#[derive(Debug, Clone)]
pub struct Said {
    /// Its exit code.
    pub code: i32,
    /// On standard output.
    pub out: String,
    /// On standard error.
    pub err: String,
}

impl Ctl {
    /// On this cluster; kubectl and helm are in its PATH.
    ///
    /// # Errors
    /// When mesh-ctl is not built.
    pub fn on(cluster: &Cluster) -> Result<Self> {
        let mut path = OsString::from(cluster.programs().directory());
        if let Some(own) = std::env::var_os("PATH") {
            path.push(":");
            path.push(own);
        }
        let kubeconfig = cluster.home().kubeconfig();
        Ok(Self { program: mesh_lab::binary("mesh-ctl")?, kubeconfig, path })
    }

    /// The same by another kubeconfig.
    #[must_use]
    pub fn by(&self, kubeconfig: PathBuf) -> Self {
        Self { kubeconfig, ..self.clone() }
    }

    /// The command, to be run otherwise.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).stdin(Stdio::null());
        command.env("KUBECONFIG", &self.kubeconfig).env("PATH", &self.path).env_remove("MESH_ADMIN_SOCKET");
        command
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// When it cannot be started, or a signal ends it.
    pub fn run(&self, arguments: &[&str]) -> Result<Said> {
        let output = self.command(arguments).output().context("starting mesh-ctl")?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let code = output.status.code().with_context(|| format!("mesh-ctl {arguments:?}: {}", output.status))?;
        Ok(Said { code, out: text(output.stdout), err: text(output.stderr) })
    }

    /// What it prints, where its exit code says that all is well.
    ///
    /// # Errors
    /// With what it says where it does not.
    pub fn ok(&self, arguments: &[&str]) -> Result<String> {
        let Said { code, out, err } = self.run(arguments)?;
        ensure!(code == 0, "`mesh-ctl {}` ended with {code}: {out}{err}", arguments.join(" "));
        Ok(out)
    }

    /// What it prints with `-o json`.
    ///
    /// # Errors
    /// As [`Ctl::ok`].
    pub fn json(&self, arguments: &[&str]) -> Result<Value> {
        let text = self.ok(&[arguments, &["-o", "json"]].concat())?;
        serde_json::from_str(&text).with_context(|| format!("`mesh-ctl {}`: {text}", arguments.join(" ")))
    }
}
