//! `cargo xtask check`: what a reviewer should not have to look for.

mod arrows;
mod dependencies;
mod sizes;
mod source;
mod unsafety;
mod words;

use std::fmt;
use std::process::Command;

use anyhow::{Context, Result, bail};
use source::Source;

use crate::{crds, dashboards, docs, ebpf, repo, step};

/// A broken rule: where, what, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Violation {
    path: String,
    line: usize,
    message: String,
}

impl Violation {
    fn new(path: &str, line: usize, message: String) -> Self {
        Self { path: path.to_owned(), line, message }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.message)
    }
}

/// Runs every check, also after one has failed, and names those that did.
pub(crate) fn run() -> Result<()> {
    let outcomes = [
        ("architecture", architecture()),
        ("custom resource definitions", crds::check()),
        ("dashboards", dashboards::check()),
        ("docs", docs::check()),
        ("formatting", formatting()),
        ("dependencies", dependencies::check()),
        ("clippy", clippy()),
    ];
    let mut failed = Vec::new();
    for (name, outcome) in outcomes {
        if let Err(error) = outcome {
            eprintln!("{name}: {error:#}");
            failed.push(name);
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    bail!("check failed: {}", failed.join(", "))
}

fn architecture() -> Result<()> {
    let mut violations = Vec::new();
    let rust = repo::files(".rs")?;
    for path in &rust {
        let path = path.to_string_lossy();
        let source = Source::new(&path, &read(&path)?);
        violations.extend(sizes::check(&source));
        violations.extend(unsafety::check(&source));
        violations.extend(words::check(&source));
    }
    violations.extend(arrows_of_all()?);
    if violations.is_empty() {
        eprintln!("architecture: {} files follow the rules", rust.len());
        return Ok(());
    }
    for violation in &violations {
        eprintln!("{violation}");
    }
    bail!("{} broken rule(s), listed above", violations.len())
}

fn arrows_of_all() -> Result<Vec<Violation>> {
    let mut manifests = Vec::new();
    let mut ours = Vec::new();
    for path in repo::files("Cargo.toml")? {
        let path = path.to_string_lossy().into_owned();
        let text = read(&path)?;
        ours.extend(arrows::name_in(&path, &text)?);
        manifests.push((path, text));
    }
    let mut violations = Vec::new();
    for (path, text) in &manifests {
        violations.extend(arrows::check(path, text, &ours)?);
    }
    violations.extend(arrows::check_document("ARCHITECTURE.md", &read("ARCHITECTURE.md")?));
    Ok(violations)
}

fn read(path: &str) -> Result<String> {
    std::fs::read_to_string(repo::root().join(path)).with_context(|| format!("cannot read {path}"))
}

fn formatting() -> Result<()> {
    fmt_check("formatting", step::cargo().args(["fmt", "--all", "--check", "--", "-l"]))?;
    let ebpf = repo::root().join("mesh-ebpf/Cargo.toml");
    fmt_check(
        "formatting of mesh-ebpf",
        step::cargo().args(["fmt", "--check", "--manifest-path"]).arg(ebpf).args(["--", "-l"]),
    )
}

fn fmt_check(label: &str, command: &mut Command) -> Result<()> {
    step::run(label, command).map(drop).context("run `cargo fmt --all` (and `cargo fmt` in mesh-ebpf)")
}

fn clippy() -> Result<()> {
    // mesh-node takes the object in when it is built.
    ebpf::build()?;
    let mut command = step::cargo();
    command.args(["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"]);
    step::run("clippy", &mut command).map(drop)
}
