//! What one end's daemon tells of the connections of an edge, second by second. No clock, no I/O.

use std::collections::{BTreeMap, VecDeque};

/// Seconds over which rates are told.
pub(super) const WINDOW: u64 = 10;

/// What happened in one second.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Second {
    pub(super) at: u64,
    pub(super) opened: u64,
    pub(super) errors: u64,
    pub(super) denied: u64,
    pub(super) bytes: u64,
}

/// What one end's daemon tells of an edge.
#[derive(Debug, Default)]
pub(super) struct EdgeReport {
    seconds: VecDeque<Second>,
    /// Connections that are open, by the daemon that carries them.
    pub(super) open: BTreeMap<usize, usize>,
    pub(super) last: Option<u64>,
}

impl EdgeReport {
    /// The second that it is now.
    pub(super) fn second(&mut self, now: u64) -> &mut Second {
        self.last = Some(now);
        if self.seconds.back().is_none_or(|last| last.at != now) {
            self.seconds.push_back(Second { at: now, ..Second::default() });
        }
        while self.seconds.front().is_some_and(|first| first.at + WINDOW <= now) {
            self.seconds.pop_front();
        }
        let last = self.seconds.len() - 1;
        &mut self.seconds[last]
    }

    /// Over the window.
    pub(super) fn sum(&self, now: u64, of: impl Fn(&Second) -> u64) -> f64 {
        let recent = self.seconds.iter().filter(|second| second.at + WINDOW > now);
        recent.map(of).sum::<u64>() as f64
    }
}
