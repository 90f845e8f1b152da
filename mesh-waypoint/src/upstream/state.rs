//! What is known of clusters and endpoints over all threads: counts, failures and ejections. No lock but to find them.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use mesh_core::l7::traffic::OutlierDetection;
use mesh_core::lock::UnpoisonedMutex as _;

use super::{cluster::ClusterKey, endpoint::EndpointKey, reach::Reach};

/// The clusters of all threads.
#[derive(Debug)]
pub(crate) struct SharedClusters {
    clusters: Mutex<HashMap<ClusterKey, Weak<ClusterState>>>,
    began: Instant,
}

impl Default for SharedClusters {
    fn default() -> Self {
        Self { clusters: Mutex::default(), began: Instant::now() }
    }
}

impl SharedClusters {
    /// The state of a cluster; it lives as long as some thread has it.
    pub(super) fn state(&self, key: &ClusterKey) -> Arc<ClusterState> {
        let mut clusters = self.clusters.lock_unpoisoned();
        if let Some(state) = clusters.get(key).and_then(Weak::upgrade) {
            return state;
        }
        clusters.retain(|_, state| state.strong_count() > 0);
        let state = Arc::new(ClusterState::new(self.began));
        clusters.insert(key.clone(), Arc::downgrade(&state));
        state
    }

    /// The clusters that were used.
    pub(crate) fn used(&self) -> HashMap<ClusterKey, Arc<ClusterState>> {
        let clusters = self.clusters.lock_unpoisoned();
        clusters.iter().filter_map(|(key, state)| Some((key.clone(), state.upgrade()?))).collect()
    }
}

/// How often each bound of a cluster was reached.
#[derive(Debug, Default)]
pub(crate) struct Overflows {
    /// Requests that had to wait since there were as many connections as there may be.
    pub(crate) connections: AtomicU64,
    /// Requests that were refused since too many waited.
    pub(crate) pending: AtomicU64,
    /// Requests that were refused since too many were under way.
    pub(crate) requests: AtomicU64,
    /// Retries that were not made since too many were under way.
    pub(crate) retries: AtomicU64,
}

/// What is known of a cluster.
#[derive(Debug)]
pub(crate) struct ClusterState {
    /// Requests under way.
    pub(crate) requests: AtomicU32,
    /// Requests that wait for a connection.
    pub(crate) pending: AtomicU32,
    /// Retries under way.
    pub(crate) retries: AtomicU32,
    /// Connections.
    pub(crate) connections: AtomicU32,
    /// What was refused, or had to wait, for a bound.
    pub(crate) overflows: Overflows,
    /// Ejections ever; zero spares looking for them.
    ejections: AtomicU64,
    /// Until when endpoints that were passed by are looked for, in milliseconds since the program began.
    passes_by_until: AtomicU64,
    endpoints: Mutex<HashMap<EndpointKey, Weak<EndpointState>>>,
    began: Instant,
}

impl ClusterState {
    fn new(began: Instant) -> Self {
        Self {
            requests: AtomicU32::new(0),
            pending: AtomicU32::new(0),
            retries: AtomicU32::new(0),
            connections: AtomicU32::new(0),
            overflows: Overflows::default(),
            ejections: AtomicU64::new(0),
            passes_by_until: AtomicU64::new(0),
            endpoints: Mutex::default(),
            began,
        }
    }

    /// The state of an endpoint; it lives as long as some thread has it.
    pub(super) fn endpoint(&self, key: &EndpointKey) -> Arc<EndpointState> {
        let mut endpoints = self.endpoints.lock_unpoisoned();
        if let Some(state) = endpoints.get(key).and_then(Weak::upgrade) {
            return state;
        }
        endpoints.retain(|_, state| state.strong_count() > 0);
        let state = Arc::new(EndpointState { since: self.now(), ..EndpointState::default() });
        endpoints.insert(key.clone(), Arc::downgrade(&state));
        state
    }

    /// The state of an endpoint that was used.
    pub(super) fn used_endpoint(&self, key: &EndpointKey) -> Option<Arc<EndpointState>> {
        self.endpoints.lock_unpoisoned().get(key)?.upgrade()
    }

    /// Ejections ever.
    pub(crate) fn ejections(&self) -> u64 {
        self.ejections.load(Ordering::Relaxed)
    }

    /// Milliseconds since the program began.
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Whether an endpoint may be left out now.
    pub(super) fn has_left_out(&self, now: u64) -> bool {
        self.ejections.load(Ordering::Relaxed) > 0 || self.passes_by_until.load(Ordering::Relaxed) > now
    }

