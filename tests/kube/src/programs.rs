//! Where Kubernetes' programs are.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// Names the directory that `cargo xtask kube` builds them into.
const BUILT: &str = "MESH_KUBE_PROGRAMS";
/// The convention of envtest: a directory with kube-apiserver and etcd that are to be used instead.
const ASSETS: &str = "KUBEBUILDER_ASSETS";

/// A directory of programs.
#[derive(Debug, Clone)]
pub struct Programs {
    built: PathBuf,
    assets: Option<PathBuf>,
}

impl Programs {
    /// Those that the environment names.
    ///
    /// # Errors
    /// When it names none, or they are not there.
    pub fn find() -> Result<Self> {
        let built = std::env::var_os(BUILT).map(PathBuf::from);
        let built = built.with_context(|| format!("{BUILT} is not set: run this by `cargo xtask kube`"))?;
        let whole = built.join("kubernetes").is_file();
        ensure!(whole, "{} has no Kubernetes: `cargo xtask kube build` makes it", built.display());
        Ok(Self { built, assets: std::env::var_os(ASSETS).map(PathBuf::from) })
    }

    /// The file of a program.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        let given = self.assets.as_ref().map(|assets| assets.join(name)).filter(|file| file.is_file());
        given.unwrap_or_else(|| self.built.join(name))
    }

    /// The program, to be started.
    #[must_use]
    pub fn command(&self, name: &str) -> Command {
        Command::new(self.path(name))
    }

    /// The directory itself.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.built
    }
}
