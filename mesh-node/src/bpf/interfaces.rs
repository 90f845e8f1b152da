//! The TC hooks on a pod's interfaces: tcx links where the kernel has them (6.6), clsact filters before.

use std::io;

use aya::{
    programs::{
        LinkOrder, ProgramError, SchedClassifier, TcAttachType,
        links::{FdLink, LinkError},
        tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle},
    },
    util::KernelVersion,
};
use mesh_netlink::{NetlinkSocket, Subject, attribute};

/// Priority and handle of the clsact filters, fixed so that a new daemon replaces the old one's in one step.
const FILTER_PRIORITY: u16 = 1;
const FILTER_HANDLE: TcHandle = TcHandle::new(0, 0x6d73);

/// A hook could not be attached to an interface.
#[derive(Debug, thiserror::Error)]
pub enum InterfaceError {
    /// The kernel refused the hook.
    #[error("cannot attach the {direction} hook to {interface}: {source}")]
    Attach {
        /// The interface's name, in the pod's namespace.
        interface: String,
        /// `ingress` or `egress`.
        direction: &'static str,
        /// Why.
        source: ProgramError,
    },
    /// The tcx link could not be taken over for pinning.
    #[error("cannot keep the {direction} hook on {interface}: {source}")]
    Keep {
        /// The interface's name.
        interface: String,
        /// `ingress` or `egress`.
        direction: &'static str,
        /// Why.
        source: LinkError,
    },
    /// The clsact queueing discipline could not be added.
    #[error("cannot add the clsact qdisc to {interface}: {source}")]
    Qdisc {
        /// The interface's name.
        interface: String,
        /// Why.
        source: io::Error,
    },
    /// The namespace's interfaces could not be listed.
    #[error("cannot list the interfaces of the pod's namespace: {0}")]
    List(io::Error),
    /// The object lacks the hook's program.
    #[error("the eBPF object has no program {0}; rebuild it with `cargo xtask ebpf`")]
    NoProgram(&'static str),
    /// There is nothing to attach to.
    #[error("the pod's namespace has no interface but loopback")]
    NoInterface,
}

/// One direction of an interface.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Ingress,
    Egress,
}

impl Direction {
    pub(super) const BOTH: [Self; 2] = [Self::Ingress, Self::Egress];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }

    pub(super) const fn program(self) -> &'static str {
        match self {
            Self::Ingress => "tc_ingress",
            Self::Egress => "tc_egress",
        }
    }

    const fn attach_type(self) -> TcAttachType {
        match self {
            Self::Ingress => TcAttachType::Ingress,
            Self::Egress => TcAttachType::Egress,
        }
    }
}

/// Attaches to an interface of the calling thread's namespace. The link is to be pinned; `None` means
/// that the hook stays by itself: a clsact filter, or what this daemon has attached before.
pub(super) fn attach(
    program: &mut SchedClassifier,
    interface: &str,
    direction: Direction,
) -> Result<Option<FdLink>, InterfaceError> {
    if has_tcx() {
        attach_tcx(program, interface, direction)
    } else {
        attach_clsact(program, interface, direction).map(|()| None)
    }
}

/// Removes the filters that [`attach`] left in the calling thread's namespace without a link.
pub(super) fn detach_unlinked(interface: &str) {
    if has_tcx() {
        return;
    }
    for direction in Direction::BOTH {
        let found =
            SchedClassifierLink::attached(interface, direction.attach_type(), FILTER_PRIORITY, FILTER_HANDLE, None);
        // Dropping the link detaches it; an interface that is gone has no filter.
        drop(found);
    }
}

/// tcx links came with Linux 6.6.
pub(super) fn has_tcx() -> bool {
    KernelVersion::current().is_ok_and(|version| version >= KernelVersion::new(6, 6, 0))
}

fn attach_tcx(
    program: &mut SchedClassifier,
    interface: &str,
    direction: Direction,
) -> Result<Option<FdLink>, InterfaceError> {
    let options = TcAttachOptions::TcxOrder(LinkOrder::first());
    let attached = program.attach_with_options(interface, direction.attach_type(), options);
    let link = match attached.and_then(|id| program.take_link(id)) {
        // Only this daemon has this program: an earlier try to enrol the pod got so far.
        Err(error) if is_there_already(&error) => return Ok(None),
        other => other.map_err(|source| attach_error(interface, direction, source))?,
    };
    FdLink::try_from(link).map(Some).map_err(|source| InterfaceError::Keep {
        interface: interface.to_owned(),
        direction: direction.name(),
        source,
    })
}

