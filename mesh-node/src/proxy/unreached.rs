//! Endpoints that have not answered of late: while there are others, connections go to those. A node that has lost its power says
//! nothing, and the configuration hears of that after most of a minute.

use std::{cell::RefCell, collections::HashMap, net::IpAddr};

use mesh_core::WorkloadUid;
use mesh_transport::limits::PASSED_BY;
use tokio::time::Instant;

/// Endpoints that are remembered at once.
const MOST: usize = 1024;
/// How often others are drawn in place of one that is passed by. With two endpoints, one of them once in 65,536 times.
pub(super) const DRAWS: usize = 16;

/// Those of one thread, for each pod: what is let through to one may be dropped for another.
#[derive(Default)]
pub struct Unreached(RefCell<HashMap<(WorkloadUid, IpAddr), Instant>>);

impl Unreached {
    /// Notes that an endpoint has not answered a pod.
    pub(super) fn note(&self, pod: &WorkloadUid, endpoint: IpAddr) {
        let mut until = self.0.borrow_mut();
        let now = Instant::now();
        // Those whose time is just over are to be tried by one connection, and not by all.
        until.retain(|_, until| *until + PASSED_BY > now);
        if until.len() < MOST {
            until.insert((pod.clone(), endpoint), now + PASSED_BY);
        }
    }

    /// Notes that it has.
    pub(super) fn answered(&self, pod: &WorkloadUid, endpoint: IpAddr) {
        let mut until = self.0.borrow_mut();
        // Nearly always.
        if !until.is_empty() {
            until.remove(&(pod.clone(), endpoint));
        }
    }

    /// Whether it is passed by.
    pub(super) fn passes_by(&self, pod: &WorkloadUid, endpoint: IpAddr) -> bool {
        self.0.borrow().get(&(pod.clone(), endpoint)).is_some_and(|until| *until > Instant::now())
    }

    /// The random number by which `endpoint_of` leads past those that are passed by, if one of some does; else the one given.
    pub(super) fn past(&self, pod: &WorkloadUid, random: u64, endpoint_of: impl Fn(u64) -> Option<IpAddr>) -> u64 {
        if self.0.borrow().is_empty() {
            return random;
        }
        let drawn = std::iter::once(random).chain(std::iter::repeat_with(|| fastrand::u64(..))).take(DRAWS);
        let found = drawn.filter_map(|random| Some((random, endpoint_of(random)?)));
        let Some((random, endpoint)) = found.into_iter().find(|(_, endpoint)| !self.passes_by(pod, *endpoint)) else {
            return random;
        };
        // Where its time is over this connection tries it, and no other until that has ended.
        if let Some(until) = self.0.borrow_mut().get_mut(&(pod.clone(), endpoint)) {
            *until = Instant::now() + PASSED_BY;
        }
        random
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const DEAD: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 0));

    /// One of two endpoints.
    fn endpoint(random: u64) -> Option<IpAddr> {
        Some(Ipv4Addr::from(u32::from_be_bytes([10, 0, 0, u8::from(random % 2 == 1)])).into())
    }

    fn pod(name: &str) -> WorkloadUid {
        WorkloadUid::from(name)
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_not_answered_is_passed_by_and_tried_again_by_one() {
        let (unreached, pod) = (Unreached::default(), pod("one"));
        let past = |random| endpoint(unreached.past(&pod, random, endpoint));
        assert_eq!(past(0), Some(DEAD));
        unreached.note(&pod, DEAD);
        for random in 0..100 {
            assert_ne!(past(random), Some(DEAD));
        }
        let other = self::pod("other");
        assert_eq!(unreached.past(&other, 0, endpoint), 0, "what one pod cannot reach another may");
        tokio::time::advance(PASSED_BY).await;
        assert_eq!(past(0), Some(DEAD), "its time is over");
        assert_ne!(past(0), Some(DEAD), "one is enough");
        unreached.answered(&pod, DEAD);
        assert_eq!(past(0), Some(DEAD));
    }

    #[tokio::test(start_paused = true)]
    async fn where_there_is_no_other_it_is_asked_again() {
        let (unreached, pod) = (Unreached::default(), pod("one"));
        unreached.note(&pod, DEAD);
        assert_eq!(unreached.past(&pod, 4, |_| Some(DEAD)), 4);
        assert_eq!(unreached.past(&pod, 4, |_| None), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_are_remembered_than_may_be_and_none_for_longer() {
        let (unreached, pod) = (Unreached::default(), pod("one"));
        for number in 0..2 * u32::try_from(MOST).expect("small") {
            unreached.note(&pod, Ipv4Addr::from(number).into());
        }
        assert_eq!(unreached.0.borrow().len(), MOST);
        tokio::time::advance(2 * PASSED_BY).await;
        unreached.note(&pod, DEAD);
        assert_eq!(unreached.0.borrow().len(), 1);
    }
}
