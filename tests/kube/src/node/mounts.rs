//! What of the machine's files a node has for itself.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use nix::mount::{MsFlags, mount};

use crate::cgroups;
use crate::home;

/// Directories that programs take for their machine's own.
const OWN: [&str; 5] = ["/var/lib/kubelet", "/var/lib/cni", "/var/log/pods", "/var/log/containers", "/etc/cni"];

/// Kernel settings of the whole machine that kubelet would change; here it finds them as it wants them.
const SETTINGS: [(&str, &str); 5] = [
    ("vm/overcommit_memory", "1"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

/// Makes the node's view of the files. `directory` holds what is the node's own; `cgroup` is its cgroup's path.
pub(super) fn set_up(directory: &Path, cgroup: &str) -> Result<()> {
    let nothing = None::<&Path>;
    // What is mounted here stays here, and goes on to the containers that ask for it.
    change(nothing, "/", MsFlags::MS_REC | MsFlags::MS_PRIVATE)?;
    change(nothing, "/", MsFlags::MS_REC | MsFlags::MS_SHARED)?;
    for hierarchy in cgroups::hierarchies()? {
        bind(&hierarchy.mount.join(cgroup), &hierarchy.mount)?;
    }
    new("proc", "/proc")?;
    for (setting, value) in SETTINGS {
        let file = home::write(&directory.join("sys").join(setting.replace('/', ".")), value)?;
        bind(&file, &Path::new("/proc/sys").join(setting))?;
    }
    new("tmpfs", "/run")?;
    new("bpf", "/sys/fs/bpf")?;
    for path in OWN {
        let own = directory.join("own").join(path.replace('/', "_"));
        fs::create_dir_all(&own).with_context(|| format!("making {}", own.display()))?;
        fs::create_dir_all(path).with_context(|| format!("making {path}"))?;
        bind(&own, Path::new(path))?;
    }
    fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("letting the node forward")?;
    Ok(())
}

fn new(kind: &str, target: &str) -> Result<()> {
    mount(Some(kind), target, Some(kind), MsFlags::empty(), None::<&str>)
        .with_context(|| format!("mounting {kind} on {target}"))
}

fn bind(source: &Path, target: &Path) -> Result<()> {
    let what = || format!("mounting {} on {}", source.display(), target.display());
    mount(Some(source), target, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>).with_context(what)
}

fn change(source: Option<&Path>, target: &str, flags: MsFlags) -> Result<()> {
    mount(source, target, None::<&str>, flags, None::<&str>).with_context(|| format!("changing {target}"))
}
