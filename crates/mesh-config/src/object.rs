//! Typed objects, each with where it stands.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Namespace;
use serde::Deserialize;

use crate::credential::{CaBundle, Secret};
use crate::finding::{ObjectName, Origin};
use crate::gateway_api::{BackendTlsPolicy, ConnectionRoute, Gateway, ListenerSet, ReferenceGrant, Route};
use crate::istio::{
    AuthorizationPolicy, DestinationRule, IstioGateway, LimitSource, MeshConfig, PeerAuthentication,
    RequestAuthentication, ServiceEntry, Telemetry, VirtualService, WorkloadEntry,
};
use crate::kind::Kind;
use crate::kubernetes::{EndpointSlice, Node, Pod, Service};
use crate::served::Source;
use crate::texts;

/// An object and where it stands.
#[derive(Debug, PartialEq)]
pub struct Located<T> {
    /// Where. Of numerous kinds it is the place alone, which all objects share that stand there: their key names them.
    pub origin: Arc<Origin>,
    /// What.
    pub object: Arc<T>,
    /// Whether it stays in force although its file no longer says it.
    pub(crate) kept: bool,
    source: Option<Arc<Source>>,
}

impl<T> Clone for Located<T> {
    fn clone(&self) -> Self {
        Self {
            origin: Arc::clone(&self.origin),
            object: Arc::clone(&self.object),
            kept: self.kept,
            source: self.source.clone(),
        }
    }
}

impl<T> Located<T> {
    /// Where the object stands, which is of a numerous kind and has that key.
    pub(crate) fn origin_of(&self, kind: Kind, key: &Key) -> Origin {
        let id = ObjectId { kind, key: key.clone() };
        Origin { object: Some(id.name()), ..(*self.origin).clone() }
    }
}

/// The namespace and name of an object.
pub type Key = (Arc<str>, Arc<str>);

/// What names an object among all that are translated.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ObjectId {
    pub(crate) kind: Kind,
    /// The namespace is empty for kinds of the whole cluster.
    pub(crate) key: Key,
}

impl ObjectId {
    /// The name by which findings call it.
    pub(crate) fn name(&self) -> ObjectName {
        let ((group, kind), (namespace, name)) = (self.kind.group_and_name(), &self.key);
        ObjectName {
            group: texts::text(group),
            kind: texts::text(kind),
            namespace: self.kind.is_namespaced().then(|| Arc::clone(namespace)),
            name: Arc::clone(name),
        }
    }
}

/// An object that says something by being there alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Presence {}

/// All objects that are translated, by namespace and name, each name once.
#[derive(Debug, Clone, Default)]
pub struct ObjectSet {
    /// Namespaces, by name.
    pub namespaces: BTreeMap<Arc<str>, Located<Namespace>>,
    /// Nodes, by name.
    pub nodes: BTreeMap<Arc<str>, Located<Node>>,
    /// Service accounts.
    pub service_accounts: BTreeMap<Key, Located<Presence>>,
    /// Pods.
    pub pods: BTreeMap<Key, Located<Pod>>,
    /// Services.
    pub services: BTreeMap<Key, Located<Service>>,
    /// EndpointSlices.
    pub endpoint_slices: BTreeMap<Key, Located<EndpointSlice>>,
    /// AuthorizationPolicies.
    pub authorization_policies: BTreeMap<Key, Located<AuthorizationPolicy>>,
    /// PeerAuthentications.
    pub peer_authentications: BTreeMap<Key, Located<PeerAuthentication>>,
    /// RequestAuthentications.
    pub request_authentications: BTreeMap<Key, Located<RequestAuthentication>>,
    /// DestinationRules.
    pub destination_rules: BTreeMap<Key, Located<DestinationRule>>,
    /// Gateways of the Gateway API.
    pub gateways: BTreeMap<Key, Located<Gateway>>,
    /// ListenerSets.
    pub listener_sets: BTreeMap<Key, Located<ListenerSet>>,
    /// VirtualServices.
    pub virtual_services: BTreeMap<Key, Located<VirtualService>>,
    /// HTTPRoutes.
    pub http_routes: BTreeMap<Key, Located<Route>>,
    /// GRPCRoutes.
    pub grpc_routes: BTreeMap<Key, Located<Route>>,
    /// ReferenceGrants.
    pub reference_grants: BTreeMap<Key, Located<ReferenceGrant>>,
    /// BackendTLSPolicies.
    pub backend_tls_policies: BTreeMap<Key, Located<BackendTlsPolicy>>,
    /// Gateways of Istio's.
    pub istio_gateways: BTreeMap<Key, Located<IstioGateway>>,
    /// TLSRoutes.
    pub tls_routes: BTreeMap<Key, Located<ConnectionRoute>>,
    /// TCPRoutes.
    pub tcp_routes: BTreeMap<Key, Located<ConnectionRoute>>,
    /// ServiceEntries.
    pub service_entries: BTreeMap<Key, Located<ServiceEntry>>,
    /// WorkloadEntries.
    pub workload_entries: BTreeMap<Key, Located<WorkloadEntry>>,
    /// Secrets.
    pub secrets: BTreeMap<Key, Located<Secret>>,
    /// ConfigMaps with certificates of authorities.
    pub ca_bundles: BTreeMap<Key, Located<CaBundle>>,
    /// Telemetries.
    pub telemetries: BTreeMap<Key, Located<Telemetry>>,
    /// RateLimitPolicies.
    pub rate_limit_policies: BTreeMap<Key, Located<LimitSource>>,
    /// EnvoyFilters.
    pub envoy_filters: BTreeMap<Key, Located<LimitSource>>,
    /// The ConfigMap with the mesh configuration, where there is one.
    pub mesh_configs: BTreeMap<Key, Located<MeshConfig>>,
}

