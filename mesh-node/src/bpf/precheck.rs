//! What a machine must have before anything is attached, each lack in one sentence.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use rustix::thread::{CapabilitySet, capabilities};

/// Oldest kernel with everything that the hooks use (netns cookies in `sock_ops`).
const OLDEST_KERNEL: (u32, u32) = (5, 15);
/// `BPF_FS_MAGIC` (include/uapi/linux/magic.h).
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;
/// `CGROUP2_SUPER_MAGIC`
const CGROUP2_MAGIC: i64 = 0x6367_7270;

/// Why the daemon cannot run on this machine.
#[derive(Debug, thiserror::Error)]
pub enum PrecheckError {
    /// Effective user is not root.
    #[error("mesh-node must run as root to load eBPF programs; start it as root or in a privileged container")]
    NotRoot,
    /// Root without a capability, as in a container that is not privileged.
    #[error("mesh-node lacks {0}: start it as root with all capabilities, or in a privileged container")]
    MissingCapability(&'static str),
    /// The process's capabilities could not be read.
    #[error("cannot read this process's capabilities: {0}")]
    Capabilities(io::Error),
    /// Kernel older than 5.15.
    #[error("kernel {found} is too old: the data path needs Linux {}.{} or newer", OLDEST_KERNEL.0, OLDEST_KERNEL.1)]
    OldKernel {
        /// The running kernel's release.
        found: String,
    },
    /// No BTF.
    #[error("this kernel has no BTF at {path}: boot one built with CONFIG_DEBUG_INFO_BTF=y")]
    NoBtf {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// No cgroup v2 hierarchy.
    #[error(
        "no cgroup v2 hierarchy is mounted: mount one (mount -t cgroup2 none /sys/fs/cgroup/unified) or boot with systemd.unified_cgroup_hierarchy=1"
    )]
    NoCgroup2,
    /// The directory given with `--cgroup-root` is no cgroup v2 directory.
    #[error("{path} is not in a cgroup v2 hierarchy: pass the mount point of one with --cgroup-root")]
    NotCgroup2 {
        /// The directory.
        path: PathBuf,
    },
    /// The pin directory is not on a BPF file system.
    #[error("{path} is not on a BPF file system: mount one (mount -t bpf bpf {path}) or pass another --bpf-dir")]
    NotBpffs {
        /// The directory, or its nearest existing parent.
        path: PathBuf,
    },
    /// A file could not be read.
    #[error("cannot read {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Checks the machine and returns the root of its cgroup v2 hierarchy.
///
/// # Errors
/// The first lack found; nothing has been changed then.
pub fn precheck(cgroup_root: Option<&Path>, bpf_dir: &Path, proc: &Path) -> Result<PathBuf, PrecheckError> {
    check_user()?;
    check_capabilities()?;
    check_kernel(proc)?;
    check_btf()?;
    let root = find_cgroup_root(cgroup_root, proc)?;
    check_bpffs(bpf_dir)?;
    Ok(root)
}

/// What [`precheck`] looks at, each by its name, with what was found or is missing.
pub fn requirements(
    cgroup_root: Option<&Path>,
    bpf_dir: &Path,
    proc: &Path,
) -> [(&'static str, Result<String, PrecheckError>); 6] {
    [
        ("user", check_user().map(|()| "root".to_owned())),
        ("capabilities", check_capabilities().map(|()| "CAP_SYS_ADMIN, CAP_NET_ADMIN".to_owned())),
        ("kernel", check_kernel(proc)),
        ("BTF", check_btf().map(|path| path.display().to_string())),
        ("cgroup v2", find_cgroup_root(cgroup_root, proc).map(|root| root.display().to_string())),
        ("BPF file system", check_bpffs(bpf_dir).map(|()| bpf_dir.display().to_string())),
    ]
}

fn check_user() -> Result<(), PrecheckError> {
    if rustix::process::geteuid().is_root() { Ok(()) } else { Err(PrecheckError::NotRoot) }
}

fn check_btf() -> Result<&'static Path, PrecheckError> {
    let btf = Path::new("/sys/kernel/btf/vmlinux");
    if btf.exists() { Ok(btf) } else { Err(PrecheckError::NoBtf { path: btf.into() }) }
}

fn find_cgroup_root(given: Option<&Path>, proc: &Path) -> Result<PathBuf, PrecheckError> {
    let root = match given {
        Some(path) => path.to_owned(),
        None => cgroup2_mount(&read(&proc.join("self/mounts"))?).ok_or(PrecheckError::NoCgroup2)?,
    };
    if file_system(&root) == Some(CGROUP2_MAGIC) { Ok(root) } else { Err(PrecheckError::NotCgroup2 { path: root }) }
}

fn read(path: &Path) -> Result<String, PrecheckError> {
    fs::read_to_string(path).map_err(|source| PrecheckError::Unreadable { path: path.into(), source })
}

/// What hooks on pods' interfaces, pods' namespaces and eBPF maps (CAP_BPF is part of CAP_SYS_ADMIN) take.
fn check_capabilities() -> Result<(), PrecheckError> {
    let sets = capabilities(None).map_err(|errno| PrecheckError::Capabilities(errno.into()))?;
    for (needed, name) in [(CapabilitySet::SYS_ADMIN, "CAP_SYS_ADMIN"), (CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN")] {
        if !sets.effective.contains(needed) {
            return Err(PrecheckError::MissingCapability(name));
        }
    }
    Ok(())
}

fn check_kernel(proc: &Path) -> Result<String, PrecheckError> {
    let release = read(&proc.join("sys/kernel/osrelease"))?;
    check_release(&release)?;
    Ok(release.trim().to_owned())
}

fn check_release(release: &str) -> Result<(), PrecheckError> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < OLDEST_KERNEL {
        return Err(PrecheckError::OldKernel { found: release.trim().to_owned() });
    }
    Ok(())
}

/// The first cgroup v2 mount in the text of /proc/self/mounts.
fn cgroup2_mount(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let target = fields.nth(1)?;
        (fields.next()? == "cgroup2").then(|| PathBuf::from(target))
    })
}

fn check_bpffs(dir: &Path) -> Result<(), PrecheckError> {
    if is_on_bpffs(dir) {
        return Ok(());
    }
    Err(PrecheckError::NotBpffs { path: nearest(dir).into() })
}

/// Whether a directory is on a BPF file system, or would be once it is made.
pub(super) fn is_on_bpffs(dir: &Path) -> bool {
    file_system(nearest(dir)) == Some(BPF_FS_MAGIC)
}

fn nearest(dir: &Path) -> &Path {
    dir.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"))
}

fn file_system(path: &Path) -> Option<i64> {
    rustix::fs::statfs(path).ok().map(|stat| stat.f_type)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_before_5_15_are_refused_by_name() {
        for release in ["5.14.0-generic", "4.19.0-27-amd64", "", "junk"] {
            let error = check_release(release).expect_err(release);
            assert!(error.to_string().contains("too old"), "{error}");
        }
        for release in ["5.15.0", "6.1.0-49-cloud-amd64", "6.18.44", "10.0"] {
            check_release(release).expect(release);
        }
    }

    #[test]
    fn cgroup2_is_found_beside_v1_hierarchies() {
        let hybrid = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0\n";
        assert_eq!(cgroup2_mount(hybrid), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        assert_eq!(cgroup2_mount("cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\n"), None);
    }
}
