//! Who may shake hands now. Peers that have proved nothing get a bounded share, each address and all together.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::sleep;

use crate::limits::Limits;

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
}

impl Gate {
    pub(crate) fn new(limits: &Limits) -> Self {
        let all = Arc::new(Semaphore::new(limits.handshakes_in_flight));
        Self { all, each: limits.handshakes_per_address, peers: Arc::default() }
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

/// An address with handshakes under way or waiting.
struct Turn<'a> {
    gate: &'a Gate,
    peer: IpAddr,
    places: Arc<Semaphore>,
}

impl<'a> Turn<'a> {
    fn of(gate: &'a Gate, peer: IpAddr) -> Self {
        let mut peers = gate.peers.lock().unwrap_or_else(PoisonError::into_inner);
        let places = peers.entry(peer).or_insert_with(|| Arc::new(Semaphore::new(gate.each))).clone();
        Self { gate, peer, places }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut peers = self.gate.peers.lock().unwrap_or_else(PoisonError::into_inner);
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
