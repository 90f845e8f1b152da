//! Hosts of ServiceEntries to Services of the model. They are translated as a whole, after the Services of Kubernetes, which come
//! first wherever both ask for a host or an address.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use mesh_core::{
    Endpoint, Entry, NamedEndpoint, Placement, Resolution, Service, ServicePort, Snapshot, Speaks, Workload,
};

use super::finding_set::Owner;
use super::policies::report;
use super::{Translator, given};
use crate::code::Code;
use crate::config::Options;
use crate::finding::Finding;
use crate::istio::{EndpointAddress, EntryEndpoint, EntryPort, Location, ServiceEntry};
use crate::object::{Key, Located, ObjectSet};

impl Translator {
    /// Looks at all ServiceEntries again.
    pub(super) fn settle_entries(&mut self) {
        let mut translation = Translation {
            objects: &self.definitions.objects,
            snapshot: &self.snapshot,
            options: &self.options,
            workloads: workloads_by_namespace(&self.snapshot, &self.definitions.objects),
            findings: Vec::new(),
            selected: BTreeSet::new(),
            services: BTreeMap::new(),
            vips: HashMap::new(),
        };
        for located in translation.objects.service_entries.values() {
            report(located, &located.object.remarks, &mut translation.findings);
            translation.entry(located);
        }
        given::give(translation.services.values_mut(), &mut translation.vips, translation.snapshot);
        translation.report_not_selected();
        let Translation { services, findings, .. } = translation;
        self.findings.set(Owner::Entries, findings);
        self.replace_entries(services);
    }

    /// Addresses may change hands: all that goes or changes is taken out before anything is put in.
    fn replace_entries(&mut self, services: BTreeMap<Key, Service>) {
        let keys: BTreeSet<Key> = services.keys().cloned().collect();
        let changed: Vec<(Key, Service)> = services
            .into_iter()
            .filter(|(key, service)| self.snapshot.service(&key.0, &key.1).is_none_or(|known| **known != *service))
            .collect();
        let gone = self.entries.difference(&keys).chain(changed.iter().map(|(key, _)| key));
        for key in gone {
            let before = self.snapshot.remove_service(&key.0, &key.1);
            self.before.note_service(key, before);
        }
        for (_, service) in changed {
            self.snapshot.put_service(Arc::new(service));
        }
        self.entries = keys;
    }
}

/// The workloads that are ready, where any ServiceEntry selects some.
fn workloads_by_namespace<'a>(snapshot: &'a Snapshot, objects: &ObjectSet) -> HashMap<&'a str, Vec<&'a Arc<Workload>>> {
    let mut workloads: HashMap<&str, Vec<_>> = HashMap::new();
    if objects.service_entries.values().any(|located| located.object.selector.is_some()) {
        for workload in snapshot.workloads().filter(|workload| workload.ready) {
            workloads.entry(&*workload.namespace).or_default().push(workload);
        }
    }
    workloads
}

struct Translation<'a> {
    objects: &'a ObjectSet,
    snapshot: &'a Snapshot,
    options: &'a Options,
    workloads: HashMap<&'a str, Vec<&'a Arc<Workload>>>,
    findings: Vec<Finding>,
    /// WorkloadEntries that are somebody's endpoints.
    selected: BTreeSet<&'a Key>,
    services: BTreeMap<Key, Service>,
    /// The names of ServiceEntries by what they have.
    vips: HashMap<IpAddr, String>,
}

/// An endpoint at every port.
enum Found<'a> {
    Listed(&'a EntryEndpoint, Option<Arc<Workload>>),
    Pod(&'a Arc<Workload>),
}

impl Found<'_> {
    /// An address that is known, and whose it is.
    fn address(&self) -> Option<(IpAddr, Option<&Arc<Workload>>)> {
        match self {
            Self::Listed(EntryEndpoint { address: EndpointAddress::Ip(address), .. }, workload) => {
                Some((*address, workload.as_ref()))
            }
            Self::Listed(..) => None,
            Self::Pod(pod) => Some((*pod.addresses.first()?, Some(pod))),
        }
    }

    const fn is_name(&self) -> bool {
        matches!(self, Self::Listed(EntryEndpoint { address: EndpointAddress::Name(_), .. }, _))
    }
}

