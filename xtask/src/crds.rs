//! `cargo xtask crds`: CustomResourceDefinitions of Istio's kinds, made from the types that they are read into.
//!
//! They are committed, since the chart ships them; `cargo xtask check` compares.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::repo;

/// Where they are committed. Helm installs from there what the cluster does not have yet, so that Istio's own stay.
const FOLDER: &str = "charts/mesh/crds";

/// Writes every definition, and removes those that are no more.
pub(crate) fn write() -> Result<()> {
    run(&[])
}

/// Fails where what is committed is not what [`write`] makes.
pub(crate) fn check() -> Result<()> {
    run(&["--check"])
}

/// An example of the crate, so that no program that is shipped has the schemas in it.
fn run(arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("cargo");
    command.args(["run", "--quiet", "--package", "mesh-config", "--features", "schema", "--example", "crds", "--"]);
    let status = command.args(arguments).arg(FOLDER).current_dir(repo::root()).status().context("cannot run cargo")?;
    ensure!(status.success(), "the CustomResourceDefinitions: see above");
    Ok(())
}
