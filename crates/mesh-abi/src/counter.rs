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
    /// SYN dropped at egress: no socket of the daemon sent it.
    DroppedUnattestedSyn = 5,
    /// Inbound packet of a new flow dropped: the daemon's listener is not there.
    DroppedNoListener = 6,
    /// Inbound packet of a new flow dropped: the kernel refused the hand-over.
    DroppedSteerFailed = 7,
    /// TCP fragment dropped: it could hide its flags.
    DroppedFragment = 8,
    /// Packet dropped: headers that end early, or too many extension headers.
    DroppedMalformed = 9,
}

impl Counter {
    /// Every counter, in the order of their numbers.
    pub const ALL: [Self; 10] = [
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
    ];

    /// Number of counters: the size of the map.
    pub const COUNT: u32 = Self::ALL.len() as u32;

    /// What happened to the packet or call: a metric label.
    #[must_use]
    pub const fn action(self) -> &'static str {
        match self {
            Self::OutboundRedirected | Self::InboundSteered => "redirect",
            Self::UdpPassed => "pass",
            _ => "drop",
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
