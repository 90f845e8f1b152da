//! What the programs show of the payload of a direct connection, so that the daemon can tell requests in it: the beginning of
//! each segment, and of HTTP/2 all but the bodies.

/// Octets of a segment's payload that are shown at most: the head of most requests, and all of small ones.
pub const SHOWN: usize = 1024;
/// Octets of the end of a segment that are shown besides, where it has more than [`SHOWN`]: enough for a last chunk of HTTP/1.1.
pub const TAIL: usize = 8;
/// Octets of a segment of HTTP/2 that are shown at most: its frames' headers, and its header blocks.
pub const KEPT: usize = 8192;
/// Frames of a segment of HTTP/2 that are shown at most.
pub const FRAMES_A_SEGMENT: u32 = 128;

/// One segment, as the ring buffer has it; what is shown of its payload follows, up to the record's end.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SignalHead {
    /// When it left (`bpf_ktime_get_ns`).
    pub at_ns: u64,
    /// The client's socket cookie: together with [`Self::isn`] the connection's name.
    pub cookie: u64,
    /// Initial sequence number of the client's SYN.
    pub isn: u32,
    /// The segment's sequence number; of [`FRAMES`] that of the first octet that was not sent before.
    pub sequence: u32,
    /// Octets of payload that it has from there on.
    pub length: u32,
    /// [`BY_CLIENT`] or [`BY_SERVER`].
    pub sender: u32,
    /// [`BEGINNING`], [`FRAMES`] or [`NO_MORE`].
    pub form: u32,
    /// Always zero.
    pub padding: u32,
    /// The last octets of the payload, where not all of it is shown as [`BEGINNING`].
    pub tail: [u8; TAIL],
}

const _: () = assert!(size_of::<SignalHead>() == 48);

/// One segment with all that can be shown of it, in the memory where a record is made.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Signal {
    /// What is known of it.
    pub head: SignalHead,
    /// What is shown of its payload. Twice what that may be: then a place in the first half, and what is written there, are
    /// each bounded by themselves, as the verifier wants it.
    pub shown: [u8; 2 * KEPT],
    /// Octets of it that are there, while they are gathered.
    pub gathered: u32,
    /// Octets of the segment that are still to be walked through.
    pub left: u32,
    /// A number on its way to where the verifier bounds it.
    pub number: u32,
    /// Always zero.
    pub padding: u32,
}

const _: () = assert!(size_of::<Signal>() == size_of::<SignalHead>() + 2 * KEPT + 16);
const _: () = assert!(SHOWN <= KEPT);

/// The segment's beginning is shown.
pub const BEGINNING: u32 = 0;
/// All of the segment is shown but for the payloads of frames that have no part in a header block.
pub const FRAMES: u32 = 1;
/// Nothing is shown: neither this segment nor any that this end sends after it.
pub const NO_MORE: u32 = 2;

/// The end that has connected sent it.
pub const BY_CLIENT: u32 = 0;
/// The end that was connected to sent it.
pub const BY_SERVER: u32 = 1;

/// Octets of the ring buffer.
pub const RING_OCTETS: usize = 2 << 20;
/// Octets in the ring buffer beyond which its reader is woken; it reads what is less when it has something else to do.
pub const WAKING_OCTETS: u64 = RING_OCTETS as u64 / 8;
/// Segments that one CPU shows in a window of [`crate::budget::WINDOW_SHIFT`]; the others are counted. Some 30,000 a second.
pub const SIGNALS_A_WINDOW: u64 = 4096;