impl<'a> Translation<'a> {
    fn entry(&mut self, located: &'a Located<ServiceEntry>) {
        let entry = &*located.object;
        let hosts: Vec<&Arc<str>> = (0..)
            .zip(&entry.hosts)
            .filter(|(index, host)| self.is_free(host, *index, located))
            .map(|(_, host)| host)
            .collect();
        if hosts.is_empty() {
            return;
        }
        let vips = self.addresses(located);
        let found = self.endpoints(entry);
        if entry.resolution == Resolution::Static && found.is_empty() {
            let message = "no Pod and no WorkloadEntry is selected";
            self.tell(Code::NoEndpoints, located, "spec.workloadSelector", message.to_owned());
        }
        self.compare_location(located, &found);
        if hosts.len() > 1 && !vips.is_empty() && entry.ports.iter().any(|port| port.speaks == Speaks::Opaque) {
            let message =
                format!("connections to them are taken for {}'s; of requests alone the host is known", hosts[0]);
            self.tell(Code::FieldNotHonoured, located, "spec.addresses", message);
        }
        for (index, host) in hosts.into_iter().enumerate() {
            // An address leads to one host; which of the others a request is for, its own word says.
            let own = if index == 0 { vips.clone() } else { Vec::new() };
            let service = service(entry, host, &found, (own, &vips), &self.options.cluster_domain);
            if let Some(why) = given::why_not(&service) {
                self.tell_not_given(located, host, why, !vips.is_empty());
            }
            self.services.insert((Arc::clone(&service.namespace), Arc::clone(&service.name)), service);
        }
    }

    fn tell_not_given(&mut self, located: &Located<ServiceEntry>, host: &str, why: &str, has_addresses: bool) {
        let resolution = located.object.resolution;
        let message = match has_addresses || resolution == Resolution::Static {
            // Clients have what they ask for by themselves.
            true if resolution == Resolution::None => return,
            true => format!("pods that ask DNS for {host} are not told of it, as {why}"),
            false => format!("nobody can tell connections to {host} from others: it has no address, as {why}"),
        };
        self.tell(Code::NotCaptured, located, "spec.addresses", message);
    }

    /// Whether nobody else has the host.
    fn is_free(&mut self, host: &Arc<str>, index: usize, located: &Located<ServiceEntry>) -> bool {
        let of_cluster = self.snapshot.service_by_hostname(host).filter(|service| service.entry.is_none());
        let mut others = self.services.values().filter(|service| service.hostname == *host);
        let holder = match (of_cluster, others.next().and_then(|service| Some((service, service.entry.as_ref()?)))) {
            (Some(service), _) => format!("Service {}/{}", service.namespace, service.name),
            (None, Some((service, entry))) => format!("ServiceEntry {}/{}", service.namespace, entry.object),
            (None, None) => return true,
        };
        self.tell(Code::HostTaken, located, &format!("spec.hosts[{index}]"), format!("{host} is {holder}'s already"));
        false
    }

    /// The addresses that nobody else has.
    fn addresses(&mut self, located: &Located<ServiceEntry>) -> Vec<IpAddr> {
        let entry = &*located.object;
        let mut free = Vec::with_capacity(entry.addresses.len());
        for address in &entry.addresses {
            let of_cluster = self.snapshot.service_by_vip(*address).filter(|service| service.entry.is_none());
            let holder = match (of_cluster, self.vips.get(address)) {
                (Some(service), _) => format!("Service {}/{}", service.namespace, service.name),
                (None, Some(name)) => format!("ServiceEntry {name}"),
                (None, None) => {
                    self.vips.insert(*address, entry.name.to_string());
                    free.push(*address);
                    continue;
                }
            };
            let message = format!("{address} is {holder}'s already");
            self.tell(Code::SharedServiceAddress, located, "spec.addresses", message);
        }
        free
    }

