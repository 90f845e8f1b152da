//! Objects to the model, and only those again that a change concerns. Pure, and never fails as a whole: what cannot be used is
//! left out, with a finding.

mod attached_routes;
mod authorizers;
mod backend_tls;
mod changes;
mod claims;
mod conflicts;
mod definitions;
mod delegates;
mod destination_rules;
mod endpoints;
mod entries;
mod finding_set;
mod gateways;
mod given;
mod groups;
mod guards;
mod mesh_config;
mod missing;
mod origin_secrets;
mod placement;
mod pods;
mod policies;
mod rate_limits;
mod selected;
mod services;
mod shadows;
mod slices;
mod targets;
mod telemetries;
#[cfg(test)]
mod tests;
mod virtual_services;
mod waypoints;

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use mesh_core::labels::{self, USE_WAYPOINT, Wish};
use mesh_core::ordered::Ordered;
use mesh_core::{Protocol, Snapshot, SpiffeId, WorkloadUid};

use crate::config::{Config, NamedObjects, Options};
use crate::finding::{Finding, Origin};
use crate::kind::Kind;
use crate::kubernetes::Pod;
use crate::last_good::Contents;
use crate::object::{Entry, Key, Located, Object, ObjectId, ObjectSet};
use crate::served::Served;
use crate::status::Statuses;
use attached_routes::KnownRoutes;
use changes::Before;
pub use changes::{Change, Changes};
use claims::Claims;
use definitions::{Definitions, Step};
use finding_set::{FindingSet, Owner};
use missing::Missing;
use slices::Slices;

/// The objects in force and what they mean. The same objects give the same snapshot and findings, in whatever steps they came.
#[derive(Debug, Default)]
pub(crate) struct Translator {
    options: Options,
    definitions: Definitions,
    snapshot: Snapshot,
    findings: FindingSet,
    uids: Claims<WorkloadUid>,
    addresses: Claims<IpAddr>,
    vips: Claims<IpAddr>,
    missing: Missing,
    slices: Slices,
    identities: HashMap<Key, SpiffeId>,
    /// The hosts of ServiceEntries that are in the snapshot, as Services.
    entries: BTreeSet<Key>,
    dirty: Dirty,
    /// How many Pods and Services name a waypoint.
    asking: usize,
    /// Pods that say what stands before them.
    topologies: BTreeSet<Key>,
    before: Before,
    known_routes: KnownRoutes,
    statuses: Arc<Statuses>,
    named: Arc<NamedObjects>,
    served: Ordered<Served>,
    current: Option<Arc<Config>>,
}

/// What has to be looked at again.
#[derive(Debug, Default)]
struct Dirty {
    pods: BTreeSet<Key>,
    /// Services, also those that only slices name.
    services: BTreeSet<Key>,
    /// What namespaces ask for their pods.
    namespaces: bool,
    policies: bool,
    /// All of the application layer.
    l7: bool,
    /// Of the application layer nothing but routes of requests of the Gateway API.
    routes: bool,
    providers: bool,
    /// Hosts of ServiceEntries.
    entries: bool,
    telemetries: bool,
    rate_limits: bool,
    served: bool,
}

impl Translator {
    pub(crate) fn new(options: Options) -> Self {
        let dirty = Dirty { policies: true, l7: true, ..Dirty::default() };
        Self { options, dirty, ..Self::default() }
    }

    /// The objects in force.
    #[cfg(test)]
    pub(crate) const fn objects(&self) -> &ObjectSet {
        &self.definitions.objects
    }

    /// What a source says that stands there of an object of a numerous kind, where nothing is wrong with it.
    pub(crate) fn numerous_at(&self, id: &ObjectId, origin: &Arc<Origin>) -> Option<Entry> {
        self.definitions.numerous_at(id, origin)
    }