/// The kernel attaches a program once at most to a tcx hook.
fn is_there_already(error: &ProgramError) -> bool {
    matches!(error, ProgramError::SyscallError(error) if error.io_error.kind() == io::ErrorKind::AlreadyExists)
}

fn attach_clsact(program: &mut SchedClassifier, interface: &str, direction: Direction) -> Result<(), InterfaceError> {
    match tc::qdisc_add_clsact(interface) {
        Ok(()) | Err(TcError::AlreadyAttached) => {}
        Err(TcError::NetlinkError(error)) if error.raw_os_error() == Some(libc::EEXIST) => {}
        Err(error) => {
            return Err(InterfaceError::Qdisc { interface: interface.to_owned(), source: io::Error::other(error) });
        }
    }
    let options =
        TcAttachOptions::Netlink(NlOptions { priority: FILTER_PRIORITY, handle: FILTER_HANDLE, classid: None });
    let fresh = program.attach_with_options(interface, direction.attach_type(), options);
    let id = match fresh {
        Ok(id) => id,
        // An earlier daemon's filter is there: replaced in one step.
        Err(_) => {
            SchedClassifierLink::attached(interface, direction.attach_type(), FILTER_PRIORITY, FILTER_HANDLE, None)
                .map_err(|source| attach_error(interface, direction, TcError::IoError(source).into()))
                .and_then(|link| {
                    let replaced = program.attach_to_link(link);
                    replaced.map_err(|source| attach_error(interface, direction, source))
                })?
        }
    };
    let link = program.take_link(id).map_err(|source| attach_error(interface, direction, source))?;
    // Dropping it would detach the filter, which must outlive this daemon.
    std::mem::forget(link);
    Ok(())
}

fn attach_error(interface: &str, direction: Direction, source: ProgramError) -> InterfaceError {
    InterfaceError::Attach { interface: interface.to_owned(), direction: direction.name(), source }
}

/// An interface of a pod's namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Interface {
    /// Its number in the namespace, which stays when it is renamed.
    pub(super) index: u32,
    /// Its name.
    pub(super) name: String,
}

/// `RTM_GETLINK` and `RTM_GETTFILTER` (include/uapi/linux/rtnetlink.h).
const GET_LINK: u16 = 18;
const GET_FILTER: u16 = 46;
/// `struct ifinfomsg`
const LINK_HEADER: usize = 16;
/// `IFLA_IFNAME`
const NAME: u16 = 3;
/// `IFF_LOOPBACK`
const LOOPBACK: u32 = 8;

/// Interfaces of the calling thread's namespace, loopback left out.
pub(super) fn interfaces() -> Result<Vec<Interface>, InterfaceError> {
    let mut found = Vec::new();
    NetlinkSocket::open(Subject::Route)
        .and_then(|mut socket| socket.dump(GET_LINK, &[0; LINK_HEADER], |_, link| found.extend(parse_link(link))))
        .map_err(InterfaceError::List)?;
    Ok(found)
}

fn parse_link(message: &[u8]) -> Option<Interface> {
    let (header, attributes) = message.split_first_chunk::<LINK_HEADER>()?;
    let word = |at: usize| Some(u32::from_ne_bytes(*header[at..].first_chunk()?));
    let (index, flags) = (word(4)?, word(8)?);
    if flags & LOOPBACK != 0 {
        return None;
    }
    let name = attribute(attributes, NAME)?;
    let name = std::ffi::CStr::from_bytes_until_nul(name).ok()?.to_str().ok()?.to_owned();
    Some(Interface { index, name })
}

/// Whether the filter that [`attach`] leaves without a link is there, in the calling thread's namespace; never where
/// the kernel has links for it.
pub(super) fn has_filter(interface: &Interface, direction: Direction) -> Result<bool, InterfaceError> {
    if has_tcx() {
        return Ok(false);
    }
    // `struct tcmsg`; the parent is one of the two hooks of clsact.
    let parent: u32 = match direction {
        Direction::Ingress => 0xffff_fff2,
        Direction::Egress => 0xffff_fff3,
    };
    let words = [0, interface.index, 0, parent, 0];
    let request: Vec<u8> = words.into_iter().flat_map(u32::to_ne_bytes).collect();
    let mut is_there = false;
    NetlinkSocket::open(Subject::Route)
        .and_then(|mut socket| socket.dump(GET_FILTER, &request, |_, filter| is_there |= is_ours(filter)))
        .map_err(InterfaceError::List)?;
    Ok(is_there)
}

fn is_ours(filter: &[u8]) -> bool {
    let word = |at: usize| filter.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes));
    // The upper half of the last word is the priority.
    word(8) == Some(FILTER_HANDLE.into()) && word(16).map(|info| info >> 16) == Some(FILTER_PRIORITY.into())
}
