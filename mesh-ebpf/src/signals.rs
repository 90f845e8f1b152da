//! Shows the daemon what direct connections say, so that it can count their requests: the beginning of each segment, as it
//! leaves, and of HTTP/2 what `frames` makes of it.
//!
//! What does not begin as HTTP does is not shown, nor what would be more than the daemon's share of the work.

use aya_ebpf::{
    EbpfContext,
    bindings::bpf_sock,
    helpers::generated::{bpf_ktime_get_ns, bpf_ringbuf_query, bpf_skb_load_bytes},
    programs::TcContext,
};
use mesh_abi::{
    Counter, FramePosition, Signal, SignalHead, SocketKind, SocketRecord,
    signal::{BEGINNING, BY_CLIENT, BY_SERVER, KEPT, SHOWN, SIGNALS_A_WINDOW, TAIL, WAKING_OCTETS},
    socket::{FORSAKEN, FRAMED, SILENT, UNWATCHED, WATCHED},
};

use crate::{
    frames,
    maps::{SIGNAL, SIGNAL_BUDGET, SIGNALS, count},
    packet::Segment,
    sockets,
};

/// `BPF_RB_AVAIL_DATA`
const AVAILABLE: u64 = 0;
/// `BPF_RB_NO_WAKEUP` and `BPF_RB_FORCE_WAKEUP`
const QUIETLY: u64 = 1;
const WAKING: u64 = 2;
/// How a client of HTTP/2 begins (RFC 9113, section 3.4).
const PREFACE_BEGINS: [u8; 4] = *b"PRI ";
/// The kind of the frame that a server of HTTP/2 sends first.
const SETTINGS: u8 = 4;

/// A segment leaves that opens nothing.
#[inline(always)]
pub fn note(ctx: &TcContext, segment: &Segment) {
    if segment.payload_length == 0 {
        return;
    }
    let sk = sockets::sender(ctx);
    let Some(record) = sockets::find(sk) else {
        return;
    };
    if record.watched == UNWATCHED {
        return;
    }
    let sender = if record.is(SocketKind::DirectClient) { BY_CLIENT } else { BY_SERVER };
    if record.watched == SILENT {
        record.watched = recognise(ctx, segment, sender, sk);
    }
    match record.watched {
        FRAMED | FORSAKEN => frames::note(ctx, segment, record, sk),
        WATCHED => show(ctx, segment, record),
        _ => {}
    }
}

/// How a socket is watched whose first segment this is.
#[inline(always)]
fn recognise(ctx: &TcContext, segment: &Segment, sender: u32, sk: *mut bpf_sock) -> u32 {
    let mut first = [0u8; PREFACE_BEGINS.len()];
    let is_loaded = if segment.payload_length >= first.len() as u32 {
        load(ctx, segment.payload_length, first.as_mut_ptr(), first.len() as u32)
    } else {
        load(ctx, segment.payload_length, first.as_mut_ptr(), 1)
    };
    match (is_loaded, sender, first) {
        (true, BY_CLIENT, PREFACE_BEGINS) => framed(sk, FramePosition::before(segment.sequence, true)),
        (true, BY_CLIENT, [b'A'..=b'Z', ..]) => WATCHED,
        // The length of a SETTINGS frame, and its kind.
        (true, BY_SERVER, [0, _, _, SETTINGS]) => framed(sk, FramePosition::before(segment.sequence, false)),
        (true, BY_SERVER, [b'H' | 0, ..]) => WATCHED,
        _ => UNWATCHED,
    }
}

#[inline(always)]
fn framed(sk: *mut bpf_sock, mut position: FramePosition) -> u32 {
    if sockets::follow(sk, &mut position) { FRAMED } else { WATCHED }
}

/// Shows the segment's beginning.
#[inline(always)]
fn show(ctx: &TcContext, segment: &Segment, record: &SocketRecord) {
    let Some(head) = head(segment, record) else {
        return count(Counter::UntoldSignal);
    };
    if show_beginning(ctx, segment, head).is_none() {
        count(Counter::LostSignal);
    }
}

/// What is known of a segment; none where no more may be shown now.
#[inline(always)]
pub fn head(segment: &Segment, record: &SocketRecord) -> Option<SignalHead> {
    // SAFETY: plain helper call.
    let at_ns = unsafe { bpf_ktime_get_ns() };
    may_show(at_ns).then_some(SignalHead {
        at_ns,
        cookie: record.cookie,
        isn: record.isn,
        sequence: segment.sequence,
        length: segment.payload_length,
        sender: if record.is(SocketKind::DirectClient) { BY_CLIENT } else { BY_SERVER },
        form: BEGINNING,
        padding: 0,
        tail: [0; TAIL],
    })
}

#[inline(always)]
fn may_show(at_ns: u64) -> bool {
    let Some(budget) = SIGNAL_BUDGET.get_ptr_mut(0) else {
        return false;
    };
    // SAFETY: the slot belongs to this CPU; a program that interrupts this one may show one more or one fewer.
    unsafe { (*budget).allows(at_ns, SIGNALS_A_WINDOW) }
}

#[inline(always)]
fn show_beginning(ctx: &TcContext, segment: &Segment, head: SignalHead) -> Option<()> {
    let signal: *mut Signal = SIGNAL.get_ptr_mut(0)?;
    let length = segment.payload_length;
    // From 1 to SHOWN, in a way that the verifier follows.
    let shown = ((length.min(SHOWN as u32) - 1) & (SHOWN as u32 - 1)) + 1;
    // SAFETY: the slot belongs to this CPU, whose packets leave one after another; it is as large as what is written to it, by
    // the bounds above.
    unsafe {
        (*signal).head = head;
        if !load(ctx, length, (&raw mut (*signal).shown).cast(), shown) {
            return None;
        }
        if length > SHOWN as u32 && !load(ctx, TAIL as u32, (&raw mut (*signal).head.tail).cast(), TAIL as u32) {
            return None;
        }
    }
    tell(signal, shown)
}

/// Puts a record of which so many octets are shown into the ring buffer.
#[inline(always)]
pub fn tell(signal: *mut Signal, shown: u32) -> Option<()> {
    if shown > KEPT as u32 {
        return None;
    }
    // SAFETY: the slot belongs to this CPU, whose packets leave one after another, and is larger than that.
    unsafe {
        let octets = core::slice::from_raw_parts(signal.cast::<u8>(), size_of::<SignalHead>() + shown as usize);
        let waiting = bpf_ringbuf_query(core::ptr::addr_of!(SIGNALS).cast_mut().cast(), AVAILABLE);
        let flags = if waiting > WAKING_OCTETS { WAKING } else { QUIETLY };
        SIGNALS.output_untyped::<[u8]>(octets, flags).ok()
    }
}

/// Reads octets of the packet, from so many before its end on. (Relative to a header, only what is in the buffer's linear part
/// could be read, and payload seldom is.)
#[inline(always)]
pub fn load(ctx: &TcContext, before_end: u32, to: *mut u8, octets: u32) -> bool {
    // SAFETY: the caller's memory has room for so many octets.
    unsafe { bpf_skb_load_bytes(ctx.as_ptr(), ctx.len() - before_end, to.cast(), octets) == 0 }
}
