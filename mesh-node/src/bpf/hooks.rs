//! What is attached at the root of cgroup v2, by the kernel's own word.

use std::{
    fs::{self, File},
    io,
    os::fd::{AsFd, AsRawFd as _},
    path::{Path, PathBuf},
};

use aya::{
    Ebpf,
    programs::{
        links::{FdLink, PinnedLink},
        loaded_programs,
    },
};

use super::{interfaces, syscall::bpf};

/// `BPF_PROG_QUERY` (include/uapi/linux/bpf.h, enum bpf_cmd).
const BPF_PROG_QUERY: libc::c_int = 16;
/// Programs that a query asks for: the kernel allows 64 at one hook of a cgroup (`BPF_CGROUP_MAX_PROGS`).
const MAX_PROGRAMS: usize = 64;

/// The programs at the root of cgroup v2 and their hooks (include/uapi/linux/bpf.h, enum bpf_attach_type), in the order in
/// which they come into force: sockets are known for the daemon's before any connect() is redirected to it.
pub(super) const CGROUP_HOOKS: [(&str, u32); 8] = [
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
        let programs = CGROUP_HOOKS.map(|(name, attach_type)| (name, attach_type, id(name).unwrap_or(0)));
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
        pod_hooks()
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

/// What holds hooks on pods' interfaces with this kernel: `tcx` or `clsact`.
#[must_use]
pub fn pod_hooks() -> &'static str {
    if interfaces::has_tcx() { "tcx" } else { "clsact" }
}

/// A program at a connect hook that is none of the mesh's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignHook {
    /// The hook, by the name of our program there.
    pub hook: &'static str,
    /// The program's name, as its owner gave it (15 bytes at most).
    pub program: String,
    /// The kernel's id of it.
    pub id: u32,
}

/// Programs of others at the connect hooks of `cgroup`, in whose sight a Service's address may have changed before ours
/// sees it. Ours are those that are pinned below `bpf_dir`.
///
/// # Errors
/// The kernel does not say.
pub fn foreign_connect_hooks(cgroup: &Path, bpf_dir: &Path) -> io::Result<Vec<ForeignHook>> {
    let own = pinned_programs(bpf_dir);
    let cgroup = File::open(cgroup)?;
    let mut foreign = Vec::new();
    for (hook, attach_type) in CGROUP_HOOKS.into_iter().filter(|(hook, _)| hook.starts_with("connect")) {
        for id in attached(&cgroup, attach_type)?.into_iter().filter(|id| !own.contains(id)) {
            let program = program_name(id).unwrap_or_else(|| "without a name".to_owned());
            foreign.push(ForeignHook { hook, program, id });
        }
    }
    Ok(foreign)
}

/// Ids of the programs whose links are pinned below `bpf_dir`, by whatever version of the daemon.
fn pinned_programs(bpf_dir: &Path) -> Vec<u32> {
    let list = |dir: &Path| fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let links = list(bpf_dir).flat_map(|version| list(&version.join("links")).collect::<Vec<_>>());
    // What cannot be opened as a link is none of ours.
    let program =
        |path: PathBuf| FdLink::from(PinnedLink::from_pin(path).ok()?).info().ok().map(|info| info.program_id());
    links.filter_map(program).collect()
}

/// The name of a loaded program.
fn program_name(id: u32) -> Option<String> {
    let info = loaded_programs().filter_map(Result::ok).find(|info| info.id() == id)?;
    info.name_as_str().map(str::to_owned)
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
    // SAFETY: `prog_ids` points to room for `prog_cnt` ids, which lives through the call.
    unsafe { bpf(BPF_PROG_QUERY, &mut attr) }?;
    let count = usize::try_from(attr.prog_cnt).unwrap_or(MAX_PROGRAMS).min(MAX_PROGRAMS);
    Ok(ids[..count].to_vec())
}
