//! What is counted for whoever looks in: each thread counts alone, and the reader adds up.

mod rules;

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};

use mesh_core::lock::UnpoisonedMutex as _;

pub(crate) use self::rules::{RuleBook, RuleSums, RuleTally, UseSum};

/// A number that one thread alone changes, and any may read.
#[derive(Debug, Default)]
pub(crate) struct OwnCount(AtomicU64);

impl OwnCount {
    /// One more. No other thread may call this.
    fn inc(&self) {
        // With one writer nothing is lost between load and store, and no other core has to be asked.
        self.0.store(self.0.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What one thread does.
#[derive(Debug, Default)]
pub(crate) struct ThreadCounts {
    begun: OwnCount,
    ended: OwnCount,
}

impl ThreadCounts {
    /// A request begins, on this thread.
    pub(crate) fn begin(&self) {
        self.begun.inc();
    }

    /// It has ended.
    pub(crate) fn end(&self) {
        self.ended.inc();
    }

    /// Requests under way, and those that have ended.
    pub(crate) fn now(&self) -> (u64, u64) {
        // In this order more may have ended than had begun.
        let (begun, ended) = (self.begun.get(), self.ended.get());
        (begun.saturating_sub(ended), ended)
    }
}

/// All threads, in the order in which they came.
#[derive(Debug, Default)]
pub(crate) struct Threads(Mutex<Vec<Arc<ThreadCounts>>>);

impl Threads {
    /// One thread more: its number, and what it counts with.
    pub(crate) fn join(&self) -> (usize, Arc<ThreadCounts>) {
        let mut all = self.0.lock_unpoisoned();
        let counts = Arc::<ThreadCounts>::default();
        all.push(counts.clone());
        (all.len() - 1, counts)
    }

    /// What each does now.
    pub(crate) fn now(&self) -> Vec<(u64, u64)> {
        self.0.lock_unpoisoned().iter().map(|counts| counts.now()).collect()
    }
}