    /// The objects of a numerous kind that a source speaks of that stands there.
    pub(crate) fn all_numerous_at(&self, kind: Kind, origin: &Arc<Origin>) -> Vec<ObjectId> {
        self.definitions.all_numerous_at(kind, origin)
    }

    /// What is in force.
    pub(crate) fn current(&self) -> Option<Arc<Config>> {
        self.current.clone()
    }

    /// What is wrong with the directories.
    pub(crate) fn set_tree_findings(&mut self, findings: Vec<Finding>) {
        self.findings.set(Owner::Tree, findings);
    }

    /// A source says something else: a file, or an object of a cluster. `source` names it, where something is wrong with it.
    pub(crate) fn update(&mut self, source: impl FnOnce() -> PathBuf, old: &Contents, new: &Contents) {
        if !old.findings.is_empty() || !new.findings.is_empty() {
            self.findings.set(Owner::Source(source()), new.findings.clone());
        }
        let mut gone: HashMap<_, &Entry> = old.entries.iter().map(|entry| (place(entry), entry)).collect();
        let mut come = Vec::new();
        for entry in &new.entries {
            match gone.get(&place(entry)) {
                Some(same) if *same == entry => {
                    gone.remove(&place(entry));
                }
                _ => come.push(entry),
            }
        }
        for entry in gone.into_values() {
            let step = self.definitions.remove(entry, &mut self.findings);
            self.take(&step);
        }
        for entry in come {
            let step = self.definitions.add(entry, &mut self.findings);
            self.take(&step);
        }
    }

    /// Notes whom a step concerns.
    fn take(&mut self, step: &Step) {
        let (before, now) = (step.before.as_ref(), step.now.as_ref());
        let Some(entry) = now.or(before) else { return };
        if self.options.served {
            self.serve(entry, now);
        }
        let key = &entry.id.key;
        let came_or_went = before.is_some() != now.is_some();
        match entry.id.kind {
            Kind::Pod => {
                self.dirty.pods.insert(key.clone());
                self.count_asking(before, now);
                self.take_topology(key, before, now);
            }
            Kind::Service => {
                self.dirty.services.insert(key.clone());
                self.count_asking(before, now);
                self.dirty.l7 = true;
            }
            Kind::EndpointSlice => self.take_slice(key, before, now),
            Kind::Namespace => self.take_namespace(&key.1),
            Kind::Node if before.map(|entry| &entry.object) != now.map(|entry| &entry.object) => self.take_node(&key.1),
            Kind::ServiceAccount if came_or_went => self.take_account(key),
            Kind::Node | Kind::ServiceAccount => {}
            Kind::AuthorizationPolicy
            | Kind::PeerAuthentication
            | Kind::RequestAuthentication
            | Kind::DestinationRule => self.dirty.policies = true,
            Kind::ServiceEntry | Kind::WorkloadEntry => {
                self.dirty.entries = true;
                self.dirty.l7 = true;
            }
            Kind::Telemetry => self.take_telemetry(before, now),
            Kind::RateLimitPolicy | Kind::EnvoyFilter => {
                self.dirty.rate_limits = true;
                self.dirty.l7 = true;
            }
            Kind::MeshConfig => {
                self.dirty.providers = true;
                self.dirty.policies = true;
                self.dirty.telemetries = true;
                self.dirty.l7 = true;
            }
            Kind::HttpRoute | Kind::GrpcRoute => self.dirty.routes = true,
            Kind::Gateway
            | Kind::ListenerSet
            | Kind::IstioGateway
            | Kind::VirtualService
            | Kind::TlsRoute
            | Kind::TcpRoute
            | Kind::ReferenceGrant
            | Kind::BackendTlsPolicy
            | Kind::Secret
            | Kind::CaBundle => self.dirty.l7 = true,
        }
    }

    /// What a Telemetry is attached to is looked at with all of the application layer.
    fn take_telemetry(&mut self, before: Option<&Entry>, now: Option<&Entry>) {
        self.dirty.telemetries = true;
        self.dirty.l7 |= [before, now].into_iter().flatten().any(is_attached_telemetry);
    }