/// A typed object of one document or list item.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Object {
    Namespace(Arc<Namespace>),
    Node(Arc<Node>),
    ServiceAccount(Arc<Presence>),
    Pod(Arc<Pod>),
    Service(Arc<Service>),
    EndpointSlice(Arc<EndpointSlice>),
    AuthorizationPolicy(Arc<AuthorizationPolicy>),
    PeerAuthentication(Arc<PeerAuthentication>),
    RequestAuthentication(Arc<RequestAuthentication>),
    DestinationRule(Arc<DestinationRule>),
    Gateway(Arc<Gateway>),
    ListenerSet(Arc<ListenerSet>),
    VirtualService(Arc<VirtualService>),
    HttpRoute(Arc<Route>),
    GrpcRoute(Arc<Route>),
    ReferenceGrant(Arc<ReferenceGrant>),
    BackendTlsPolicy(Arc<BackendTlsPolicy>),
    IstioGateway(Arc<IstioGateway>),
    TlsRoute(Arc<ConnectionRoute>),
    TcpRoute(Arc<ConnectionRoute>),
    ServiceEntry(Arc<ServiceEntry>),
    WorkloadEntry(Arc<WorkloadEntry>),
    Secret(Arc<Secret>),
    CaBundle(Arc<CaBundle>),
    MeshConfig(Arc<MeshConfig>),
    Telemetry(Arc<Telemetry>),
    RateLimitPolicy(Arc<LimitSource>),
    EnvoyFilter(Arc<LimitSource>),
}

/// A typed object and its place.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) id: ObjectId,
    /// As [`Located`] has it.
    pub(crate) origin: Arc<Origin>,
    pub(crate) object: Object,
    /// Whether it stays in force although its file no longer says it.
    pub(crate) kept: bool,
    /// What it does, if it is there in the place of a broken object of which no good version is known.
    pub(crate) stands_in: Option<Box<str>>,
    /// What others are told of it, if they are.
    pub(crate) source: Option<Arc<Source>>,
}

impl Entry {
    /// Its name as findings say it.
    pub(crate) fn name(&self) -> ObjectName {
        self.origin.object.clone().unwrap_or_else(|| self.id.name())
    }

    /// Where it stands, with its name.
    pub(crate) fn named_origin(&self) -> Origin {
        Origin { object: Some(self.name()), ..(*self.origin).clone() }
    }
}

