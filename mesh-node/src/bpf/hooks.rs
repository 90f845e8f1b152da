//! What is attached at the root of cgroup v2, by the kernel's own word.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd as _},
    path::{Path, PathBuf},
};

use aya::Ebpf;

use super::interfaces;

/// `BPF_PROG_QUERY` (include/uapi/linux/bpf.h, enum bpf_cmd).
const BPF_PROG_QUERY: libc::c_long = 16;
/// Programs that a query asks for: the kernel allows 64 at one hook of a cgroup (`BPF_CGROUP_MAX_PROGS`).
const MAX_PROGRAMS: usize = 64;

/// The cgroup hooks by the names of our programs (include/uapi/linux/bpf.h, enum bpf_attach_type).
pub(super) const ATTACH_TYPES: [(&str, u32); 8] = [
    ("sock_create", 2),
    ("sock_ops", 3),
    ("getpeername4", 29),
    ("getpeername6", 30),
    ("getsockname4", 31),
    ("getsockname6", 32),
    ("connect4", 10),
    ("connect6", 11),
];

/// Tells which of the daemon's own hooks are in force.
pub struct HookWatch {
    cgroup: PathBuf,
    kernel: String,
    /// Name, attach type and the kernel's id of each program.
    programs: Vec<(&'static str, u32, u32)>,
}

impl HookWatch {
    /// Looks at the loaded programs of `ebpf`, which are attached at `cgroup`.
    pub(super) fn new(ebpf: &Ebpf, cgroup: &Path, proc: &Path) -> Self {
        let id = |name| ebpf.program(name)?.info().ok().map(|info| info.id());
        // An id of 0 is no program's: such a hook is never found present.
        let programs = ATTACH_TYPES.map(|(name, attach_type)| (name, attach_type, id(name).unwrap_or(0)));
        let kernel = std::fs::read_to_string(proc.join("sys/kernel/osrelease")).unwrap_or_default();
        Self { cgroup: cgroup.into(), kernel: kernel.trim().to_owned(), programs: programs.into() }
    }

    /// The cgroup.
    #[must_use]
    pub fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// The kernel's release.
    #[must_use]
    pub fn kernel(&self) -> &str {
        &self.kernel
    }

    /// What holds the hooks on pods' interfaces: `tcx` or `clsact`.
    #[must_use]
    pub fn pod_hooks(&self) -> &'static str {
        if interfaces::has_tcx() { "tcx" } else { "clsact" }
    }

    /// Each hook by its program's name, and whether the kernel has it attached now.
    #[must_use]
    pub fn present(&self) -> Vec<(&'static str, bool)> {
        let cgroup = File::open(&self.cgroup);
        let there = |attach_type, id| {
            let attached = cgroup.as_ref().ok().and_then(|cgroup| attached(cgroup, attach_type).ok());
            attached.is_some_and(|ids| ids.contains(&id))
        };
        self.programs.iter().map(|&(name, attach_type, id)| (name, there(attach_type, id))).collect()
    }
}

/// The part of `union bpf_attr` that `BPF_PROG_QUERY` has known since Linux 4.15.
#[repr(C)]
struct QueryAttr {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    padding: u32,
}

/// Ids of the programs that are attached to a cgroup itself at one hook.
pub(super) fn attached(cgroup: impl AsFd, attach_type: u32) -> io::Result<Vec<u32>> {
    let mut ids = [0u32; MAX_PROGRAMS];
    let mut attr = QueryAttr {
        target_fd: cgroup.as_fd().as_raw_fd().cast_unsigned(),
        attach_type,
        query_flags: 0,
        attach_flags: 0,
        prog_ids: ids.as_mut_ptr() as u64,
        prog_cnt: MAX_PROGRAMS as u32,
        padding: 0,
    };
    // SAFETY: `attr` has the size that is passed, and `prog_ids` points to room for `prog_cnt` ids; both live through the call.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_QUERY, &raw mut attr, size_of::<QueryAttr>() as libc::c_uint) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let count = usize::try_from(attr.prog_cnt).unwrap_or(MAX_PROGRAMS).min(MAX_PROGRAMS);
    Ok(ids[..count].to_vec())
}
