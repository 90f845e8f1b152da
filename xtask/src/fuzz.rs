//! `cargo xtask fuzz`: every fuzz target in turn, each for so many seconds.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use toml::de::DeTable;

use crate::setup::{self, Purpose};
use crate::test::Tally;
use crate::{repo, step};

/// How long each target runs in `cargo xtask test`, in seconds: enough to see that it still holds what it promises.
pub(crate) const SHORT_TURN: u64 = 5;
/// How long each target runs where nobody says.
const USUAL_TURN: u64 = 60;
/// Longest input, longest run of one input, memory.
const BOUNDS: [&str; 3] = ["-max_len=65536", "-timeout=10", "-rss_limit_mb=2048"];

/// What tells libFuzzer which code an input has reached; the flags that cargo-fuzz sets, but for sanitizers: our crates forbid
/// unsafe code, and these need no nightly compiler.
const COVERAGE: [&str; 9] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cllvm-args=-simplifycfg-branch-fold-threshold=0",
    "-Cdebug-assertions",
    "-Ccodegen-units=1",
    "--cfg=fuzzing",
];

/// What a person may say after `fuzz`.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    seconds: u64,
    only: Option<String>,
}

/// Runs what the arguments say: `[--seconds N] [TARGET]`.
pub(crate) fn run(arguments: &[&str]) -> Result<()> {
    let plan = plan(arguments)?;
    setup::ensure(&[Purpose::Build])?;
    let tally = turns(plan.seconds, plan.only.as_deref())?;
    ensure!(tally.failed == 0, "{} of the fuzz targets found something", tally.failed);
    Ok(())
}

fn plan(arguments: &[&str]) -> Result<Plan> {
    match arguments {
        [] => Ok(Plan { seconds: USUAL_TURN, only: None }),
        ["--seconds", seconds] => Ok(Plan { seconds: number(seconds)?, only: None }),
        ["--seconds", seconds, target] | [target, "--seconds", seconds] => {
            Ok(Plan { seconds: number(seconds)?, only: Some((*target).to_owned()) })
        }
        [target] if !target.starts_with('-') => Ok(Plan { seconds: USUAL_TURN, only: Some((*target).to_owned()) }),
        _ => bail!("usage: cargo xtask fuzz [--seconds N] [TARGET]"),
    }
}

fn number(text: &str) -> Result<u64> {
    text.parse()
        .ok()
        .filter(|seconds| *seconds > 0)
        .with_context(|| format!("--seconds {text}: not a number of seconds"))
}

/// Runs all targets, or one of them; a target that finds something counts as a test that failed.
pub(crate) fn turns(seconds: u64, only: Option<&str>) -> Result<Tally> {
    let targets = targets()?;
    let chosen: Vec<_> = targets.iter().filter(|name| only.is_none_or(|only| only == **name)).collect();
    ensure!(!chosen.is_empty(), "no fuzz target {}; there are {}", only.unwrap_or(""), targets.join(", "));
    let programs = build()?;
    let mut tally = Tally::default();
    for target in chosen {
        match turn(&programs, target, seconds) {
            Ok(()) => tally.passed += 1,
            Err(error) => {
                eprintln!("{target}: {error:#}");
                tally.failed += 1;
            }
        }
    }
    Ok(tally)
}

fn home() -> PathBuf {
    repo::root().join("fuzz")
}

/// The names of the fuzz crate's programs.
fn targets() -> Result<Vec<String>> {
    let path = home().join("Cargo.toml");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let table = DeTable::parse(&text).map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))?;
    let programs = table.get_ref().get("bin").and_then(|value| value.get_ref().as_array());
    let names = programs.into_iter().flatten().filter_map(|program| {
        let name = program.get_ref().as_table()?.get("name")?;
        Some(name.get_ref().as_str()?.to_owned())
    });
    Ok(names.collect())
}

/// Builds all targets and returns the folder of their programs.
fn build() -> Result<PathBuf> {
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let output = repo::target().join("fuzz");
    let mut command = step::cargo();
    // With a target named, build scripts and macros are built without the flags.
    command.args(["build", "--release", "--bins", "--target", &triple, "--manifest-path"]);
    command.arg(home().join("Cargo.toml")).arg("--target-dir").arg(&output);
    command.env("RUSTFLAGS", COVERAGE.join(" "));
    step::run("fuzz targets", &mut command)?;
    Ok(output.join(triple).join("release"))
}

/// One target's turn, from the seeds and what earlier turns have found worth keeping.
fn turn(programs: &Path, target: &str, seconds: u64) -> Result<()> {
    let (corpus, artifacts) = (home().join("corpus").join(target), home().join("artifacts").join(target));
    for folder in [&corpus, &artifacts] {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let mut command = Command::new(programs.join(target));
    command.arg(&corpus);
    let seeds = home().join("seeds").join(target);
    if seeds.is_dir() {
        command.arg(&seeds);
    }
    command.args(BOUNDS).arg(format!("-max_total_time={seconds}"));
    if seconds <= SHORT_TURN {
        // The same inputs each time: a short turn judges a change, and not the dice.
        command.arg("-seed=1");
    }
    command.arg(format!("-artifact_prefix={}/", artifacts.display()));
    let label = format!("fuzz {target}");
    step::run(&label, &mut command).map(drop).with_context(|| format!("the input is in {}", artifacts.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_understood_or_refused() {
        let all = |seconds| Plan { seconds, only: None };
        let one = |seconds| Plan { seconds, only: Some("manifests".to_owned()) };
        assert_eq!(plan(&[]).unwrap(), all(USUAL_TURN));
        assert_eq!(plan(&["--seconds", "5"]).unwrap(), all(5));
        assert_eq!(plan(&["manifests"]).unwrap(), one(USUAL_TURN));
        assert_eq!(plan(&["manifests", "--seconds", "5"]).unwrap(), one(5));
        for wrong in [&["--seconds"][..], &["--seconds", "0"], &["--seconds", "x"], &["--help"]] {
            assert!(plan(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn every_target_has_its_file() {
        let targets = targets().unwrap();
        assert!(targets.len() >= 6);
        for target in targets {
            assert!(home().join(format!("fuzz_targets/{target}.rs")).is_file(), "{target}");
        }
    }
}
