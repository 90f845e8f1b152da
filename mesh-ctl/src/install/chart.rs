//! The chart that is built into this program, and the values that it is given.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use clap::Args;
use serde_json::Value;
use tempfile::TempDir;

/// The chart's files by their path in it.
const FILES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/chart.rs"));
/// Where its definitions of kinds are, which are applied apart.
const DEFINITIONS: &str = "crds/";

/// Values of the chart, as helm takes them.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Values of the chart, as helm takes them")]
pub(crate) struct Values {
    /// A file of values; those of a later file go before those of an earlier one.
    #[arg(short = 'f', long = "values", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// One value; goes before those of files.
    #[arg(long = "set", value_name = "NAME=VALUE")]
    set: Vec<String>,
    /// One value that is text, whatever it looks like.
    #[arg(long = "set-string", value_name = "NAME=VALUE")]
    set_string: Vec<String>,
}

impl Values {
    /// As helm's arguments.
    pub(crate) fn arguments(&self) -> anyhow::Result<Vec<String>> {
        let mut arguments = Vec::new();
        for file in &self.files {
            // The chart is rendered more than once, and standard input can be read once.
            ensure!(file.is_file(), "--values {}: there is no such file", file.display());
            arguments.extend(["--values".to_owned(), file.display().to_string()]);
        }
        for (flag, values) in [("--set", &self.set), ("--set-string", &self.set_string)] {
            arguments.extend(values.iter().flat_map(|value| [flag.to_owned(), value.clone()]));
        }
        Ok(arguments)
    }
}

/// The chart in a directory of its own, which goes with this.
#[derive(Debug)]
pub(crate) struct Chart {
    directory: TempDir,
}

impl Chart {
    /// Writes it out, since helm reads files.
    pub(crate) fn unpack() -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("mesh-chart-").tempdir();
        let directory = directory.context("no place to write the chart to; TMPDIR names another")?;
        for (name, text) in FILES {
            let path = directory.path().join(name);
            let parent = path.parent().unwrap_or(directory.path());
            fs::create_dir_all(parent)
                .and_then(|()| fs::write(&path, text))
                .with_context(|| format!("writing the chart to {}", path.display()))?;
        }
        Ok(Self { directory })
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }
}

/// The definitions of the kinds that the mesh reads.
pub(crate) fn definitions() -> anyhow::Result<Vec<Value>> {
    let of_kinds = FILES.iter().filter(|(name, _)| name.starts_with(DEFINITIONS));
    of_kinds.map(|(name, text)| serde_saphyr::from_str(text).with_context(|| format!("the chart's {name}"))).collect()
}

/// The objects of rendered manifests.
pub(crate) fn objects(manifests: &str) -> anyhow::Result<Vec<Value>> {
    // Each document begins with a line that says which file of the chart it is of, and may hold comments alone.
    let documents = manifests.split("\n---\n").map(|document| document.trim_start_matches("---\n"));
    let said = |document: &&str| document.lines().any(|line| !line.is_empty() && !line.starts_with('#'));
    documents.filter(said).map(|document| serde_saphyr::from_str(document).context("what helm rendered")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chart_is_whole() {
        let chart = Chart::unpack().unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/mesh");
        for name in ["Chart.yaml", "values.yaml", "templates/node.yaml", "templates/_names.tpl"] {
            let (ours, theirs) = (fs::read(chart.path().join(name)).unwrap(), fs::read(source.join(name)).unwrap());
            assert_eq!(ours, theirs, "{name}");
        }
        let there = fs::read_dir(source.join("crds")).unwrap().count();
        assert!(there > 0);
        assert_eq!(definitions().unwrap().len(), there);
    }

    #[test]
    fn documents_without_an_object_are_left_out() {
        let text = "---\n# Source: mesh/templates/a.yaml\nkind: A\n---\n# Source: mesh/templates/b.yaml\n# nothing\n---\nkind: C\n";
        let kinds: Vec<_> = objects(text).unwrap().into_iter().map(|object| object["kind"].clone()).collect();
        assert_eq!(kinds, ["A", "C"]);
    }
}
