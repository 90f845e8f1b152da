//! What the programs tell of packets and calls that they drop.

use crate::SockAddress;

/// A packet, or a connect(), that was dropped, as the ring buffer has it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DropEvent {
    /// When (`bpf_ktime_get_ns`).
    pub at_ns: u64,
    /// The pod's network namespace, by its cookie; 0 where it is not known.
    pub netns_cookie: u64,
    /// Where it says that it comes from; all zero where its headers could not be read.
    pub source: SockAddress,
    /// Where it goes.
    pub destination: SockAddress,
    /// The [`crate::Counter`] of the drop, by its number.
    pub reason: u32,
    /// [`LEAVING`] or [`ARRIVING`].
    pub direction: u32,
}

const _: () = assert!(size_of::<DropEvent>() == 64);

/// The pod sent it.
pub const LEAVING: u32 = 0;
/// It was for the pod.
pub const ARRIVING: u32 = 1;

/// Events of one reason that one CPU tells in a window ([`crate::budget::WINDOW_SHIFT`]); the others are counted. A flood of one reason hides no other.
pub const EVENTS_A_WINDOW: u64 = 16;