    fn count_asking(&mut self, before: Option<&Entry>, now: Option<&Entry>) {
        self.asking += usize::from(now.is_some_and(asks_for_waypoint));
        self.asking -= usize::from(before.is_some_and(asks_for_waypoint));
    }

    /// What stands before a gateway is nothing that a workload has.
    fn take_topology(&mut self, key: &Key, before: Option<&Entry>, now: Option<&Entry>) {
        let says = now.is_some_and(says_topology);
        self.dirty.l7 |= says || before.is_some_and(says_topology);
        if says {
            self.topologies.insert(key.clone());
        } else {
            self.topologies.remove(key);
        }
    }

    /// Has others told of what is in force now of an object.
    fn serve(&mut self, entry: &Entry, now: Option<&Entry>) {
        let name = entry.name();
        self.dirty.served = true;
        match now.and_then(|now| now.source.clone()) {
            Some(source) => self.served.insert(Arc::new(Served::new(&name, source))),
            None => drop(self.served.remove(("", &name.path()))),
        }
    }

    fn take_slice(&mut self, key: &Key, before: Option<&Entry>, now: Option<&Entry>) {
        if let Some(Object::EndpointSlice(slice)) = before.map(|entry| &entry.object) {
            self.slices.remove(key, slice);
            self.dirty.services.insert((Arc::clone(&key.0), Arc::clone(&slice.service)));
        }
        if let Some(Object::EndpointSlice(slice)) = now.map(|entry| &entry.object) {
            self.slices.add(key, slice);
            self.dirty.services.insert((Arc::clone(&key.0), Arc::clone(&slice.service)));
        }
    }

    fn take_namespace(&mut self, name: &Arc<str>) {
        self.dirty.l7 = true;
        let objects = &self.definitions.objects;
        let mut findings = Vec::new();
        if let Some(namespace) = objects.namespaces.get(name)
            && let Some(labels) = &namespace.object.metadata.labels
        {
            pods::check_labels(|| (*namespace.origin).clone(), labels, &mut findings);
        }
        self.findings.set(Owner::Namespace(Arc::clone(name)), findings);
        let wish = objects.namespaces.get(name).map(|namespace| {
            let labels = namespace.object.metadata.labels.as_ref();
            labels.map_or(Wish::Silent, labels::wish)
        });
        self.dirty.namespaces |= self.snapshot.set_namespace_wish(name, wish);
        if self.has_settled_pods() {
            self.dirty.pods.extend(pods_in(objects, name).map(|(key, _)| key.clone()));
        }
    }

    /// Whether there are Pods that need not be looked at for their own sake: before the first configuration all are.
    const fn has_settled_pods(&self) -> bool {
        self.current.is_some()
    }

    fn take_node(&mut self, name: &Arc<str>) {
        if !self.has_settled_pods() {
            return;
        }
        let objects = &self.definitions.objects;
        // With the first Node, and without the last, all Pods' nodes are looked at otherwise.
        let all = objects.nodes.len() <= 1;
        let concerned = objects.pods.iter().filter(|(_, pod)| all || pod.object.node == *name);
        self.dirty.pods.extend(concerned.map(|(key, _)| key.clone()));
    }

    fn take_account(&mut self, key: &Key) {
        if !self.has_settled_pods() {
            return;
        }
        let of_namespace = pods_in(&self.definitions.objects, &key.0);
        let concerned = of_namespace.filter(|(_, pod)| pod.object.account == key.1);
        self.dirty.pods.extend(concerned.map(|(key, _)| key.clone()));
    }

