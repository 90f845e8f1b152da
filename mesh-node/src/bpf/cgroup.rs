//! The daemon's own cgroup, by which the kernel knows its sockets.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// Cgroup that the daemon makes for itself where it was started in one that it shares.
const OWN_NAME: &str = "mesh-node";

/// The daemon's cgroup could not be found or made.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// /proc says nothing of a cgroup v2.
    #[error("{path} names no cgroup v2 (a line that begins with 0::)")]
    NotListed {
        /// The file that was read.
        path: PathBuf,
    },
    /// A file of the hierarchy could not be read or written.
    #[error(
        "cannot use {path}: {source}; start the daemon in a cgroup of its own, or let it make one below --cgroup-root"
    )]
    Access {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Makes sure that this process is alone in its cgroup, and returns the cgroup's id
/// (`bpf_get_current_cgroup_id`, the inode number of its directory).
pub(super) fn own_cgroup_id(root: &Path, proc: &Path) -> Result<u64, CgroupError> {
    let listing = proc.join("self/cgroup");
    let text = fs::read_to_string(&listing).map_err(|source| access(&listing, source))?;
    let relative =
        text.lines().find_map(|line| line.strip_prefix("0::/")).ok_or(CgroupError::NotListed { path: listing })?;
    let mut dir = root.join(relative);
    if !is_alone(&dir)? {
        dir = dir.join(OWN_NAME);
        move_into(&dir)?;
    }
    let metadata = fs::metadata(&dir).map_err(|source| access(&dir, source))?;
    Ok(metadata.ino())
}

fn is_alone(dir: &Path) -> Result<bool, CgroupError> {
    let members = dir.join("cgroup.procs");
    let text = fs::read_to_string(&members).map_err(|source| access(&members, source))?;
    let own = std::process::id().to_string();
    Ok(text.lines().all(|pid| pid == own))
}

fn move_into(dir: &Path) -> Result<(), CgroupError> {
    match fs::create_dir(dir) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(source) => return Err(access(dir, source)),
    }
    let members = dir.join("cgroup.procs");
    fs::write(&members, std::process::id().to_string()).map_err(|source| access(&members, source))
}

fn access(path: &Path, source: io::Error) -> CgroupError {
    CgroupError::Access { path: path.into(), source }
}
