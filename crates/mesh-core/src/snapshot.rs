//! The cluster at one moment, indexed for the questions that a connection asks.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::l7::L7;
use crate::model::{NodeName, Protocol, Service, Workload, WorkloadUid};
use crate::policy::Policies;

/// An immutable view of the cluster. Every lookup is a hash lookup; building is linear.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    workloads: Vec<Arc<Workload>>,
    services: Vec<Arc<Service>>,
    by_address: HashMap<IpAddr, usize>,
    by_uid: HashMap<WorkloadUid, usize>,
    by_node: HashMap<NodeName, Vec<usize>>,
    by_vip: HashMap<IpAddr, usize>,
    /// Endpoints of headless Services, with the Service and its port.
    by_headless_endpoint: HashMap<SocketAddr, (usize, u16)>,
    policies: Policies,
    l7: L7,
}

/// Equal when workloads, services, policies and the application layer are, in the same order.
impl PartialEq for Snapshot {
    fn eq(&self, other: &Self) -> bool {
        self.workloads == other.workloads
            && self.services == other.services
            && self.policies == other.policies
            && self.l7 == other.l7
    }
}

impl Eq for Snapshot {}

impl Snapshot {
    /// Indexes workloads and services, given by value or behind an `Arc`.
    ///
    /// IPv4-mapped IPv6 addresses become IPv4, and a port's endpoints are ordered IPv4 before IPv6. Where two
    /// claim one uid, workload address or service address, the first keeps it. Workloads on the host's network are
    /// not found by address, which is their node's.
    #[must_use]
    pub fn build<W, S>(workloads: W, services: S) -> Self
    where
        W: IntoIterator<Item: Into<Arc<Workload>>>,
        S: IntoIterator<Item: Into<Arc<Service>>>,
    {
        let mut snapshot = Self {
            workloads: workloads.into_iter().map(Into::into).collect(),
            services: services.into_iter().map(Into::into).collect(),
            ..Self::default()
        };
        snapshot.index_workloads();
        snapshot.index_services();
        snapshot
    }

    /// The same cluster under those policies.
    #[must_use]
    pub fn with_policies(mut self, policies: Policies) -> Self {
        self.policies = policies;
        self
    }

    /// The same cluster with that application layer.
    #[must_use]
    pub fn with_l7(mut self, l7: L7) -> Self {
        self.l7 = l7;
        self
    }

    /// Routes, traffic rules and waypoints.
    #[must_use]
    pub const fn l7(&self) -> &L7 {
        &self.l7
    }

    /// The policies in force.
    #[must_use]
    pub const fn policies(&self) -> &Policies {
        &self.policies
    }

    /// The workload that has `address` as its own.
    #[must_use]
    pub fn workload_by_address(&self, address: IpAddr) -> Option<&Arc<Workload>> {
        let index = *self.by_address.get(&address.to_canonical())?;
        self.workloads.get(index)
    }

    /// The workload of that uid.
    #[must_use]
    pub fn workload_by_uid(&self, uid: &WorkloadUid) -> Option<&Arc<Workload>> {
        let index = *self.by_uid.get(uid)?;
        self.workloads.get(index)
    }

    /// The workloads that run on `node`, in the order given to [`Snapshot::build`].
    pub fn workloads_on<'a>(&'a self, node: &NodeName) -> impl Iterator<Item = &'a Arc<Workload>> + use<'a> {
        let indexes = self.by_node.get(node).map_or(&[][..], Vec::as_slice);
        indexes.iter().filter_map(|index| self.workloads.get(*index))
    }

    /// All workloads, in the order given to [`Snapshot::build`].
    pub fn workloads(&self) -> impl ExactSizeIterator<Item = &Arc<Workload>> {
        self.workloads.iter()
    }

    /// All services, in the order given to [`Snapshot::build`].
    pub fn services(&self) -> impl ExactSizeIterator<Item = &Arc<Service>> {
        self.services.iter()
    }

    /// The service that has `address` as a cluster address.
    #[must_use]
    pub fn service_by_vip(&self, address: IpAddr) -> Option<&Arc<Service>> {
        let index = *self.by_vip.get(&address.to_canonical())?;
        self.services.get(index)
    }

    /// The headless Service whose endpoint that is, and the Service's port. Of several the first.
    pub(crate) fn headless_service(&self, endpoint: SocketAddr) -> Option<(&Arc<Service>, u16)> {
        let (index, port) = *self.by_headless_endpoint.get(&endpoint)?;
        Some((self.services.get(index)?, port))
    }

    /// The ports at which `workload` is an endpoint of headless Services. Linear in the number of such endpoints.
    pub(crate) fn headless_ports(&self, workload: &Workload) -> impl Iterator<Item = u16> {
        let own = |endpoint: &&SocketAddr| workload.addresses.contains(&endpoint.ip());
        self.by_headless_endpoint.keys().filter(own).map(SocketAddr::port)
    }

    fn index_workloads(&mut self) {
        self.by_uid.reserve(self.workloads.len());
        self.by_address.reserve(2 * self.workloads.len());
        for (index, workload) in self.workloads.iter().enumerate() {
            self.by_uid.entry(workload.uid.clone()).or_insert(index);
            match self.by_node.get_mut(&workload.node) {
                Some(indexes) => indexes.push(index),
                None => {
                    self.by_node.insert(workload.node.clone(), vec![index]);
                }
            }
            if workload.is_on_host_network() {
                continue;
            }
            for address in &workload.addresses {
                self.by_address.entry(address.to_canonical()).or_insert(index);
            }
        }
    }

    fn index_services(&mut self) {
        self.by_vip.reserve(2 * self.services.len());
        for (index, service) in self.services.iter_mut().enumerate() {
            if !has_ordered_endpoints(service) {
                order_endpoints(Arc::make_mut(service));
            }
            for vip in &service.vips {
                self.by_vip.entry(vip.to_canonical()).or_insert(index);
            }
            if service.vips.is_empty() {
                let ports = service.ports.iter().filter(|port| port.protocol == Protocol::Tcp);
                for (port, endpoint) in ports.flat_map(|port| port.endpoints.iter().map(|e| (port.port, e))) {
                    self.by_headless_endpoint.entry(endpoint.address).or_insert((index, port));
                }
            }
        }
    }
}

fn has_ordered_endpoints(service: &Service) -> bool {
    service.ports.iter().all(|port| {
        let canonical = |address: SocketAddr| address.ip().to_canonical() == address.ip();
        port.endpoints.iter().all(|e| canonical(e.address)) && port.endpoints.is_sorted_by_key(|e| e.address.is_ipv6())
    })
}

fn order_endpoints(service: &mut Service) {
    for port in &mut service.ports {
        for endpoint in &mut port.endpoints {
            endpoint.address = canonical(endpoint.address);
        }
        port.endpoints.sort_by_key(|e| e.address.is_ipv6());
    }
}

/// The address with an IPv4-mapped IPv6 address as the IPv4 address that it means (RFC 4291, section 2.5.5.2).
#[must_use]
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