    /// An endpoint does not answer: it is passed by for a while. True when that is news.
    pub(super) fn pass_by(&self, endpoint: &EndpointState) -> bool {
        let now = self.now();
        self.passes_by_until.fetch_max(now + LOOKED_FOR, Ordering::Relaxed);
        endpoint.reach.pass_by(now)
    }

    fn ejected_now(&self, now: u64) -> (usize, usize) {
        let endpoints = self.endpoints.lock_unpoisoned();
        let live: Vec<_> = endpoints.values().filter_map(Weak::upgrade).collect();
        (live.iter().filter(|endpoint| endpoint.is_ejected(now)).count(), live.len())
    }

    /// Notes what an endpoint answered, and ejects it where that was once too often. True when it was ejected.
    pub(crate) fn note(&self, endpoint: &EndpointState, answer: Answer, rule: Option<&OutlierDetection>) -> bool {
        let Some(rule) = rule else { return false };
        let InARow { errors, gateway_errors, no_answers } =
            endpoint.count(answer, rule.consecutive_local_failures.is_some());
        let over = |limit: Option<u32>, count: u32| limit.is_some_and(|limit| limit > 0 && count >= limit);
        let causes = [
            (over(rule.consecutive_5xx, errors), Cause::Errors),
            (over(rule.consecutive_gateway_errors, gateway_errors), Cause::GatewayErrors),
            (over(rule.consecutive_local_failures, no_answers), Cause::NoAnswers),
        ];
        causes.into_iter().find(|(is, _)| *is).is_some_and(|(_, cause)| self.eject(endpoint, rule, cause))
    }

    /// One may always go, others while no more than their share are out.
    fn eject(&self, endpoint: &EndpointState, rule: &OutlierDetection, cause: Cause) -> bool {
        let now = self.now();
        let (out, all) = self.ejected_now(now);
        let allowed = (all * rule.max_ejection_percent as usize / 100).max(usize::from(rule.max_ejection_percent > 0));
        if endpoint.is_ejected(now) || out >= allowed {
            return false;
        }
        let times = endpoint.times(now, rule.interval).saturating_add(1);
        endpoint.times.store(times, Ordering::Relaxed);
        endpoint.ejections.fetch_add(1, Ordering::Relaxed);
        let duration = rule.base_ejection.saturating_mul(times).min(MAX_EJECTION.max(rule.base_ejection));
        let until = now + u64::try_from(duration.as_millis()).unwrap_or(u64::MAX / 2);
        endpoint.cause.store(cause as u8, Ordering::Relaxed);
        endpoint.ejected_until.store(until.max(1), Ordering::Relaxed);
        endpoint.errors.store(0, Ordering::Relaxed);
        endpoint.gateway_errors.store(0, Ordering::Relaxed);
        endpoint.no_answers.store(0, Ordering::Relaxed);
        self.ejections.fetch_add(1, Ordering::Relaxed);
        true
    }
}

/// How long an endpoint that is passed by is looked for, in milliseconds: whoever tries it again without an answer begins anew.
const LOOKED_FOR: u64 = 60_000;

/// The longest that an endpoint stays out, unless the first ejection is longer (Envoy's `max_ejection_time`).
const MAX_EJECTION: Duration = Duration::from_secs(300);

/// What an endpoint answered, as far as its health goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// No 5xx.
    Well,
    /// A 5xx that is none of the next.
    Error,
    /// 502, 503 or 504.
    Gateway,
    /// None at all: it could not be connected, broke off, or took too long.
    None,
}

impl Answer {
    /// By the status.
    pub(crate) const fn of_status(status: u16) -> Self {
        match status {
            502..=504 => Self::Gateway,
            500..=599 => Self::Error,
            _ => Self::Well,
        }
    }
}

/// Why an endpoint was left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// It was not ejected: it does not answer at all, and is passed by.
    PassedBy = 0,
    /// Too many 5xx in a row.
    Errors = 1,
    /// Too many 502, 503 and 504, or failures to connect, in a row.
    GatewayErrors = 2,
    /// Too many failures in a row to have an answer, where these are counted apart.
    NoAnswers = 3,
}

/// What an endpoint answered last, as often as that was in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct InARow {
    errors: u32,
    gateway_errors: u32,
    no_answers: u32,
}

/// An endpoint, for who looks in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EndpointHealth {
    pub(crate) active: u32,
    pub(crate) errors_in_a_row: u32,
    pub(crate) ejections: u32,
    /// Why it is left out, or was ejected last.
    pub(crate) cause: Option<Cause>,
    /// How long it stays out, where it is.
    pub(crate) out_for: Option<Duration>,
}

