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
    /// What runs under load in tests.
    Release,
    /// What users get, and what is measured: smaller, and takes longer to build. Only what images have, and the bench.
    Dist,
}

/// What is built as users get it.
const DISTRIBUTED: [&str; 7] =
    ["mesh-node", "mesh-ctl", "mesh-control", "mesh-waypoint", "mesh-traffic", "mesh-shop", "mesh-bench"];

impl Profile {
    /// The folder of its programs.
    pub(crate) fn folder(self) -> PathBuf {
        repo::target().join(match self {
            Self::Dev => "debug",
            Self::Release => "release",
            Self::Dist => "dist",
        })
    }
}

/// Everything that can be run, apart from this program.
const EVERYTHING: [&str; 3] = ["--workspace", "--exclude", "xtask"];

/// [`build`], and what it needs.
pub(crate) fn build_with_setup(profile: Profile) -> Result<()> {
    setup::ensure(&[Purpose::Build])?;
    build(profile)
}

/// Builds the programs.
pub(crate) fn build(profile: Profile) -> Result<()> {
    ebpf::build()?;
    let mut command = step::cargo();
    command.args(["build", "--bins"]);
    let label = match profile {
        Profile::Dev => {
            command.args(EVERYTHING);
            "programs"
        }
        Profile::Release => {
            command.args(EVERYTHING).arg("--release");
            "programs (release)"
        }
        Profile::Dist => {
            command.args(["--profile", "dist"]).args(DISTRIBUTED.iter().flat_map(|name| ["--package", name]));
            "programs (dist)"
        }
    };
    step::run(label, &mut command).map(drop)
}

/// Builds all in that profile and becomes the test program `name`, with root's rights; where it is only asked for its options, that
/// program alone is built, and quickly.
pub(crate) fn run_as_root(
    (name, profile): (&str, Profile),
    purposes: &[Purpose],
    why: &str,
    arguments: &[&str],
) -> Result<()> {
    if arguments.iter().any(|argument| ["help", "--help", "-h"].contains(argument)) {
        let mut command = step::cargo();
        let error = command.args(["run", "--package", name, "--"]).args(arguments).current_dir(repo::root()).exec();
        return Err(error).context("cannot start cargo");
    }
    setup::ensure(purposes)?;
    build(profile)?;
    let program = profile.folder().join(name);
    ensure!(program.is_file(), "{} was not built: is {name} a member of the workspace?", program.display());
    let mut command = step::as_root(why, &program)?;
    let error = command.args(arguments).current_dir(repo::root()).exec();
    Err(error).with_context(|| format!("cannot start {}", program.display()))
}
