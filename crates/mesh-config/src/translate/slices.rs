//! Which slices a Service has, and which slices have an address.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use crate::kubernetes::{Address, EndpointSlice};
use crate::object::Key;

/// An index of the EndpointSlices in force.
#[derive(Debug, Default)]
pub(super) struct Slices {
    /// Namespace, Service and slice.
    of_service: BTreeSet<(Arc<str>, Arc<str>, Arc<str>)>,
    /// Slices by short numbers, since there are as many addresses as Pods.
    numbers: BTreeMap<Key, u32>,
    services: HashMap<u32, Key>,
    /// Apart, since nearly all are of one family, and the longer address takes three times the memory.
    by_ipv4: BTreeSet<(Ipv4Addr, u32)>,
    by_ipv6: BTreeSet<(Ipv6Addr, u32)>,
    next: u32,
}

impl Slices {
    pub(super) fn add(&mut self, (namespace, name): &Key, slice: &EndpointSlice) {
        self.of_service.insert((Arc::clone(namespace), Arc::clone(&slice.service), Arc::clone(name)));
        let number = self.free_number();
        self.numbers.insert((Arc::clone(namespace), Arc::clone(name)), number);
        self.services.insert(number, (Arc::clone(namespace), Arc::clone(&slice.service)));
        for address in addresses(slice) {
            match address {
                IpAddr::V4(address) => self.by_ipv4.insert((address, number)),
                IpAddr::V6(address) => self.by_ipv6.insert((address, number)),
            };
        }
    }

    pub(super) fn remove(&mut self, (namespace, name): &Key, slice: &EndpointSlice) {
        self.of_service.remove(&(Arc::clone(namespace), Arc::clone(&slice.service), Arc::clone(name)));
        let Some(number) = self.numbers.remove(&(Arc::clone(namespace), Arc::clone(name))) else { return };
        self.services.remove(&number);
        for address in addresses(slice) {
            match address {
                IpAddr::V4(address) => self.by_ipv4.remove(&(address, number)),
                IpAddr::V6(address) => self.by_ipv6.remove(&(address, number)),
            };
        }
    }

    /// Takes no more room than is needed, as [`crate::object::ObjectSet::pack`] does.
    pub(super) fn pack(&mut self) {
        self.of_service = std::mem::take(&mut self.of_service).into_iter().collect();
        self.numbers = std::mem::take(&mut self.numbers).into_iter().collect();
        self.by_ipv4 = std::mem::take(&mut self.by_ipv4).into_iter().collect();
        self.by_ipv6 = std::mem::take(&mut self.by_ipv6).into_iter().collect();
        self.services.shrink_to_fit();
    }

    /// The names of a Service's slices, in order.
    pub(super) fn of(&self, (namespace, service): &Key) -> impl Iterator<Item = &Arc<str>> {
        let from = (Arc::clone(namespace), Arc::clone(service), Arc::from(""));
        let is_its = move |(of, named, _): &&(Arc<str>, Arc<str>, Arc<str>)| of == namespace && named == service;
        self.of_service.range(from..).take_while(is_its).map(|(_, _, name)| name)
    }

    /// The Services that have an endpoint at the address.
    pub(super) fn services_at(&self, address: IpAddr) -> impl Iterator<Item = &Key> {
        let (ipv4, ipv6) = match address {
            IpAddr::V4(address) => (Some(self.by_ipv4.range((address, 0)..=(address, u32::MAX))), None),
            IpAddr::V6(address) => (None, Some(self.by_ipv6.range((address, 0)..=(address, u32::MAX)))),
        };
        let ipv4 = ipv4.into_iter().flatten().map(|(_, number)| number);
        let numbers = ipv4.chain(ipv6.into_iter().flatten().map(|(_, number)| number));
        numbers.filter_map(|number| self.services.get(number))
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
