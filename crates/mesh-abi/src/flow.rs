//! Connections on their way between an application and the daemon.

use crate::SockAddress;

/// A connection inside one network namespace, seen from the side that dials.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// Cookie of the network namespace (`SO_NETNS_COOKIE`, Linux 5.14).
    pub netns_cookie: u64,
    /// The dialling end.
    pub source: SockAddress,
    /// The end that is dialled.
    pub destination: SockAddress,
}

const _: () = assert!(size_of::<FlowKey>() == 48);

/// Where a redirected connection wanted to go.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OriginalDestination {
    /// What the application asked for.
    pub address: SockAddress,
    /// The random number by which the hook would have picked a Service's endpoint, so that the daemon
    /// picks the same one and the balance stays what it was; 0: the hook did not pick.
    pub dice: u32,
}

const _: () = assert!(size_of::<OriginalDestination>() == 24);
