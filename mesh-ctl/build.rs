//! Puts the chart into the program, file by file, so that `mesh-ctl install` needs nothing beside it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() {
    let variable = |name| PathBuf::from(env::var_os(name).expect("cargo sets it"));
    let chart = variable("CARGO_MANIFEST_DIR").join("../charts/mesh");
    println!("cargo:rerun-if-changed={}", chart.display());
    let written = list(&chart, &chart).and_then(|files| fs::write(variable("OUT_DIR").join("chart.rs"), text(&files)));
    if let Err(error) = written {
        println!("cargo::error=the chart cannot be read from {}: {error}", chart.display());
    }
}

/// The files of a directory by their path below the chart's, in order.
fn list(chart: &Path, directory: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let mut entries = fs::read_dir(directory)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::path);
    let mut files = Vec::new();
    for path in entries.iter().map(fs::DirEntry::path) {
        if path.is_dir() {
            files.extend(list(chart, &path)?);
        } else {
            let below = path.strip_prefix(chart).map_err(io::Error::other)?;
            files.push((below.to_string_lossy().into_owned(), path));
        }
    }
    Ok(files)
}

fn text(files: &[(String, PathBuf)]) -> String {
    let mut text = String::from("&[\n");
    for (name, path) in files {
        // Writing to a text cannot fail.
        let _ = writeln!(text, "    ({name:?}, include_str!({path:?})),");
    }
    text + "]\n"
}
