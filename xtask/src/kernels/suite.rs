//! The tests that run on every kernel: those named `kernel_...`, with the programs that they start.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::image::SERIES;
use super::run_in_kernel;
use crate::build::Profile;
use crate::test::{PROGRAMS_VARIABLE, Tally, without_passed};
use crate::{repo, step};

const FILTER: &str = "kernel_";

/// Where such tests may be.
const PACKAGES: [&str; 2] = ["mesh-node", "mesh-e2e"];

/// Files beside the programs that tests read.
const DATA: [&str; 2] = ["tests/shop/manifests", "tests/e2e/data"];

/// Runs them on each kernel with the programs of `profile`, which have been built.
pub(crate) fn test(profile: Profile) -> Result<Tally> {
    let suites = suites()?;
    ensure!(!suites.is_empty(), "no test named {FILTER}* in {}", PACKAGES.join(" and "));
    let mut files = suites.clone();
    files.extend(programs(&profile.folder())?);
    files.extend(DATA.iter().map(|data| repo::root().join(data)).filter(|data| data.exists()));
    let mut sum = Tally::default();
    for series in SERIES {
        let outcome = run_in_kernel(series, &files, &script(&suites, profile))?;
        let tally = Tally::of(&outcome.output);
        eprintln!("kernel {}: exit {} {tally}", outcome.release, outcome.code);
        if outcome.code != 0 {
            eprintln!("{}", without_passed(&outcome.output));
            ensure!(
                tally.failed > 0,
                "the tests on {} ended with {} and no failed test",
                outcome.release,
                outcome.code
            );
        }
        sum += tally.not_nothing().with_context(|| format!("on {}", outcome.release))?;
    }
    Ok(sum)
}

fn script(suites: &[PathBuf], profile: Profile) -> String {
    let mut script = format!("export {PROGRAMS_VARIABLE}='{}'\ncode=0\n", profile.folder().display());
    for suite in suites {
        // One at a time: two emulated processors are slow enough without.
        script += &format!("'{}' {FILTER} --test-threads=1 || code=1\n", suite.display());
    }
    script + "exit $code"
}

/// Test programs that have tests of that name.
fn suites() -> Result<Vec<PathBuf>> {
    let mut command = step::cargo();
    command.args(["test", "--no-run"]).args(PACKAGES.iter().flat_map(|package| ["--package", package]));
    let output = step::run("tests for other kernels", &mut command)?;
    let mut suites = Vec::new();
    for program in executables(&output) {
        let program = repo::root().join(program);
        let listed = Command::new(&program).args([FILTER, "--list"]).output();
        let listed = listed.with_context(|| format!("cannot start {}", program.display()))?;
        if String::from_utf8_lossy(&listed.stdout).lines().any(|line| line.ends_with(": test")) {
            suites.push(program);
        }
    }
    Ok(suites)
}

/// Paths in `cargo test --no-run`'s output.
fn executables(output: &str) -> Vec<PathBuf> {
    let path = |line: &str| {
        Some(PathBuf::from(line.trim().strip_prefix("Executable ")?.rsplit_once('(')?.1.trim_end_matches(')')))
    };
    output.lines().filter_map(path).collect()
}

fn programs(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let files = entries.filter_map(Result::ok).map(|entry| entry.path());
    let programs =
        files.filter(|path| path.extension().is_none() && step::is_program(path) && !path.ends_with("xtask"));
    Ok(programs.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_programs_are_read_from_cargo() {
        let output = "    Finished `test` profile\n  Executable unittests src/lib.rs (target/debug/deps/mesh_e2e-1)\n  Executable tests/a.rs (/x/b-2)\n";
        assert_eq!(executables(output), [Path::new("target/debug/deps/mesh_e2e-1"), Path::new("/x/b-2")]);
    }
}
