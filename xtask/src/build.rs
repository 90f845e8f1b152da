//! `cargo xtask build`: the eBPF object, then every program and test program.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use crate::setup::{self, Purpose};
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

/// [`build`], and what it needs.
pub(crate) fn build_with_setup(profile: Profile) -> Result<()> {
    setup::ensure(&[Purpose::Build])?;
    build(profile)
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

/// Builds all in release and becomes the test program `name`, with root's rights.
pub(crate) fn run_as_root(name: &str, purposes: &[Purpose], why: &str, arguments: &[&str]) -> Result<()> {
    setup::ensure(purposes)?;
    build(Profile::Release)?;
    let program = Profile::Release.folder().join(name);
    ensure!(program.is_file(), "{} was not built: is {name} a member of the workspace?", program.display());
    let mut command = step::as_root(why, &program)?;
    let error = command.args(arguments).current_dir(repo::root()).exec();
    Err(error).with_context(|| format!("cannot start {}", program.display()))
}
