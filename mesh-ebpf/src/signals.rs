//! Shows the daemon what direct connections say, so that it can count their requests: the beginning of each segment, as it leaves.
//!
//! What does not begin as HTTP does is not shown, nor what would be more than the daemon's share of the work.

use aya_ebpf::{
    EbpfContext,
    helpers::generated::{bpf_ktime_get_ns, bpf_ringbuf_query, bpf_skb_load_bytes},
    programs::TcContext,
};
use mesh_abi::{
    Counter, Signal, SignalHead, SocketKind,
    signal::{BY_CLIENT, BY_SERVER, SHOWN, SIGNALS_A_WINDOW, TAIL, WAKING_OCTETS},
    socket::{SILENT, UNWATCHED, WATCHED},
};

use crate::{
    maps::{SIGNAL, SIGNAL_BUDGET, SIGNALS, count},
    packet::Segment,
    sockets,
};

/// `BPF_RB_AVAIL_DATA`
const AVAILABLE: u64 = 0;
/// `BPF_RB_NO_WAKEUP` and `BPF_RB_FORCE_WAKEUP`
const QUIETLY: u64 = 1;
const WAKING: u64 = 2;

/// A segment leaves that opens nothing.
#[inline(always)]
pub fn note(ctx: &TcContext, segment: &Segment) {
    if segment.payload_length == 0 {
        return;
    }
    let Some(record) = sockets::of_sender(ctx) else {
        return;
    };
    if record.watched == UNWATCHED {
        return;
    }
    let sender = if record.is(SocketKind::DirectClient) { BY_CLIENT } else { BY_SERVER };
    if record.watched == SILENT {
        record.watched = if begins_as_http(ctx, segment, sender) { WATCHED } else { UNWATCHED };
        if record.watched == UNWATCHED {
            return;
        }
    }
    // SAFETY: plain helper call.
    let at_ns = unsafe { bpf_ktime_get_ns() };
    if !may_show(at_ns) {
        return count(Counter::UntoldSignal);
    }
    let (cookie, isn) = (record.cookie, record.isn);
    let head = SignalHead {
        at_ns,
        cookie,
        isn,
        sequence: segment.sequence,
        length: segment.payload_length,
        sender,
        tail: [0; TAIL],
    };
    if show(ctx, segment, head).is_none() {
        count(Counter::LostSignal);
    }
}

/// Whether the first octet that an end sends is one of HTTP's: of a method or the preface, of "HTTP", or of a SETTINGS frame.
#[inline(always)]
fn begins_as_http(ctx: &TcContext, segment: &Segment, sender: u32) -> bool {
    let mut first = 0u8;
    if !load(ctx, segment.payload_length, &raw mut first, 1) {
        return false;
    }
    if sender == BY_CLIENT { first.is_ascii_uppercase() } else { first == b'H' || first == 0 }
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
fn show(ctx: &TcContext, segment: &Segment, head: SignalHead) -> Option<()> {
    let signal: *mut Signal = SIGNAL.get_ptr_mut(0)?;
    let length = segment.payload_length;
    // From 1 to SHOWN, in a way that the verifier follows.
    let shown = ((length.min(SHOWN as u32) - 1) & (SHOWN as u32 - 1)) + 1;
    // SAFETY: the slot belongs to this CPU, whose packets leave one after another; it is as large as what is written to it and
    // read from it, by the bounds above.
    unsafe {
        (*signal).head = head;
        if !load(ctx, length, (&raw mut (*signal).shown).cast(), shown) {
            return None;
        }
        if length > SHOWN as u32 && !load(ctx, TAIL as u32, (&raw mut (*signal).head.tail).cast(), TAIL as u32) {
            return None;
        }
        let octets = core::slice::from_raw_parts(signal.cast::<u8>(), size_of::<SignalHead>() + shown as usize);
        let waiting = bpf_ringbuf_query(core::ptr::addr_of!(SIGNALS).cast_mut().cast(), AVAILABLE);
        let flags = if waiting > WAKING_OCTETS { WAKING } else { QUIETLY };
        SIGNALS.output_untyped::<[u8]>(octets, flags).ok()
    }
}

/// Reads octets of the packet, from so many before its end on. (Relative to a header, only what is in the buffer's linear part
/// could be read, and payload seldom is.)
#[inline(always)]
fn load(ctx: &TcContext, before_end: u32, to: *mut u8, octets: u32) -> bool {
    // SAFETY: the caller's memory has room for so many octets.
    unsafe { bpf_skb_load_bytes(ctx.as_ptr(), ctx.len() - before_end, to.cast(), octets) == 0 }
}
