//! Tools that come from crates.io or belong to the Rust toolchain.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::needs::{self, Purpose};
use crate::step;

/// Builds fast; what is built runs for seconds.
const FAST_PROFILE: [(&str, &str); 4] = [
    ("CARGO_PROFILE_RELEASE_DEBUG", "0"),
    ("CARGO_PROFILE_RELEASE_LTO", "off"),
    ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16"),
    ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1"),
];

const BPF_LINKER: &str = "0.13.0";
const CARGO_DENY: &str = "0.20.2";

/// Where `cargo install` puts programs.
pub(crate) fn cargo_bin() -> PathBuf {
    let home = std::env::var_os("HOME").map_or_else(|| PathBuf::from("/root"), PathBuf::from);
    let cargo_home = std::env::var_os("CARGO_HOME").map_or_else(|| home.join(".cargo"), PathBuf::from);
    std::env::var_os("CARGO_INSTALL_ROOT").map_or(cargo_home, PathBuf::from).join("bin")
}

/// Installs the missing ones of them.
pub(super) fn ensure(purposes: &[Purpose]) -> Result<()> {
    if purposes.contains(&Purpose::Build) && !cargo_bin().join("bpf-linker").exists() {
        bpf_linker()?;
    }
    if purposes.contains(&Purpose::Check) {
        component("cargo-fmt", "rustfmt", "rustfmt-web", "checks formatting")?;
        component("cargo-clippy", "clippy", "rust-web-clippy", "checks the code")?;
        if !cargo_bin().join("cargo-deny").exists() {
            eprintln!("missing cargo-deny: checks licences, sources and versions of dependencies (about 90 s)");
            let mut command = install("cargo-deny", CARGO_DENY);
            step::run("installing cargo-deny", &mut command)?;
        }
    }
    Ok(())
}

fn bpf_linker() -> Result<()> {
    eprintln!("missing bpf-linker {BPF_LINKER}: links the eBPF programs (about 50 s)");
    let mut command = install("bpf-linker", BPF_LINKER);
    if needs::debian_toolchain_present() {
        let path = std::env::var("PATH").unwrap_or_default();
        command.args(["--no-default-features", "--features", "llvm-22"]);
        command.env("PATH", format!("{}/bin:{path}", needs::DEBIAN_LLVM)).env("LLVM_PREFIX", needs::DEBIAN_LLVM);
    }
    step::run("installing bpf-linker", &mut command).map(drop).context(
        "bpf-linker did not build. It needs the LLVM version of the compiler that builds the eBPF programs; \
         see https://github.com/aya-rs/bpf-linker#installation",
    )
}

fn install(name: &str, version: &str) -> Command {
    let mut command = step::cargo();
    // Outside the repository: its .cargo/config.toml and target folder are no business of the tool's.
    command.current_dir("/").env_remove("CARGO_TARGET_DIR");
    command.args(["install", name, "--version", version, "--locked"]);
    command.envs(FAST_PROFILE);
    command
}

/// A part of the Rust toolchain that runs this program.
fn component(program: &str, rustup_name: &str, debian_package: &str, why: &str) -> Result<()> {
    let cargo = std::env::var_os("CARGO").map(PathBuf::from).or_else(|| step::find("cargo")).unwrap_or_default();
    let beside = cargo.parent().is_some_and(|folder| folder.join(program).exists());
    if beside {
        return Ok(());
    }
    eprintln!("missing {program}: {why}");
    if cargo == Path::new(needs::DEBIAN_CARGO) {
        let mut command = step::as_root(&format!("apt installs {debian_package}"), "apt-get")?;
        command.args(["install", "--yes", "--no-install-recommends", debian_package]);
        return step::run(&format!("installing {debian_package}"), &mut command).map(drop);
    }
    if step::find("rustup").is_none() {
        bail!("{program} is not beside {}: install it for this toolchain", cargo.display());
    }
    let mut command = Command::new("rustup");
    command.args(["component", "add", rustup_name]);
    step::run(&format!("rustup component add {rustup_name}"), &mut command).map(drop)
}
