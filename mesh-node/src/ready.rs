//! `mesh-node ready`: whether the daemon of this container is the one in charge of the node.
//!
//! While one daemon takes over from another, both are there on the node's own network, and the readiness port answers for the one
//! that accepts. Who answers at the admin socket the kernel tells, and whose container that is its mount namespace.

use std::{
    fs, io,
    os::unix::{fs::MetadataExt as _, net::UnixStream},
    path::Path,
    process::{self, ExitCode},
};

use rustix::net::sockopt::socket_peercred;

use crate::args::Whose;

/// Why it is not, or cannot be told.
#[derive(Debug, thiserror::Error)]
enum NotReady {
    #[error("no daemon answers at {0}: {1}")]
    Nobody(String, io::Error),
    #[error("{0} cannot be read: {1}")]
    Unreadable(String, io::Error),
    #[error("process {0} is in charge of the node, in another container")]
    Another(i32),
}

/// Says by the exit code whether it is, and why not.
pub fn run(whose: &Whose) -> ExitCode {
    match is_ours(&whose.admin_socket, &whose.proc) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mesh-node ready: {error}");
            ExitCode::FAILURE
        }
    }
}

fn is_ours(socket: &Path, proc: &Path) -> Result<(), NotReady> {
    let nobody = |error| NotReady::Nobody(socket.display().to_string(), error);
    let stream = UnixStream::connect(socket).map_err(nobody)?;
    // Who listened, whoever accepts.
    let pid = socket_peercred(&stream).map_err(|error| nobody(error.into()))?.pid.as_raw_nonzero().get();
    if mounts(proc, pid)? == mounts(proc, process::id().cast_signed())? { Ok(()) } else { Err(NotReady::Another(pid)) }
}

/// The mount namespace of a process: what runs in a container by its runtime's exec has the container's, and not always its cgroup.
fn mounts(proc: &Path, pid: i32) -> Result<u64, NotReady> {
    let path = proc.join(format!("{pid}/ns/mnt"));
    let namespace = fs::metadata(&path).map_err(|error| NotReady::Unreadable(path.display().to_string(), error))?;
    Ok(namespace.ino())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn whoever_listens_is_in_charge_if_it_has_the_same_mounts() {
        let dir = tempfile::tempdir().unwrap();
        let (socket, proc) = (dir.path().join("admin.sock"), dir.path().join("proc"));
        assert!(matches!(is_ours(&socket, Path::new("/proc")), Err(NotReady::Nobody(..))));
        let _listener = UnixListener::bind(&socket).unwrap();
        is_ours(&socket, Path::new("/proc")).unwrap();
        assert!(matches!(is_ours(&socket, &proc), Err(NotReady::Unreadable(..))));
    }
}
