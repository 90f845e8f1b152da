//! Bounds on time and memory, all in one place.

use std::time::Duration;

/// How long an endpoint may leave a dial without an answer before another one is asked, where there is one. A first SYN that is
/// lost is sent again after a second.
pub const DIAL_ANSWER: Duration = Duration::from_millis(1500);
/// How long an endpoint that has not answered is passed by; then one connection tries it again.
pub const PASSED_BY: Duration = Duration::from_secs(10);

/// Bounds for tunnels. The defaults suit a node with tens of thousands of connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes in flight towards us on one HTTP/2 stream. 4 MiB fill 10 Gb/s at 3 ms of round trip.
    pub stream_window: u32,
    /// Bytes in flight towards us on one HTTP/2 connection: what a peer can make us hold. What nobody reads of one stream is in
    /// it, and the other streams have the rest.
    pub connection_window: u32,
    /// Bytes that all HTTP/2 connections share for their windows: beyond it, windows shrink.
    pub window_budget: usize,
    /// Largest DATA frame that we accept, in bytes. A frame is buffered whole before its first byte goes on.
    pub max_frame_size: u32,
    /// Bytes that may wait on a stream for the connection to take them.
    pub max_send_buffer: usize,
    /// Streams that a peer may have open on one connection.
    pub max_concurrent_streams: u32,
    /// Streams that the pool puts on one connection before it dials another.
    pub streams_per_connection: usize,
    /// Bytes of a request's headers, HPACK-decoded; bounds CONTINUATION floods.
    pub max_header_list: u32,
    /// From accept, or from the start of dialling, to a finished handshake.
    pub handshake_timeout: Duration,
    /// TLS handshakes with peers not yet authenticated that run at once; others wait without buffers.
    pub handshakes_in_flight: usize,
    /// Of these, how many from one address.
    pub handshakes_per_address: usize,
    /// From a CONNECT to its answer, which comes after the application at the far side was connected.
    pub response_timeout: Duration,
    /// Direct tunnels that are open at once to one destination, from each source and thread. More share HTTP/2 connections,
    /// where one write carries what many of them have to say; but these share a window too, so that many that nobody reads
    /// can hold the others up.
    pub direct_per_destination: usize,
    /// Connections for direct tunnels that a server has at once, on all threads. Who comes then is offered HTTP/2, on
    /// whose connections many tunnels are one.
    pub direct_connections: usize,
    /// Direct connections without a tunnel that the pool keeps for one source and destination.
    pub idle_per_destination: usize,
    /// How long a connection without tunnels stays.
    pub idle_timeout: Duration,
    /// Between pings on a connection.
    pub ping_interval: Duration,
    /// How long a ping may stay unanswered.
    pub ping_timeout: Duration,
}

/// Streams that may be left unread before the others of their connection have to wait for them.
const UNREAD_STREAMS: u32 = 16;
/// The least window of a connection, which is also what HTTP/2 begins with (RFC 9113, section 6.9.2).
const LEAST_WINDOW: u32 = 65_535;

impl Limits {
    /// The windows of one more HTTP/2 connection to us: of a stream, and of all its streams together.
    ///
    /// Each connection gets its share of the budget as if all others had the same, so what many peers can make us hold
    /// grows with the logarithm of their number.
    pub(crate) fn windows(&self, others: usize) -> (u32, u32) {
        let share = u32::try_from(self.window_budget / (others + 1)).unwrap_or(u32::MAX);
        let connection = share.max(LEAST_WINDOW).min(self.connection_window);
        let stream = self.stream_window.min(connection / UNREAD_STREAMS);
        (stream.max(LEAST_WINDOW), connection)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            stream_window: 4 << 20,
            connection_window: 64 << 20,
            window_budget: 64 << 20,
            max_frame_size: 64 << 10,
            max_send_buffer: 512 << 10,
            max_concurrent_streams: 256,
            streams_per_connection: 100,
            max_header_list: 16 << 10,
            handshake_timeout: Duration::from_secs(10),
            handshakes_in_flight: 256,
            handshakes_per_address: 64,
            response_timeout: Duration::from_secs(30),
            direct_per_destination: usize::MAX,
            direct_connections: usize::MAX,
            idle_per_destination: 64,
            idle_timeout: Duration::from_secs(90),
            ping_interval: Duration::from_secs(30),
            ping_timeout: Duration::from_secs(20),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_whole_for_a_few_connections_and_small_for_many() {
        let limits = Limits::default();
        for (others, stream, connection) in [
            (0, 4 << 20, 64 << 20),
            (3, 1 << 20, 16 << 20),
            (7, 512 << 10, 8 << 20),
            (63, 65_536, 1 << 20),
            (1023, LEAST_WINDOW, 65_536),
            (100_000, LEAST_WINDOW, LEAST_WINDOW),
        ] {
            assert_eq!(limits.windows(others), (stream, connection), "{others}");
        }
        let all: u64 = (0..1000).map(|others| u64::from(limits.windows(others).1)).sum();
        assert!(all < 512 << 20, "a thousand connections may hold {} MiB", all >> 20);
    }
}
