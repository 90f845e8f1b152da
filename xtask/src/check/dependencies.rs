//! Licences, sources and known vulnerabilities of dependencies, by cargo-deny (deny.toml).

use std::process::Command;

use anyhow::{Context, Result};

use crate::{repo, setup, step};

pub(super) fn check() -> Result<()> {
    let deny = setup::cargo_bin().join("cargo-deny");
    for manifest in ["Cargo.toml", "mesh-ebpf/Cargo.toml"] {
        let mut command = command(&deny, manifest);
        command.args(["check", "--hide-inclusion-graph", "bans", "licenses", "sources"]);
        step::run(&format!("cargo-deny of {manifest}"), &mut command)
            .context("see deny.toml for what is allowed, and why")?;
    }
    let fetched = step::watch("vulnerability database", command(&deny, "Cargo.toml").args(["fetch", "db"]))?;
    if !fetched.status.success() {
        eprintln!("vulnerabilities NOT checked: https://github.com/rustsec/advisory-db cannot be reached from here");
        return Ok(());
    }
    let mut command = command(&deny, "Cargo.toml");
    command.args(["check", "--disable-fetch", "--hide-inclusion-graph", "advisories"]);
    step::run("vulnerabilities", &mut command)
        .map(drop)
        .context("update the crate, or say in deny.toml why it does no harm")
}

fn command(deny: &std::path::Path, manifest: &str) -> Command {
    let mut command = Command::new(deny);
    command.current_dir(repo::root()).args(["--manifest-path", manifest, "--config", "deny.toml"]);
    // cargo-deny asks cargo for the dependency graph.
    command.env("CARGO", std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
}
