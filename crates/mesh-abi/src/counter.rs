//! What the eBPF programs count, as a closed set.

/// Index into the per-CPU counters map.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Counter {
    /// connect() handed to the daemon's outbound listener.
    OutboundRedirected = 0,
    /// New plaintext flow handed to the daemon's plaintext listener.
    InboundSteered = 1,
    /// UDP packet that left an enrolled pod; it passes untouched.
    UdpPassed = 2,
    /// connect() refused: an application dialled one of the mesh's own listeners.
    DroppedReservedPort = 3,
    /// connect() refused: the kernel had no memory for the socket's record.
    DroppedNoRecord = 4,
    /// SYN dropped at egress: no socket that the mesh knows sent it.
    DroppedUnattestedSyn = 5,
    /// Inbound packet of a new flow dropped: the daemon's listener is not there.
    DroppedNoListener = 6,
    /// Inbound packet of a new flow dropped: the kernel refused the hand-over.
    DroppedSteerFailed = 7,
    /// TCP fragment dropped: it could hide its flags.
    DroppedFragment = 8,
    /// Packet dropped: headers that end early, or too many extension headers.
    DroppedMalformed = 9,
    /// connect() that goes straight to a pod of this node.
    DirectConnected = 10,
    /// SYN of a direct connection that the server's interface let in.
    DirectAdmitted = 11,
    /// Inbound packet dropped: it has the addresses of an attested handshake and is no part of it.
    DroppedForgedFlow = 12,
    /// SYN of a direct connection dropped at egress: no policy allows it any more, it has another source
    /// than its pod's, or the table of direct connections is full.
    DroppedUnattestable = 13,
    /// Event of a direct connection lost: the ring buffer was full.
    LostDirectEvent = 14,
    /// SYN of one of kubelet's probes that a pod's interface let in.
    ProbeAdmitted = 15,
    /// Event of a drop lost: the ring buffer was full.
    LostDropEvent = 16,
    /// Event of a drop not told: there were too many of its reason in a short time.
    UntoldDrop = 17,
    /// Segment of a direct connection not shown: the ring buffer was full.
    LostSignal = 18,
    /// Segment of a direct connection not shown: there were too many in a short time.
    UntoldSignal = 19,
    /// End of a direct connection whose HTTP/2 is not followed any more: too many frames in one segment, too long a header
    /// block, or a segment that was not shown.
    ForsakenFrames = 20,
    /// Question for a host of the mesh that was answered in place of the resolver that the pod asked.
    HostAnswered = 21,
}

impl Counter {
    /// Every counter, in the order of their numbers.
    pub const ALL: [Self; 22] = [
        Self::OutboundRedirected,
        Self::InboundSteered,
        Self::UdpPassed,
        Self::DroppedReservedPort,
        Self::DroppedNoRecord,
        Self::DroppedUnattestedSyn,
        Self::DroppedNoListener,
        Self::DroppedSteerFailed,
        Self::DroppedFragment,
        Self::DroppedMalformed,
        Self::DirectConnected,
        Self::DirectAdmitted,
        Self::DroppedForgedFlow,
        Self::DroppedUnattestable,
        Self::LostDirectEvent,
        Self::ProbeAdmitted,
        Self::LostDropEvent,
        Self::UntoldDrop,
        Self::LostSignal,
        Self::UntoldSignal,
        Self::ForsakenFrames,
        Self::HostAnswered,
    ];

    /// Number of counters: the size of the map.
    pub const COUNT: u32 = Self::ALL.len() as u32;

    /// What happened to the packet or call: a metric label.
    #[must_use]
    pub const fn action(self) -> &'static str {
        match self {
            Self::OutboundRedirected | Self::InboundSteered => "redirect",
            Self::UdpPassed | Self::DirectConnected | Self::DirectAdmitted | Self::ProbeAdmitted => "pass",
            Self::HostAnswered => "answer",
            Self::LostDirectEvent
            | Self::LostDropEvent
            | Self::UntoldDrop
            | Self::LostSignal
            | Self::UntoldSignal
            | Self::ForsakenFrames => "lost",
            Self::DroppedReservedPort
            | Self::DroppedNoRecord
            | Self::DroppedUnattestedSyn
            | Self::DroppedNoListener
            | Self::DroppedSteerFailed
            | Self::DroppedFragment
            | Self::DroppedMalformed
            | Self::DroppedForgedFlow
            | Self::DroppedUnattestable => "drop",
        }
    }

    /// Why: a metric label.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::OutboundRedirected => "outbound_connect",
            Self::InboundSteered => "inbound_plaintext",
            Self::UdpPassed => "udp",
            Self::DroppedReservedPort => "reserved_port",
            Self::DroppedNoRecord => "no_socket_record",
            Self::DroppedUnattestedSyn => "unattested_syn",
            Self::DroppedNoListener => "no_listener",
            Self::DroppedSteerFailed => "steer_failed",
            Self::DroppedFragment => "tcp_fragment",
            Self::DroppedMalformed => "malformed_packet",
            Self::DirectConnected => "direct_connect",
            Self::DirectAdmitted => "direct_inbound",
            Self::DroppedForgedFlow => "forged_flow",
            Self::DroppedUnattestable => "unattestable_syn",
            Self::LostDirectEvent => "direct_event",
            Self::ProbeAdmitted => "kubelet_probe",
            Self::LostDropEvent => "drop_event",
            Self::UntoldDrop => "drop_event_limit",
            Self::LostSignal => "direct_signal",
            Self::UntoldSignal => "direct_signal_limit",
            Self::ForsakenFrames => "direct_frames",
            Self::HostAnswered => "dns",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_listed_by_their_numbers() {
        for (index, counter) in Counter::ALL.iter().enumerate() {
            assert_eq!(*counter as usize, index);
        }
    }
}
