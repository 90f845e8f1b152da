//! What the kernel remembers of a socket (`BPF_MAP_TYPE_SK_STORAGE`).

use crate::SockAddress;

/// Why a socket has a record.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketKind {
    /// Nothing to say of it: a record that an earlier connect() left and a later one cleared.
    Plain = 0,
    /// Created by the daemon: written by the socket-creation hook and by nothing else.
    Daemon = 1,
    /// An application's connection that was redirected to the daemon.
    Outbound = 2,
    /// An application's accepted connection whose other end is the daemon.
    Inbound = 3,
}

/// One socket's record.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketRecord {
    /// A [`SocketKind`] by its number.
    pub kind: u32,
    /// The peer that the application shall see: the original destination of an outbound socket, the
    /// real client of an inbound one, and on a daemon's socket the client to announce to the
    /// application that it connects to. Port 0: none.
    pub peer: SockAddress,
    /// The pod's own address in the socket's family; shown instead of loopback. All zero: none.
    pub local_words_be: [u32; 4],
}

const _: () = assert!(size_of::<SocketRecord>() == 40);

impl SocketRecord {
    /// A record of `kind` with this peer and no local address.
    #[inline(always)]
    #[must_use]
    pub const fn new(kind: SocketKind, peer: SockAddress) -> Self {
        Self { kind: kind as u32, peer, local_words_be: [0; 4] }
    }

    /// Whether the record is of this kind.
    #[inline(always)]
    #[must_use]
    pub const fn is(&self, kind: SocketKind) -> bool {
        self.kind == kind as u32
    }
}
