//! What the indexes of a snapshot hold. Where it can be, an entry is found by a field of what it leads to, and has no copy of it.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

use crate::model::{NodeName, Service, Workload};
use crate::ordered::Ordered;
use crate::workload_uid::WorkloadUid;

/// Equality and hash by what the type borrows as.
macro_rules! found_by {
    ($entry:ty, $key:ty, $borrow:expr) => {
        impl Borrow<$key> for $entry {
            fn borrow(&self) -> &$key {
                let borrow: fn(&Self) -> &$key = $borrow;
                borrow(self)
            }
        }

        impl PartialEq for $entry {
            fn eq(&self, other: &Self) -> bool {
                Borrow::<$key>::borrow(self) == Borrow::<$key>::borrow(other)
            }
        }

        impl Eq for $entry {}

        impl Hash for $entry {
            fn hash<H: Hasher>(&self, state: &mut H) {
                Borrow::<$key>::borrow(self).hash(state);
            }
        }
    };
}

/// A workload by its uid.
#[derive(Debug, Clone)]
pub(super) struct ByUid(pub(super) Arc<Workload>);

found_by!(ByUid, WorkloadUid, |entry| &entry.0.uid);

/// A workload by one of its addresses.
#[derive(Debug, Clone)]
pub(super) struct ByAddress {
    workload: Arc<Workload>,
    index: u32,
}

found_by!(ByAddress, IpAddr, |entry| entry.address());

impl ByAddress {
    /// An entry for each address.
    pub(super) fn all(workload: &Arc<Workload>) -> impl Iterator<Item = Self> {
        let entry = |(index, _)| Self { workload: Arc::clone(workload), index };
        (0u32..).zip(&workload.addresses).map(entry)
    }

    pub(super) fn workload(&self) -> &Arc<Workload> {
        &self.workload
    }

    pub(super) fn address(&self) -> &IpAddr {
        &self.workload.addresses[self.index as usize]
    }
}

/// A service by one of its cluster addresses.
#[derive(Debug, Clone)]
pub(super) struct ByVip {
    service: Arc<Service>,
    index: u32,
}

found_by!(ByVip, IpAddr, |entry| entry.address());

impl ByVip {
    /// An entry for each address.
    pub(super) fn all(service: &Arc<Service>) -> impl Iterator<Item = Self> {
        let entry = |(index, _)| Self { service: Arc::clone(service), index };
        (0u32..).zip(&service.vips).map(entry)
    }

    pub(super) fn service(&self) -> &Arc<Service> {
        &self.service
    }

    pub(super) fn address(&self) -> &IpAddr {
        &self.service.vips[self.index as usize]
    }
}

/// A host of a ServiceEntry, by its name.
#[derive(Debug, Clone)]
pub(super) struct ByHost(pub(super) Arc<Service>);

found_by!(ByHost, str, |entry| &entry.0.hostname);

/// The workloads of a node, in the order of namespace and name.
#[derive(Debug, Clone)]
pub(super) struct OnNode {
    node: NodeName,
    pub(super) workloads: Ordered<Workload>,
}

found_by!(OnNode, NodeName, |entry| &entry.node);

impl OnNode {
    pub(super) fn new(node: &NodeName) -> Self {
        Self { node: node.clone(), workloads: Ordered::default() }
    }
}

/// Endpoints of headless Services at one address.
#[derive(Debug, Clone)]
pub(super) struct HeadlessEndpoints {
    address: IpAddr,
    /// By the Service's namespace and name.
    pub(super) ports: Vec<HeadlessPort>,
}

/// One of them.
#[derive(Debug, Clone)]
pub(super) struct HeadlessPort {
    /// Where the endpoint listens.
    pub(super) endpoint: u16,
    pub(super) service: Arc<Service>,
    /// The Service's port.
    pub(super) port: u16,
}

found_by!(HeadlessEndpoints, IpAddr, |entry| &entry.address);

impl HeadlessEndpoints {
    pub(super) const fn new(address: IpAddr) -> Self {
        Self { address, ports: Vec::new() }
    }

    pub(super) fn add(&mut self, port: HeadlessPort) {
        let key = |port: &HeadlessPort| (Arc::clone(&port.service.namespace), Arc::clone(&port.service.name));
        let index = self.ports.partition_point(|other| key(other) <= key(&port));
        self.ports.insert(index, port);
    }

    pub(super) fn remove_service(&mut self, service: &Arc<Service>) {
        self.ports.retain(|port| !Arc::ptr_eq(&port.service, service));
    }
}
