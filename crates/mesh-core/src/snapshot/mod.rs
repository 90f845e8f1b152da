//! The cluster at one moment, indexed for the questions that a connection asks.

mod entries;
mod sharded;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::l7::L7;
use crate::labels::Wish;
use crate::model::{NodeName, Protocol, Service, Workload};
use crate::ordered::{Difference, Named, Ordered};
use crate::policy::Policies;
use crate::provider::Providers;
use crate::rate_limit::RateLimits;
use crate::telemetry::Telemetries;
use crate::workload_uid::WorkloadUid;
use entries::{ByAddress, ByHost, ByUid, ByVip, HeadlessEndpoints, HeadlessPort, OnNode};
use sharded::Sharded;

/// A view of the cluster. Every lookup by an address, a uid or a node is a hash lookup.
///
/// A copy costs next to nothing and shares everything with what it is of; so the next moment's snapshot is a copy with the
/// changes made to it, whatever the cluster's size.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    workloads: Ordered<Workload>,
    services: Ordered<Service>,
    by_address: Sharded<ByAddress>,
    by_uid: Sharded<ByUid>,
    by_node: Sharded<OnNode>,
    by_vip: Sharded<ByVip>,
    by_host: Sharded<ByHost>,
    headless: Sharded<HeadlessEndpoints>,
    policies: Arc<Policies>,
    l7: Arc<L7>,
    providers: Arc<Providers>,
    telemetries: Arc<Telemetries>,
    rate_limits: Arc<RateLimits>,
    namespaces: Arc<BTreeMap<Arc<str>, Wish>>,
}

/// Equal when workloads, services, namespaces, policies, the application layer, providers, limits and what is told of requests are.
impl PartialEq for Snapshot {
    fn eq(&self, other: &Self) -> bool {
        self.workloads.iter().eq(other.workloads.iter())
            && self.services.iter().eq(other.services.iter())
            && self.policies == other.policies
            && self.l7 == other.l7
            && self.providers == other.providers
            && self.telemetries == other.telemetries
            && self.rate_limits == other.rate_limits
            && self.namespaces == other.namespaces
    }
}

impl Eq for Snapshot {}

impl Snapshot {
    /// Indexes workloads and services, given by value or behind an `Arc`: each is put in as by
    /// [`Snapshot::put_workload`] and [`Snapshot::put_service`].
    #[must_use]
    pub fn build<W, S>(workloads: W, services: S) -> Self
    where
        W: IntoIterator<Item: Into<Arc<Workload>>>,
        S: IntoIterator<Item: Into<Arc<Service>>>,
    {
        let mut snapshot = Self::default();
        workloads.into_iter().for_each(|workload| snapshot.put_workload(workload.into()));
        services.into_iter().for_each(|service| snapshot.put_service(service.into()));
        snapshot
    }

    /// The same cluster under those policies.
    #[must_use]
    pub fn with_policies(mut self, policies: Policies) -> Self {
        self.set_policies(policies);
        self
    }

    /// What a namespace's labels ask for its pods; none where it is not known.
    #[must_use]
    pub fn namespace_wish(&self, namespace: &str) -> Option<Wish> {
        self.namespaces.get(namespace).copied()
    }

    /// Notes what a namespace's labels ask for its pods, or that it is gone; whether that is different.
    pub fn set_namespace_wish(&mut self, namespace: &Arc<str>, wish: Option<Wish>) -> bool {
        if self.namespace_wish(namespace) == wish {
            return false;
        }
        let namespaces = Arc::make_mut(&mut self.namespaces);
        match wish {
            Some(wish) => drop(namespaces.insert(Arc::clone(namespace), wish)),
            None => drop(namespaces.remove(namespace)),
        }
        true
    }

    /// Puts those policies in force.
    pub fn set_policies(&mut self, policies: Policies) {
        self.policies = Arc::new(policies);
    }

    /// The same cluster with that application layer.
    #[must_use]
    pub fn with_l7(mut self, l7: L7) -> Self {
        self.set_l7(l7);
        self
    }

    /// Puts that application layer in force.
    pub fn set_l7(&mut self, l7: L7) {
        self.l7 = Arc::new(l7);
    }

    /// Routes, traffic rules and waypoints.
    #[must_use]
    pub fn l7(&self) -> &L7 {
        &self.l7
    }

    /// Puts those providers in force.
    pub fn set_providers(&mut self, providers: Providers) {
        self.providers = Arc::new(providers);
    }

    /// Programs beside the mesh that it asks or tells.
    #[must_use]
    pub fn providers(&self) -> &Providers {
        &self.providers
    }

    /// Puts that in force about what is told of requests.
    pub fn set_telemetries(&mut self, telemetries: Telemetries) {
        self.telemetries = Arc::new(telemetries);
    }

