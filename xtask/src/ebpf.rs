//! `cargo xtask ebpf`: mesh-ebpf -> target/bpf/mesh-ebpf.o, which mesh-node takes in when it is built.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::setup::{self, DEBIAN_CARGO, DEBIAN_RUSTC};
use crate::{repo, step};

const CRATE: &str = "mesh-ebpf";
const TARGET: &str = "bpfel-unknown-none";

/// Names a rustup toolchain that has rust-src, to be used instead of Debian's packages.
const TOOLCHAIN: &str = "MESH_EBPF_TOOLCHAIN";

/// Builds the object; cargo decides what is fresh. The file changes only when its content does.
pub(crate) fn build() -> Result<PathBuf> {
    let source = repo::root().join(CRATE);
    let folder = repo::target().join("bpf");
    build_at(&source, &folder)
}

fn build_at(source: &Path, folder: &Path) -> Result<PathBuf> {
    ensure!(source.join("Cargo.toml").is_file(), "{} is missing; is this a whole checkout?", source.display());
    let work = folder.join("build");
    let mut command = compiler()?;
    command.current_dir(source).args(["build", "--release", "--target", TARGET, "--bin", CRATE]);
    command.arg("--target-dir").arg(&work).env("CARGO_ENCODED_RUSTFLAGS", flags());
    step::run("eBPF programs", &mut command)?;
    let built = work.join(TARGET).join("release").join(CRATE);
    let object = folder.join("mesh-ebpf.o");
    copy_if_changed(&built, &object)?;
    Ok(object)
}

/// Cargo with a compiler that has the eBPF target.
fn compiler() -> Result<Command> {
    let chosen = std::env::var(TOOLCHAIN).ok();
    let mut command = match chosen {
        None if setup::debian_toolchain_present() => {
            let mut command = Command::new(DEBIAN_CARGO);
            command.env("RUSTC", DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "1");
            command
        }
        chosen => {
            let toolchain = chosen.unwrap_or_else(|| "nightly".to_owned());
            ensure!(
                step::find("rustup").is_some(),
                "the eBPF programs need a compiler with the eBPF target: on Debian 12 and 13 run `cargo xtask setup`; \
                 elsewhere install rustup and run `rustup toolchain install nightly --component rust-src`"
            );
            let mut command = Command::new("rustup");
            command.args(["run", &toolchain, "cargo", "-Zbuild-std=core"]);
            command
        }
    };
    // The rustup and cargo that started this program left their own compiler's settings here.
    let inherited = ["RUSTUP_TOOLCHAIN", "LD_LIBRARY_PATH", "RUSTFLAGS", "RUSTC_WRAPPER", "CARGO_TARGET_DIR", "CARGO"];
    for name in inherited {
        command.env_remove(name);
    }
    Ok(command)
}

fn flags() -> String {
    let linker = setup::cargo_bin().join("bpf-linker");
    let arch = std::env::consts::ARCH;
    let flags = [
        "-C".to_owned(),
        format!("linker={}", linker.display()),
        "--cfg".to_owned(),
        format!("bpf_target_arch=\"{arch}\""),
        "-C".to_owned(),
        "link-arg=--btf".to_owned(),
        "-C".to_owned(),
        "debuginfo=2".to_owned(),
    ];
    flags.join("\u{1f}")
}

fn copy_if_changed(from: &Path, to: &Path) -> Result<()> {
    let new = std::fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    if std::fs::read(to).is_ok_and(|old| old == new) {
        return Ok(());
    }
    std::fs::write(to, new).with_context(|| format!("cannot write {}", to.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unchanged_object_keeps_its_time() {
        let folder = std::env::temp_dir().join(format!("xtask-ebpf-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (from, to) = (folder.join("from"), folder.join("to"));
        std::fs::write(&from, "one").unwrap();
        copy_if_changed(&from, &to).unwrap();
        let first = std::fs::metadata(&to).unwrap().modified().unwrap();
        copy_if_changed(&from, &to).unwrap();
        assert_eq!(std::fs::metadata(&to).unwrap().modified().unwrap(), first);
        std::fs::write(&from, "two").unwrap();
        copy_if_changed(&from, &to).unwrap();
        assert_eq!(std::fs::read(&to).unwrap(), b"two");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
