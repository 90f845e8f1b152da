//! Which slices a Service has, and which slices have an address.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use crate::kubernetes::{Address, EndpointSlice};
use crate::object::Key;

/// An index of the EndpointSlices in force.
#[derive(Debug, Default)]
pub(super) struct Slices {
    /// The names of slices by Service.
    of_service: BTreeMap<Key, BTreeSet<Arc<str>>>,
    /// Slices by short numbers, since there are as many addresses as Pods.
    numbers: BTreeMap<Key, u32>,
    services: HashMap<u32, Key>,
    by_address: BTreeSet<(IpAddr, u32)>,
    next: u32,
}

impl Slices {
    pub(super) fn add(&mut self, (namespace, name): &Key, slice: &EndpointSlice) {
        let service = (Arc::clone(namespace), Arc::clone(&slice.service));
        self.of_service.entry(service.clone()).or_default().insert(Arc::clone(name));
        let number = self.free_number();
        self.numbers.insert((Arc::clone(namespace), Arc::clone(name)), number);
        self.services.insert(number, service);
        self.by_address.extend(addresses(slice).map(|address| (address, number)));
    }

    pub(super) fn remove(&mut self, key: &Key, slice: &EndpointSlice) {
        let service = (Arc::clone(&key.0), Arc::clone(&slice.service));
        if let Some(names) = self.of_service.get_mut(&service) {
            names.remove(&key.1);
            if names.is_empty() {
                self.of_service.remove(&service);
            }
        }
        let Some(number) = self.numbers.remove(key) else { return };
        self.services.remove(&number);
        for address in addresses(slice) {
            self.by_address.remove(&(address, number));
        }
    }

    /// Takes no more room than is needed, as [`crate::object::ObjectSet::pack`] does.
    pub(super) fn pack(&mut self) {
        self.of_service = std::mem::take(&mut self.of_service).into_iter().collect();
        self.numbers = std::mem::take(&mut self.numbers).into_iter().collect();
        self.by_address = std::mem::take(&mut self.by_address).into_iter().collect();
        self.services.shrink_to_fit();
    }

    /// The names of a Service's slices, in order.
    pub(super) fn of(&self, service: &Key) -> impl Iterator<Item = &Arc<str>> {
        self.of_service.get(service).into_iter().flatten()
    }

    /// The Services that have an endpoint at the address.
    pub(super) fn services_at(&self, address: IpAddr) -> impl Iterator<Item = &Key> {
        let numbers = self.by_address.range((address, 0)..=(address, u32::MAX));
        numbers.filter_map(|(_, number)| self.services.get(number))
    }

    fn free_number(&mut self) -> u32 {
        while self.services.contains_key(&self.next) {
            self.next = self.next.wrapping_add(1);
        }
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        number
    }
}

fn addresses(slice: &EndpointSlice) -> impl Iterator<Item = IpAddr> {
    slice.endpoints.iter().filter_map(|endpoint| match &endpoint.address {
        Address::Ip(address) => Some(address.to_canonical()),
        Address::Text(_) => None,
    })
}
