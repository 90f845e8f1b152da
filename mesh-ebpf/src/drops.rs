//! Tells the daemon of what is dropped: a little of each reason, however much there is of it, and never waiting for anybody.

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use mesh_abi::{Counter, DropEvent, SockAddress, drop::EVENTS_A_WINDOW};

use crate::maps::{DROP_BUDGETS, DROP_EVENTS, count};

/// What was dropped.
#[derive(Clone, Copy)]
pub struct Dropped {
    /// The pod's network namespace, by its cookie; 0 where it is not known.
    pub netns_cookie: u64,
    /// `mesh_abi::drop::{LEAVING, ARRIVING}`
    pub direction: u32,
    pub source: SockAddress,
    pub destination: SockAddress,
}

/// Counts a drop and tells of it. `what` is asked only where it is told.
#[inline(always)]
pub fn note(reason: Counter, what: impl FnOnce() -> Dropped) {
    count(reason);
    // SAFETY: plain helper call.
    let at_ns = unsafe { bpf_ktime_get_ns() };
    if !may_tell(reason, at_ns) {
        return count(Counter::UntoldDrop);
    }
    let Dropped { netns_cookie, direction, source, destination } = what();
    let event = DropEvent { at_ns, netns_cookie, source, destination, reason: reason as u32, direction };
    if DROP_EVENTS.output(event, 0).is_err() {
        count(Counter::LostDropEvent);
    }
}

#[inline(always)]
fn may_tell(reason: Counter, at_ns: u64) -> bool {
    let Some(budget) = DROP_BUDGETS.get_ptr_mut(reason as u32) else {
        return false;
    };
    // SAFETY: the slot belongs to this CPU; a program that interrupts this one may tell one more or one fewer.
    unsafe { (*budget).allows(at_ns, EVENTS_A_WINDOW) }
}