impl ObjectSet {
    /// Puts an object in force. Gives what was in its place.
    pub(crate) fn put(&mut self, entry: Entry) -> Option<Entry> {
        let Entry { id, origin, object, kept, stands_in: _, source } = entry;
        let (key, at) = (id.key.clone(), (origin, kept, source));
        match object {
            Object::Namespace(it) => swap(&mut self.namespaces, id, key.1, Some((at, it)), Object::Namespace),
            Object::Node(it) => swap(&mut self.nodes, id, key.1, Some((at, it)), Object::Node),
            Object::ServiceAccount(it) => {
                swap(&mut self.service_accounts, id, key, Some((at, it)), Object::ServiceAccount)
            }
            Object::Pod(it) => swap(&mut self.pods, id, key, Some((at, it)), Object::Pod),
            Object::Service(it) => swap(&mut self.services, id, key, Some((at, it)), Object::Service),
            Object::EndpointSlice(it) => {
                swap(&mut self.endpoint_slices, id, key, Some((at, it)), Object::EndpointSlice)
            }
            Object::AuthorizationPolicy(it) => {
                swap(&mut self.authorization_policies, id, key, Some((at, it)), Object::AuthorizationPolicy)
            }
            Object::PeerAuthentication(it) => {
                swap(&mut self.peer_authentications, id, key, Some((at, it)), Object::PeerAuthentication)
            }
            Object::RequestAuthentication(it) => {
                swap(&mut self.request_authentications, id, key, Some((at, it)), Object::RequestAuthentication)
            }
            Object::DestinationRule(it) => {
                swap(&mut self.destination_rules, id, key, Some((at, it)), Object::DestinationRule)
            }
            Object::Gateway(it) => swap(&mut self.gateways, id, key, Some((at, it)), Object::Gateway),
            Object::ListenerSet(it) => swap(&mut self.listener_sets, id, key, Some((at, it)), Object::ListenerSet),
            Object::VirtualService(it) => {
                swap(&mut self.virtual_services, id, key, Some((at, it)), Object::VirtualService)
            }
            Object::HttpRoute(it) => swap(&mut self.http_routes, id, key, Some((at, it)), Object::HttpRoute),
            Object::GrpcRoute(it) => swap(&mut self.grpc_routes, id, key, Some((at, it)), Object::GrpcRoute),
            Object::ReferenceGrant(it) => {
                swap(&mut self.reference_grants, id, key, Some((at, it)), Object::ReferenceGrant)
            }
            Object::BackendTlsPolicy(it) => {
                swap(&mut self.backend_tls_policies, id, key, Some((at, it)), Object::BackendTlsPolicy)
            }
            Object::IstioGateway(it) => swap(&mut self.istio_gateways, id, key, Some((at, it)), Object::IstioGateway),
            Object::TlsRoute(it) => swap(&mut self.tls_routes, id, key, Some((at, it)), Object::TlsRoute),
            Object::TcpRoute(it) => swap(&mut self.tcp_routes, id, key, Some((at, it)), Object::TcpRoute),
            Object::ServiceEntry(it) => swap(&mut self.service_entries, id, key, Some((at, it)), Object::ServiceEntry),
            Object::WorkloadEntry(it) => {
                swap(&mut self.workload_entries, id, key, Some((at, it)), Object::WorkloadEntry)
            }
            Object::Secret(it) => swap(&mut self.secrets, id, key, Some((at, it)), Object::Secret),
            Object::CaBundle(it) => swap(&mut self.ca_bundles, id, key, Some((at, it)), Object::CaBundle),
            Object::Telemetry(it) => swap(&mut self.telemetries, id, key, Some((at, it)), Object::Telemetry),
            Object::RateLimitPolicy(it) => {
                swap(&mut self.rate_limit_policies, id, key, Some((at, it)), Object::RateLimitPolicy)
            }
            Object::EnvoyFilter(it) => swap(&mut self.envoy_filters, id, key, Some((at, it)), Object::EnvoyFilter),
            Object::MeshConfig(it) => swap(&mut self.mesh_configs, id, key, Some((at, it)), Object::MeshConfig),
        }
    }

    /// The object in force of a numerous kind.
    pub(crate) fn numerous(&self, id: &ObjectId) -> Option<Entry> {
        let ObjectId { kind, key } = id;
        match kind {
            Kind::ServiceAccount => entry(id, self.service_accounts.get(key)?, Object::ServiceAccount),
            Kind::Pod => entry(id, self.pods.get(key)?, Object::Pod),
            Kind::Service => entry(id, self.services.get(key)?, Object::Service),
            Kind::EndpointSlice => entry(id, self.endpoint_slices.get(key)?, Object::EndpointSlice),
            _ => None,
        }
    }

