//! Requests of an edge over the last seconds: how many, how many failed, how long they took. No clock, no I/O.

use std::collections::{BTreeMap, VecDeque};

use mesh_admin::{RequestFlow, Verdict};

use super::view::RequestsView;

/// Seconds over which requests are told.
const WINDOW: u64 = 10;
/// Buckets of durations for each doubling: what is told is right within a fifth.
const STEPS: f64 = 4.0;
/// The last bucket: an hour and more.
const LAST: u8 = 128;

/// Durations by buckets, each four times to a doubling, in microseconds.
#[derive(Debug, Clone, Default)]
struct Durations(BTreeMap<u8, u64>);

/// What ended in one second.
#[derive(Debug, Default)]
struct Second {
    at: u64,
    requests: u64,
    failed: u64,
    denied: u64,
    durations: Durations,
}

/// The last seconds of an edge.
#[derive(Debug, Default)]
pub(super) struct Requests(VecDeque<Second>);

/// Requests of several edges together.
#[derive(Debug, Clone, Default)]
pub(super) struct Sum {
    requests: u64,
    failed: u64,
    denied: u64,
    durations: Durations,
}

impl Requests {
    /// A request is over. `now` is in seconds.
    pub(super) fn add(&mut self, request: &RequestFlow, verdict: Verdict, now: u64) {
        self.forget(now);
        if self.0.back().is_none_or(|last| last.at != now) {
            self.0.push_back(Second { at: now, ..Second::default() });
        }
        let Some(second) = self.0.back_mut() else { return };
        second.requests += 1;
        second.failed += u64::from(verdict == Verdict::Failed);
        second.denied += u64::from(verdict == Verdict::Denied);
        second.durations.add(request.duration_microseconds);
    }

    /// What ended within the window.
    pub(super) fn sum(&mut self, now: u64) -> Sum {
        self.forget(now);
        let mut sum = Sum::default();
        for second in &self.0 {
            sum.requests += second.requests;
            sum.failed += second.failed;
            sum.denied += second.denied;
            sum.durations.merge(&second.durations);
        }
        sum
    }

    fn forget(&mut self, now: u64) {
        while self.0.front().is_some_and(|first| first.at + WINDOW <= now) {
            self.0.pop_front();
        }
    }
}

impl Sum {
    pub(super) fn merge(&mut self, other: &Self) {
        self.requests += other.requests;
        self.failed += other.failed;
        self.denied += other.denied;
        self.durations.merge(&other.durations);
    }

    /// Requests a second that policy denied.
    pub(super) fn denied(&self) -> f64 {
        self.denied as f64 / WINDOW as f64
    }

    /// None where there was no request.
    pub(super) fn view(&self) -> Option<RequestsView> {
        (self.requests > 0).then(|| RequestsView {
            rate: self.requests as f64 / WINDOW as f64,
            failed: self.failed as f64 / self.requests as f64,
            p50: self.durations.quantile(0.5, self.requests),
            p99: self.durations.quantile(0.99, self.requests),
        })
    }
}

impl Durations {
    fn add(&mut self, microseconds: u64) {
        let exact = (microseconds.max(1) as f64).log2() * STEPS;
        let bucket = if exact < f64::from(LAST) { exact as u8 } else { LAST };
        *self.0.entry(bucket).or_default() += 1;
    }

    fn merge(&mut self, other: &Self) {
        for (bucket, count) in &other.0 {
            *self.0.entry(*bucket).or_default() += count;
        }
    }

    /// In milliseconds: the middle of the bucket that the quantile is in.
    fn quantile(&self, share: f64, all: u64) -> f64 {
        let rank = share * all as f64;
        let mut below = 0;
        for (bucket, count) in &self.0 {
            below += count;
            if below as f64 >= rank {
                return ((f64::from(*bucket) + 0.5) / STEPS).exp2() / 1_000.0;
            }
        }
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn took(microseconds: u64) -> RequestFlow {
        RequestFlow { duration_microseconds: microseconds, status: 200, flags: "-".into(), ..RequestFlow::default() }
    }

    #[test]
    fn quantiles_and_shares_are_of_the_window_and_right_within_a_fifth() {
        let mut requests = Requests::default();
        for _ in 0..90 {
            requests.add(&took(2_000), Verdict::Allowed, 1);
        }
        for verdict in [Verdict::Failed, Verdict::Denied] {
            for _ in 0..5 {
                requests.add(&took(80_000), verdict, 5);
            }
        }
        let sum = requests.sum(5);
        let view = sum.view().expect("there were requests");
        assert_eq!((view.rate, view.failed, sum.denied()), (10.0, 0.05, 0.5));
        assert!((view.p50 / 2.0 - 1.0).abs() < 0.2 && (view.p99 / 80.0 - 1.0).abs() < 0.2, "{view:?}");
        // Those of the first second are out of the window.
        let late = requests.sum(1 + WINDOW).view().expect("the later ones are in it");
        assert_eq!((late.rate, late.failed), (1.0, 0.5));
        assert!(late.p50 > 60.0, "{late:?}");
        assert_eq!(requests.sum(5 + WINDOW).view(), None);
    }

    #[test]
    fn any_duration_has_a_bucket() {
        let mut requests = Requests::default();
        for microseconds in [0, 1, u64::MAX] {
            requests.add(&took(microseconds), Verdict::Allowed, 0);
        }
        let view = requests.sum(0).view().expect("there were requests");
        assert!(view.p50 < 0.01 && view.p99 > 3_600_000.0, "{view:?}");
    }
}
