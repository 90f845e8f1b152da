//! `cargo xtask build`: the eBPF object, then every program and test program.

use std::path::PathBuf;

use anyhow::Result;

use crate::{ebpf, repo, step};

/// Which of Cargo's profiles the programs are built with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    /// Quick to build.
    Dev,
    /// What runs under load and in production.
    Release,
}

impl Profile {
    /// The folder of its programs.
    pub(crate) fn folder(self) -> PathBuf {
        repo::target().join(match self {
            Self::Dev => "debug",
            Self::Release => "release",
        })
    }
}

/// Builds everything that can be run, apart from this program.
pub(crate) fn build(profile: Profile) -> Result<()> {
    ebpf::build()?;
    let mut command = step::cargo();
    command.args(["build", "--workspace", "--exclude", "xtask", "--bins"]);
    let label = match profile {
        Profile::Dev => "programs",
        Profile::Release => {
            command.arg("--release");
            "programs (release)"
        }
    };
    step::run(label, &mut command).map(drop)
}
