//! Connections between two pods of one node, with nothing between them but the kernel.

use crate::SockAddress;

/// Who may connect to whom directly.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DirectPair {
    /// The client's network namespace, by its cookie.
    pub client_netns_cookie: u64,
    /// The server's.
    pub server_netns_cookie: u64,
    /// A port of the server in host order; [`Self::ANY_PORT`] for every port without an entry of its own.
    pub port: u32,
    /// Always zero.
    pub padding: u32,
}

const _: () = assert!(size_of::<DirectPair>() == 24);

impl DirectPair {
    /// Stands for the ports that have no entry of their own.
    pub const ANY_PORT: u32 = 0;

    /// The pair's entry for a port.
    #[inline(always)]
    #[must_use]
    pub const fn new(client_netns_cookie: u64, server_netns_cookie: u64, port: u32) -> Self {
        Self { client_netns_cookie, server_netns_cookie, port, padding: 0 }
    }
}

/// Value of a [`DirectPair`]: the kernel connects them.
pub const DIRECT: u32 = 1;
/// Value of a [`DirectPair`]: the kernel connects them, and shows what they say, for their requests to be counted.
pub const WATCHED: u32 = 2;
/// Value of a [`DirectPair`]: the daemon decides, as it does where there is no entry.
pub const BY_DAEMON: u32 = 0;

/// A direct connection by its addresses.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct DirectKey {
    /// The client's end.
    pub client: SockAddress,
    /// The server's end.
    pub server: SockAddress,
}

const _: () = assert!(size_of::<DirectKey>() == 40);

/// What the kernel attests of a connection: written when the client's own SYN leaves, removed when the client's socket
/// closes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attestation {
    /// When the SYN left last (`bpf_ktime_get_ns`).
    pub offered_ns: u64,
    /// The client's socket cookie.
    pub cookie: u64,
    /// The client's network namespace, by its cookie.
    pub client_netns_cookie: u64,
    /// The server's.
    pub server_netns_cookie: u64,
    /// What the client asked for: the server's end, or a Service's address.
    pub asked: SockAddress,
    /// The SYN's sequence number.
    pub isn: u32,
    /// [`OFFERED`] or [`TAKEN`].
    pub state: u32,
    /// [`BETWEEN_PODS`], [`BETWEEN_WATCHED_PODS`] or [`PROBE`].
    pub kind: u32,
}

const _: () = assert!(size_of::<Attestation>() == 64);

/// A connection between two pods.
pub const BETWEEN_PODS: u32 = 0;
/// A connection between two pods whose payload is shown ([`WATCHED`]).
pub const BETWEEN_WATCHED_PODS: u32 = 2;
/// One of kubelet's probes: nobody's connection in telemetry, and no policy's business.
pub const PROBE: u32 = 1;

/// The handshake is under way: the attestation admits it.
pub const OFFERED: u32 = 0;
/// The server's socket has it: the attestation admits nobody any more.
pub const TAKEN: u32 = 1;

/// What happened to a direct connection.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DirectEventKind {
    /// The client's handshake is done.
    Opened = 1,
    /// The client's socket has closed.
    ClientClosed = 2,
    /// The server's socket has closed.
    ServerClosed = 3,
    /// The server refused, or did not answer.
    Failed = 4,
}

/// The socket closed after both directions had ended in order.
pub const END_ORDERLY: u32 = 0;
/// The socket was reset, timed out or was aborted.
pub const END_ABORTED: u32 = 1;

/// One event of a direct connection, as the ring buffer has it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DirectEvent {
    /// A [`DirectEventKind`] by its number.
    pub kind: u32,
    /// [`END_ORDERLY`] or [`END_ABORTED`].
    pub end: u32,
    /// When (`bpf_ktime_get_ns`).
    pub at_ns: u64,
    /// The client's socket cookie.
    pub cookie: u64,
    /// The client's network namespace, by its cookie.
    pub client_netns_cookie: u64,
    /// The server's.
    pub server_netns_cookie: u64,
    /// Payload that this end has sent and the other has acknowledged.
    pub sent: u64,
    /// Octets that this end has received, the other's FIN among them where it came.
    pub received: u64,
    /// The client's end.
    pub client: SockAddress,
    /// The server's end.
    pub server: SockAddress,
    /// What the client asked for.
    pub asked: SockAddress,
    /// The SYN's sequence number.
    pub isn: u32,
    /// Whether the server's socket exists (of [`DirectEventKind::ClientClosed`]): 0 or 1.
    pub accepted: u32,
    /// Always zero.
    pub padding: u32,
}

const _: () = assert!(size_of::<DirectEvent>() == 128);

/// Most entries by [`DirectPair`]: all pairs of 512 pods, or of 110 pods with 20 ports that policies tell apart.
pub const MAX_PAIRS: usize = 262_144;
