//! How many requests may pass: the limits in force here, and their buckets, which all threads share.

mod held;

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    rc::Rc,
    sync::{Arc, Mutex, atomic::Ordering},
    time::Instant,
};

use mesh_admin::WaypointLimit;
use mesh_core::lock::UnpoisonedMutex as _;
use mesh_core::{
    Snapshot, SpiffeId,
    l7::{RequestView, Rule},
    rate_limit::{Applied, Judging, LimitKey, LimitRef, RateLimit, RateLimits},
};

use self::held::Held;
use crate::{
    inbound::{Arrival, Target},
    telemetry::LimitOutcome,
    worker::{NumberedSnapshot, Worker},
};

/// A limit, and the Service's host that it is kept for; of a gateway's all requests together.
type Place = (LimitRef, Arc<str>);
/// A limit as it was last asked, and its buckets.
type Kept = (Arc<RateLimit>, Arc<Held>);

/// The buckets of all limits that were asked.
pub(crate) struct LimitBook {
    began: Instant,
    held: Mutex<HashMap<Place, Kept>>,
}

impl Default for LimitBook {
    fn default() -> Self {
        Self { began: Instant::now(), held: Mutex::default() }
    }
}

impl LimitBook {
    /// The buckets of a limit for a host. One that is as it was goes on with what it has.
    fn of(&self, limit: &Arc<RateLimit>, host: &Arc<str>) -> Arc<Held> {
        let mut held = self.held.lock_unpoisoned();
        let keyed = limit.key != LimitKey::Everybody;
        let new = || (limit.clone(), Arc::new(Held::new(limit.bucket, keyed)));
        let known = held.entry((limit.at.clone(), host.clone())).or_insert_with(new);
        if !known.1.is_of(limit.bucket, keyed) || known.0.key != limit.key {
            *known = new();
        }
        known.0.clone_from(limit);
        known.1.clone()
    }

    /// Forgets limits that are not among those in force.
    pub(crate) fn keep(&self, in_force: &RateLimits) {
        let all = in_force.all().iter().flat_map(|policy| &policy.limits);
        let all: HashSet<&LimitRef> = all.map(|limit| &limit.at).collect();
        self.held.lock_unpoisoned().retain(|(at, _), _| all.contains(at));
    }

    /// What became of requests by each limit that was asked here.
    pub(crate) fn told(&self) -> Vec<WaypointLimit> {
        let held = self.held.lock_unpoisoned();
        let mut told: Vec<_> = held
            .iter()
            .map(|((at, host), (limit, held))| WaypointLimit {
                limit: at.to_string(),
                service: host.to_string(),
                rate: limit.to_string(),
                passed: held.passed.load(Ordering::Relaxed),
                limited: held.limited.load(Ordering::Relaxed),
                not_enforced: held.spared.load(Ordering::Relaxed),
                keys: held.keys(),
            })
            .collect();
        told.sort_by(|a, b| (&a.limit, &a.service).cmp(&(&b.limit, &b.service)));
        told
    }

    /// Nanoseconds since the process began.
    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Limits in force, each with its buckets.
pub(crate) type InForce = Rc<[(Applied, Arc<Held>)]>;

fn in_force(worker: &Worker, snapshot: &Snapshot, target: &Target) -> InForce {
    let (gateway, listeners) = (&worker.shared.own.gateway, worker.listeners());
    let pod = listeners.own.as_deref();
    let applied = target.place(gateway, pod).limits(snapshot, (&gateway.namespace, &gateway.name), pod);
    let host = target.service().map_or_else(|| Arc::from(""), |service| service.hostname.clone());
    applied.into_iter().map(|applied| (applied.clone(), worker.shared.limit_book.of(&applied.limit, &host))).collect()
}

/// Takes a token of each limit that is about a request.
///
/// # Errors
/// The limit that has none left and refuses it.
pub(crate) fn judge(
    worker: &Worker,
    NumberedSnapshot { snapshot, number }: &NumberedSnapshot,
    arrival: &Arrival,
    target: &Target,
    request: &dyn RequestView,
    rule: Option<&Rule>,
) -> Result<(), Arc<RateLimit>> {
    if snapshot.rate_limits().all().is_empty() {
        return Ok(());
    }
    let in_force = worker.limits.of(*number, target.service(), || in_force(worker, snapshot, target));
    let mut judging = Judging::default();
    for (applied, held) in &*in_force {
        if !judging.next(applied, request, rule.map(|rule| &rule.at)) {
            continue;
        }
        let limit = &applied.limit;
        if !limit.enabled.includes(fastrand::u64(..)) {
            continue;
        }
        let outcome = if held.take(key(&limit.key, arrival, request).as_deref(), worker.shared.limit_book.now()) {
            held.passed.fetch_add(1, Ordering::Relaxed);
            LimitOutcome::Passed
        } else if limit.enforced.includes(fastrand::u64(..)) {
            held.limited.fetch_add(1, Ordering::Relaxed);
            LimitOutcome::Limited
        } else {
            held.spared.fetch_add(1, Ordering::Relaxed);
            LimitOutcome::NotEnforced
        };
        worker.shared.telemetry.own.rate_limit(outcome);
        if outcome == LimitOutcome::Limited {
            return Err(limit.clone());
        }
    }
    Ok(())
}

/// Whose bucket it is; none for everybody's.
fn key<'a>(key: &LimitKey, arrival: &'a Arrival, request: &'a dyn RequestView) -> Option<Cow<'a, str>> {
    let identity = arrival.client.identity.as_ref();
    match key {
        LimitKey::Everybody => None,
        LimitKey::Header(name) => Some(request.header(name).unwrap_or_default()),
        LimitKey::Principal => Some(identity.map_or("", SpiffeId::as_str).into()),
        LimitKey::Namespace => Some(identity.map_or("", SpiffeId::namespace).into()),
        LimitKey::Address => Some(arrival.client.address.ip().to_string().into()),
    }
}
