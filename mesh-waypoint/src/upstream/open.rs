//! A thread's open connections to one endpoint, whoever has them, which are looked after while they have requests.

use std::{
    cell::RefCell,
    rc::{Rc, Weak},
    time::Instant,
};

/// A connection to an endpoint.
pub(super) trait LookedAfter {
    /// Whether it has requests, and the endpoint's machine acknowledges nothing of them.
    fn is_lost(&self, now: Instant) -> bool;

    /// Breaks it.
    fn give_up(&self);
}

/// Those of one endpoint.
#[derive(Default)]
pub(super) struct Open(RefCell<Vec<Weak<dyn LookedAfter>>>);

impl Open {
    /// One more.
    pub(super) fn add(&self, new: Weak<dyn LookedAfter>) {
        let mut open = self.0.borrow_mut();
        if open.len() == open.capacity() {
            open.retain(|old| old.strong_count() > 0);
        }
        open.push(new);
    }

    /// Gives up those that are lost, where `may_give_up`; true where there was one.
    pub(super) fn look(&self, now: Instant, may_give_up: impl FnOnce() -> bool) -> bool {
        let open = self.0.borrow();
        let lost: Vec<Rc<_>> = open.iter().filter_map(Weak::upgrade).filter(|open| open.is_lost(now)).collect();
        let gives_up = !lost.is_empty() && may_give_up();
        if gives_up {
            lost.iter().for_each(|lost| lost.give_up());
        }
        gives_up
    }
}