    /// What is told of requests, and where.
    #[must_use]
    pub fn telemetries(&self) -> &Telemetries {
        &self.telemetries
    }

    /// Puts those limits in force.
    pub fn set_rate_limits(&mut self, limits: RateLimits) {
        self.rate_limits = Arc::new(limits);
    }

    /// How many requests may pass.
    #[must_use]
    pub fn rate_limits(&self) -> &RateLimits {
        &self.rate_limits
    }

    /// The policies in force.
    #[must_use]
    pub fn policies(&self) -> &Policies {
        &self.policies
    }

    /// The workload that has `address` as its own.
    #[must_use]
    pub fn workload_by_address(&self, address: IpAddr) -> Option<&Arc<Workload>> {
        self.by_address.get(&address.to_canonical()).map(ByAddress::workload)
    }

    /// The workload of that uid.
    #[must_use]
    pub fn workload_by_uid(&self, uid: &WorkloadUid) -> Option<&Arc<Workload>> {
        self.by_uid.get(uid).map(|entry| &entry.0)
    }

    /// The workload of that name.
    #[must_use]
    pub fn workload(&self, namespace: &str, name: &str) -> Option<&Arc<Workload>> {
        self.workloads.get((namespace, name))
    }

    /// The workloads that run on `node`, in the order of namespace and name.
    pub fn workloads_on<'a>(&'a self, node: &NodeName) -> impl Iterator<Item = &'a Arc<Workload>> + use<'a> {
        self.by_node.get(node).into_iter().flat_map(|on| on.workloads.iter())
    }

    /// Whether what acts on requests is that of another snapshot, and nothing of it was made anew since.
    #[must_use]
    pub fn has_l7_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.l7, &other.l7)
    }

    /// All workloads, in the order of namespace and name.
    pub fn workloads(&self) -> impl ExactSizeIterator<Item = &Arc<Workload>> {
        self.workloads.iter()
    }

    /// The workloads that came, went or changed since `before`, in the order of namespace and name.
    pub fn changed_workloads<'a>(&'a self, before: &'a Self) -> impl Iterator<Item = Difference<'a, Workload>> {
        self.workloads.differences(&before.workloads, None)
    }

    /// The services that came, went or changed since `before`, in the order of namespace and name.
    pub fn changed_services<'a>(&'a self, before: &'a Self) -> impl Iterator<Item = Difference<'a, Service>> {
        self.services.differences(&before.services, None)
    }

    /// All services, in the order of namespace and name.
    pub fn services(&self) -> impl ExactSizeIterator<Item = &Arc<Service>> {
        self.services.iter()
    }

    /// The service of that name.
    #[must_use]
    pub fn service(&self, namespace: &str, name: &str) -> Option<&Arc<Service>> {
        self.services.get((namespace, name))
    }

    /// The service that has `address` as a cluster address.
    #[must_use]
    pub fn service_by_vip(&self, address: IpAddr) -> Option<&Arc<Service>> {
        self.by_vip.get(&address.to_canonical()).map(ByVip::service)
    }

    /// The service of that full host name.
    #[must_use]
    pub fn service_by_hostname(&self, hostname: &str) -> Option<&Arc<Service>> {
        let of_cluster = || {
            let (name, rest) = hostname.split_once('.')?;
            let (namespace, _) = rest.split_once('.')?;
            self.service(namespace, name).filter(|service| *service.hostname == *hostname)
        };
        of_cluster().or_else(|| self.by_host.get(hostname).map(|entry| &entry.0))
    }

    /// The Service without addresses of its own whose endpoint that is, and the Service's port. Of several the first by
    /// namespace and name.
    #[must_use]
    pub fn headless_service(&self, endpoint: SocketAddr) -> Option<(&Arc<Service>, u16)> {
        let mut ports = self.headless.get(&endpoint.ip())?.ports.iter();
        ports.find(|port| port.endpoint == endpoint.port()).map(|port| (&port.service, port.port))
    }

    /// The ports at which `workload` is an endpoint of headless Services.
    pub(crate) fn headless_ports(&self, workload: &Workload) -> impl Iterator<Item = u16> {
        let own = workload.addresses.iter().filter_map(|address| self.headless.get(&address.to_canonical()));
        own.flat_map(|endpoints| endpoints.ports.iter().map(|port| port.endpoint))
    }

    /// Puts a workload in, in the place of one of its name.
    ///
    /// IPv4-mapped IPv6 addresses become IPv4. Where another has its uid or one of its addresses already, that one is
    /// found by it. A workload on the host's network is not found by address, which is its node's.
    pub fn put_workload(&mut self, mut workload: Arc<Workload>) {
        if !workload.addresses.iter().all(|address| address.to_canonical() == *address) {
            Arc::make_mut(&mut workload).addresses.iter_mut().for_each(|address| *address = address.to_canonical());
        }
        self.remove_workload(&workload.namespace, &workload.name);
        if self.by_uid.get(&workload.uid).is_none() {
            self.by_uid.replace(ByUid(Arc::clone(&workload)));
        }
        let shown = if workload.is_on_host_network() { 0 } else { workload.addresses.len() };
        for address in ByAddress::all(&workload).take(shown) {
            if self.by_address.get(address.address()).is_none() {
                self.by_address.replace(address);
            }
        }
        self.by_node.change(&workload.node, |on| {
            let mut on = on.unwrap_or_else(|| OnNode::new(&workload.node));
            on.workloads.insert(Arc::clone(&workload));
            Some(on)
        });
        self.workloads.insert(workload);
    }

    /// Takes the workload of that name out.
    pub fn remove_workload(&mut self, namespace: &str, name: &str) -> Option<Arc<Workload>> {
        let workload = self.workloads.remove((namespace, name))?;
        if self.workload_by_uid(&workload.uid).is_some_and(|known| Arc::ptr_eq(known, &workload)) {
            self.by_uid.remove(&workload.uid);
        }
        for address in &workload.addresses {
            if self.workload_by_address(*address).is_some_and(|known| Arc::ptr_eq(known, &workload)) {
                self.by_address.remove(address);
            }
        }
        self.by_node.change(&workload.node, |on| {
            let mut on = on?;
            on.workloads.remove((namespace, name));
            (on.workloads.iter().len() > 0).then_some(on)
        });
        Some(workload)
    }

    /// Puts a service in, in the place of one of its name.
    ///
    /// IPv4-mapped IPv6 addresses become IPv4, and a port's endpoints are ordered IPv4 before IPv6. Where another service
    /// has one of its addresses already, that one is found by it.
    pub fn put_service(&mut self, mut service: Arc<Service>) {
        if !has_ordered_endpoints(&service) {
            order_endpoints(Arc::make_mut(&mut service));
        }
        self.remove_service(&service.namespace, &service.name);
        for vip in ByVip::all(&service) {
            if self.by_vip.get(vip.address()).is_none() {
                self.by_vip.replace(vip);
            }
        }
        if service.entry.is_some() && self.by_host.get(&*service.hostname).is_none() {
            self.by_host.replace(ByHost(Arc::clone(&service)));
        }
        for (address, port) in headless_ports(&service) {
            self.headless.change(&address, |known| {
                let mut known = known.unwrap_or_else(|| HeadlessEndpoints::new(address));
                known.add(port);
                Some(known)
            });
        }
        self.services.insert(service);
    }

    /// Takes the service of that name out.
    pub fn remove_service(&mut self, namespace: &str, name: &str) -> Option<Arc<Service>> {
        let service = self.services.remove((namespace, name))?;
        for vip in &service.vips {
            if self.service_by_vip(*vip).is_some_and(|known| Arc::ptr_eq(known, &service)) {
                self.by_vip.remove(vip);
            }
        }
        if self.by_host.get(&*service.hostname).is_some_and(|known| Arc::ptr_eq(&known.0, &service)) {
            self.by_host.remove(&*service.hostname);
        }
        for (address, _) in headless_ports(&service) {
            self.headless.change(&address, |known| {
                let mut known = known?;
                known.remove_service(&service);
                (!known.ports.is_empty()).then_some(known)
            });
        }
        Some(service)
    }
}