/// What is known of an endpoint.
#[derive(Debug, Default)]
pub(crate) struct EndpointState {
    /// Requests under way.
    pub(crate) active: AtomicU32,
    errors: AtomicU32,
    gateway_errors: AtomicU32,
    no_answers: AtomicU32,
    /// Milliseconds since the program began; zero for not ejected.
    ejected_until: AtomicU64,
    ejections: AtomicU32,
    /// How many times the first ejection's length the last one had.
    times: AtomicU32,
    /// The [`Cause`] of the last ejection; zero where there was none.
    cause: AtomicU8,
    /// When it was first seen, likewise.
    since: u64,
    pub(super) reach: Reach,
}

impl EndpointState {
    /// Whether it is left out now.
    pub(super) fn is_left_out(&self, now: u64) -> bool {
        self.is_ejected(now) || self.reach.is_passed_by(now)
    }

    fn is_ejected(&self, now: u64) -> bool {
        self.ejected_until.load(Ordering::Relaxed) > now
    }

    /// How often it was found not to answer at all.
    pub(super) fn unanswered(&self) -> u32 {
        self.reach.unanswered()
    }

    /// How often connections to it were found that lead nowhere.
    pub(crate) fn losses(&self) -> u32 {
        self.reach.losses()
    }

    /// Connections to it lead nowhere.
    pub(super) fn lose(&self) {
        self.reach.lose();
    }

    /// It has answered, whatever that was.
    pub(crate) fn answered(&self) {
        self.reach.answered();
    }

    /// How it is.
    pub(crate) fn health(&self, now: u64) -> EndpointHealth {
        let until = self.ejected_until.load(Ordering::Relaxed);
        let ejected_for = (until > now).then(|| Duration::from_millis(until - now));
        let passed_by_for =
            self.reach.passed_by_for(now).filter(|passed_by| ejected_for.is_none_or(|out| out < *passed_by));
        EndpointHealth {
            active: self.active.load(Ordering::Relaxed),
            errors_in_a_row: self.errors.load(Ordering::Relaxed).max(self.no_answers.load(Ordering::Relaxed)),
            ejections: self.ejections.load(Ordering::Relaxed),
            cause: match self.cause.load(Ordering::Relaxed) {
                _ if passed_by_for.is_some() => Some(Cause::PassedBy),
                0 => None,
                cause if cause == Cause::Errors as u8 => Some(Cause::Errors),
                cause if cause == Cause::NoAnswers as u8 => Some(Cause::NoAnswers),
                _ => Some(Cause::GatewayErrors),
            },
            out_for: passed_by_for.or(ejected_for),
        }
    }

    /// How many times the first ejection's length counts against it: one less for each interval that it was in use since
    /// (Envoy's `eject_time_backoff`).
    fn times(&self, now: u64, interval: Duration) -> u32 {
        let in_use = now.saturating_sub(self.ejected_until.load(Ordering::Relaxed));
        let intervals = u128::from(in_use) / interval.as_millis().max(1);
        self.times.load(Ordering::Relaxed).saturating_sub(u32::try_from(intervals).unwrap_or(u32::MAX))
    }

    /// How long it has been known, in milliseconds.
    pub(super) const fn age(&self, now: u64) -> u64 {
        now.saturating_sub(self.since)
    }

    /// Counts an answer. Where that is none, it is an error unless these are counted `apart`, and then says nothing of errors.
    fn count(&self, answer: Answer, apart: bool) -> InARow {
        let next = |counter: &AtomicU32, is_error: bool| {
            if is_error {
                counter.fetch_add(1, Ordering::Relaxed) + 1
            } else {
                // A plain load first: most answers are well, and a store would take the line from other cores.
                if counter.load(Ordering::Relaxed) != 0 {
                    counter.store(0, Ordering::Relaxed);
                }
                0
            }
        };
        if apart && answer == Answer::None {
            let no_answers = next(&self.no_answers, true);
            return InARow { errors: 0, gateway_errors: 0, no_answers };
        }
        InARow {
            errors: next(&self.errors, answer != Answer::Well),
            gateway_errors: next(&self.gateway_errors, matches!(answer, Answer::Gateway | Answer::None)),
            no_answers: next(&self.no_answers, false),
        }
    }
}

/// One more of something that is counted, until it is dropped.
#[derive(Debug)]
pub(crate) struct Count<T>(Arc<T>, fn(&T) -> &AtomicU32);

impl<T> Count<T> {
    /// Counts one more.
    pub(crate) fn one(of: &Arc<T>, counter: fn(&T) -> &AtomicU32) -> Self {
        counter(of).fetch_add(1, Ordering::Relaxed);
        Self(of.clone(), counter)
    }

