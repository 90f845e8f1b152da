//! `cargo xtask demo`: what a person sees first.

use anyhow::Result;

use crate::build;
use crate::setup::Purpose;

/// Builds what the demo needs and becomes the demo.
pub(crate) fn run(arguments: &[&str]) -> Result<()> {
    let why = "the demo makes network namespaces and cgroups and loads eBPF programs";
    build::run_as_root("mesh-demo", &[Purpose::Build, Purpose::Lab], why, arguments)
}
