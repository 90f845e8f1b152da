//! Programs in Go, as `cargo xtask go` builds them.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use mesh_lab::Place as _;
use serde_json::Value;

use crate::Remote;

/// Where the project keeps what it has built or installed for tests.
pub(crate) fn cache() -> Result<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache")));
    Ok(cache.context("HOME is not set")?.join("mesh"))
}

/// The path of a program.
pub(crate) fn program(name: &str, version: &str) -> Result<String> {
    let program = cache()?.join(name).join(version).join(name);
    ensure!(program.exists(), "{} is missing: `cargo xtask go` builds it", program.display());
    Ok(program.display().to_string())
}

/// What of these dashboards is not as Grafana's published schema has it; nothing where all is.
pub fn flaws_of_dashboards(files: &[PathBuf]) -> Result<String> {
    let output = Command::new(program("dashboard-schema", "v0.0.22")?).args(files).output()?;
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    ensure!(output.status.success() || !said.is_empty(), "it ended with {}", output.status);
    Ok(said)
}

/// What mesh-control tells a node proxy of Istio's on a node, read by Istio's own messages: all resources.
pub fn told_to_istio(remote: &Remote, node: &str) -> Result<Vec<Value>> {
    let (program, address) = (program("subscriber", "v1")?, remote.address("node-a")?);
    let root = remote.mesh.lab.ca_dir()?.join("root-cert.pem").display().to_string();
    let token = remote.tokens.join(node).display().to_string();
    let argv = [&*program, "-address", &address, "-roots", &root, "-token", &token];
    let output =
        remote.mesh.lab.node(node)?.exec(&[&argv[..], &["-server-name", "istiod.istio-system.svc"]].concat())?;
    let lines = output.success()?.lines();
    lines.map(|line| serde_json::from_str(line).with_context(|| format!("no JSON: {line}"))).collect()
}
