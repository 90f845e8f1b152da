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
    /// An application's connection to a pod of the same node, with nothing between them.
    DirectClient = 4,
    /// The accepted end of such a connection.
    DirectServer = 5,
    /// Kubelet's connection to a pod of its node.
    Probe = 6,
}

/// What the socket sends is not shown: it is not wanted, or speaks nothing that would be understood.
pub const UNWATCHED: u32 = 0;
/// What the socket sends is to be shown, if its first octet is one of HTTP's; it has sent nothing yet.
pub const SILENT: u32 = 1;
/// What the socket sends is shown, the beginning of each segment.
pub const WATCHED: u32 = 2;
/// What the socket sends is HTTP/2, and is shown but for the bodies.
pub const FRAMED: u32 = 3;
/// What the socket sends is HTTP/2 that is not followed any more, which the daemon is still to be told.
pub const FORSAKEN: u32 = 4;

/// One socket's record.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketRecord {
    /// A [`SocketKind`] by its number.
    pub kind: u32,
    /// The peer that the application shall see: the original destination of an outbound or direct
    /// socket, the real client of an inbound one, and on a daemon's socket the client to announce to
    /// the application that it connects to. Port 0: none.
    pub peer: SockAddress,
    /// The pod's own address in the socket's family; shown instead of loopback. All zero: none.
    pub local_words_be: [u32; 4],
    /// Where a direct client's packets go: [`Self::peer`], or the endpoint picked for a Service.
    pub endpoint: SockAddress,
    /// The random number by which the hook picked, or would have picked, the Service's endpoint; 0: none.
    pub dice: u32,
    /// The direct client's socket cookie: together with [`Self::isn`] the connection's name.
    pub cookie: u64,
    /// Cookie of the network namespace of a daemon's socket, and of a direct connection's client.
    pub netns_cookie: u64,
    /// Cookie of the network namespace of a direct connection's server.
    pub server_netns_cookie: u64,
    /// Initial sequence number of a direct client's SYN.
    pub isn: u32,
    /// Whether what a direct connection's socket sends is shown: [`UNWATCHED`], [`SILENT`], [`WATCHED`], [`FRAMED`] or
    /// [`FORSAKEN`].
    pub watched: u32,
}

const _: () = assert!(size_of::<SocketRecord>() == 96);

impl SocketRecord {
    /// A record of `kind` with this peer and nothing else.
    #[inline(always)]
    #[must_use]
    pub const fn new(kind: SocketKind, peer: SockAddress) -> Self {
        Self {
            kind: kind as u32,
            peer,
            local_words_be: [0; 4],
            endpoint: SockAddress { words_be: [0; 4], port_be: 0, padding: 0 },
            dice: 0,
            cookie: 0,
            netns_cookie: 0,
            server_netns_cookie: 0,
            isn: 0,
            watched: UNWATCHED,
        }
    }

    /// The record of a socket that has sent nothing yet: whether what it sends is to be shown.
    #[inline(always)]
    #[must_use]
    pub const fn watched_if(mut self, wanted: bool) -> Self {
        self.watched = if wanted { SILENT } else { UNWATCHED };
        self
    }

    /// Whether the record is of this kind.
    #[inline(always)]
    #[must_use]
    pub const fn is(&self, kind: SocketKind) -> bool {
        self.kind == kind as u32
    }
}