    /// The keys of a numerous kind's objects that stand there.
    pub(crate) fn numerous_at(&self, kind: Kind, origin: &Arc<Origin>) -> Vec<Key> {
        match kind {
            Kind::ServiceAccount => keys_at(&self.service_accounts, origin),
            Kind::Pod => keys_at(&self.pods, origin),
            Kind::Service => keys_at(&self.services, origin),
            Kind::EndpointSlice => keys_at(&self.endpoint_slices, origin),
            _ => Vec::new(),
        }
    }

    /// Gives numerous kinds no more room than they take: maps that were filled in order are half empty.
    pub(crate) fn pack(&mut self) {
        pack(&mut self.service_accounts);
        pack(&mut self.pods);
        pack(&mut self.services);
        pack(&mut self.endpoint_slices);
    }

    /// Takes an object out of force.
    pub(crate) fn take(&mut self, id: &ObjectId) -> Option<Entry> {
        let (id, key) = (id.clone(), id.key.clone());
        match id.kind {
            Kind::Namespace => swap(&mut self.namespaces, id, key.1, None, Object::Namespace),
            Kind::Node => swap(&mut self.nodes, id, key.1, None, Object::Node),
            Kind::ServiceAccount => swap(&mut self.service_accounts, id, key, None, Object::ServiceAccount),
            Kind::Pod => swap(&mut self.pods, id, key, None, Object::Pod),
            Kind::Service => swap(&mut self.services, id, key, None, Object::Service),
            Kind::EndpointSlice => swap(&mut self.endpoint_slices, id, key, None, Object::EndpointSlice),
            Kind::AuthorizationPolicy => {
                swap(&mut self.authorization_policies, id, key, None, Object::AuthorizationPolicy)
            }
            Kind::PeerAuthentication => swap(&mut self.peer_authentications, id, key, None, Object::PeerAuthentication),
            Kind::RequestAuthentication => {
                swap(&mut self.request_authentications, id, key, None, Object::RequestAuthentication)
            }
            Kind::DestinationRule => swap(&mut self.destination_rules, id, key, None, Object::DestinationRule),
            Kind::Gateway => swap(&mut self.gateways, id, key, None, Object::Gateway),
            Kind::ListenerSet => swap(&mut self.listener_sets, id, key, None, Object::ListenerSet),
            Kind::VirtualService => swap(&mut self.virtual_services, id, key, None, Object::VirtualService),
            Kind::HttpRoute => swap(&mut self.http_routes, id, key, None, Object::HttpRoute),
            Kind::GrpcRoute => swap(&mut self.grpc_routes, id, key, None, Object::GrpcRoute),
            Kind::ReferenceGrant => swap(&mut self.reference_grants, id, key, None, Object::ReferenceGrant),
            Kind::BackendTlsPolicy => swap(&mut self.backend_tls_policies, id, key, None, Object::BackendTlsPolicy),
            Kind::IstioGateway => swap(&mut self.istio_gateways, id, key, None, Object::IstioGateway),
            Kind::TlsRoute => swap(&mut self.tls_routes, id, key, None, Object::TlsRoute),
            Kind::TcpRoute => swap(&mut self.tcp_routes, id, key, None, Object::TcpRoute),
            Kind::ServiceEntry => swap(&mut self.service_entries, id, key, None, Object::ServiceEntry),
            Kind::WorkloadEntry => swap(&mut self.workload_entries, id, key, None, Object::WorkloadEntry),
            Kind::Secret => swap(&mut self.secrets, id, key, None, Object::Secret),
            Kind::CaBundle => swap(&mut self.ca_bundles, id, key, None, Object::CaBundle),
            Kind::Telemetry => swap(&mut self.telemetries, id, key, None, Object::Telemetry),
            Kind::RateLimitPolicy => swap(&mut self.rate_limit_policies, id, key, None, Object::RateLimitPolicy),
            Kind::EnvoyFilter => swap(&mut self.envoy_filters, id, key, None, Object::EnvoyFilter),
            Kind::MeshConfig => swap(&mut self.mesh_configs, id, key, None, Object::MeshConfig),
        }
    }
}

/// An object with its place, whether it is kept, and what others are told of it.
type Placed<T> = ((Arc<Origin>, bool, Option<Arc<Source>>), Arc<T>);

