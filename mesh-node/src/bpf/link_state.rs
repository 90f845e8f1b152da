//! Whether a pinned link is still in force, by the kernel's own word.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use super::syscall::bpf;

/// Commands of bpf(2) (include/uapi/linux/bpf.h).
const BPF_OBJ_GET: libc::c_int = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
/// `BPF_LINK_TYPE_CGROUP`
const CGROUP: u32 = 3;

/// What has become of a pinned link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinkState {
    /// In force, and it will be so after the daemon.
    Attached,
    /// Somebody took it off its cgroup or interface, or the interface is gone.
    Detached,
    /// Its file is gone: it would end with the daemon.
    Unpinned,
}

/// What bpf(2) takes for [`BPF_OBJ_GET`].
#[repr(C)]
struct Get {
    path: u64,
    fd: u32,
    flags: u32,
}

/// What bpf(2) takes for [`BPF_OBJ_GET_INFO_BY_FD`].
#[repr(C)]
struct InfoByFd {
    fd: u32,
    length: u32,
    info: u64,
}

/// The beginning of `struct bpf_link_info`, with what the kinds that are used here have in its union.
#[repr(C)]
#[derive(Default)]
struct LinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    padding: u32,
    /// A cgroup link: the cgroup's id. A tcx link: the interface's index in the low word. 0 once it is detached.
    target: u64,
}

/// Looks at the link that is pinned at `path`.
///
/// # Errors
/// The kernel does not answer.
pub(super) fn link_state(path: &Path) -> io::Result<LinkState> {
    let link = match open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(LinkState::Unpinned),
        other => other?,
    };
    let mut info = LinkInfo::default();
    let length = u32::try_from(size_of::<LinkInfo>()).map_err(io::Error::other)?;
    let fd = u32::try_from(link.as_raw_fd()).map_err(io::Error::other)?;
    let mut attributes = InfoByFd { fd, length, info: (&raw mut info).expose_provenance() as u64 };
    // SAFETY: the descriptor is open, and `info` has room for the `length` bytes that are asked for.
    unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attributes) }?;
    let target = if info.kind == CGROUP { info.target } else { info.target & u64::from(u32::MAX) };
    Ok(if target == 0 { LinkState::Detached } else { LinkState::Attached })
}

fn open(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attributes = Get { path: path.as_ptr().expose_provenance() as u64, fd: 0, flags: 0 };
    // SAFETY: the path ends with a zero and lives until the call returns.
    let fd = unsafe { bpf(BPF_OBJ_GET, &mut attributes) }?;
    // SAFETY: the kernel has just opened it for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
