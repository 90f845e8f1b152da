//! How many requests a caller may make.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::gatekeeper::Caller;

/// Requests at once after a pause: a node with 500 accounts may start anew twice.
const BURST: f64 = 1000.0;
/// Requests a second in the long run.
const RATE: f64 = 100.0;

/// A token bucket for each authenticated caller, of which there are no more than nodes and proxies' accounts.
#[derive(Debug, Default)]
pub(crate) struct Rates(Mutex<HashMap<Caller, Bucket>>);

#[derive(Debug)]
struct Bucket {
    left: f64,
    seen: Instant,
}

impl Rates {
    /// Takes one request off what `caller` has left; false when there is nothing.
    pub(crate) fn take(&self, caller: &Caller, now: Instant) -> bool {
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = buckets.entry(caller.clone()).or_insert(Bucket { left: BURST, seen: now });
        let since = now.saturating_duration_since(bucket.seen).as_secs_f64();
        bucket.left = (bucket.left + since * RATE).min(BURST);
        bucket.seen = now;
        let may = bucket.left >= 1.0;
        if may {
            bucket.left -= 1.0;
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mesh_core::NodeName;

    use super::*;

    #[test]
    fn a_caller_is_slowed_down_and_others_are_not() {
        let (rates, now) = (Rates::default(), Instant::now());
        let (a, b) = (Caller::Node(NodeName::from("a")), Caller::Node(NodeName::from("b")));
        let taken = (0..2000).filter(|_| rates.take(&a, now)).count();
        assert_eq!(taken, 1000);
        assert!(rates.take(&b, now));
        let later = now + Duration::from_secs(1);
        let taken = (0..2000).filter(|_| rates.take(&a, later)).count();
        assert_eq!(taken, 100);
    }
}
