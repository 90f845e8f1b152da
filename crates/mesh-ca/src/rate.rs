//! How many requests a caller may make.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Instant;

use mesh_core::lock::UnpoisonedMutex as _;
use mesh_core::rate_limit::TokenBucket;

use crate::gatekeeper::Caller;

/// Requests at once after a pause: a node with 500 accounts may start anew twice.
const BURST: u16 = 1000;
/// Requests a second in the long run.
const RATE: u16 = 100;
/// Callers that are kept in mind; beyond, those whose bucket is full again are forgotten, which changes nothing for them.
const KEPT: usize = 10_000;

/// A token bucket for each authenticated caller.
#[derive(Debug)]
pub(crate) struct Rates {
    bucket: TokenBucket,
    /// What moments are counted from.
    began: Instant,
    /// When each bucket is full again.
    full_at: Mutex<HashMap<Caller, u64>>,
}

impl Default for Rates {
    /// All buckets full.
    fn default() -> Self {
        Self { bucket: TokenBucket::per_second(BURST, RATE), began: Instant::now(), full_at: Mutex::default() }
    }
}

impl Rates {
    /// Takes one request off what `caller` has left; false when there is nothing.
    pub(crate) fn take(&self, caller: &Caller, now: Instant) -> bool {
        let now = u64::try_from(now.saturating_duration_since(self.began).as_nanos()).unwrap_or(u64::MAX);
        let mut full_at = self.full_at.lock_unpoisoned();
        if full_at.len() >= KEPT && !full_at.contains_key(caller) {
            full_at.retain(|_, full_at| *full_at > now);
        }
        let known = full_at.get(caller).copied().unwrap_or_default();
        let after = self.bucket.take(known, now);
        if let Some(after) = after {
            full_at.insert(caller.clone(), after);
        }
        after.is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mesh_core::NodeName;

    use super::*;

    fn node(name: &str) -> Caller {
        Caller::Node(NodeName::from(name))
    }

    #[test]
    fn a_caller_is_slowed_down_and_others_are_not() {
        let (rates, now) = (Rates::default(), Instant::now());
        let (a, b) = (node("a"), node("b"));
        let taken = (0..2000).filter(|_| rates.take(&a, now)).count();
        assert_eq!(taken, 1000);
        assert!(rates.take(&b, now));
        let later = now + Duration::from_secs(1);
        let taken = (0..2000).filter(|_| rates.take(&a, later)).count();
        assert_eq!(taken, 100);
    }

    #[test]
    fn nodes_that_come_and_go_fill_no_memory() {
        let (rates, now) = (Rates::default(), Instant::now());
        for number in 0..3 * KEPT {
            // One request takes ten milliseconds to be forgotten.
            let at = now + Duration::from_millis(number as u64);
            assert!(rates.take(&node(&number.to_string()), at));
        }
        assert!(rates.full_at.lock().unwrap().len() <= KEPT);
    }
}
