//! The way of the programs through HTTP/2: from frame to frame, past the bodies.

use crate::signal::FRAMES_A_SEGMENT;

/// Octets of a frame's header, of which the first three are its payload's length and the fourth is its kind (RFC 9113, section
/// 4.1).
const HEADER: u32 = 9;
const HEADERS: u8 = 1;
const PUSH_PROMISE: u8 = 5;
const CONTINUATION: u8 = 9;
/// What a client of HTTP/2 sends first has so many octets (RFC 9113, section 3.4).
const PREFACE: u32 = 24;

/// Room for a frame's header, and as much again: then a place in the first half, and what is written there, are each bounded by
/// themselves, as the verifier wants it.
pub type HeaderRoom = [u8; 2 * HEADER_ROOM as usize];
/// Half of a [`HeaderRoom`]: a power of two.
pub const HEADER_ROOM: u32 = 16;

/// Where an end that speaks HTTP/2 is in what it sends.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FramePosition {
    /// The sequence number that follows what was shown.
    pub next: u32,
    /// Octets that are still to come of the payload of the frame that is passing, or of the preface.
    pub rest: u32,
    /// Whether these are shown: 0 or 1.
    pub is_kept: u32,
    /// Octets of the next frame's header that have come, where it lies in two segments.
    pub held: u32,
    /// These octets.
    pub header: HeaderRoom,
}

const _: () = assert!(size_of::<FramePosition>() == 48);

/// What is new in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fresh {
    /// So many octets, its last ones.
    Octets(u32),
    /// Nothing: it was sent before.
    Nothing,
    /// Octets before it were never seen.
    Unknown,
}

/// The segment that is walked through, from what is new in it on.
pub trait Walked {
    /// Octets that are left to its end.
    fn left(&self) -> u32;

    /// Goes on by so many octets.
    fn pass(&mut self, octets: u32);

    /// Adds the next octets to what is shown; none where there is no room for them.
    fn show(&mut self, octets: u32) -> Option<()>;

    /// Reads the next octets to their place in a frame's header.
    fn read(&mut self, octets: u32, to: (&mut HeaderRoom, u32)) -> Option<()>;
}

impl FramePosition {
    /// Before the first octet, which has this sequence number, and belongs to a client's preface or not.
    #[inline(always)]
    #[must_use]
    pub const fn before(sequence: u32, has_preface: bool) -> Self {
        let (rest, is_kept) = if has_preface { (PREFACE, 1) } else { (0, 0) };
        Self { next: sequence, rest, is_kept, held: 0, header: [0; 2 * HEADER_ROOM as usize] }
    }

    /// What is new in a segment that begins with this sequence number.
    #[inline(always)]
    #[must_use]
    pub const fn fresh(&self, sequence: u32, length: u32) -> Fresh {
        let fresh = sequence.wrapping_add(length).wrapping_sub(self.next);
        if fresh.cast_signed() <= 0 {
            Fresh::Nothing
        } else if fresh > length {
            Fresh::Unknown
        } else {
            Fresh::Octets(fresh)
        }
    }

    /// Walks through a segment to its end, and shows the frames' headers and the header blocks in it; none where these are too
    /// many frames, or too much to show.
    #[inline(always)]
    pub fn walk(&mut self, segment: &mut impl Walked) -> Option<()> {
        let mut frames = 0;
        while frames < FRAMES_A_SEGMENT {
            let passing = self.rest.min(segment.left());
            if passing > 0 {
                if self.is_kept != 0 {
                    segment.show(passing)?;
                }
                self.rest -= passing;
                segment.pass(passing);
            }
            if segment.left() == 0 {
                return Some(());
            }
            self.walk_header(segment)?;
            frames += 1;
        }
        (segment.left() == 0).then_some(())
    }

    /// Takes in a frame's header, or what has come of it.
    #[inline(always)]
    fn walk_header(&mut self, segment: &mut impl Walked) -> Option<()> {
        let held = self.held & (HEADER_ROOM - 1);
        let missing = HEADER.wrapping_sub(held);
        let passing = missing.min(segment.left());
        segment.show(passing)?;
        segment.read(passing, (&mut self.header, held))?;
        segment.pass(passing);
        if passing < missing {
            self.held = held + passing;
            return Some(());
        }
        let [a, b, c, kind, ..] = self.header;
        self.held = 0;
        self.rest = u32::from_be_bytes([0, a, b, c]);
        self.is_kept = matches!(kind, HEADERS | PUSH_PROMISE | CONTINUATION).into();
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_new_is_told_across_the_end_of_sequence_numbers() {
        let next = 5;
        let position = FramePosition::before(next, false);
        let cases = [
            (next, 10, Fresh::Octets(10)),
            (next.wrapping_sub(10), 10, Fresh::Nothing),
            (next.wrapping_sub(10), 11, Fresh::Octets(1)),
            (next.wrapping_sub(70_000), 65_000, Fresh::Nothing),
            (next + 1, 10, Fresh::Unknown),
        ];
        for (sequence, length, expected) in cases {
            assert_eq!(position.fresh(sequence, length), expected, "{sequence} {length}");
        }
    }
}
