//! Shows HTTP/2 without its bodies: of each segment the headers of the frames in it, and the header blocks, so that no request
//! is missed for what passes between them.
//!
//! Of each socket is kept where it is in what it sends, by sequence numbers: what is sent again is not walked again. Whatever
//! cannot be shown ends the following of that socket, since neither frames nor compressed fields have a meaning without those
//! before; the daemon is told.

use aya_ebpf::{bindings::bpf_sock, programs::TcContext};
use mesh_abi::{
    Counter, Signal, SocketRecord,
    frame::{Fresh, HEADER_ROOM, HeaderRoom, Walked},
    signal::{FRAMES, KEPT, NO_MORE},
    socket::{FORSAKEN, UNWATCHED},
};

use crate::{
    maps::{SIGNAL, count},
    packet::Segment,
    signals::{self, load},
    sockets,
};

/// A segment leaves a socket that speaks HTTP/2.
#[inline(always)]
pub fn note(ctx: &TcContext, segment: &Segment, record: &mut SocketRecord, sk: *mut bpf_sock) {
    if record.watched != FORSAKEN {
        if show(ctx, segment, record, sk).is_some() {
            return;
        }
        record.watched = FORSAKEN;
        count(Counter::ForsakenFrames);
    }
    if tell_no_more(segment, record).is_some() {
        record.watched = UNWATCHED;
    }
}

/// Shows what is new in the segment; none where that cannot be.
#[inline(always)]
fn show(ctx: &TcContext, segment: &Segment, record: &SocketRecord, sk: *mut bpf_sock) -> Option<()> {
    let position = sockets::position(sk)?;
    let fresh = match position.fresh(segment.sequence, segment.payload_length) {
        Fresh::Octets(fresh) => fresh,
        Fresh::Nothing => return Some(()),
        Fresh::Unknown => return None,
    };
    let Some(mut head) = signals::head(segment, record) else {
        count(Counter::UntoldSignal);
        return None;
    };
    (head.sequence, head.length, head.form) = (position.next, fresh, FRAMES);
    let signal: *mut Signal = SIGNAL.get_ptr_mut(0)?;
    // SAFETY: the slot belongs to this CPU, whose packets leave one after another.
    unsafe {
        (*signal).head = head;
        ((*signal).gathered, (*signal).left) = (0, fresh);
    }
    let mut gathering = Gathering { ctx, signal };
    position.walk(&mut gathering)?;
    if signals::tell(signal, gathering.gathered()).is_none() {
        count(Counter::LostSignal);
        return None;
    }
    position.next = position.next.wrapping_add(fresh);
    Some(())
}

/// Says that no more is shown of what this socket sends.
#[inline(always)]
fn tell_no_more(segment: &Segment, record: &SocketRecord) -> Option<()> {
    let mut head = signals::head(segment, record)?;
    head.form = NO_MORE;
    let signal: *mut Signal = SIGNAL.get_ptr_mut(0)?;
    // SAFETY: the slot belongs to this CPU, whose packets leave one after another.
    unsafe { (*signal).head = head };
    signals::tell(signal, 0)
}

/// A packet that is walked through, and the record in which is gathered what is shown of it.
///
/// Its numbers are in that memory, and read anew each time: there the compiler takes no bound for known that the verifier does not
/// see, and to the verifier each step is like the one before.
struct Gathering<'a> {
    ctx: &'a TcContext,
    signal: *mut Signal,
}

impl Walked for Gathering<'_> {
    #[inline(always)]
    fn left(&self) -> u32 {
        // SAFETY: the slot belongs to this CPU, whose packets leave one after another.
        unsafe { (&raw const (*self.signal).left).read_volatile() }
    }

    #[inline(always)]
    fn pass(&mut self, octets: u32) {
        let left = self.left().wrapping_sub(octets);
        // SAFETY: as above.
        unsafe { (&raw mut (*self.signal).left).write_volatile(left) };
    }

    #[inline(always)]
    fn show(&mut self, octets: u32) -> Option<()> {
        const MOST: u32 = KEPT as u32;
        let end = u64::from(self.gathered()) + u64::from(octets);
        if end > u64::from(MOST) {
            return None;
        }
        let place = self.gathered() & (MOST - 1);
        // SAFETY: as above; there is room for twice as many octets as each of these may be.
        unsafe {
            let place = (&raw mut (*self.signal).shown).cast::<u8>().add(place as usize);
            if !load(self.ctx, self.left(), place, self.bounded(octets, MOST)) {
                return None;
            }
            (&raw mut (*self.signal).gathered).write_volatile(end as u32);
        }
        Some(())
    }

    #[inline(always)]
    fn read(&mut self, octets: u32, (room, place): (&mut HeaderRoom, u32)) -> Option<()> {
        // SAFETY: there is room for twice as many octets as each of these may be.
        let place = unsafe { room.as_mut_ptr().add(place as usize) };
        load(self.ctx, self.left(), place, self.bounded(octets, HEADER_ROOM)).then_some(())
    }
}

impl Gathering<'_> {
    #[inline(always)]
    fn gathered(&self) -> u32 {
        // SAFETY: the slot belongs to this CPU, whose packets leave one after another.
        unsafe { (&raw const (*self.signal).gathered).read_volatile() }
    }

    /// The same number, which is from 1 to `most` (a power of two), in a way that the verifier follows.
    #[inline(always)]
    fn bounded(&self, number: u32, most: u32) -> u32 {
        // SAFETY: as above.
        let number = unsafe {
            let place = &raw mut (*self.signal).number;
            place.write_volatile(number);
            place.read_volatile()
        };
        (number.wrapping_sub(1) & (most - 1)) + 1
    }
}
