//! What a thread has looked up for Services, in one state of the cluster.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    sync::Arc,
};

use mesh_core::Service;

/// What is known of a Service, which keeps its place in memory.
type Known<T> = (Option<Arc<Service>>, T);

/// What is known of each Service, and of no Service.
pub(crate) struct PerService<T> {
    /// The state of the cluster that it was found in.
    seen: Cell<u64>,
    /// By the Service's place in memory.
    known: RefCell<HashMap<usize, Known<T>>>,
}

impl<T> Default for PerService<T> {
    fn default() -> Self {
        Self { seen: Cell::default(), known: RefCell::default() }
    }
}

impl<T: Clone> PerService<T> {
    /// What `find` finds for a Service in that state of the cluster, found once.
    pub(crate) fn of(&self, number: u64, service: Option<&Arc<Service>>, find: impl FnOnce() -> T) -> T {
        let mut known = self.known.borrow_mut();
        if self.seen.replace(number) != number {
            known.clear();
        }
        let place = service.map_or(0, |service| Arc::as_ptr(service).addr());
        known.entry(place).or_insert_with(|| (service.cloned(), find())).1.clone()
    }
}
