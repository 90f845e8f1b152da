//! A thread's series, and how lines tell of them, found without a lock and without a text being made.

use std::{
    cell::RefCell,
    collections::HashMap,
    hash::Hash,
    rc::{Rc, Weak},
    sync::Arc,
};

use mesh_core::{Service, SpiffeId, Workload, telemetry::MetricChanges};
use mesh_metrics::RequestSeries;

use super::{Parties, Telemetry};
use crate::upstream::{Cluster, Endpoint};

/// What one thread keeps; where more is asked for it begins anew.
const MAX_KEPT: usize = 4_096;

/// What tells series apart: parties by their places in memory, and how the request ended.
#[derive(PartialEq, Eq, Hash)]
struct Key {
    parties: [usize; 5],
    status: u16,
    grpc: Option<u16>,
    flags: &'static str,
    is_grpc: bool,
}

/// The series, with the parties, so that no other is ever at their places. Endpoints and clusters that are gone may go: what is weak
/// keeps their place, and not their connections.
struct WithParties<T> {
    _source: Option<Arc<Workload>>,
    _identity: Option<SpiffeId>,
    _service: Option<Arc<Service>>,
    _endpoint: Option<Weak<Endpoint>>,
    _cluster: Option<Weak<Cluster>>,
    kept: T,
}

/// By what tells series apart, and perhaps more.
type ByParties<K, T> = RefCell<HashMap<K, WithParties<T>>>;

/// The endpoint that answered, and where a request was sent on to.
type Reached<'a> = (Option<&'a Rc<Endpoint>>, Option<&'a Rc<Cluster>>);

/// The series that one thread has counted with.
#[derive(Default)]
pub(crate) struct SeriesCache {
    known: ByParties<Key, Arc<RequestSeries>>,
    /// Those of labels that are changed.
    changed: ByParties<(Key, MetricChanges), Arc<RequestSeries>>,
    /// The labels as fields of a line.
    fields: ByParties<Key, Rc<str>>,
}

impl SeriesCache {
    /// The series of a request, whose labels are perhaps changed.
    pub(crate) fn of(
        &self,
        telemetry: &Telemetry,
        parties: &Parties<'_>,
        reached: Reached<'_>,
        changes: Option<MetricChanges>,
    ) -> Arc<RequestSeries> {
        let key = Key::of(parties, reached);
        match changes {
            None => find(&self.known, key, parties, reached, |_| telemetry.series(parties)),
            Some(changes) => find(&self.changed, (key, changes), parties, reached, |(_, changes)| {
                telemetry.changed_series(parties, changes)
            }),
        }
    }

    /// The labels of a request as its line has them: with no change, and of parties that are known.
    pub(crate) fn fields(&self, telemetry: &Telemetry, parties: &Parties<'_>, reached: Reached<'_>) -> Rc<str> {
        let key = Key::of(parties, reached);
        find(&self.fields, key, parties, reached, |_| telemetry.label_fields(parties).into())
    }
}

impl Key {
    fn of(parties: &Parties<'_>, (endpoint, cluster): Reached<'_>) -> Self {
        Self {
            parties: [
                parties.source.map_or(0, |workload| Arc::as_ptr(workload).addr()),
                parties.stranger().map_or(0, |identity| identity.as_str().as_ptr().addr()),
                parties.arrival.target.service().map_or(0, |service| Arc::as_ptr(service).addr()),
                endpoint.map_or(0, |endpoint| Rc::as_ptr(endpoint).addr()),
                cluster.map_or(0, |cluster| Rc::as_ptr(cluster).addr()),
            ],
            status: parties.status,
            grpc: parties.grpc,
            flags: parties.flags,
            is_grpc: parties.is_grpc,
        }
    }
}

impl<T> WithParties<T> {
    fn with(kept: T, parties: &Parties<'_>, (endpoint, cluster): Reached<'_>) -> Self {
        Self {
            _source: parties.source.cloned(),
            _identity: parties.stranger().cloned(),
            _service: parties.arrival.target.service().cloned(),
            _endpoint: endpoint.map(Rc::downgrade),
            _cluster: cluster.map(Rc::downgrade),
            kept,
        }
    }
}

/// What is known by a key, or is made for it.
fn find<K: Eq + Hash, T: Clone>(
    known: &ByParties<K, T>,
    key: K,
    parties: &Parties<'_>,
    reached: Reached<'_>,
    make: impl FnOnce(&K) -> T,
) -> T {
    if let Some(found) = known.borrow().get(&key) {
        return found.kept.clone();
    }
    let made = make(&key);
    let mut known = known.borrow_mut();
    if known.len() >= MAX_KEPT {
        known.clear();
    }
    known.insert(key, WithParties::with(made.clone(), parties, reached));
    made
}
