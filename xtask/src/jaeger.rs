//! Jaeger, which tests send their spans to: one program, built from its published sources and kept outside the repository.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::{repo, step};

/// As tests/jaeger/go.mod has it, and where mesh-waypoint/tests/proxy/jaeger.rs looks for it.
const VERSION: &str = "v1.76.0";
const PACKAGE: &str = "github.com/jaegertracing/jaeger/cmd/all-in-one";

/// Builds it unless it is there.
pub(crate) fn program() -> Result<()> {
    let program = place()?;
    if program.exists() {
        return Ok(());
    }
    if let Some(directory) = program.parent() {
        fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
    }
    let draft = program.with_extension("draft");
    let mut command = Command::new("nice");
    command.args(["-n", "10", "go", "build", "-mod=readonly", "-trimpath", "-ldflags", "-s -w", "-o"]);
    command.arg(&draft).arg(PACKAGE).current_dir(repo::root().join("tests/jaeger")).env("CGO_ENABLED", "0");
    step::run(&format!("Jaeger {VERSION}"), &mut command)?;
    fs::rename(&draft, &program).with_context(|| format!("moving {}", draft.display()))
}

fn place() -> Result<PathBuf> {
    Ok(repo::cache()?.join("jaeger").join(VERSION).join("jaeger"))
}
