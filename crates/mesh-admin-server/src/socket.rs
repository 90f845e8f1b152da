//! The Unix socket, from its opening to the moment when clients find it.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use tokio::net::UnixListener;

/// The socket's directory, if it has to be made.
const DIRECTORY_MODE: u32 = 0o755;
/// The socket: root and the program's own user.
const SOCKET_MODE: u32 = 0o600;

/// The socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum AdminSocketError {
    /// Something else has the name.
    #[error("--admin-socket: {path} is there and is no socket; remove it or name another path")]
    NoSocket {
        /// The path.
        path: PathBuf,
    },
    /// The socket or its directory could not be made.
    #[error(
        "--admin-socket: cannot listen on {path}: {source}; name a path of at most 100 bytes in a directory that can be written to"
    )]
    Open {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A socket that listens under a name that nobody knows, until [`AdminSocket::publish`] gives it its own.
///
/// So a start that fails leaves the socket of a daemon that runs as it is, and one that succeeds takes its place in one step:
/// clients always reach one of the two. A stale file is replaced in the same way, and none is removed at the end: a
/// client that finds nobody behind it is told so by the kernel, and the file may be the successor's already.
#[derive(Debug)]
pub struct AdminSocket {
    listener: Option<UnixListener>,
    path: PathBuf,
    unpublished: PathBuf,
}

impl AdminSocket {
    /// Opens it. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// The path cannot be used.
    pub fn open(path: &Path) -> Result<Self, AdminSocketError> {
        let failed = |source| AdminSocketError::Open { path: path.into(), source };
        if fs::symlink_metadata(path).is_ok_and(|metadata| !metadata.file_type().is_socket()) {
            return Err(AdminSocketError::NoSocket { path: path.into() });
        }
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if !parent.is_dir() {
            fs::create_dir_all(parent).map_err(failed)?;
            fs::set_permissions(parent, fs::Permissions::from_mode(DIRECTORY_MODE)).map_err(failed)?;
        }
        // Short, since a socket's path may have 107 bytes (unix(7)).
        let unpublished = parent.join(format!(".{}", std::process::id()));
        match fs::remove_file(&unpublished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let listener = UnixListener::bind(&unpublished).map_err(failed)?;
        let socket = Self { listener: Some(listener), path: path.into(), unpublished };
        fs::set_permissions(&socket.unpublished, fs::Permissions::from_mode(SOCKET_MODE)).map_err(failed)?;
        Ok(socket)
    }

    /// Gives it its name: from now on clients reach this daemon and no earlier one.
    ///
    /// # Errors
    /// The file cannot be put in its place.
    pub fn publish(mut self) -> Result<UnixListener, AdminSocketError> {
        let failed = |source| AdminSocketError::Open { path: self.path.clone(), source };
        fs::rename(&self.unpublished, &self.path).map_err(failed)?;
        self.listener.take().ok_or_else(|| failed(io::ErrorKind::NotConnected.into()))
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        if self.listener.is_some() {
            // Left behind it would do no harm.
            let _ = fs::remove_file(&self.unpublished);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixStream;

    use super::*;

    #[tokio::test]
    async fn the_newest_takes_the_name_in_one_step_and_a_failed_start_takes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/admin.sock");
        let old = AdminSocket::open(&path).unwrap().publish().unwrap();
        drop(AdminSocket::open(&path).unwrap());
        let (client, served) = tokio::join!(UnixStream::connect(&path), old.accept());
        client.and(served.map(drop)).unwrap();

        let new = AdminSocket::open(&path).unwrap().publish().unwrap();
        let (client, served) = tokio::join!(UnixStream::connect(&path), new.accept());
        client.and(served.map(drop)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, SOCKET_MODE);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_another_file_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        drop(AdminSocket::open(&path).unwrap().publish().unwrap());
        assert_eq!(UnixStream::connect(&path).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        AdminSocket::open(&path).unwrap().publish().unwrap();
        let file = dir.path().join("notes");
        fs::write(&file, "precious").unwrap();
        assert!(matches!(AdminSocket::open(&file), Err(AdminSocketError::NoSocket { .. })));
        assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
    }
}
