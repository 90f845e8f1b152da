//! Network namespaces of pods, and work done inside them.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, AsRawFd as _, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// `SO_NETNS_COOKIE` (include/uapi/asm-generic/socket.h, Linux 5.14).
const SO_NETNS_COOKIE: libc::c_int = 71;

/// A namespace could not be opened or entered.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// Its file could not be opened: the process is gone.
    #[error("cannot open the network namespace {path}: {source}")]
    Open {
        /// The namespace's file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The thread could not enter it.
    #[error("cannot enter the pod's network namespace: {0}")]
    Enter(io::Error),
    /// Its cookie could not be read.
    #[error("cannot read the network namespace's cookie: {why}{remedy}", why = .0, remedy = remedy(.0))]
    Cookie(io::Error),
}

/// The kernel says that it does not know the option.
fn remedy(error: &io::Error) -> &'static str {
    if error.raw_os_error() == Some(libc::ENOPROTOOPT) { " (Linux 5.14 or newer is needed)" } else { "" }
}

/// An open network namespace: it exists as long as this does.
#[derive(Debug)]
pub struct NetNamespace {
    file: File,
    home: OwnedFd,
    cookie: u64,
    inode: u64,
}

impl NetNamespace {
    /// Opens a namespace by its file, such as `/proc/PID/ns/net`.
    ///
    /// # Errors
    /// The process is gone, or the kernel knows no cookies.
    pub fn open(path: &Path) -> Result<Self, NetnsError> {
        let unopened = |source, path: &Path| NetnsError::Open { path: path.into(), source };
        let open = |path: &Path| File::open(path).map_err(|source| unopened(source, path));
        let file = open(path)?;
        let inode = file.metadata().map_err(|source| unopened(source, path))?.ino();
        // Every thread of the daemon is at home in the namespace that its main thread was started in.
        let home = open(Path::new("/proc/self/ns/net"))?.into();
        let mut netns = Self { file, home, cookie: 0, inode };
        netns.cookie = netns.enter(read_cookie)?.map_err(NetnsError::Cookie)?;
        Ok(netns)
    }

    /// The kernel's name for it, never used again after it is gone.
    #[must_use]
    pub fn cookie(&self) -> u64 {
        self.cookie
    }

    /// Its inode number, as `/proc/PID/ns/net` shows it.
    #[must_use]
    pub fn inode(&self) -> u64 {
        self.inode
    }

    /// Runs `work` with the calling thread inside the namespace. `work` must not block for long and
    /// must not await: the thread's other tasks would run in there as well.
    ///
    /// # Errors
    /// The thread could not enter; `work` has not run.
    pub fn enter<T>(&self, work: impl FnOnce() -> T) -> Result<T, NetnsError> {
        move_to(&self.file).map_err(NetnsError::Enter)?;
        let _return = Return(&self.home);
        Ok(work())
    }
}

/// Brings the thread home, also when the work panics.
struct Return<'a>(&'a OwnedFd);

impl Drop for Return<'_> {
    fn drop(&mut self) {
        if let Err(error) = move_to(self.0) {
            // A thread left in a pod's namespace would open the next pod's sockets there.
            tracing::error!(%error, "cannot leave a pod's network namespace");
            std::process::abort();
        }
    }
}

fn move_to(namespace: &impl AsFd) -> io::Result<()> {
    let kind = Some(LinkNameSpaceType::Network);
    move_into_link_name_space(namespace.as_fd(), kind).map_err(io::Error::from)
}

/// Cookie of the calling thread's namespace.
fn read_cookie() -> io::Result<u64> {
    cookie_of(&std::net::UdpSocket::bind((std::net::Ipv4Addr::UNSPECIFIED, 0))?)
}

/// Cookie of the namespace that a socket is in.
///
/// # Errors
/// It is no socket, or the kernel knows no cookies.
pub fn cookie_of(socket: &impl AsFd) -> io::Result<u64> {
    let mut cookie = 0u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the option is eight bytes, and `cookie` has room for `length` of them.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if result == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
}
