//! Connections that are turned away for want of room: each is counted, and one a second is said, since strangers may make many.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use mesh_metrics::Registry;
use prometheus::IntCounter;

/// Those that were turned away.
pub(crate) struct Crowding {
    count: IntCounter,
    began: Instant,
    /// The second, since the beginning, from which on one may be said.
    next: AtomicU64,
}

impl Crowding {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let help = "Connections that were closed at once, as too many were served or waited";
        let count = IntCounter::new("mesh_waypoint_connections_turned_away_total", help)?;
        registry.register(Box::new(count.clone()))?;
        Ok(Self { count, began: Instant::now(), next: AtomicU64::new(0) })
    }

    /// One more.
    pub(crate) fn turned_away(&self, peer: SocketAddr, why: &'static str) {
        self.count.inc();
        if self.may_say(self.began.elapsed().as_secs()) {
            tracing::warn!(%peer, why, so_far = self.count.get(), "connection closed at once");
        }
    }

    /// Whether one is said in that second; of several threads one does.
    fn may_say(&self, second: u64) -> bool {
        let next = self.next.load(Ordering::Relaxed);
        next <= second && self.next.compare_exchange(next, second + 1, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_counted_and_one_a_second_is_said() {
        let crowding = Crowding::new(&Registry::new()).unwrap();
        let said = [0, 0, 1, 1, 1, 7].map(|second| crowding.may_say(second));
        assert_eq!(said, [true, false, true, false, false, true]);
        for _ in 0..3 {
            crowding.turned_away("10.0.0.1:1".parse().unwrap(), "too many");
        }
        assert_eq!(crowding.count.get(), 3);
    }
}
