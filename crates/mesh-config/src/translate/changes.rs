//! What differs between two generations of a configuration.

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_core::{Service, Snapshot, Workload};

use crate::object::Key;

/// What is different from the generation before.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Changes {
    /// Workloads that came, went or changed.
    pub workloads: Vec<Change<Workload>>,
    /// Services that came, went or changed, their endpoints included.
    pub services: Vec<Change<Service>>,
    /// Whether what namespaces ask for their pods did.
    pub namespaces: bool,
    /// Whether policies changed.
    pub policies: bool,
    /// Whether the application layer did.
    pub l7: bool,
    /// Whether providers did.
    pub providers: bool,
    /// Whether what is told of requests did.
    pub telemetries: bool,
    /// Whether limits on requests did.
    pub rate_limits: bool,
}

/// Something that came, went or changed.
#[derive(Debug, Clone, PartialEq)]
pub struct Change<T> {
    /// What it was.
    pub before: Option<Arc<T>>,
    /// What it is.
    pub now: Option<Arc<T>>,
}

impl Changes {
    /// Whether nothing differs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let of_one = self.workloads.is_empty() && self.services.is_empty();
        of_one
            && !self.namespaces
            && !self.policies
            && !self.l7
            && !self.providers
            && !self.telemetries
            && !self.rate_limits
    }
}

impl<T: PartialEq> Change<T> {
    /// A change from `before`, unless what is there now is the same.
    fn from(before: Option<Arc<T>>, now: Option<&Arc<T>>) -> Option<Self> {
        (before.as_ref() != now).then(|| Self { before, now: now.cloned() })
    }
}

/// What was there before everything that is looked at again.
#[derive(Debug, Default)]
pub(crate) struct Before {
    workloads: BTreeMap<Key, Option<Arc<Workload>>>,
    services: BTreeMap<Key, Option<Arc<Service>>>,
}

impl Before {
    /// Notes what a Pod was, unless that is known.
    pub(crate) fn note_workload(&mut self, key: &Key, workload: Option<Arc<Workload>>) {
        self.workloads.entry(key.clone()).or_insert(workload);
    }

    /// Notes what a Service was, unless that is known.
    pub(crate) fn note_service(&mut self, key: &Key, service: Option<Arc<Service>>) {
        self.services.entry(key.clone()).or_insert(service);
    }

    /// What a Pod was.
    pub(crate) fn workload_before(&self, key: &Key) -> Option<Arc<Workload>> {
        self.workloads.get(key)?.clone()
    }

    /// What a Service was.
    pub(crate) fn service_before(&self, key: &Key) -> Option<Arc<Service>> {
        self.services.get(key)?.clone()
    }

    /// The workloads that differ now.
    pub(crate) fn take_workloads(&mut self, now: &Snapshot) -> Vec<Change<Workload>> {
        let noted = std::mem::take(&mut self.workloads).into_iter();
        noted.filter_map(|(key, before)| Change::from(before, now.workload(&key.0, &key.1))).collect()
    }

    /// The services that differ now.
    pub(crate) fn take_services(&mut self, now: &Snapshot) -> Vec<Change<Service>> {
        let noted = std::mem::take(&mut self.services).into_iter();
        noted.filter_map(|(key, before)| Change::from(before, now.service(&key.0, &key.1))).collect()
    }
}