impl Named for Workload {
    fn key(&self) -> (&str, &str) {
        (&self.namespace, &self.name)
    }
}

impl Named for Service {
    fn key(&self) -> (&str, &str) {
        (&self.namespace, &self.name)
    }
}

/// The endpoints by which a headless Service is found.
fn headless_ports(service: &Arc<Service>) -> impl Iterator<Item = (IpAddr, HeadlessPort)> {
    let ports = service.ports.iter().filter(|port| service.is_headless() && port.protocol == Protocol::Tcp);
    ports.flat_map(|port| {
        port.endpoints.iter().map(|endpoint| {
            let address = endpoint.address;
            let service = Arc::clone(service);
            (address.ip(), HeadlessPort { endpoint: address.port(), service, port: port.port })
        })
    })
}

fn has_ordered_endpoints(service: &Service) -> bool {
    service.vips.iter().all(|vip| vip.to_canonical() == *vip)
        && service.ports.iter().all(|port| {
            port.endpoints.iter().all(|endpoint| canonical(endpoint.address) == endpoint.address)
                && port.endpoints.is_sorted_by_key(|endpoint| endpoint.address.is_ipv6())
        })
}

fn order_endpoints(service: &mut Service) {
    service.vips.iter_mut().for_each(|vip| *vip = vip.to_canonical());
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