    /// Counts one more, unless there are `limit` already.
    pub(crate) fn within(of: &Arc<T>, limit: Option<u32>, counter: fn(&T) -> &AtomicU32) -> Option<Self> {
        let count = Self::one(of, counter);
        let now = counter(of).load(Ordering::Relaxed);
        limit.is_none_or(|limit| now <= limit).then_some(count)
    }
}

impl<T> Drop for Count<T> {
    fn drop(&mut self) {
        (self.1)(&self.0).fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(endpoints: usize) -> (Arc<ClusterState>, Vec<Arc<EndpointState>>) {
        let state = Arc::new(ClusterState::new(Instant::now()));
        let key = |index: usize| EndpointKey::plain(([10, 0, 0, u8::try_from(index).expect("few")], 80).into());
        let endpoints = (0..endpoints).map(|index| state.endpoint(&key(index))).collect();
        (state, endpoints)
    }

    #[test]
    fn an_endpoint_is_ejected_after_its_errors_in_a_row_and_no_sooner() {
        let rule = OutlierDetection { consecutive_5xx: Some(3), ..OutlierDetection::default() };
        let (cluster, endpoints) = cluster(10);
        for answer in [Answer::Error, Answer::Gateway, Answer::Well, Answer::Error, Answer::Error] {
            assert!(!cluster.note(&endpoints[0], answer, Some(&rule)));
        }
        assert!(cluster.note(&endpoints[0], Answer::Error, Some(&rule)));
        assert!(endpoints[0].is_ejected(cluster.now()));
        assert!(!endpoints[0].is_ejected(cluster.now() + 30_001), "it comes back");
    }

    #[test]
    fn failures_to_have_an_answer_count_as_errors_or_apart() {
        let rule = OutlierDetection { consecutive_5xx: Some(2), ..OutlierDetection::default() };
        let apart = OutlierDetection { consecutive_local_failures: Some(3), ..rule.clone() };
        let never = OutlierDetection { consecutive_local_failures: Some(0), ..rule.clone() };
        let (none, error, well) = (Answer::None, Answer::Error, Answer::Well);
        for (rule, answers, cause) in [
            (&rule, &[none, error][..], Some(Cause::Errors)),
            (&apart, &[none, error, none, none], None),
            (&apart, &[none, none, none], Some(Cause::NoAnswers)),
            (&apart, &[none, none, well, none], None),
            // A failure neither adds to errors nor ends their row.
            (&apart, &[error, none, error], Some(Cause::Errors)),
            (&never, &[none; 100], None),
        ] {
            let (cluster, endpoints) = cluster(10);
            for answer in answers {
                cluster.note(&endpoints[0], *answer, Some(rule));
            }
            assert_eq!(endpoints[0].health(cluster.now()).cause, cause, "{answers:?} by {rule:?}");
        }
    }

    #[test]
    fn each_interval_in_use_takes_one_time_off_the_next_ejection() {
        let rule = OutlierDetection { consecutive_5xx: Some(1), ..OutlierDetection::default() };
        let (cluster, endpoints) = cluster(10);
        let endpoint = &endpoints[0];
        for times in [1, 2, 3] {
            assert!(cluster.note(endpoint, Answer::Error, Some(&rule)));
            assert_eq!(endpoint.times.load(Ordering::Relaxed), times);
            endpoint.ejected_until.store(cluster.now(), Ordering::Relaxed);
        }
        let now = cluster.now();
        for (later, times) in [(0, 3), (10_000, 2), (25_000, 1), (600_000, 0)] {
            assert_eq!(endpoint.times(now + later, rule.interval), times, "after {later} ms");
        }
    }

    #[test]
    fn no_more_endpoints_are_out_than_their_share() {
        let rule =
            OutlierDetection { consecutive_5xx: Some(1), max_ejection_percent: 20, ..OutlierDetection::default() };
        let (cluster, endpoints) = cluster(10);
        let out = endpoints.iter().filter(|one| cluster.note(one, Answer::Error, Some(&rule))).count();
        assert_eq!(out, 2);
        let rule = OutlierDetection { max_ejection_percent: 1, ..rule };
        let (cluster, endpoints) = self::cluster(3);
        let out = endpoints.iter().filter(|one| cluster.note(one, Answer::Error, Some(&rule))).count();
        assert_eq!(out, 1, "one may always go");
    }

    #[test]
    fn a_bound_counts_what_is_under_way() {
        let (cluster, _) = cluster(0);
        let counter: fn(&ClusterState) -> &AtomicU32 = |state| &state.requests;
        let first = Count::within(&cluster, Some(1), counter);
        assert!(first.is_some() && Count::within(&cluster, Some(1), counter).is_none());
        drop(first);
        assert!(Count::within(&cluster, Some(1), counter).is_some());
        assert_eq!(cluster.requests.load(Ordering::Relaxed), 0);
    }
}
