//! `cargo xtask docs`: the pages of docs/reference, made from what the programs and the chart say of themselves.
//!
//! They are committed; `cargo xtask check` compares.

mod findings;
mod values;

use anyhow::{Context, Result, ensure};

use crate::repo;

/// Where they are committed.
const FOLDER: &str = "docs/reference";

/// Writes every page.
pub(crate) fn write() -> Result<()> {
    std::fs::create_dir_all(repo::root().join(FOLDER)).with_context(|| format!("cannot make {FOLDER}"))?;
    for (name, text) in pages()? {
        std::fs::write(repo::root().join(FOLDER).join(name), text)
            .with_context(|| format!("cannot write {FOLDER}/{name}"))?;
    }
    eprintln!("pages in {FOLDER}");
    Ok(())
}

/// Fails where what is committed is not what [`write`] makes.
pub(crate) fn check() -> Result<()> {
    let mut stale = Vec::new();
    for (name, text) in pages()? {
        let committed = std::fs::read_to_string(repo::root().join(FOLDER).join(name)).ok();
        if committed.as_ref() != Some(&text) {
            stale.push(name.to_owned());
        }
    }
    ensure!(stale.is_empty(), "not as generated in {FOLDER}: {}; run `cargo xtask docs`", stale.join(", "));
    Ok(())
}

/// The pages that are made here.
fn pages() -> Result<Vec<(&'static str, String)>> {
    Ok(vec![("findings.md", findings::page()?), ("chart-values.md", values::page()?)])
}

fn read(path: &str) -> Result<String> {
    std::fs::read_to_string(repo::root().join(path)).with_context(|| format!("cannot read {path}"))
}
