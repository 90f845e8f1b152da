//! `cargo xtask demo`: what a person sees first.

use std::os::unix::process::CommandExt;

use anyhow::{Context, Result};

use crate::build::{self, Profile};
use crate::setup::{self, Purpose};
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
    let why = "Kubernetes' nodes are namespaces, mounts and cgroups";
    let mut command = step::as_root(why, Profile::Release.folder().join("mesh-demo"))?;
    command.args(arguments).env(kube::PROGRAMS_VARIABLE, kube::directory()?).env(IMAGES, repo::target().join("images"));
    let error = command.current_dir(repo::root()).exec();
    Err(error).context("cannot start mesh-demo")
}
