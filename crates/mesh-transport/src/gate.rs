//! Who may shake hands now. Peers that have proved nothing get a bounded share, each address and all together.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mesh_core::lock::UnpoisonedMutex as _;
use tokio::sync::Semaphore;
use tokio::time::sleep;

use crate::limits::Limits;

/// Peers before their handshake's end beyond which new ones get less time.
const CROWD: usize = 4096;
/// The time of a newcomer in a crowd. It bounds how many there can be at once.
const CROWDED: Duration = Duration::from_secs(2);
/// How long a handshake may take while others wait for its place.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often a handshake beyond that looks whether others wait.
const GLANCE: Duration = Duration::from_millis(100);

/// The places for handshakes. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Gate {
    all: Arc<Semaphore>,
    each: usize,
    peers: Arc<Mutex<HashMap<IpAddr, Arc<Semaphore>>>>,
    strangers: Arc<AtomicUsize>,
}

impl Gate {
    /// Counts a peer that has come and proved nothing yet.
    pub(crate) fn arrive(&self) -> Stranger {
        let others = self.strangers.fetch_add(1, Ordering::Relaxed);
        Stranger { count: self.strangers.clone(), others }
    }

    pub(crate) fn new(limits: &Limits) -> Self {
        let all = Arc::new(Semaphore::new(limits.handshakes_in_flight));
        Self { all, each: limits.handshakes_per_address, peers: Arc::default(), strangers: Arc::default() }
    }

    /// Runs a handshake in one of the places for `peer`. `None` when it was slow and others had to be let in.
    pub(crate) async fn pass<T>(&self, peer: IpAddr, handshake: impl Future<Output = T>) -> Option<T> {
        let turn = Turn::of(self, peer);
        // The semaphores are never closed. An address that fills its own places waits here, behind nobody but itself.
        let _own = turn.places.acquire().await;
        let _place = self.all.acquire().await;
        tokio::select! {
            biased;
            done = handshake => Some(done),
            () = self.crowded() => None,
        }
    }

    /// Resolves when the handshake has had its time and no place is left for others.
    async fn crowded(&self) {
        sleep(PATIENCE).await;
        while self.all.available_permits() > 0 {
            sleep(GLANCE).await;
        }
    }
}

/// A peer before the end of its handshake.
pub(crate) struct Stranger {
    count: Arc<AtomicUsize>,
    others: usize,
}

impl Stranger {
    /// How long it may stay one.
    pub(crate) fn patience(&self, limits: &Limits) -> Duration {
        let crowded = self.others >= CROWD;
        if crowded { limits.handshake_timeout.min(CROWDED) } else { limits.handshake_timeout }
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An address with handshakes under way or waiting.
struct Turn<'a> {
    gate: &'a Gate,
    peer: IpAddr,
    places: Arc<Semaphore>,
}

impl<'a> Turn<'a> {
    fn of(gate: &'a Gate, peer: IpAddr) -> Self {
        let mut peers = gate.peers.lock_unpoisoned();
        let places = peers.entry(peer).or_insert_with(|| Arc::new(Semaphore::new(gate.each))).clone();
        Self { gate, peer, places }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut peers = self.gate.peers.lock_unpoisoned();
        // One is the map's, one this turn's own.
        if Arc::strong_count(&self.places) == 2 {
            peers.remove(&self.peer);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use tokio::task::{JoinSet, yield_now};

    use super::*;

    fn gate(all: usize, each: usize) -> Gate {
        Gate::new(&Limits { handshakes_in_flight: all, handshakes_per_address: each, ..Limits::default() })
    }

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    /// Handshakes from one address that never end.
    async fn stalled(gate: &Gate, peer: IpAddr, count: usize) -> JoinSet<Option<()>> {
        let mut stalled = JoinSet::new();
        for _ in 0..count {
            let gate = gate.clone();
            stalled.spawn(async move { gate.pass(peer, pending()).await });
        }
        for _ in 0..count {
            yield_now().await;
        }
        stalled
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_stalls_keeps_out_only_itself() {
        let gate = gate(8, 4);
        let _stalled = stalled(&gate, address(1), 100).await;
        assert_eq!(gate.all.available_permits(), 4);
        assert_eq!(gate.pass(address(2), ready(7)).await, Some(7));
    }

    #[tokio::test(start_paused = true)]
    async fn where_many_addresses_stall_the_slow_ones_make_room() {
        let gate = gate(4, 2);
        let _stalled = (stalled(&gate, address(1), 2).await, stalled(&gate, address(2), 2).await);
        assert_eq!(gate.all.available_permits(), 0);
        assert_eq!(gate.pass(address(3), ready(7)).await, Some(7));
    }

    #[test]
    fn newcomers_in_a_crowd_get_less_time() {
        let (gate, limits) = (gate(4, 4), Limits::default());
        let crowd: Vec<_> = (0..CROWD).map(|_| gate.arrive()).collect();
        assert!(crowd.iter().all(|stranger| stranger.patience(&limits) == limits.handshake_timeout));
        assert_eq!(gate.arrive().patience(&limits), CROWDED);
        drop(crowd);
        assert_eq!(gate.arrive().patience(&limits), limits.handshake_timeout);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_handshake_goes_on_while_there_is_room() {
        let gate = gate(4, 4);
        let slow = gate.pass(address(1), async { sleep(10 * PATIENCE).await });
        assert_eq!(slow.await, Some(()));
    }

    #[tokio::test(start_paused = true)]
    async fn addresses_are_forgotten_when_nobody_of_theirs_is_left() {
        let gate = gate(4, 1);
        let stalled = stalled(&gate, address(1), 3).await;
        assert_eq!(gate.peers.lock().expect("sound").len(), 1);
        drop(stalled);
        gate.pass(address(2), ready(())).await;
        yield_now().await;
        assert!(gate.peers.lock().expect("sound").is_empty());
    }
}