/// Puts what is given in the place of what is there, or takes that out.
fn swap<K: Ord, T>(
    map: &mut BTreeMap<K, Located<T>>,
    id: ObjectId,
    key: K,
    given: Option<Placed<T>>,
    object: fn(Arc<T>) -> Object,
) -> Option<Entry> {
    let old = match given {
        Some(((origin, kept, source), object)) => map.insert(key, Located { origin, object, kept, source }),
        None => map.remove(&key),
    };
    old.map(|old| {
        let Located { origin, object: read, kept, source } = old;
        Entry { id, origin, object: object(read), kept, stands_in: None, source }
    })
}

/// A map that is made of what is in order has full nodes.
fn pack<K: Ord, V>(map: &mut BTreeMap<K, V>) {
    *map = std::mem::take(map).into_iter().collect();
}

fn entry<T>(id: &ObjectId, located: &Located<T>, object: fn(Arc<T>) -> Object) -> Option<Entry> {
    let Located { origin, object: read, kept, source } = located.clone();
    Some(Entry { id: id.clone(), origin, object: object(read), kept, stands_in: None, source })
}

fn keys_at<T>(map: &BTreeMap<Key, Located<T>>, origin: &Arc<Origin>) -> Vec<Key> {
    map.iter().filter(|(_, located)| Arc::ptr_eq(&located.origin, origin)).map(|(key, _)| key.clone()).collect()
}

/// File and line.
pub(crate) fn place(origin: &Origin) -> String {
    let file = origin.file.display();
    match origin.line {
        Some(line) => format!("{file}:{line}"),
        None => file.to_string(),
    }
}

impl Entry {
    /// What is in force in the place of the broken object at `origin`.
    pub(crate) fn in_place_of(name: &ObjectName, origin: &Origin, object: Object, effect: String) -> Self {
        let origin = Origin { object: Some(name.clone()), ..origin.clone() };
        let id = name.id(object.kind());
        Self { id, origin: Arc::new(origin), object, kept: true, stands_in: Some(effect.into()), source: None }
    }

    /// The same, with what others are told.
    pub(crate) fn told_as(self, object: Option<Arc<str>>) -> Self {
        Self { source: object.map(|object| Source { object, refused: None }.into()), ..self }
    }
}

impl Object {
    const fn kind(&self) -> Kind {
        match self {
            Self::Namespace(_) => Kind::Namespace,
            Self::Node(_) => Kind::Node,
            Self::ServiceAccount(_) => Kind::ServiceAccount,
            Self::Pod(_) => Kind::Pod,
            Self::Service(_) => Kind::Service,
            Self::EndpointSlice(_) => Kind::EndpointSlice,
            Self::AuthorizationPolicy(_) => Kind::AuthorizationPolicy,
            Self::PeerAuthentication(_) => Kind::PeerAuthentication,
            Self::RequestAuthentication(_) => Kind::RequestAuthentication,
            Self::DestinationRule(_) => Kind::DestinationRule,
            Self::Gateway(_) => Kind::Gateway,
            Self::ListenerSet(_) => Kind::ListenerSet,
            Self::VirtualService(_) => Kind::VirtualService,
            Self::HttpRoute(_) => Kind::HttpRoute,
            Self::GrpcRoute(_) => Kind::GrpcRoute,
            Self::ReferenceGrant(_) => Kind::ReferenceGrant,
            Self::BackendTlsPolicy(_) => Kind::BackendTlsPolicy,
            Self::IstioGateway(_) => Kind::IstioGateway,
            Self::TlsRoute(_) => Kind::TlsRoute,
            Self::TcpRoute(_) => Kind::TcpRoute,
            Self::ServiceEntry(_) => Kind::ServiceEntry,
            Self::WorkloadEntry(_) => Kind::WorkloadEntry,
            Self::Secret(_) => Kind::Secret,
            Self::CaBundle(_) => Kind::CaBundle,
            Self::MeshConfig(_) => Kind::MeshConfig,
            Self::Telemetry(_) => Kind::Telemetry,
            Self::RateLimitPolicy(_) => Kind::RateLimitPolicy,
            Self::EnvoyFilter(_) => Kind::EnvoyFilter,
        }
    }
}
