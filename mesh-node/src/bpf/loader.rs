//! Loads the programs, attaches them at the root of cgroup v2 and to pods' interfaces, and pins everything.

use std::{
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf, EbpfError, EbpfLoader,
    programs::{
        CgroupAttachMode, Program, ProgramError, SchedClassifier,
        links::{FdLink, LinkError, PinnedLink},
    },
};
use mesh_abi::{ABI_VERSION, DAEMON_CGROUP_GLOBAL, map_names};

use super::{
    cgroup::{self, CgroupError},
    direct::DirectMaps,
    existing::ExistingMap,
    hooks::{CGROUP_HOOKS, HookWatch},
    hosts::HostMaps,
    interfaces::{self, Direction, Interface, InterfaceError},
    links::{PinError, PinnedLinks},
    maps::{CounterReader, MapAccessError, PodMap},
    probe_ports::ProbePorts,
    settings::Settings,
};
use crate::netns::{NetNamespace, NetnsError};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/mesh-ebpf.o"));

/// The programs' names of [`CGROUP_HOOKS`].
pub(super) fn cgroup_programs() -> impl Iterator<Item = &'static str> {
    CGROUP_HOOKS.into_iter().map(|(name, _)| name)
}

/// The data path could not be put in force; nothing of it is attached then.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A directory on the BPF file system could not be made.
    #[error("cannot make {path}: {source}; is the BPF file system writable?")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The object's maps could not be made.
    #[error("cannot create the eBPF maps: {0}")]
    Object(#[from] EbpfError),
    /// The object lacks a program: it was built from other sources than the daemon.
    #[error("the eBPF object has no program {0}; rebuild it with `cargo xtask ebpf`")]
    Missing(&'static str),
    /// The verifier refused a program, or the kernel has no such program type.
    #[error(
        "the kernel refused the program {name}: {source}; Linux 5.15 or newer with CONFIG_CGROUP_BPF and CONFIG_NET_CLS_BPF is needed"
    )]
    Refused {
        /// The program.
        name: &'static str,
        /// What the verifier or the kernel said.
        source: ProgramError,
    },
    /// The program could not be attached to the cgroup.
    #[error("cannot attach {name} at {cgroup}: {source}; another owner of the hook may hold it exclusively")]
    Attach {
        /// The program.
        name: &'static str,
        /// The cgroup.
        cgroup: PathBuf,
        /// Why.
        source: ProgramError,
    },
    /// The attachment is no link: kernels before 5.7.
    #[error("the hook {name} cannot be kept by a link: {source}")]
    Link {
        /// The program.
        name: &'static str,
        /// Why.
        source: LinkError,
    },
    /// The daemon's cgroup.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// Links could not be pinned.
    #[error(transparent)]
    Pin(#[from] PinError),
    /// A pinned map.
    #[error(transparent)]
    Map(#[from] MapAccessError),
}

/// A pod could not be enrolled or withdrawn.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// Its map entry.
    #[error(transparent)]
    Map(#[from] MapAccessError),
    /// Its interfaces' hooks.
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    /// Its namespace.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// Its links.
    #[error(transparent)]
    Pin(#[from] PinError),
}

/// Where and as whom the data path is put in force.
pub struct LoadOptions<'a> {
    /// Directory on a BPF file system, for this node alone.
    pub bpf_dir: &'a Path,
    /// Root of cgroup v2.
    pub cgroup_root: &'a Path,
    /// The proc file system of the daemon's own pid namespace.
    pub proc: &'a Path,
    /// Whether the programs log (for debugging: it costs time on every connection).
    pub log: bool,
}

/// The data path in force: programs loaded, hooks attached, everything pinned.
pub struct Datapath {
    ebpf: Ebpf,
    pub(super) links: PinnedLinks,
    pub(super) pods: PodMap,
    maps_dir: PathBuf,
    cgroup_root: PathBuf,
    /// Whether what other daemons have attached is this one's to remove, and its own stays when it ends.
    is_in_charge: bool,
}

/// The hook by which the sockets of a daemon that has handed over are known, for as long as this is held.
pub struct KeptHook(#[expect(dead_code, reason = "held, so that the kernel keeps the hook")] Option<PinnedLink>);

impl Drop for Datapath {
    fn drop(&mut self) {
        if !self.is_in_charge {
            self.links.abandon();
        }
    }
}

impl Datapath {
    /// Loads, attaches and pins, beside what an earlier daemon left: no hook is ever missing. [`Self::take_charge`] detaches
    /// the earlier ones; where this is dropped before, its own go.
    ///
    /// # Errors
    /// Says what the machine lacks. What this call had attached is detached again.
    pub fn load(options: &LoadOptions<'_>) -> Result<Self, LoadError> {
        let base = options.bpf_dir.join(format!("v{ABI_VERSION}"));
        let maps_dir = base.join("maps");
        fs::create_dir_all(&maps_dir).map_err(|source| LoadError::Directory { path: maps_dir.clone(), source })?;
        let cgroup_id = cgroup::own_cgroup_id(options.cgroup_root, options.proc)?;
        let mut ebpf = load_object(&maps_dir, cgroup_id, options.log)?;
        load_programs(&mut ebpf)?;
        let attached = attach_cgroup_programs(&mut ebpf, options.cgroup_root)?;
        let mut links = PinnedLinks::open(base.join("links"), generation())?;
        for (name, link) in attached {
            if let Err(error) = links.pin(name, link) {
                links.abandon();
                return Err(error.into());
            }
        }
        let pods = match PodMap::open(&maps_dir) {
            Ok(pods) => pods,
            Err(error) => {
                links.abandon();
                return Err(error.into());
            }
        };
        let cgroup_root = options.cgroup_root.to_owned();
        Ok(Self { ebpf, links, pods, maps_dir, cgroup_root, is_in_charge: false })
    }

    /// Detaches what other daemons have attached to the cgroup, and for the pods of these namespaces. Those of other pods
    /// stay until this daemon enrols them, or withdraws them.
    ///
    /// # Errors
    /// The BPF file system cannot be changed.
    pub fn take_charge(&mut self, cookies: &[u64]) -> Result<(), EnrolError> {
        self.is_in_charge = true;
        let prefixes: Vec<_> = cookies.iter().map(|cookie| interface_prefix(*cookie)).collect();
        self.links.supersede(|name| {
            cgroup_programs().any(|ours| ours == name) || prefixes.iter().any(|prefix| name.starts_with(prefix))
        })?;
        Ok(())
    }

    /// Detaches everything but the hook by which the sockets of this daemon are known: a successor's hooks are in force.
    pub fn release(&mut self) -> KeptHook {
        let kept = KeptHook(self.links.take("sock_create"));
        self.links.let_go();
        kept
    }

    /// Directory of the pinned maps, for [`super::FlowTable::open`].
    pub fn maps_dir(&self) -> &Path {
        &self.maps_dir
    }

    /// The kernel's counters.
    ///
    /// # Errors
    /// The map could not be opened.
    pub fn counters(&self) -> Result<CounterReader, MapAccessError> {
        CounterReader::open(&self.maps_dir)
    }

    /// Tells which of the hooks at `cgroup_root` are in force.
    pub fn hook_watch(&self, cgroup_root: &Path, proc: &Path) -> HookWatch {
        HookWatch::new(&self.ebpf, cgroup_root, proc)
    }

    /// The numbers that the programs read.
    ///
    /// # Errors
    /// The map could not be opened.
    pub fn settings(&self) -> Result<Settings, MapAccessError> {
        Settings::open(&self.maps_dir)
    }

    /// The tables of direct connections.
    ///
    /// # Errors
    /// A map could not be opened.
    pub fn direct_maps(&self) -> Result<DirectMaps, MapAccessError> {
        DirectMaps::open(&self.maps_dir)
    }

    /// The hosts that pods are told of.
    ///
    /// # Errors
    /// A map could not be opened.
    pub fn host_maps(&self) -> Result<HostMaps, MapAccessError> {
        HostMaps::open(&self.maps_dir)
    }

    /// Where kubelet knocks.
    ///
    /// # Errors
    /// The map could not be opened.
    pub fn probe_ports(&self) -> Result<ProbePorts, MapAccessError> {
        ProbePorts::open(&self.maps_dir)
    }

    /// The connections from before their pods joined.
    ///
    /// # Errors
    /// The map could not be opened.
    pub fn existing(&self) -> Result<ExistingMap, MapAccessError> {
        ExistingMap::open(&self.maps_dir)
    }

    /// The programs, for the log reader.
    pub fn ebpf_mut(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }

    /// Puts a pod's namespace under the hooks. Repeating it renews them.
    ///
    /// # Errors
    /// The pod's new connections are refused then rather than let out: its map entry is made first.
    pub fn enrol(&mut self, netns: &NetNamespace, addresses: &[IpAddr]) -> Result<(), EnrolError> {
        self.pods.insert(netns.cookie(), addresses)?;
        let interfaces = netns.enter(interfaces::interfaces)??;
        if interfaces.is_empty() {
            return Err(InterfaceError::NoInterface.into());
        }
        for interface in &interfaces {
            for direction in Direction::BOTH {
                self.hook(netns, interface, direction)?;
            }
        }
        if self.is_in_charge {
            let prefix = interface_prefix(netns.cookie());
            self.links.supersede(|other| other.starts_with(&prefix))?;
        }
        Ok(())
    }

    /// Tells the kernel of an enrolled pod's addresses, in the place of those that it had.
    ///
    /// # Errors
    /// The map could not be written.
    pub fn set_addresses(&mut self, netns: &NetNamespace, addresses: &[IpAddr]) -> Result<(), EnrolError> {
        Ok(self.pods.insert(netns.cookie(), addresses)?)
    }

    /// Attaches to one direction of a pod's interface.
    pub(super) fn hook(
        &mut self,
        netns: &NetNamespace,
        interface: &Interface,
        direction: Direction,
    ) -> Result<(), EnrolError> {
        let program = classifier(&mut self.ebpf, direction)?;
        if let Some(link) = netns.enter(|| interfaces::attach(program, &interface.name, direction))?? {
            self.links.pin(&interface_link(netns.cookie(), interface, direction), link)?;
        }
        Ok(())
    }

    /// Attaches one of the programs that all pods share.
    pub(super) fn attach_shared(&mut self, name: &'static str) -> Result<(), LoadError> {
        let link = attach_cgroup_program(&mut self.ebpf, &self.cgroup_root, name)?;
        Ok(self.links.pin(name, link)?)
    }

    /// Takes a pod's namespace out from under the hooks. `netns` is `None` when it is gone already.
    ///
    /// # Errors
    /// What could not be removed.
    pub fn withdraw(&mut self, cookie: u64, netns: Option<&NetNamespace>) -> Result<(), EnrolError> {
        self.pods.remove(cookie)?;
        let prefix = interface_prefix(cookie);
        self.links.remove_all(|name| name.starts_with(&prefix))?;
        if let Some(netns) = netns {
            netns.enter(|| {
                for interface in interfaces::interfaces().unwrap_or_default() {
                    interfaces::detach_unlinked(&interface.name);
                }
            })?;
        }
        Ok(())
    }

    /// Detaches every hook and removes everything that is pinned: for good.
    ///
    /// # Errors
    /// What could not be removed.
    pub fn remove(&mut self) -> Result<(), PinError> {
        self.links.remove_all(|_| true)?;
        let base = self.maps_dir.parent().unwrap_or(&self.maps_dir);
        let failed = |source| PinError::Directory { path: base.to_owned(), source };
        fs::remove_dir_all(base).map_err(failed)?;
        // The directory itself may be a mount, or hold what another version pinned.
        let _ = base.parent().map(fs::remove_dir);
        Ok(())
    }

    /// Whether the kernel treats a namespace as enrolled, perhaps since an earlier daemon.
    pub fn is_enrolled(&self, cookie: u64) -> bool {
        self.pods.contains(cookie)
    }

    /// Cookies of the namespaces that the kernel treats as enrolled, those of earlier daemons included.
    pub fn enrolled_cookies(&self) -> Vec<u64> {
        self.pods.cookies()
    }
}

fn load_object(maps_dir: &Path, cgroup_id: u64, log: bool) -> Result<Ebpf, EbpfError> {
    let log_level: u8 = if log { u8::MAX } else { 0 };
    let mut loader = EbpfLoader::new();
    loader.override_global(DAEMON_CGROUP_GLOBAL, &cgroup_id, true).override_global(aya_log::LEVEL, &log_level, false);
    for name in map_names::ALL {
        loader.map_pin_path(name, maps_dir.join(name));
    }
    loader.load(OBJECT)
}

fn load_programs(ebpf: &mut Ebpf) -> Result<(), LoadError> {
    let classifiers = Direction::BOTH.map(Direction::program);
    for name in cgroup_programs().chain(classifiers) {
        let program = ebpf.program_mut(name).ok_or(LoadError::Missing(name))?;
        let loaded = match program {
            Program::CgroupSock(program) => program.load(),
            Program::CgroupSockAddr(program) => program.load(),
            Program::SockOps(program) => program.load(),
            Program::SchedClassifier(program) => program.load(),
            _ => return Err(LoadError::Missing(name)),
        };
        loaded.map_err(|source| LoadError::Refused { name, source })?;
    }
    Ok(())
}

fn attach_cgroup_programs(ebpf: &mut Ebpf, root: &Path) -> Result<Vec<(&'static str, FdLink)>, LoadError> {
    let attached = cgroup_programs().map(|name| Ok((name, attach_cgroup_program(ebpf, root, name)?)));
    attached.collect()
}

fn attach_cgroup_program(ebpf: &mut Ebpf, root: &Path, name: &'static str) -> Result<FdLink, LoadError> {
    let cgroup = fs::File::open(root).map_err(|source| LoadError::Directory { path: root.into(), source })?;
    let program = ebpf.program_mut(name).ok_or(LoadError::Missing(name))?;
    let link = attach_at(program, &cgroup).map_err(|source| LoadError::Attach { name, cgroup: root.into(), source })?;
    link.map_err(|source| LoadError::Link { name, source })
}

type Attached = Result<Result<FdLink, LinkError>, ProgramError>;

fn attach_at(program: &mut Program, cgroup: &fs::File) -> Attached {
    // As links, programs of several owners run side by side; the kernel refuses any other mode for them.
    let mode = CgroupAttachMode::Single;
    Ok(match program {
        Program::CgroupSock(program) => {
            let id = program.attach(cgroup, mode)?;
            FdLink::try_from(program.take_link(id)?)
        }
        Program::CgroupSockAddr(program) => {
            let id = program.attach(cgroup, mode)?;
            FdLink::try_from(program.take_link(id)?)
        }
        Program::SockOps(program) => {
            let id = program.attach(cgroup, mode)?;
            FdLink::try_from(program.take_link(id)?)
        }
        _ => Err(LinkError::InvalidLink),
    })
}

fn classifier(ebpf: &mut Ebpf, direction: Direction) -> Result<&mut SchedClassifier, InterfaceError> {
    let program = ebpf.program_mut(direction.program());
    program.and_then(|program| program.try_into().ok()).ok_or(InterfaceError::NoProgram(direction.program()))
}

/// The names of a pod's links begin with this.
pub(super) fn interface_prefix(cookie: u64) -> String {
    format!("pod-{cookie}-")
}

/// The name of a link at a pod's interface. By the interface's number: names change, and may hold what a file's may not.
pub(super) fn interface_link(cookie: u64, interface: &Interface, direction: Direction) -> String {
    format!("{}{}-{}", interface_prefix(cookie), interface.index, direction.name())
}

/// Tells the links of this start of the daemon from those of any other.
fn generation() -> String {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let nanoseconds = since_epoch.map_or(0, |time| time.as_nanos());
    format!("{}-{nanoseconds}", std::process::id())
}
