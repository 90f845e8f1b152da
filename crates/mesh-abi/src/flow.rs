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
