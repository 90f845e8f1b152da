//! The root file system of a booted kernel: busybox, modules, and programs with their libraries at the paths that they have here.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use super::image::Image;
use crate::step;

/// What the programs under test use of a kernel.
const MODULES: &[&str] = &[
    "veth",
    "bridge",
    "br_netfilter",
    "tun",
    "sch_ingress",
    "cls_bpf",
    "sch_netem",
    "tls",
    "nf_tables",
    "nft_chain_nat",
    "nft_ct",
    "nft_nat",
    "nft_redir",
    "nft_masq",
    "nft_numgen",
    "nft_hash",
    "nft_reject_inet",
    "nft_fib_inet",
    "nft_limit",
    "nft_tproxy",
    "nft_socket",
    "inet_diag",
    "tcp_diag",
    "af_packet_diag",
];

/// Programs of this machine that tests call. (The shell too: busybox's runs its own applets before what is in PATH.)
const TOOLS: &[&str] = &[
    "sh", "bash", "env", "timeout", "sleep", "cat", "dd", "mkdir", "mount", "umount", "ip", "tc", "ss", "nft",
    "tcpdump", "nsenter", "unshare", "setpriv", "sysctl", "curl", "openssl", "socat", "nghttp", "h2load", "ping",
];

/// Prints the result where `super::boot` reads it; the kernel halts when it ends.
const INIT: &str = include_str!("init.sh");

/// Packs `files` (by the paths that they have here), the tools and `script` (run by a shell) into `archive`.
pub(crate) fn pack(image: &Image, files: &[PathBuf], script: &str, archive: &Path) -> Result<()> {
    let stage = archive.with_extension("root");
    if stage.exists() {
        fs::remove_dir_all(&stage).with_context(|| format!("cannot empty {}", stage.display()))?;
    }
    skeleton(&stage)?;
    let order = image.modules(MODULES, &stage.join("modules"))?;
    fs::write(stage.join("modules/order"), order.join("\n") + "\n")?;
    write_program(&stage.join("init"), INIT)?;
    write_program(&stage.join("script"), script)?;
    let mut packed = BTreeSet::new();
    for tool in TOOLS {
        let tool = step::find(tool).with_context(|| format!("{tool} is missing; run `cargo xtask setup`"))?;
        add(&stage, &tool, &mut packed)?;
    }
    for file in files {
        add(&stage, file, &mut packed)?;
    }
    cpio(&stage, archive)?;
    fs::remove_dir_all(&stage).with_context(|| format!("cannot remove {}", stage.display()))
}

fn skeleton(stage: &Path) -> Result<()> {
    for folder in [
        "dev",
        "proc",
        "sys",
        "tmp",
        "run",
        "etc",
        "root",
        "bb",
        "var/tmp",
        "usr/bin",
        "usr/sbin",
        "usr/lib",
        "usr/lib64",
    ] {
        fs::create_dir_all(stage.join(folder)).with_context(|| format!("cannot make {}/{folder}", stage.display()))?;
    }
    for name in ["bin", "sbin", "lib", "lib64"] {
        std::os::unix::fs::symlink(format!("usr/{name}"), stage.join(name))?;
    }
    fs::write(
        stage.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\ntcpdump:x:101:101::/:/bin/false\nnobody:x:65534:65534::/:/bin/false\n",
    )?;
    fs::write(stage.join("etc/group"), "root:x:0:\ntcpdump:x:101:\nnogroup:x:65534:\n")?;
    fs::write(stage.join("etc/hosts"), "127.0.0.1 localhost\n::1 localhost\n")?;
    fs::write(stage.join("etc/nsswitch.conf"), "passwd: files\ngroup: files\nhosts: files\n")?;
    let busybox = fs::read("/bin/busybox").context("busybox is missing; run `cargo xtask setup`")?;
    // A program with an interpreter has its libraries to look for, and none are there when it starts.
    let dynamic = busybox.windows(15).any(|window| window == b"/lib64/ld-linux");
    ensure!(!dynamic, "/bin/busybox is not the static one: apt-get install busybox-static");
    fs::copy("/bin/busybox", stage.join("bb/busybox")).map(drop).context("cannot copy /bin/busybox")
}

fn write_program(path: &Path, text: &str) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).map_err(Into::into)
}

/// Copies a file to its own path under `stage`, and the libraries that it is linked with.
fn add(stage: &Path, file: &Path, packed: &mut BTreeSet<PathBuf>) -> Result<()> {
    let place = in_real_folder(file)?;
    if !packed.insert(place.clone()) {
        return Ok(());
    }
    let target = stage.join(place.strip_prefix("/").unwrap_or(&place));
    if let Some(folder) = target.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    if file.is_dir() {
        for entry in fs::read_dir(file).with_context(|| format!("cannot read {}", file.display()))? {
            add(stage, &entry?.path(), packed)?;
        }
        return Ok(());
    }
    fs::copy(file, &target).with_context(|| format!("cannot copy {}", file.display()))?;
    if !is_elf(&target) {
        return Ok(());
    }
    // Debug information is most of a program, and has to fit into memory.
    let _smaller = Command::new("strip").arg("--strip-debug").arg(&target).stderr(Stdio::null()).status();
    for library in libraries(file)? {
        add(stage, &library, packed)?;
    }
    Ok(())
}

/// The path with its folder's symbolic links followed, and its own name kept.
fn in_real_folder(file: &Path) -> Result<PathBuf> {
    let (Some(folder), Some(name)) = (file.parent(), file.file_name()) else { bail!("{} is no file", file.display()) };
    let folder = folder.canonicalize().with_context(|| format!("no folder {}", folder.display()))?;
    Ok(folder.join(name))
}

fn is_elf(file: &Path) -> bool {
    use std::io::Read;
    let mut magic = [0; 4];
    fs::File::open(file).and_then(|mut file| file.read_exact(&mut magic)).is_ok() && magic == *b"\x7fELF"
}

fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(program).output().context("cannot start ldd")?;
    listed(&String::from_utf8_lossy(&output.stdout)).with_context(|| format!("libraries of {}", program.display()))
}

/// Paths in ldd's output.
fn listed(ldd: &str) -> Result<Vec<PathBuf>> {
    if let Some(line) = ldd.lines().find(|line| line.contains("not found")) {
        bail!("{}", line.trim());
    }
    Ok(ldd.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect())
}

fn cpio(stage: &Path, archive: &Path) -> Result<()> {
    let script = format!("find . -print0 | cpio --null --create --format=newc --quiet > '{}'", archive.display());
    let status = Command::new("sh").args(["-c", &script]).current_dir(stage).status().context("cannot start cpio")?;
    ensure!(status.success(), "cpio could not write {}", archive.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_ldd() {
        let text =
            "\tlinux-vdso.so.1 (0x1)\n\tlibc.so.6 => /lib/x/libc.so.6 (0x2)\n\t/lib64/ld-linux-x86-64.so.2 (0x3)\n";
        assert_eq!(listed(text).unwrap(), [Path::new("/lib/x/libc.so.6"), Path::new("/lib64/ld-linux-x86-64.so.2")]);
        assert!(listed("\tlibx.so => not found\n").is_err());
        assert!(listed("\tstatically linked\n").unwrap().is_empty());
    }
}