    /// What the objects mean now: the same configuration as before if nothing of its meaning changed.
    pub(crate) fn publish(&mut self) -> Arc<Config> {
        let changes = self.settle();
        let findings = self.findings.all();
        let served = std::mem::take(&mut self.dirty.served);
        let generation = match &self.current {
            None => {
                // All that there was to read has been.
                self.definitions.objects.pack();
                self.slices.pack();
                1
            }
            Some(now)
                if changes.is_empty()
                    && !served
                    && now.findings[..] == findings[..]
                    && Arc::ptr_eq(&now.statuses, &self.statuses)
                    && Arc::ptr_eq(&now.named, &self.named) =>
            {
                return Arc::clone(now);
            }
            Some(now) => now.generation + 1,
        };
        let snapshot = Arc::new(self.snapshot.clone());
        let changes = Arc::new(changes);
        let (statuses, named) = (Arc::clone(&self.statuses), Arc::clone(&self.named));
        let served = self.served.clone();
        let config = Arc::new(Config { snapshot, findings, generation, changes, statuses, named, served });
        self.current = Some(Arc::clone(&config));
        config
    }

    fn settle(&mut self) -> Changes {
        let pods = std::mem::take(&mut self.dirty.pods);
        self.settle_pods(pods);
        let mut changes = Changes { workloads: self.before.take_workloads(&self.snapshot), ..Changes::default() };
        for change in &changes.workloads {
            let both = [&change.before, &change.now].into_iter().flatten();
            for address in both.flat_map(|workload| &workload.addresses) {
                self.dirty.services.extend(self.slices.services_at(*address).cloned());
            }
        }
        let services = std::mem::take(&mut self.dirty.services);
        let touched = !services.is_empty() || !changes.workloads.is_empty();
        self.settle_services(services);
        let any_entries = !self.definitions.objects.service_entries.is_empty();
        if std::mem::take(&mut self.dirty.entries) || any_entries && touched {
            self.settle_entries();
        }
        changes.services = self.before.take_services(&self.snapshot);
        changes.namespaces = std::mem::take(&mut self.dirty.namespaces);
        self.settle_groups(&mut changes);
        changes
    }
}

/// Whether it is a Telemetry for what it names.
fn is_attached_telemetry(entry: &Entry) -> bool {
    matches!(&entry.object, Object::Telemetry(telemetry) if telemetry.is_attached())
}

/// Whether it is a Pod that says what stands before it.
fn says_topology(entry: &Entry) -> bool {
    matches!(&entry.object, Object::Pod(pod) if pod.proxy_config.is_some())
}

/// Whether it is a Pod or a Service that names a waypoint, or none.
fn asks_for_waypoint(entry: &Entry) -> bool {
    let labels = match &entry.object {
        Object::Pod(pod) => &pod.labels,
        Object::Service(service) => &service.labels,
        _ => return false,
    };
    labels.get(USE_WAYPOINT).is_some()
}

/// What tells an entry from others of its source.
fn place(entry: &Entry) -> (Kind, &Key, Option<usize>, Option<usize>) {
    (entry.id.kind, &entry.id.key, entry.origin.document, entry.origin.item)
}

fn pods_in<'a>(
    objects: &'a ObjectSet,
    namespace: &Arc<str>,
) -> impl Iterator<Item = (&'a Key, &'a Located<Pod>)> + use<'a> {
    let from = (Arc::clone(namespace), Arc::from(""));
    let namespace = Arc::clone(namespace);
    objects.pods.range(from..).take_while(move |(key, _)| key.0 == namespace)
}

/// Reads a port number.
pub(crate) fn port_number(number: i32) -> Result<u16, String> {
    match u16::try_from(number) {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(format!("{number} is no port number")),
    }
}

/// Reads a protocol; TCP is the default.
fn protocol(text: Option<&str>) -> Result<Protocol, String> {
    match text {
        None | Some("" | "TCP") => Ok(Protocol::Tcp),
        Some("UDP") => Ok(Protocol::Udp),
        Some("SCTP") => Ok(Protocol::Sctp),
        Some(other) => Err(format!("{other:?} is no protocol")),
    }
}
