//! `cargo xtask demo`: what a person sees first.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result};

use crate::build::{self, Profile};
use crate::setup::{self, Purpose};
use crate::test::Tally;
use crate::{image, kube, repo, step};

/// Where the demonstration finds the images.
const IMAGES: &str = "MESH_DEMO_IMAGES";

/// Builds what the demo needs and becomes the demo.
pub(crate) fn run(arguments: &[&str]) -> Result<()> {
    if arguments.contains(&"kube") {
        return on_kubernetes(arguments);
    }
    let why = "the demo makes network namespaces and cgroups and loads eBPF programs";
    build::run_as_root(("mesh-demo", Profile::Release), &[Purpose::Build, Purpose::Lab], why, arguments)
}

/// Builds Kubernetes and the images as well, and becomes the demo on it.
fn on_kubernetes(arguments: &[&str]) -> Result<()> {
    setup::ensure(&[Purpose::Build, Purpose::Lab, Purpose::Kube])?;
    kube::programs()?;
    build::build(Profile::Release)?;
    image::build_all(Profile::Release)?;
    let error = command_on_kubernetes()?.args(arguments).exec();
    Err(error).context("cannot start mesh-demo")
}

/// The demo on Kubernetes as a test, where Kubernetes, the programs and the images are built.
pub(crate) fn test_on_kubernetes() -> Result<Tally> {
    let mut command = command_on_kubernetes()?;
    step::run("demo on Kubernetes", command.arg("kube"))?;
    Ok(Tally { passed: 1, ..Tally::default() })
}

fn command_on_kubernetes() -> Result<Command> {
    let mut command = step::as_root(kube::WHY, Profile::Release.folder().join("mesh-demo"))?;
    command.env(kube::PROGRAMS_VARIABLE, kube::directory()?).env(IMAGES, repo::target().join("images"));
    command.current_dir(repo::root());
    Ok(command)
}
