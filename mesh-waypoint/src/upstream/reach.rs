//! Whether endpoints answer at all. A machine that has lost its power says nothing, and the configuration hears of that after most
//! of a minute; meanwhile requests go to the cluster's other endpoints.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use mesh_transport::limits;

/// How often requests that are under way are looked after.
pub(crate) const LOOK: Duration = Duration::from_millis(500);
/// For how long an endpoint's machine may go on saying nothing, once its kernel was asked twice in vain: that acknowledges at once,
/// however long the endpoint itself takes for an answer.
pub(super) const SILENCE: Duration = Duration::from_secs(1);
/// The same of a connection that many share, and that ends for all of them.
pub(super) const SILENCE_OF_SHARED: Duration = Duration::from_secs(3);
/// After how long without such a silence a request's machine has what was sent.
const HEARD: Duration = Duration::from_secs(4);
/// How long an endpoint is passed by, in milliseconds.
const PASSED_BY: u64 = limits::PASSED_BY.as_millis() as u64;

/// What all threads know of an endpoint.
#[derive(Debug, Default)]
pub(super) struct Reach {
    /// Until when it is passed by, in milliseconds since the program began; zero once it has answered.
    until: AtomicU64,
    /// How often it was found not to answer.
    unanswered: AtomicU32,
    /// How often connections to it were found that lead nowhere. What was connected before the last time does not either.
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
    pub(super) fn unanswered(&self) -> u32 {
        self.unanswered.load(Ordering::Relaxed)
    }

    /// How often connections to it were found that lead nowhere.
    pub(super) fn losses(&self) -> u32 {
        self.losses.load(Ordering::Relaxed)
    }

    /// It does not answer. True when that is news.
    pub(super) fn pass_by(&self, now: u64) -> bool {
        self.unanswered.fetch_add(1, Ordering::Relaxed);
        self.until.swap(now + PASSED_BY, Ordering::Relaxed) <= now
    }

    /// Connections to it lead nowhere.
    pub(super) fn lose(&self) {
        self.losses.fetch_add(1, Ordering::Relaxed);
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
            // Unless it has answered meanwhile. Another that was as quick tries it too, which does no harm.
            let _ = self.until.compare_exchange(until, now + PASSED_BY, Ordering::Relaxed, Ordering::Relaxed);
        }
    }
}

/// What was found of a connection on which requests are under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Look {
    /// Nothing yet.
    #[default]
    Unseen,
    /// Requests are under way.
    Seen {
        /// Since then, or longer.
        since: Instant,
        /// From when on the endpoint's machine was found to say nothing.
        silent: Option<Instant>,
    },
    /// It has what they have sent.
    Heard,
}

impl Look {
    /// Looks again; true where the endpoint's machine says nothing for `limit`. `unheard_for` is how long it has acknowledged nothing,
    /// though it was asked again and again. The kernel is not asked about what is over by the second look.
    pub(super) fn again(
        &mut self,
        now: Instant,
        limit: Duration,
        unheard_for: impl FnOnce() -> Option<Duration>,
    ) -> bool {
        let (since, silent) = match *self {
            Self::Heard => return false,
            Self::Unseen => {
                *self = Self::Seen { since: now, silent: None };
                return false;
            }
            Self::Seen { since, silent } => (since, silent),
        };
        let Some(silence) = unheard_for() else {
            // What comes to be unacknowledged later is another's to find: a long upload goes on after an outage.
            let is_heard = now.saturating_duration_since(since) >= HEARD;
            *self = if is_heard { Self::Heard } else { Self::Seen { since, silent: None } };
            return false;
        };
        // A connection that was idle has been silent for longer than it was asked.
        let from = silent.unwrap_or(now);
        *self = Self::Seen { since, silent: Some(from) };
        silence.min(now.saturating_duration_since(from)) >= limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_answer_is_passed_by_and_tried_again_by_one() {
        let reach = Reach::default();
        assert!(!reach.is_passed_by(5));
        assert!(reach.pass_by(5) && !reach.pass_by(6), "the second time is no news");
        assert!(reach.is_passed_by(PASSED_BY));
        reach.picked(PASSED_BY);
        assert!(!reach.is_passed_by(PASSED_BY + 6), "who is picked before the time is over puts nothing off");
        reach.picked(PASSED_BY + 6);
        assert!(reach.is_passed_by(PASSED_BY + 7), "one is enough");
        reach.answered();
        assert!(!reach.is_passed_by(PASSED_BY + 7));
        assert_eq!((reach.passed_by_for(0), reach.unanswered(), reach.losses()), (None, 2, 0));
    }

    #[test]
    fn a_connection_is_lost_whose_peer_goes_on_saying_nothing() {
        let begun = Instant::now();
        let millis = Duration::from_millis;
        let unasked = || -> Option<Duration> { unreachable!("not to be asked") };
        let idle = Some(millis(60_000));
        // How long it is silent at each look from the second one on, and at which of them it is lost.
        for (looks, lost) in [
            (&[None, idle, idle, idle][..], Some(3)),
            (&[idle, idle, idle], Some(2)),
            // It was but slow, or the outage was short.
            (&[idle, idle, None, idle, idle], None),
            (&[Some(millis(400)), Some(millis(700)), Some(millis(900))], None),
        ] {
            let mut look = Look::default();
            assert!(!look.again(begun, SILENCE, unasked));
            let mut each = (1..).zip(looks);
            let found = each.find(|(index, silence)| look.again(begun + LOOK * *index, SILENCE, || **silence));
            assert_eq!(found.map(|(index, _)| index - 1), lost, "{looks:?}");
        }
    }

    #[test]
    fn what_was_acknowledged_is_looked_at_no_more() {
        let begun = Instant::now();
        let mut look = Look::default();
        for index in 0..=8 {
            assert!(!look.again(begun + LOOK * index, SILENCE, || None));
        }
        assert_eq!(look, Look::Heard);
        assert!(!look.again(begun + LOOK * 100, SILENCE, || unreachable!("not to be asked")));
    }
}
