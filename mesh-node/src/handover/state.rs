//! How the daemon came to be in charge and who else carries connections still: for people and metrics.

use std::{
    collections::BTreeMap,
    sync::Mutex,
    time::{Duration, Instant},
};

use mesh_core::lock::UnpoisonedMutex as _;

/// What became of a successor's request: a closed set, for a metric's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandoverOutcome {
    /// It spoke another version, or was for another node.
    Declined,
    /// It went away, or took too long, before it took over.
    Abandoned,
    /// This daemon has taken over from another.
    TakenOver,
}

impl HandoverOutcome {
    /// Every outcome.
    pub const ALL: [Self; 3] = [Self::Declined, Self::Abandoned, Self::TakenOver];

    /// The label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Declined => "declined",
            Self::Abandoned => "abandoned",
            Self::TakenOver => "taken_over",
        }
    }
}

/// What is known of handovers, at any moment.
#[derive(Debug)]
pub struct HandoverState(Mutex<State>);

#[derive(Debug)]
struct State {
    generation: u64,
    /// Daemons before this one that carry connections still, by process id, and since when they take no new ones.
    draining: BTreeMap<u32, Instant>,
    lending_to: Option<u32>,
    restarts: u64,
}

impl Default for HandoverState {
    fn default() -> Self {
        Self(Mutex::new(State { generation: 1, draining: BTreeMap::new(), lending_to: None, restarts: 0 }))
    }
}

impl HandoverState {
    /// How many daemons there have been in this chain of handovers, this one included: 1 after a start without one.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.0.lock_unpoisoned().generation
    }

    /// Earlier daemons that carry connections still: their process ids, and for how long they have taken no new ones.
    #[must_use]
    pub fn draining(&self) -> Vec<(u32, Duration)> {
        self.0.lock_unpoisoned().draining.iter().map(|(pid, since)| (*pid, since.elapsed())).collect()
    }

    /// The process id of a successor that prepares itself.
    #[must_use]
    pub fn lending_to(&self) -> Option<u32> {
        self.0.lock_unpoisoned().lending_to
    }

    /// How often this daemon's keeper has started it again after a crash.
    #[must_use]
    pub fn restarts(&self) -> u64 {
        self.0.lock_unpoisoned().restarts
    }

    /// See [`Self::restarts`].
    pub fn set_restarts(&self, restarts: u64) {
        self.0.lock_unpoisoned().restarts = restarts;
    }

    pub(super) fn set_lending_to(&self, pid: Option<u32>) {
        self.0.lock_unpoisoned().lending_to = pid;
    }

    pub(super) fn took_over(&self, generation: u64) {
        self.0.lock_unpoisoned().generation = generation;
    }

    pub(super) fn begins_to_drain(&self, pid: u32) {
        self.0.lock_unpoisoned().draining.insert(pid, Instant::now());
    }

    pub(super) fn has_drained(&self, pid: u32) {
        self.0.lock_unpoisoned().draining.remove(&pid);
    }
}
