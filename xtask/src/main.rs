//! The project's one command: `cargo xtask <command>`.

#![forbid(unsafe_code)]

mod bench;
mod build;
mod check;
mod conformance;
mod crds;
mod dashboards;
mod demo;
mod docs;
mod ebpf;
mod fuzz;
mod go;
mod image;
mod kernels;
mod kube;
mod repo;
mod setup;
mod step;
mod test;

use std::process::ExitCode;

use anyhow::{Result, bail};
use build::Profile;
use setup::Purpose;

const USAGE: &str = "\
cargo xtask <command>

  demo [options]         two nodes, a shop, mTLS by identity; `demo --help` lists the options
  demo bank [options]    eight services with policies between them: each pair tried, a refusal explained
  demo shop [options]    the shop behind a waypoint: canary, retries, circuit breaking, faults, authorization, ingress, egress, by numbers
  demo kube [options]    a real Kubernetes: the mesh by Helm, the shop by kubectl, a waypoint, a canary, and nothing left behind
  test [filter]          everything: check, unit tests, lab tests, fuzzing in short, the eBPF tests on other kernels
  check                  the architecture's rules, formatting, dependencies, clippy
  crds                   writes the CustomResourceDefinitions of Istio's kinds: charts/mesh/crds
  dashboards             writes Grafana's dashboards: charts/mesh/files/dashboards
  docs [PROGRAM...]      writes the generated pages of docs/reference: of these programs alone, or of all
  docs sources           only findings and chart values, which need no build
  bench [options]        raw, the mesh and Envoy, compared; `bench --help` lists the options
  fuzz [--seconds N] [TARGET]
                         every fuzz target in turn, or one of them; a minute each unless said otherwise
  build [--release]      the eBPF programs, all programs and test programs
  ebpf                   the eBPF programs alone: target/bpf/mesh-ebpf.o
  kernels                the tests named kernel_* on Debian's other kernels, in QEMU
  kernels --run COMMAND [FILE...]
                         one shell command on each of them, with these files at the paths that they have here
  kube up|down|status|kubeconfig
                         a Kubernetes of two nodes on this machine; builds it first (10 minutes of CPU, once)
  kube test              the tests of tests/kube on a cluster that is made for them
  kube build             builds it and the images, and starts nothing
  kube load-image FILE...
                         gives images (docker or OCI archives) to its nodes
  go                     builds the programs in Go that tests run: Jaeger, a client of Istio's types (a minute or two, once)
  conformance [--keep] [--debug] [options of the suite]
                         the Gateway API's own suite; report in tests/kube/conformance
  image [--debug]        images of the programs as archives: target/images/*.tar; --debug: of those that are quick to build
  setup                  install what is missing (Debian 12 and 13; elsewhere: says what to install)

The others do what setup does for what they need.
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match dispatch(&arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(arguments: &[String]) -> Result<ExitCode> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["test"] => return Ok(test::run(None)),
        ["test", filter] => return Ok(test::run(Some(filter))),
        words => plain(words)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The commands that either work or end with an error.
fn plain(words: &[&str]) -> Result<()> {
    match words {
        ["setup"] => setup::ensure(&setup::ALL),
        ["ebpf"] => {
            setup::ensure(&[Purpose::Build])?;
            ebpf::build().map(drop)
        }
        ["build"] => build::build_with_setup(Profile::Dev),
        ["build", "--release"] => build::build_with_setup(Profile::Release),
        ["check"] => {
            setup::ensure(&[Purpose::Build, Purpose::Check])?;
            check::run()
        }
        ["crds"] => crds::write(),
        ["dashboards"] => dashboards::write(),
        ["docs", programs @ ..] => docs::write(programs),
        ["kernels"] => {
            setup::ensure(&[Purpose::Build, Purpose::Lab, Purpose::Kernels])?;
            build::build(Profile::Release)?;
            kernels::test_alone(Profile::Release)
        }
        ["kernels", "--run", script, files @ ..] => {
            setup::ensure(&[Purpose::Lab, Purpose::Kernels])?;
            kernels::try_command(script, files)
        }
        ["demo", rest @ ..] => demo::run(rest),
        ["bench", rest @ ..] => bench::run(rest),
        ["kube", rest @ ..] => kube::run(rest),
        ["go"] => {
            setup::ensure(&[Purpose::Kube])?;
            go::programs()
        }
        ["conformance", rest @ ..] => conformance::run(rest),
        ["image"] => images(Profile::Dist),
        ["image", "--debug"] => images(Profile::Dev),
        ["fuzz", rest @ ..] => fuzz::run(rest),
        [] | ["help" | "--help" | "-h"] => {
            print!("{USAGE}");
            Ok(())
        }
        other => bail!("no command `{}`\n\n{USAGE}", other.join(" ")),
    }
}

fn images(profile: Profile) -> Result<()> {
    setup::ensure(&[Purpose::Build])?;
    build::build(profile)?;
    image::build_all(profile).map(drop)
}
