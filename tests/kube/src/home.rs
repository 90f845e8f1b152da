//! Where a cluster's files lie, and what its parts are called.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::addresses::Addresses;

/// Clusters' directories: on a disk, since container images are unpacked here.
const DIRECTORY: &str = "/var/lib/mesh-kube";
/// The nodes of every cluster.
pub(crate) const NODES: [&str; 2] = ["node-a", "node-b"];

/// One cluster's directory and names, by its number.
#[derive(Debug, Clone)]
pub struct Home {
    number: u8,
}

impl Home {
    /// The cluster of that number; a machine can have several at once.
    #[must_use]
    pub fn of(number: u8) -> Self {
        Self { number }
    }

    /// The cluster's name.
    #[must_use]
    pub fn name(&self) -> String {
        format!("mesh-kube-{}", self.number)
    }

    /// Its directory.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        Path::new(DIRECTORY).join(self.number.to_string())
    }

    /// The file by which kubectl and helm reach the cluster from this machine.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.path().join("admin.kubeconfig")
    }

    /// The names of its nodes.
    #[must_use]
    pub fn nodes(&self) -> [&'static str; 2] {
        NODES
    }

    pub(crate) fn number(&self) -> u8 {
        self.number
    }

    pub(crate) fn addresses(&self) -> Addresses {
        Addresses::of(self.number)
    }

    /// A file or directory in it.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    pub(crate) fn node(&self, node: &str) -> PathBuf {
        self.path().join(node)
    }

    /// Where a program's output goes.
    pub(crate) fn log(&self, program: &str) -> PathBuf {
        self.path().join("logs").join(format!("{program}.log"))
    }

    pub(crate) fn certificates(&self) -> PathBuf {
        self.file("pki")
    }

    /// The bridge's name; at most 15 octets.
    pub(crate) fn bridge(&self) -> String {
        format!("meshkube{}", self.number)
    }

    /// A network namespace's name.
    pub(crate) fn netns(&self, part: &str) -> String {
        format!("{}-{part}", self.name())
    }
}

/// Writes a file, and the directories above it.
pub(crate) fn write(path: &Path, text: &str) -> Result<PathBuf> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
    }
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))?;
    Ok(path.to_owned())
}
