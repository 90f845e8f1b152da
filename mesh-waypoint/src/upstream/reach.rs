//! Whether endpoints answer at all. A machine that has lost its power says nothing, and the configuration hears of that after most
//! of a minute; meanwhile requests go to the cluster's other endpoints.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// How long a dial may go without an answer before another endpoint is asked instead, where there is one.
pub(super) const ANSWER: Duration = Duration::from_millis(1500);
/// How often requests that are under way are looked after.
pub(crate) const LOOK: Duration = Duration::from_millis(500);
/// For how long what a request has sent may go without an acknowledgement. That is the kernel's of the endpoint's machine, which
/// gives it at once, however long the endpoint itself takes for an answer.
const HEARD: Duration = Duration::from_secs(1);
/// How long an endpoint is passed by, in milliseconds; then one request tries it again.
const PASSED_BY: u64 = 10_000;

/// What all threads know of an endpoint.
#[derive(Debug, Default)]
pub(super) struct Reach {
    /// Until when it is passed by, in milliseconds since the program began; zero once it has answered.
    until: AtomicU64,
    /// How often it was found not to answer. What was connected before the last time leads nowhere.
    losses: AtomicU32,
}

impl Reach {
    /// Whether it is passed by.
    pub(super) fn is_passed_by(&self, now: u64) -> bool {
        self.until.load(Ordering::Relaxed) > now
    }

    /// How long it will be.
    pub(super) fn passed_by_for(&self, now: u64) -> Option<Duration> {
        let left = self.until.load(Ordering::Relaxed).saturating_sub(now);
        (left > 0).then(|| Duration::from_millis(left))
    }

    /// How often it was found not to answer.
    pub(super) fn losses(&self) -> u32 {
        self.losses.load(Ordering::Relaxed)
    }

    /// It does not answer. True when that is news.
    pub(super) fn lose(&self, now: u64) -> bool {
        self.losses.fetch_add(1, Ordering::Relaxed);
        self.until.swap(now + PASSED_BY, Ordering::Relaxed) <= now
    }

    /// It does.
    pub(super) fn answered(&self) {
        // A plain load first: a store would take the line from other cores.
        if self.until.load(Ordering::Relaxed) != 0 {
            self.until.store(0, Ordering::Relaxed);
        }
    }

    /// A request has picked it. Where its time is over that one tries it, and no other until that has ended.
    pub(super) fn picked(&self, now: u64) {
        let until = self.until.load(Ordering::Relaxed);
        if until != 0 && until <= now {
            // Another that was as quick tries it too, which does no harm.
            self.until.store(now + PASSED_BY, Ordering::Relaxed);
        }
    }
}

/// What was found of a connection on which requests are under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Look {
    /// Nothing yet.
    #[default]
    Unseen,
    /// Requests are under way since then, or longer.
    Since(Instant),
    /// What they have sent was acknowledged.
    Heard,
}

impl Look {
    /// Looks again; true where nothing was acknowledged from the first look on, which is for long enough. `unheard_for` is how long
    /// the endpoint's machine has acknowledged nothing, though it was asked again and again.
    pub(super) fn again(&mut self, now: Instant, unheard_for: impl FnOnce() -> Option<Duration>) -> bool {
        let Self::Since(since) = *self else {
            if *self == Self::Unseen {
                *self = Self::Since(now);
            }
            return false;
        };
        let seen = now.saturating_duration_since(since);
        if seen < HEARD {
            return false;
        }
        // What comes to be unacknowledged later is another's to find: a long upload goes on after an outage.
        let is_lost = unheard_for().is_some_and(|silence| silence >= seen);
        if !is_lost {
            *self = Self::Heard;
        }
        is_lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_answer_is_passed_by_and_tried_again_by_one() {
        let reach = Reach::default();
        assert!(!reach.is_passed_by(5));
        assert!(reach.lose(5) && !reach.lose(6), "the second time is no news");
        assert!(reach.is_passed_by(PASSED_BY));
        reach.picked(PASSED_BY);
        assert!(!reach.is_passed_by(PASSED_BY + 6), "who is picked before the time is over puts nothing off");
        reach.picked(PASSED_BY + 6);
        assert!(reach.is_passed_by(PASSED_BY + 7), "one is enough");
        reach.answered();
        assert!(!reach.is_passed_by(PASSED_BY + 7));
        assert_eq!((reach.passed_by_for(0), reach.losses()), (None, 2));
    }

    #[test]
    fn a_connection_is_lost_if_nothing_was_acknowledged_since_it_was_first_looked_at() {
        let begun = Instant::now();
        let millis = Duration::from_millis;
        let unasked = || -> Option<Duration> { unreachable!("too early to ask the kernel") };
        for (silence, is_lost) in [(None, false), (Some(millis(900)), false), (Some(millis(60_000)), true)] {
            let mut look = Look::default();
            assert!(!look.again(begun, unasked) && !look.again(begun + millis(500), unasked));
            assert_eq!(look.again(begun + millis(1_000), || silence), is_lost, "{silence:?}");
            if !is_lost {
                assert!(!look.again(begun + millis(9_000), unasked), "its machine has what was sent");
            }
        }
    }
}
