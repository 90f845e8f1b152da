//! bpf(2), for what aya does not ask of it.

use std::io;

/// Calls it, with all of `attributes`.
///
/// # Errors
/// What the kernel says.
///
/// # Safety
/// `attributes` must be what `command` takes, and its pointers valid until the call returns.
pub(super) unsafe fn bpf<T>(command: libc::c_int, attributes: &mut T) -> io::Result<i32> {
    // SAFETY: by the caller's word; the size is that of the attributes.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { i32::try_from(result).map_err(io::Error::other) }
}
