//! Where the project's own programs are.

use std::env;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

/// Directories that may hold the built programs: `MESH_BIN_DIR`, or those above this program (`target/<profile>` for a
/// program and for a test, which cargo puts one deeper).
pub(crate) fn directories() -> Result<Vec<PathBuf>> {
    if let Some(dir) = env::var_os("MESH_BIN_DIR") {
        // Whole, since pods' processes start elsewhere.
        let dir = std::path::absolute(&dir).with_context(|| format!("MESH_BIN_DIR={}", dir.display()))?;
        return Ok(vec![dir]);
    }
    let exe = env::current_exe().context("finding this program's own path")?;
    Ok(exe.ancestors().skip(1).take(2).map(PathBuf::from).collect())
}

/// The path of a program of this workspace, as cargo built it.
///
/// # Errors
/// Fails with the cargo command that builds it when it is not there.
pub fn binary(name: &str) -> Result<PathBuf> {
    let directories = directories()?;
    for dir in &directories {
        let path = dir.join(name);
        if path.is_file() {
            return Ok(path);
        }
    }
    let looked: Vec<_> = directories.iter().map(|dir| dir.display().to_string()).collect();
    bail!(
        "{name} is not built: run `cargo build --bin {name}` (looked in {}; MESH_BIN_DIR names another place)",
        looked.join(", ")
    )
}
