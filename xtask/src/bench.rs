//! `cargo xtask bench`: raw, the mesh and Envoy over the same two namespaces.

use anyhow::Result;

use crate::build::{self, Profile};
use crate::setup::Purpose;

/// Builds what the bench needs and becomes the bench.
pub(crate) fn run(arguments: &[&str]) -> Result<()> {
    let why = "the bench makes network namespaces and cgroups and loads eBPF programs";
    build::run_as_root(("mesh-bench", Profile::Dist), &[Purpose::Build, Purpose::Lab, Purpose::Bench], why, arguments)
}
