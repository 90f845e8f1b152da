//! Services with endpoints on this node.

use crate::SockAddress;

/// Endpoints of one node that the kernel itself picks; a Service with more has the rest picked by the daemon.
pub const LISTED_ENDPOINTS: usize = 16;

/// Most addresses and ports of Services that have endpoints on one node; the daemon picks for the rest.
pub const MAX_SERVICES: usize = 65_536;

/// One of a Service's endpoints.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServiceEndpoint {
    /// Its place among all ready endpoints of the Service's port in the address's family.
    pub index: u32,
    /// Where it listens.
    pub address: SockAddress,
}

/// A Service's address and port, as far as the kernel needs to know.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServiceRecord {
    /// Ready endpoints of the address's family on all nodes.
    pub endpoints: u32,
    /// How many of `local` are set.
    pub listed: u32,
    /// Those on this node.
    pub local: [ServiceEndpoint; LISTED_ENDPOINTS],
}

const _: () = assert!(size_of::<ServiceRecord>() == 392);

/// The place that `dice`, uniform over `u32`, picks among `endpoints`.
///
/// The daemon's pick by `u64::from(dice) << 32` is the same (`mesh_core::resolve`).
#[inline(always)]
#[must_use]
pub const fn picked(dice: u32, endpoints: u32) -> u32 {
    ((dice as u64 * endpoints as u64) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dice_pick_every_place_and_none_beyond() {
        assert_eq!(picked(0, 3), 0);
        assert_eq!(picked(u32::MAX, 3), 2);
        assert_eq!(picked(u32::MAX / 2, 3), 1);
        assert_eq!(picked(u32::MAX, 1), 0);
    }
}
