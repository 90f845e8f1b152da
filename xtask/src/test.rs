//! `cargo xtask test`: everything, in the order in which failures are cheapest to find.

mod tally;

use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Result, bail};
pub(crate) use tally::{Tally, without_passed};

use crate::build::{self, Profile};
use crate::{check, demo, fuzz, go, kernels, kube, setup, step};

/// Packages whose tests make network namespaces, cgroups and eBPF maps.
const AS_ROOT: &[&str] = &["mesh-lab", "mesh-e2e", "mesh-node", "mesh-demo", "mesh-hostile", "mesh-bench"];

/// The package whose tests need a cluster.
const ON_KUBERNETES: &str = "mesh-kube-cluster";

/// Tests under load run these, so they are what production runs.
const PROGRAMS: Profile = Profile::Release;

/// Names where the lab finds the programs.
pub(crate) const PROGRAMS_VARIABLE: &str = "MESH_BIN_DIR";

/// What has been run so far.
#[derive(Default)]
struct Report {
    tally: Tally,
    stages: Vec<(String, f32, String)>,
}

impl Report {
    /// Runs one part; a part that fails before it can count its tests counts as one failure.
    fn stage(&mut self, name: &str, part: impl FnOnce() -> Result<Tally>) -> bool {
        let started = Instant::now();
        let (tally, verdict) = match part() {
            Ok(tally) if tally.failed == 0 => (tally, "ok"),
            Ok(tally) => (tally, "FAILED"),
            Err(error) => {
                eprintln!("{name}: {error:#}");
                (Tally { passed: 0, failed: 1, ignored: 0 }, "FAILED")
            }
        };
        self.tally += tally;
        self.stages.push((name.to_owned(), started.elapsed().as_secs_f32(), format!("{verdict} {tally}")));
        verdict == "ok"
    }

    /// Prints the summary. Its last line is the last thing that the command says.
    fn finish(self) -> ExitCode {
        println!();
        for (name, seconds, verdict) in &self.stages {
            println!("{name:<24} {seconds:>7.1} s  {verdict}");
        }
        if self.tally.not_nothing().is_err() {
            eprintln!("no test ran: is the filter a part of a test's name?");
        }
        println!("{} passed, {} failed", self.tally.passed, self.tally.failed);
        if self.tally.failed > 0 || self.tally.not_nothing().is_err() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }
}

/// Runs all tests, or those whose name contains `filter`.
pub(crate) fn run(filter: Option<&str>) -> ExitCode {
    let mut report = Report::default();
    let ready = report.stage("setup", || nothing_to_count(setup::ensure(&setup::ALL)))
        && report.stage("build", || nothing_to_count(build::build(PROGRAMS)));
    if !ready {
        return report.finish();
    }
    if filter.is_none() {
        report.stage("check", || nothing_to_count(check::run()));
    }
    report.stage("programs in Go", || nothing_to_count(go::programs()));
    if step::is_root() {
        report.stage("tests", || cargo_test("tests", &["--workspace", "--exclude", ON_KUBERNETES], filter, None));
    } else {
        let mut others = vec!["--workspace", "--exclude", ON_KUBERNETES];
        others.extend(AS_ROOT.iter().flat_map(|package| ["--exclude", package]));
        report.stage("tests", || cargo_test("tests", &others, filter, None));
        report.stage("tests of the lab", || tests_as_root(filter));
    }
    match filter {
        None => {
            let schemas = ["--package", "mesh-config", "--features", "schema", "--lib"];
            report
                .stage("tests of the schemas", || cargo_test("tests of the schemas", &schemas, Some("schema::"), None));
            report.stage("fuzzing", || fuzz::turns(fuzz::SHORT_TURN, None));
            report.stage("tests on other kernels", || kernels::test(PROGRAMS));
            report.stage("tests on Kubernetes", || kube::test(sudo().as_deref()));
            report.stage("demo on Kubernetes", demo::test_on_kubernetes);
        }
        Some(_) => eprintln!(
            "because of the filter, `check`, the schemas, fuzzing, the other kernels and Kubernetes were left out"
        ),
    }
    report.finish()
}

fn nothing_to_count(result: Result<()>) -> Result<Tally> {
    result.map(|()| Tally::default())
}

fn tests_as_root(filter: Option<&str>) -> Result<Tally> {
    // Asks for the password now; cargo then starts each test program through sudo.
    step::as_root("lab tests make network namespaces, cgroups and eBPF maps", "true")?;
    let packages: Vec<&str> = AS_ROOT.iter().flat_map(|package| ["--package", package]).collect();
    let runner = format!("sudo env {PROGRAMS_VARIABLE}={}", PROGRAMS.folder().display());
    cargo_test("tests of the lab", &packages, filter, Some(&runner))
}

/// How tests on a cluster are started, where this is not root.
fn sudo() -> Option<String> {
    let programs = kube::directory().ok()?;
    let runner =
        format!("sudo env {}={} MESH_KUBE_NUMBER={}", kube::PROGRAMS_VARIABLE, programs.display(), kube::TESTS);
    (!step::is_root()).then_some(runner)
}

fn cargo_test(label: &str, packages: &[&str], filter: Option<&str>, runner: Option<&str>) -> Result<Tally> {
    let mut command = step::cargo();
    command.args(["test", "--no-fail-fast"]).args(packages).args(filter);
    command.env(PROGRAMS_VARIABLE, PROGRAMS.folder());
    if let Some(runner) = runner {
        through(&mut command, runner);
    }
    count(label, &mut command)
}

/// Has cargo start each test program through `runner`.
pub(crate) fn through(command: &mut Command, runner: &str) {
    let arch = std::env::consts::ARCH.to_uppercase();
    command.env(format!("CARGO_TARGET_{arch}_UNKNOWN_LINUX_GNU_RUNNER"), runner);
}

/// Runs tests and counts them.
pub(crate) fn count(label: &str, command: &mut Command) -> Result<Tally> {
    let finished = step::watch(label, command)?;
    let tally = Tally::of(&finished.output);
    if !finished.status.success() {
        eprintln!("{}", without_passed(&finished.output));
    }
    if !finished.status.success() && tally.failed == 0 {
        bail!("`{}` ended with {}; see its output above", step::shown(command), finished.status);
    }
    Ok(tally)
}
