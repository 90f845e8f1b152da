//! What daemons have pinned on their node's BPF file system.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context as _, Result};
use mesh_lab::Lab;

/// The starts of the daemon whose links are pinned on a node, with the number of links altogether.
pub fn generations(lab: &Lab, node: &str) -> Result<(BTreeSet<String>, usize)> {
    let base = lab.home().join(format!("bpf.{node}/mesh"));
    let mut generations = BTreeSet::new();
    let mut links = 0;
    for version in fs::read_dir(&base).with_context(|| format!("reading {}", base.display()))? {
        for link in fs::read_dir(version?.path().join("links"))? {
            let name = link?.file_name().to_string_lossy().into_owned();
            let (_, generation) = name.rsplit_once('@').with_context(|| format!("no generation in {name}"))?;
            generations.insert(generation.to_owned());
            links += 1;
        }
    }
    Ok((generations, links))
}
