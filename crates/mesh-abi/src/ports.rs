//! The mesh's well-known ports.

/// Listener for redirected outbound connections, on the loopback addresses of a pod's namespace.
pub const OUTBOUND: u16 = 15001;
/// Listener to which plaintext inbound connections are steered, in a pod's namespace.
pub const PLAINTEXT_INBOUND: u16 = 15006;
/// HBONE listener in a pod's namespace; the same port as Istio's ztunnel.
pub const HBONE: u16 = 15008;

/// Whether an application has no business dialling `port` (host byte order) on its own addresses.
#[inline(always)]
#[must_use]
pub const fn is_reserved(port: u16) -> bool {
    matches!(port, OUTBOUND | PLAINTEXT_INBOUND | HBONE)
}