    fn endpoints(&mut self, entry: &'a ServiceEntry) -> Vec<Found<'a>> {
        let Some(selector) = &entry.selector else {
            return entry.endpoints.iter().map(|endpoint| self.listed(endpoint)).collect();
        };
        let namespace = &entry.name.namespace;
        let mut found = Vec::new();
        for (key, located) in &self.objects.workload_entries {
            if key.0 == *namespace && selector.selects(&located.object.endpoint.traits.labels) {
                self.selected.insert(key);
                found.push(self.listed(&located.object.endpoint));
            }
        }
        let pods = self.workloads.get(&**namespace).into_iter().flatten();
        found.extend(pods.filter(|pod| selector.selects(&pod.labels)).map(|pod| Found::Pod(pod)));
        found
    }

    fn listed(&self, endpoint: &'a EntryEndpoint) -> Found<'a> {
        let workload = match &endpoint.address {
            EndpointAddress::Ip(address) => self.snapshot.workload_by_address(*address).cloned(),
            EndpointAddress::Name(_) => None,
        };
        Found::Listed(endpoint, workload)
    }

    /// Says where endpoints are not what `location` says: in the mesh is what has the address of a Pod that is.
    fn compare_location(&mut self, located: &Located<ServiceEntry>, found: &[Found<'_>]) {
        let entry = &*located.object;
        let Some(location) = entry.location else { return };
        let as_asked = entry.addresses.iter().filter(|_| entry.resolution == Resolution::None);
        let as_asked = as_asked.map(|address| (*address, self.snapshot.workload_by_address(*address)));
        let known = found.iter().filter_map(Found::address).chain(as_asked);
        let is_inside = |at: Option<&Arc<Workload>>| at.is_some_and(|at| at.is_enrolled() || at.has_sidecar());
        let others: Vec<_> = known.filter(|(_, at)| is_inside(*at) != (location == Location::Internal)).collect();
        let by_name = entry.resolution.is_dns() && (found.is_empty() || found.iter().any(Found::is_name));
        let message = match (location, &*others) {
            (Location::Internal, [(address, _), more @ ..]) => {
                let who = match more.len() {
                    0 => format!("{address} is no Pod"),
                    more => format!("{address} and {more} more are no Pods"),
                };
                format!("{who} in the mesh: without a proven identity, and without the mesh's mTLS")
            }
            (Location::Internal, []) if by_name => {
                "an address that DNS gives is in the mesh only where a Pod in the mesh has it".to_owned()
            }
            (Location::External, [(address, Some(pod)), ..]) => {
                let how = match pod.has_sidecar() {
                    true => "has a sidecar of Istio's and is reached by its mutual TLS",
                    false => "is in the mesh and reached so",
                };
                format!("{address} is Pod {}/{}'s, which {how}", pod.namespace, pod.name)
            }
            _ => return,
        };
        self.tell(Code::FieldNotHonoured, located, "spec.location", message);
    }

    fn report_not_selected(&mut self) {
        for (key, located) in &self.objects.workload_entries {
            report(located, &located.object.remarks, &mut self.findings);
            if !self.selected.contains(key) {
                let message = "no ServiceEntry of its namespace selects its labels";
                self.findings.push(Finding::new(Code::NotSelected, (*located.origin).clone(), message));
            }
        }
    }

    fn tell(&mut self, code: Code, located: &Located<ServiceEntry>, field: &str, message: String) {
        self.findings.push(Finding::new(code, (*located.origin).clone(), message).at(field));
    }
}

fn service(
    entry: &ServiceEntry,
    host: &Arc<str>,
    found: &[Found<'_>],
    (vips, of_entry): (Vec<IpAddr>, &[IpAddr]),
    cluster_domain: &str,
) -> Service {
    let mut names = Vec::new();
    let mut ports = Vec::with_capacity(entry.ports.len());
    for port in &entry.ports {
        let mut endpoints: Vec<Endpoint> = found.iter().flat_map(|found| at_port(found, port, &mut names)).collect();
        if entry.resolution.is_dns() && found.is_empty() {
            let at = port.target.unwrap_or(port.number);
            names.push(NamedEndpoint {
                of_port: port.number,
                name: Arc::clone(host),
                port: at,
                traits: Arc::default(),
            });
        }
        if entry.resolution == Resolution::None {
            // Whoever does not know which of them was asked for takes any.
            endpoints.extend(of_entry.iter().map(|vip| Endpoint::new(SocketAddr::new(*vip, port.number), None)));
        }
        endpoints.sort_by_key(|endpoint| endpoint.address);
        endpoints.dedup_by_key(|endpoint| endpoint.address);
        ports.push(ServicePort {
            name: (!port.name.is_empty()).then(|| Arc::clone(&port.name)),
            port: port.number,
            protocol: port.protocol,
            speaks: port.speaks,
            endpoints,
        });
    }
    Service {
        namespace: Arc::clone(&entry.name.namespace),
        name: Arc::clone(host),
        hostname: Arc::clone(host),
        vips,
        ports,
        entry: Some(Arc::new(Entry {
            object: Arc::clone(&entry.name.name),
            resolution: entry.resolution,
            names,
            exported_to: entry.exported_to.clone(),
            subject_alt_names: entry.subject_alt_names.clone(),
            may_be_told: given::may_be_told(host, &entry.name.namespace, cluster_domain),
        })),
        placement: Placement::default(),
    }
}

/// An endpoint at a port; one that DNS has the addresses of goes to `names`.
fn at_port(found: &Found<'_>, port: &EntryPort, names: &mut Vec<NamedEndpoint>) -> Vec<Endpoint> {
    let target = port.target.unwrap_or(port.number);
    match found {
        Found::Pod(pod) => {
            let at = |address: &IpAddr| Endpoint::new(SocketAddr::new(*address, target), Some(Arc::clone(pod)));
            pod.addresses.iter().map(at).collect()
        }
        Found::Listed(endpoint, workload) => {
            let number = endpoint.ports.get(&*port.name).copied().unwrap_or(target);
            let traits = Arc::clone(&endpoint.traits);
            match &endpoint.address {
                EndpointAddress::Ip(address) => {
                    let (address, workload) = (SocketAddr::new(*address, number), workload.clone());
                    vec![Endpoint { address, workload, traits: Some(traits) }]
                }
                EndpointAddress::Name(name) => {
                    let (of_port, name) = (port.number, Arc::clone(name));
                    names.push(NamedEndpoint { of_port, name, port: number, traits });
                    Vec::new()
                }
            }
        }
    }
}
