//! `cargo xtask dashboards`: Grafana's dashboards, made from what is said here of them.
//!
//! They are committed, since the chart ships them; `cargo xtask check` compares. A test runs every query of every panel
//! against a real Prometheus over real traffic.

mod board;
mod boards;
mod panel;

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use crate::repo;

/// Where they are committed.
const FOLDER: &str = "charts/mesh/files/dashboards";

/// Writes every dashboard, and removes those that are no more.
pub(crate) fn write() -> Result<()> {
    let folder = folder();
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let files = files();
    for (name, text) in &files {
        std::fs::write(folder.join(name), text).with_context(|| format!("cannot write {FOLDER}/{name}"))?;
    }
    for name in committed()?.difference(&files.iter().map(|(name, _)| name.clone()).collect()) {
        std::fs::remove_file(folder.join(name)).with_context(|| format!("cannot remove {FOLDER}/{name}"))?;
    }
    eprintln!("{} dashboards in {FOLDER}", files.len());
    Ok(())
}

/// Fails where what is committed is not what [`write`] makes.
pub(crate) fn check() -> Result<()> {
    let files = files();
    let mut stale = Vec::new();
    for (name, text) in &files {
        if std::fs::read_to_string(folder().join(name)).ok().as_ref() != Some(text) {
            stale.push(name.clone());
        }
    }
    stale.extend(committed()?.difference(&files.into_iter().map(|(name, _)| name).collect()).cloned());
    ensure!(stale.is_empty(), "not as generated: {} in {FOLDER}; run `cargo xtask dashboards`", stale.join(", "));
    Ok(())
}

fn files() -> Vec<(String, String)> {
    boards::all().iter().map(|board| (format!("{}.json", board.uid), board.to_text())).collect()
}

fn folder() -> PathBuf {
    repo::root().join(FOLDER)
}

fn committed() -> Result<BTreeSet<String>> {
    let entries = std::fs::read_dir(folder()).with_context(|| format!("cannot read {FOLDER}"))?;
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}
