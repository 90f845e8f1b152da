//! Types shared by the eBPF programs and the node daemon through eBPF maps.
//!
//! Everything here is `repr(C)` with explicit, zeroed padding and asserted sizes, because the kernel
//! compares map keys byte by byte. Addresses are always kept in IPv6 form (IPv4 as `::ffff:a.b.c.d`,
//! RFC 4291 section 2.5.5.2) and in network byte order, as the name of each field says.
#![no_std]

pub mod budget;
pub mod counter;
pub mod direct;
pub mod dns;
pub mod drop;
pub mod flow;
pub mod frame;
pub mod pod;
pub mod ports;
pub mod probe;
pub mod service;
pub mod setting;
pub mod signal;
pub mod sock_address;
pub mod socket;

pub use budget::Budget;
pub use counter::Counter;
pub use direct::{Attestation, DirectEvent, DirectEventKind, DirectKey, DirectPair};
pub use dns::{AskerRecord, Exchange, HostKey, HostRecord};
pub use drop::DropEvent;
pub use flow::{FlowKey, OriginalDestination};
pub use frame::FramePosition;
pub use pod::PodRecord;
pub use probe::ProbePort;
pub use service::{ServiceEndpoint, ServiceRecord};
pub use setting::Setting;
pub use signal::{Signal, SignalHead};
pub use sock_address::SockAddress;
pub use socket::{SocketKind, SocketRecord};

/// Version of every layout in this crate. It is part of the directory name under which maps are
/// pinned, so that a daemon never reads a map written in another layout.
pub const ABI_VERSION: u32 = 8;

/// Names of the maps, as the eBPF object declares them and as they are pinned.
pub mod map_names {
    /// Enrolled pods: network-namespace cookie to [`crate::PodRecord`].
    pub const PODS: &str = "PODS";
    /// Per-socket record ([`crate::SocketRecord`]) in socket storage.
    pub const SOCKETS: &str = "SOCKETS";
    /// Redirected connections that the daemon has not accepted yet: [`crate::FlowKey`] to
    /// [`crate::OriginalDestination`].
    pub const OUTBOUND_FLOWS: &str = "OUTBOUND_FLOWS";
    /// The daemon's connections towards applications: [`crate::FlowKey`] to the real client.
    pub const INBOUND_FLOWS: &str = "INBOUND_FLOWS";
    /// Per-CPU event counters, indexed by [`crate::Counter`].
    pub const COUNTERS: &str = "COUNTERS";
    /// Addresses of the node's enrolled pods (words as in [`crate::SockAddress`]) to the network-namespace cookie.
    pub const LOCAL: &str = "LOCAL";
    /// Who may connect to whom directly: [`crate::DirectPair`] to [`crate::direct::DIRECT`] or
    /// [`crate::direct::BY_DAEMON`].
    pub const DIRECT: &str = "DIRECT";
    /// Services with endpoints on this node: their [`crate::SockAddress`] to [`crate::ServiceRecord`].
    pub const SERVICES: &str = "SERVICES";
    /// Direct connections and probes whose client lives: [`crate::DirectKey`] to [`crate::Attestation`].
    pub const ATTESTATIONS: &str = "ATTESTATIONS";
    /// Ring buffer of [`crate::DirectEvent`]s.
    pub const DIRECT_EVENTS: &str = "DIRECT_EVENTS";
    /// Ring buffer of [`crate::DropEvent`]s.
    pub const DROP_EVENTS: &str = "DROP_EVENTS";
    /// Per-CPU [`crate::Budget`]s of drops' events, indexed by [`crate::Counter`].
    pub const DROP_BUDGETS: &str = "DROP_BUDGETS";
    /// Connections from before their pods joined: socket cookie to network-namespace cookie. The daemon's own memory.
    pub const EXISTING: &str = "EXISTING";
    /// Where kubelet knocks: [`crate::ProbePort`] to 1.
    pub const PROBE_PORTS: &str = "PROBE_PORTS";
    /// Ring buffer of what is shown of direct connections' payload: [`crate::SignalHead`]s, each with octets after it.
    pub const SIGNALS: &str = "SIGNALS";
    /// Memory of each CPU in which a record of [`SIGNALS`] is made: one [`crate::Signal`].
    pub const SIGNAL: &str = "SIGNAL";
    /// Per-CPU [`crate::Budget`] of [`SIGNALS`].
    pub const SIGNAL_BUDGET: &str = "SIGNAL_BUDGET";
    /// Of sockets that speak HTTP/2 and are watched, where they are in it ([`crate::FramePosition`]), in socket storage.
    pub const POSITIONS: &str = "POSITIONS";
    /// Numbers that the daemon sets, indexed by [`crate::Setting`].
    pub const SETTINGS: &str = "SETTINGS";
    /// Hosts that pods are told the mesh's addresses of: [`crate::HostKey`] to [`crate::HostRecord`].
    pub const HOSTS: &str = "HOSTS";
    /// Pods that are told of them: network-namespace cookie to [`crate::AskerRecord`].
    pub const ASKERS: &str = "ASKERS";
    /// Memory of each CPU in which a question for a host is read and answered: one [`crate::Exchange`].
    pub const EXCHANGE: &str = "EXCHANGE";
    /// Every map, in the order in which they are described above.
    pub const ALL: [&str; 22] = [
        PODS,
        SOCKETS,
        OUTBOUND_FLOWS,
        INBOUND_FLOWS,
        COUNTERS,
        LOCAL,
        DIRECT,
        SERVICES,
        ATTESTATIONS,
        DIRECT_EVENTS,
        DROP_EVENTS,
        DROP_BUDGETS,
        EXISTING,
        PROBE_PORTS,
        SIGNALS,
        SIGNAL,
        SIGNAL_BUDGET,
        POSITIONS,
        SETTINGS,
        HOSTS,
        ASKERS,
        EXCHANGE,
    ];
}

/// Name of the read-only global that holds the cgroup id of the daemon (`u64`, set at load).
pub const DAEMON_CGROUP_GLOBAL: &str = "DAEMON_CGROUP_ID";

#[cfg(feature = "user")]
mod user {
    /// Lets user space put the types into maps.
    macro_rules! pod {
        ($($type:ty),*) => {$(
            // SAFETY: `repr(C)`, made of integers alone, and without padding that is not a field (its size is asserted).
            unsafe impl aya::Pod for $type {}
        )*};
    }
    pod!(
        crate::AskerRecord,
        crate::Attestation,
        crate::DirectEvent,
        crate::DirectKey,
        crate::DirectPair,
        crate::DropEvent,
        crate::FlowKey,
        crate::HostKey,
        crate::HostRecord,
        crate::OriginalDestination,
        crate::PodRecord,
        crate::ProbePort,
        crate::ServiceRecord,
        crate::SignalHead,
        crate::SockAddress,
        crate::SocketRecord
    );
}
