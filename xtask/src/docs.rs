//! `cargo xtask docs`: the pages of docs/reference, made from what the programs and the chart say of themselves.
//!
//! They are committed; `cargo xtask check` compares what sources alone tell. Flags and metrics are written, and held whole, by
//! tests of the programs that have them, named `reference_...`; the check looks for their names.

mod findings;
mod names;
mod values;

use anyhow::{Context, Result, ensure};

use crate::{ebpf, repo, step};

/// Where they are committed.
const FOLDER: &str = "docs/reference";
/// Has those tests write their page in place of comparing it.
const WRITE: (&str, &str) = ("MESH_REFERENCE", "write");
/// In place of a program: none, which needs no build.
const SOURCES: &str = "sources";
/// The programs that have them.
const PROGRAMS: [&str; 4] = ["mesh-node", "mesh-waypoint", "mesh-control", "mesh-ctl"];

/// Writes the pages that sources alone tell, and those of some programs; of all when none is named.
pub(crate) fn write(programs: &[&str]) -> Result<()> {
    std::fs::create_dir_all(repo::root().join(FOLDER)).with_context(|| format!("cannot make {FOLDER}"))?;
    for (name, text) in pages()? {
        std::fs::write(repo::root().join(FOLDER).join(name), text)
            .with_context(|| format!("cannot write {FOLDER}/{name}"))?;
    }
    let programs = match programs {
        [] => &PROGRAMS[..],
        [SOURCES] => return Ok(()),
        named => named,
    };
    // mesh-node takes the object in when it is built.
    ebpf::build()?;
    let mut command = step::cargo();
    command.args(["test", "--quiet", "--bins"]).env(WRITE.0, WRITE.1);
    for program in programs {
        ensure!(PROGRAMS.contains(program), "{program} has no page; name some of: {SOURCES}, {}", PROGRAMS.join(", "));
        command.args(["--package", program]);
    }
    step::run("flags and metrics", command.arg("reference_")).map(drop)
}

/// Fails where what is committed is not what [`write`] makes, as far as sources alone tell.
pub(crate) fn check() -> Result<()> {
    let mut stale = Vec::new();
    for (name, text) in pages()? {
        let committed = std::fs::read_to_string(repo::root().join(FOLDER).join(name)).ok();
        if committed.as_ref() != Some(&text) {
            stale.push(name.to_owned());
        }
    }
    ensure!(stale.is_empty(), "not as generated in {FOLDER}: {}; run `cargo xtask docs sources`", stale.join(", "));
    let missing = names::missing()?;
    ensure!(missing.is_empty(), "not in {FOLDER}: {}; run `cargo xtask docs PROGRAM`", missing.join(", "));
    Ok(())
}

/// The pages that are made here.
fn pages() -> Result<Vec<(&'static str, String)>> {
    Ok(vec![("findings.md", findings::page()?), ("chart-values.md", values::page()?)])
}

fn read(path: &str) -> Result<String> {
    std::fs::read_to_string(repo::root().join(path)).with_context(|| format!("cannot read {path}"))
}
