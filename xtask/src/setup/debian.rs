//! Installation by apt on Debian 12 and 13.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::needs::{self, Need};
use crate::step;

/// Debian's hook that is asked before a package starts its service.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// "12", "13" where this is such a Debian.
pub(super) fn release() -> Option<String> {
    let text = std::fs::read_to_string("/etc/os-release").ok()?;
    supported(&text)
}

fn supported(os_release: &str) -> Option<String> {
    let value = |key: &str| {
        let line = os_release.lines().find_map(|line| line.strip_prefix(key))?;
        Some(line.trim_matches('"').to_owned())
    };
    let version = value("VERSION_ID=")?;
    (value("ID=")? == "debian" && ["12", "13"].contains(&version.as_str())).then_some(version)
}

/// Installs the packages of `missing`, and leaves no service running that was not running before.
pub(super) fn install(release: &str, missing: &[Need]) -> Result<()> {
    let packages = needs::packages(missing);
    eprintln!("Debian {release}: installing {}", packages.join(" "));
    let why = format!("apt installs {} package(s)", packages.len());
    apt(&why, "apt-get update", &["update"])?;
    offered(release, &packages)?;
    let quiet = Quiet::begin(&why)?;
    let mut arguments = vec!["install", "--yes", "--no-install-recommends"];
    arguments.extend(&packages);
    let result = apt(&why, "apt-get install", &arguments);
    quiet.end(&packages)?;
    result
}

fn apt(why: &str, label: &str, arguments: &[&str]) -> Result<()> {
    let mut command = step::as_root(why, "env")?;
    command.args(["DEBIAN_FRONTEND=noninteractive", "NEEDRESTART_SUSPEND=1", "apt-get", "--quiet"]).args(arguments);
    step::run(label, &mut command).map(drop).with_context(|| {
        format!(
            "{label} failed. Look at its output above; check the network and /etc/apt/sources.list, then run this again"
        )
    })
}

/// Fails, naming what to do, where this machine's apt sources do not offer a package.
fn offered(release: &str, packages: &[&str]) -> Result<()> {
    let output = Command::new("apt-cache").arg("policy").args(packages).output().context("apt-cache did not start")?;
    let absent = not_offered(&String::from_utf8_lossy(&output.stdout), packages);
    if absent.is_empty() {
        return Ok(());
    }
    let (suite, hint) =
        if release == "12" { ("bookworm", " and bookworm-security") } else { ("trixie", " and trixie-security") };
    let mut message = format!(
        "this machine's apt sources do not offer: {}. They are in Debian's {suite}{hint}: add those to /etc/apt/sources.list",
        absent.join(" ")
    );
    if absent.iter().any(|name| name.contains("rust") || name.contains("cargo") || name.contains("llvm")) {
        message += ". Or build the eBPF programs with rustup: `rustup toolchain install nightly --component rust-src`, \
                    `cargo install bpf-linker --version 0.13.0 --locked`, then set MESH_EBPF_TOOLCHAIN=nightly";
    }
    bail!(message)
}

/// The packages without an installation candidate in `apt-cache policy`'s output.
fn not_offered<'a>(policy: &str, packages: &[&'a str]) -> Vec<&'a str> {
    let has_candidate = |package: &str| {
        policy
            .lines()
            .skip_while(|line| *line != format!("{package}:"))
            .find_map(|line| line.trim().strip_prefix("Candidate: "))
            .is_some_and(|candidate| candidate != "(none)")
    };
    packages.iter().filter(|package| !has_candidate(package)).copied().collect()
}

/// While it lives, packages do not start their services. A machine with a policy of its own keeps that.
struct Quiet {
    placed: bool,
    why: String,
}

impl Quiet {
    fn begin(why: &str) -> Result<Self> {
        if Path::new(POLICY).exists() {
            return Ok(Self { placed: false, why: why.to_owned() });
        }
        let draft: PathBuf = std::env::temp_dir().join(format!("mesh-policy-rc.d-{}", std::process::id()));
        std::fs::write(&draft, "#!/bin/sh\n# cargo xtask setup: start no service during this installation\nexit 101\n")
            .with_context(|| format!("cannot write {}", draft.display()))?;
        let mut command = step::as_root(why, "install")?;
        command.args(["-m", "755"]).arg(&draft).arg(POLICY);
        let status = command.status().context("cannot start install")?;
        std::fs::remove_file(&draft).with_context(|| format!("cannot remove {}", draft.display()))?;
        if !status.success() {
            bail!("cannot write {POLICY}, which keeps nginx from being started as a service");
        }
        Ok(Self { placed: true, why: why.to_owned() })
    }

    /// Takes the policy away, and the start at boot of what was installed.
    fn end(mut self, packages: &[&str]) -> Result<()> {
        if packages.contains(&"nginx-light") && Path::new("/run/systemd/system").exists() {
            let mut command = step::as_root(&self.why, "systemctl")?;
            command.args(["--quiet", "disable", "nginx.service"]);
            command.status().context("cannot start systemctl")?;
        }
        self.remove()
    }

    fn remove(&mut self) -> Result<()> {
        if !std::mem::take(&mut self.placed) {
            return Ok(());
        }
        let mut command = step::as_root(&self.why, "rm")?;
        command.args(["-f", POLICY]);
        if !command.status().context("cannot start rm")?.success() {
            bail!("cannot remove {POLICY}; remove it, or services will not start when packages are installed");
        }
        Ok(())
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        // Only on the way out of another failure, which is what gets reported.
        let _ = self.remove();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_debian_12_and_13_are_supported() {
        let cases = [
            ("ID=debian\nVERSION_ID=\"12\"\n", Some("12")),
            ("PRETTY_NAME=\"x\"\nID=debian\nVERSION_ID=\"13\"\n", Some("13")),
            ("ID=debian\nVERSION_ID=\"11\"\n", None),
            ("ID=ubuntu\nVERSION_ID=\"12\"\n", None),
            ("ID=debian\n", None),
        ];
        for (text, expected) in cases {
            assert_eq!(supported(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn a_package_without_candidate_is_named() {
        let policy = "wrk:\n  Installed: (none)\n  Candidate: 4.1\nnft:\n  Installed: (none)\n  Candidate: (none)\n";
        assert_eq!(not_offered(policy, &["wrk", "nft", "unheard-of"]), ["nft", "unheard-of"]);
    }
}
