//! A thread's series, found without a lock and without a text being made.

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
struct Kept {
    _source: Option<Arc<Workload>>,
    _identity: Option<SpiffeId>,
    _service: Option<Arc<Service>>,
    _endpoint: Option<Weak<Endpoint>>,
    _cluster: Option<Weak<Cluster>>,
    series: Arc<RequestSeries>,
}

/// The series that one thread has counted with.
#[derive(Default)]
pub(crate) struct SeriesCache {
    known: RefCell<HashMap<Key, Kept>>,
    /// Those of labels that are changed.
    changed: RefCell<HashMap<(Key, MetricChanges), Kept>>,
}

impl SeriesCache {
    /// The series of a request, whose labels are perhaps changed.
    pub(crate) fn of(
        &self,
        telemetry: &Telemetry,
        parties: &Parties<'_>,
        (endpoint, cluster): (Option<&Rc<Endpoint>>, Option<&Rc<Cluster>>),
        changes: Option<MetricChanges>,
    ) -> Arc<RequestSeries> {
        let service = parties.arrival.target.service();
        // Of a client that is no workload that is known, the identity tells; its text is shared by what one tunnel carries.
        let identity = parties.arrival.client.identity.as_ref().filter(|_| parties.source.is_none());
        let key = Key {
            parties: [
                parties.source.map_or(0, |workload| Arc::as_ptr(workload).addr()),
                identity.map_or(0, |identity| identity.as_str().as_ptr().addr()),
                service.map_or(0, |service| Arc::as_ptr(service).addr()),
                endpoint.map_or(0, |endpoint| Rc::as_ptr(endpoint).addr()),
                cluster.map_or(0, |cluster| Rc::as_ptr(cluster).addr()),
            ],
            status: parties.status,
            grpc: parties.grpc,
            flags: parties.flags,
            is_grpc: parties.is_grpc,
        };
        let kept = |series: &Arc<RequestSeries>| Kept {
            _source: parties.source.cloned(),
            _identity: identity.cloned(),
            _service: service.cloned(),
            _endpoint: endpoint.map(Rc::downgrade),
            _cluster: cluster.map(Rc::downgrade),
            series: series.clone(),
        };
        match changes {
            None => find(&self.known, key, |_| telemetry.series(parties), kept),
            Some(changes) => find(&self.changed, (key, changes), |key| telemetry.changed_series(parties, &key.1), kept),
        }
    }
}

/// What is known by a key, or is made for it.
fn find<K: Eq + Hash>(
    known: &RefCell<HashMap<K, Kept>>,
    key: K,
    make: impl FnOnce(&K) -> Arc<RequestSeries>,
    kept: impl FnOnce(&Arc<RequestSeries>) -> Kept,
) -> Arc<RequestSeries> {
    if let Some(kept) = known.borrow().get(&key) {
        return kept.series.clone();
    }
    let series = make(&key);
    let mut known = known.borrow_mut();
    if known.len() >= MAX_KEPT {
        known.clear();
    }
    known.insert(key, kept(&series));
    series
}
