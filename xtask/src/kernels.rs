//! `cargo xtask kernels`: the eBPF tests on other kernels, booted in QEMU.

mod image;
mod initramfs;
mod suite;

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use image::{SERIES, Series};
pub(crate) use suite::test;

use crate::build::Profile;

use crate::{repo, step};

/// After this long a boot is hung; software emulation is slow, and a run of all tests takes minutes.
const LIMIT_SECONDS: u32 = 1500;

/// What a command in another kernel did.
pub(crate) struct Outcome {
    /// The kernel's release, as it says itself.
    pub(crate) release: String,
    /// The command's exit code.
    pub(crate) code: i32,
    /// What it wrote.
    pub(crate) output: String,
}

/// Boots the series' kernel, with `files` at the paths that they have here, and runs `script` in a shell.
pub(crate) fn run_in_kernel(series: Series, files: &[PathBuf], script: &str) -> Result<Outcome> {
    ensure!(std::env::consts::ARCH == "x86_64", "other kernels are booted on x86_64 alone");
    let image = image::fetch(series)?;
    let archive = repo::target().join("kernels").join(format!("initramfs-{}-{}.cpio", series.name, std::process::id()));
    initramfs::pack(&image, files, &format!("#!/usr/bin/bash\n{script}\n"), &archive)?;
    let mut command = Command::new("timeout");
    command.args(["--foreground", &LIMIT_SECONDS.to_string(), "qemu-system-x86_64"]);
    // KVM is not to be had, or hangs, in many build machines; emulation works in all.
    command.args(["-machine", "pc,accel=tcg", "-cpu", "max", "-smp", "2", "-m", "3072"]);
    command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio"]);
    command.arg("-kernel").arg(&image.vmlinuz).arg("-initrd").arg(&archive);
    command.args(["-append", "console=ttyS0 quiet panic=-1 rdinit=/init"]);
    let finished = step::watch(&format!("kernel {}", series.name), &mut command);
    std::fs::remove_file(&archive).with_context(|| format!("cannot remove {}", archive.display()))?;
    let finished = finished?;
    outcome(&finished.output).with_context(|| {
        let tail: Vec<&str> = finished.output.lines().rev().take(30).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        format!(
            "kernel {} ended ({}) without a result; its console's end:\n{}",
            series.name,
            finished.status,
            tail.join("\n")
        )
    })
}

/// Reads a console for the marks that init.sh prints.
fn outcome(console: &str) -> Option<Outcome> {
    let console = console.replace('\r', "");
    let (_, after) = console.split_once("MESH-KERNEL-BEGIN ")?;
    let (release, after) = after.split_once('\n')?;
    let (output, after) = after.rsplit_once("MESH-KERNEL-END ")?;
    let code = after.lines().next()?.trim().parse().ok()?;
    Some(Outcome { release: release.trim().to_owned(), code, output: output.to_owned() })
}

/// [`test`], with its outcome as the command's own.
pub(crate) fn test_alone(profile: Profile) -> Result<()> {
    let tally = test(profile)?;
    println!("{} passed, {} failed", tally.passed, tally.failed);
    ensure!(tally.failed == 0, "{} failed", tally.failed);
    Ok(())
}

/// Runs one shell command in every kernel, with `files` and their libraries, and shows what it wrote.
pub(crate) fn try_command(script: &str, files: &[&str]) -> Result<()> {
    let here = std::env::current_dir().context("no current folder")?;
    let files: Vec<PathBuf> = files.iter().map(|file| here.join(file)).collect();
    let mut failed = Vec::new();
    for series in SERIES {
        let outcome = run_in_kernel(series, &files, script)?;
        println!("{}: exit {}\n{}", outcome.release, outcome.code, outcome.output.trim_end());
        if outcome.code != 0 {
            failed.push(outcome.release);
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    bail!("the command failed on {}", failed.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_read_from_the_console() {
        let console = "boot\r\nMESH-KERNEL-BEGIN 6.1.0-56\r\nhello\r\nMESH-KERNEL-END 3\r\n[ 1.0] reboot\r\n";
        let outcome = outcome(console).unwrap();
        assert_eq!((outcome.release.as_str(), outcome.code, outcome.output.as_str()), ("6.1.0-56", 3, "hello\n"));
    }

    #[test]
    fn a_console_without_an_end_is_no_result() {
        for console in
            ["", "MESH-KERNEL-BEGIN 6.1\nhello\n", "MESH-KERNEL-END 0\n", "MESH-KERNEL-BEGIN 6.1\nMESH-KERNEL-END \n"]
        {
            assert!(outcome(console).is_none(), "{console:?}");
        }
    }
}
