//! What a lab needs of the machine, said before anything is made.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// Programs that the lab runs, with Debian's package for each.
const PROGRAMS: [(&str, &str); 9] = [
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("tcpdump", "tcpdump"),
    ("nsenter", "util-linux"),
    ("unshare", "util-linux"),
    ("setpriv", "util-linux"),
    ("mount", "mount"),
    ("sleep", "coreutils"),
    ("sh", "dash"),
];

/// Fails with one sentence when this process cannot make a lab here.
pub(crate) fn check() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("a lab makes network namespaces and cgroups and so needs root: run it with sudo");
    }
    let missing: Vec<_> = PROGRAMS.iter().filter(|(program, _)| find_in_path(program).is_none()).collect();
    if !missing.is_empty() {
        let programs: Vec<_> = missing.iter().map(|(program, _)| *program).collect();
        let mut packages: Vec<_> = missing.iter().map(|(_, package)| *package).collect();
        packages.dedup();
        bail!("a lab needs {}: run `apt-get install {}`", programs.join(", "), packages.join(" "));
    }
    Ok(())
}

/// The search path for everything that a lab runs: this process's own, and where Debian keeps root's programs.
pub(crate) fn search_path() -> String {
    let own = env::var("PATH").unwrap_or_default();
    format!("{own}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
}

/// Where a program is in [`search_path`].
pub(crate) fn find_in_path(program: &str) -> Option<PathBuf> {
    search_path()
        .split(':')
        .filter(|dir| !dir.is_empty())
        .map(|dir| Path::new(dir).join(program))
        .find(|path| path.is_file())
}
