//! Documents to typed objects, each with where it stands.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Pod as KubePod, Secret as KubeSecret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice as KubeSlice;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::code::Code;
use crate::credential::Secret;
use crate::finding::{Finding, ObjectName, Origin};
use crate::gateway_api::{ConnectionRoute, Gateway, ReferenceGrant, Route, connection_route, grpc_route, http_route};
use crate::istio::{
    AuthorizationPolicy, DestinationRule, Flaw, IstioGateway, LimitSource, MeshConfig, PeerAuthentication,
    RequestAuthentication, ServiceEntry, Telemetry, VirtualService, WorkloadEntry, read_envoy_filter, stand_in,
};
use crate::kind::{Kind, Treatment, treatment};
use crate::kubernetes::{EndpointSlice, Pod, trimmed};
use crate::limits::Limits;
use crate::own::read_rate_limit_policy;
use crate::served::{Source, told, told_whole};
use crate::texts;

/// An object and where it stands.
#[derive(Debug, PartialEq)]
pub struct Located<T> {
    /// Where.
    pub origin: Arc<Origin>,
    /// What.
    pub object: Arc<T>,
    /// Whether it stays in force although its file no longer says it.
    pub(crate) kept: bool,
    source: Option<Arc<Source>>,
}

impl<T> Clone for Located<T> {
    fn clone(&self) -> Self {
        Self { origin: Arc::clone(&self.origin), object: Arc::clone(&self.object), kept: self.kept, source: self.source.clone() }
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

/// An object that says something by being there alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Presence {}

/// All objects that are translated, by namespace and name, each name once.
#[derive(Debug, Clone, Default)]
pub struct ObjectSet {
    /// Namespaces, by name.
    pub namespaces: BTreeMap<Arc<str>, Located<Namespace>>,
    /// Nodes, by name.
    pub nodes: BTreeMap<Arc<str>, Located<Presence>>,
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
    /// VirtualServices.
    pub virtual_services: BTreeMap<Key, Located<VirtualService>>,
    /// HTTPRoutes.
    pub http_routes: BTreeMap<Key, Located<Route>>,
    /// GRPCRoutes.
    pub grpc_routes: BTreeMap<Key, Located<Route>>,
    /// ReferenceGrants.
    pub reference_grants: BTreeMap<Key, Located<ReferenceGrant>>,
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
    Node(Arc<Presence>),
    ServiceAccount(Arc<Presence>),
    Pod(Arc<Pod>),
    Service(Arc<Service>),
    EndpointSlice(Arc<EndpointSlice>),
    AuthorizationPolicy(Arc<AuthorizationPolicy>),
    PeerAuthentication(Arc<PeerAuthentication>),
    RequestAuthentication(Arc<RequestAuthentication>),
    DestinationRule(Arc<DestinationRule>),
    Gateway(Arc<Gateway>),
    VirtualService(Arc<VirtualService>),
    HttpRoute(Arc<Route>),
    GrpcRoute(Arc<Route>),
    ReferenceGrant(Arc<ReferenceGrant>),
    IstioGateway(Arc<IstioGateway>),
    TlsRoute(Arc<ConnectionRoute>),
    TcpRoute(Arc<ConnectionRoute>),
    ServiceEntry(Arc<ServiceEntry>),
    WorkloadEntry(Arc<WorkloadEntry>),
    Secret(Arc<Secret>),
    MeshConfig(Arc<MeshConfig>),
    Telemetry(Arc<Telemetry>),
    RateLimitPolicy(Arc<LimitSource>),
    EnvoyFilter(Arc<LimitSource>),
}

/// A typed object and its place.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) id: ObjectId,
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
    pub(crate) fn name(&self) -> Option<&ObjectName> {
        self.origin.object.as_ref()
    }
}

impl ObjectSet {
    /// Puts an object in force. Gives what was in its place.
    pub(crate) fn put(&mut self, entry: Entry) -> Option<Entry> {
        let Entry { id, origin, object, kept, stands_in: _, source } = entry;
        let (key, place) = (id.key.clone(), (origin, kept, source));
        match object {
            Object::Namespace(it) => swap(&mut self.namespaces, id, key.1, Some((place, it)), Object::Namespace),
            Object::Node(it) => swap(&mut self.nodes, id, key.1, Some((place, it)), Object::Node),
            Object::ServiceAccount(it) => {
                swap(&mut self.service_accounts, id, key, Some((place, it)), Object::ServiceAccount)
            }
            Object::Pod(it) => swap(&mut self.pods, id, key, Some((place, it)), Object::Pod),
            Object::Service(it) => swap(&mut self.services, id, key, Some((place, it)), Object::Service),
            Object::EndpointSlice(it) => {
                swap(&mut self.endpoint_slices, id, key, Some((place, it)), Object::EndpointSlice)
            }
            Object::AuthorizationPolicy(it) => {
                swap(&mut self.authorization_policies, id, key, Some((place, it)), Object::AuthorizationPolicy)
            }
            Object::PeerAuthentication(it) => {
                swap(&mut self.peer_authentications, id, key, Some((place, it)), Object::PeerAuthentication)
            }
            Object::RequestAuthentication(it) => {
                swap(&mut self.request_authentications, id, key, Some((place, it)), Object::RequestAuthentication)
            }
            Object::DestinationRule(it) => {
                swap(&mut self.destination_rules, id, key, Some((place, it)), Object::DestinationRule)
            }
            Object::Gateway(it) => swap(&mut self.gateways, id, key, Some((place, it)), Object::Gateway),
            Object::VirtualService(it) => {
                swap(&mut self.virtual_services, id, key, Some((place, it)), Object::VirtualService)
            }
            Object::HttpRoute(it) => swap(&mut self.http_routes, id, key, Some((place, it)), Object::HttpRoute),
            Object::GrpcRoute(it) => swap(&mut self.grpc_routes, id, key, Some((place, it)), Object::GrpcRoute),
            Object::ReferenceGrant(it) => {
                swap(&mut self.reference_grants, id, key, Some((place, it)), Object::ReferenceGrant)
            }
            Object::IstioGateway(it) => {
                swap(&mut self.istio_gateways, id, key, Some((place, it)), Object::IstioGateway)
            }
            Object::TlsRoute(it) => swap(&mut self.tls_routes, id, key, Some((place, it)), Object::TlsRoute),
            Object::TcpRoute(it) => swap(&mut self.tcp_routes, id, key, Some((place, it)), Object::TcpRoute),
            Object::ServiceEntry(it) => {
                swap(&mut self.service_entries, id, key, Some((place, it)), Object::ServiceEntry)
            }
            Object::WorkloadEntry(it) => {
                swap(&mut self.workload_entries, id, key, Some((place, it)), Object::WorkloadEntry)
            }
            Object::Secret(it) => swap(&mut self.secrets, id, key, Some((place, it)), Object::Secret),
            Object::Telemetry(it) => swap(&mut self.telemetries, id, key, Some((place, it)), Object::Telemetry),
            Object::RateLimitPolicy(it) => {
                swap(&mut self.rate_limit_policies, id, key, Some((place, it)), Object::RateLimitPolicy)
            }
            Object::EnvoyFilter(it) => swap(&mut self.envoy_filters, id, key, Some((place, it)), Object::EnvoyFilter),
            Object::MeshConfig(it) => swap(&mut self.mesh_configs, id, key, Some((place, it)), Object::MeshConfig),
        }
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
            Kind::VirtualService => swap(&mut self.virtual_services, id, key, None, Object::VirtualService),
            Kind::HttpRoute => swap(&mut self.http_routes, id, key, None, Object::HttpRoute),
            Kind::GrpcRoute => swap(&mut self.grpc_routes, id, key, None, Object::GrpcRoute),
            Kind::ReferenceGrant => swap(&mut self.reference_grants, id, key, None, Object::ReferenceGrant),
            Kind::IstioGateway => swap(&mut self.istio_gateways, id, key, None, Object::IstioGateway),
            Kind::TlsRoute => swap(&mut self.tls_routes, id, key, None, Object::TlsRoute),
            Kind::TcpRoute => swap(&mut self.tcp_routes, id, key, None, Object::TcpRoute),
            Kind::ServiceEntry => swap(&mut self.service_entries, id, key, None, Object::ServiceEntry),
            Kind::WorkloadEntry => swap(&mut self.workload_entries, id, key, None, Object::WorkloadEntry),
            Kind::Secret => swap(&mut self.secrets, id, key, None, Object::Secret),
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

/// File and line.
pub(crate) fn place(origin: &Origin) -> String {
    let file = origin.file.display();
    match origin.line {
        Some(line) => format!("{file}:{line}"),
        None => file.to_string(),
    }
}

/// What one value of a document turned out to be.
#[derive(Debug)]
pub(crate) enum Reading {
    Object(Box<Entry>),
    List(Vec<Value>),
    /// Nothing to translate, perhaps with a word on why.
    Nothing(Option<Box<Finding>>),
    /// Meant to be translated, and broken; named as far as it can be told.
    Broken(Box<Broken>),
}

/// An object that cannot be read.
#[derive(Debug)]
pub(crate) struct Broken {
    /// Why.
    pub(crate) finding: Finding,
    /// What is in force in its place if there is no good version.
    pub(crate) stand_in: Option<Entry>,
    /// What others are told of it, if they are.
    pub(crate) told: Option<Arc<str>>,
}

impl Reading {
    fn broken(finding: Finding) -> Self {
        Self::Broken(Box::new(Broken { finding, stand_in: None, told: None }))
    }
}

/// Reads one value. `origin` has the place; the object's name is added here.
pub(crate) fn read(value: Value, origin: Origin, limits: &Limits) -> Reading {
    let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str);
    let (Some(api_version), Some(kind)) = (text("/apiVersion"), text("/kind")) else {
        return no_header(&value, origin);
    };
    let treatment = treatment(api_version, kind);
    let name = ObjectName {
        group: api_version.split_once('/').map(|(group, _)| group.to_owned()).unwrap_or_default(),
        kind: kind.to_owned(),
        namespace: text("/metadata/namespace").map(str::to_owned),
        name: text("/metadata/name").unwrap_or_default().to_owned(),
    };
    let finding = |code, message: String| {
        let mut origin = origin.clone();
        origin.object = (!name.name.is_empty()).then(|| name.clone());
        Box::new(Finding::new(code, origin, message))
    };
    match treatment {
        Treatment::Ignored => Reading::Nothing(None),
        Treatment::Read(Kind::Secret) if !limits.credentials => Reading::Nothing(None),
        Treatment::Read(Kind::MeshConfig) if !MeshConfig::is_named(&name, limits) => Reading::Nothing(None),
        Treatment::NotEnforced => {
            let message = format!("{kind} of {api_version} has no effect yet");
            Reading::Nothing(Some(finding(Code::NotEnforced, message)))
        }
        Treatment::Unknown => {
            let message = format!("nothing is known of kind {kind:?} in {api_version:?}");
            Reading::Nothing(Some(finding(Code::UnknownKind, message)))
        }
        Treatment::UnknownVersion(known) => {
            let message = format!("{kind} is known as {}, not {api_version}", known.join(", "));
            Reading::Nothing(Some(finding(Code::UnknownKind, message)))
        }
        Treatment::List => list(value, origin),
        Treatment::Read(_) if name.name.is_empty() => {
            let finding = finding(Code::MissingField, format!("the {kind} has no name"));
            Reading::broken(finding.at("metadata.name"))
        }
        Treatment::Read(kind) => typed(kind, value, name, origin, limits),
    }
}

fn no_header(value: &Value, origin: Origin) -> Reading {
    let missing = ["apiVersion", "kind"].into_iter().find(|field| !value.get(field).is_some_and(Value::is_string));
    let finding = match missing {
        Some(field) if value.is_object() => {
            let message = format!("{field} is missing or is no text");
            Finding::new(Code::NoHeader, origin, message).at(field)
        }
        _ => Finding::new(Code::NoHeader, origin, "the document is no mapping"),
    };
    Reading::broken(finding)
}

fn list(mut value: Value, origin: Origin) -> Reading {
    let header = |value: &Value, field: &str| {
        let text = value.get(field).and_then(Value::as_str)?;
        Some(text.strip_suffix("List").unwrap_or(text).to_owned())
    };
    let defaults = [
        ("apiVersion", header(&value, "apiVersion")),
        ("kind", header(&value, "kind").filter(|kind| !kind.is_empty())),
    ];
    let mut items = match value.get_mut("items").map(Value::take) {
        Some(Value::Array(items)) => items,
        None | Some(Value::Null) => Vec::new(),
        Some(_) => {
            let finding = Finding::new(Code::WrongField, origin, "items is no list").at("items");
            return Reading::broken(finding);
        }
    };
    for item in items.iter_mut().filter_map(Value::as_object_mut) {
        for (field, text) in &defaults {
            if let Some(text) = text {
                item.entry(*field).or_insert_with(|| text.clone().into());
            }
        }
    }
    Reading::List(items)
}

fn typed(kind: Kind, value: Value, mut name: ObjectName, mut origin: Origin, limits: &Limits) -> Reading {
    name.namespace = kind.is_namespaced().then(|| name.namespace.unwrap_or_else(|| "default".to_owned()));
    origin.object = Some(name.clone());
    let stand_in = stand_in_for(kind, &value, &name, &origin);
    let (good, whole) = if limits.served { (told(kind, &value), told_whole(kind, &value)) } else { (None, None) };
    match object(kind, value, &name) {
        Ok(object) => {
            let source = good.map(|object| Source { object, refused: None }.into());
            let (id, origin) = (name.id(kind), Arc::new(origin));
            Reading::Object(Box::new(Entry { id, origin, object, kept: false, stands_in: None, source }))
        }
        Err(flaw) => {
            let finding = Finding::new(flaw.code, origin, flaw.message).at(flaw.field);
            let stand_in = stand_in.map(|entry| entry.told_as(whole.clone()));
            Reading::Broken(Box::new(Broken { finding, stand_in, told: whole }))
        }
    }
}

impl ObjectName {
    fn id(&self, kind: Kind) -> ObjectId {
        let namespace = self.namespace.as_deref().unwrap_or_default();
        ObjectId { kind, key: (texts::text(namespace), texts::text(&self.name)) }
    }
}

fn object(kind: Kind, value: Value, name: &ObjectName) -> Result<Object, Flaw> {
    Ok(match kind {
        Kind::Namespace => Object::Namespace(trimmed::namespace(decode(value)?).into()),
        Kind::Node => Object::Node(decode::<Presence>(value)?.into()),
        Kind::ServiceAccount => Object::ServiceAccount(decode::<Presence>(value)?.into()),
        Kind::Pod => Object::Pod(Pod::of(&decode::<KubePod>(value)?, &name.name).into()),
        Kind::Service => Object::Service(trimmed::service(decode(value)?).into()),
        Kind::EndpointSlice => {
            let namespace = name.namespace.as_deref().unwrap_or_default();
            Object::EndpointSlice(EndpointSlice::of(&decode::<KubeSlice>(value)?, namespace).into())
        }
        Kind::AuthorizationPolicy => Object::AuthorizationPolicy(AuthorizationPolicy::read(value, name)?.into()),
        Kind::PeerAuthentication => Object::PeerAuthentication(PeerAuthentication::read(value, name)?.into()),
        Kind::RequestAuthentication => Object::RequestAuthentication(RequestAuthentication::read(value, name)?.into()),
        Kind::DestinationRule => Object::DestinationRule(DestinationRule::read(value, name)?.into()),
        Kind::Gateway => Object::Gateway(Gateway::read(value, name)?.into()),
        Kind::VirtualService => Object::VirtualService(VirtualService::read(value, name)?.into()),
        Kind::HttpRoute => Object::HttpRoute(http_route::read(value, name)?.into()),
        Kind::GrpcRoute => Object::GrpcRoute(grpc_route::read(value, name)?.into()),
        Kind::ReferenceGrant => Object::ReferenceGrant(ReferenceGrant::read(value)?.into()),
        Kind::IstioGateway => Object::IstioGateway(IstioGateway::read(value, name)?.into()),
        Kind::TlsRoute => Object::TlsRoute(connection_route::read("TLSRoute", value, name)?.into()),
        Kind::TcpRoute => Object::TcpRoute(connection_route::read("TCPRoute", value, name)?.into()),
        Kind::ServiceEntry => Object::ServiceEntry(ServiceEntry::read(value, name)?.into()),
        Kind::WorkloadEntry => Object::WorkloadEntry(WorkloadEntry::read(value)?.into()),
        Kind::Secret => Object::Secret(secret(value, name)?.into()),
        Kind::Telemetry => Object::Telemetry(Telemetry::read(value, name)?.into()),
        Kind::RateLimitPolicy => Object::RateLimitPolicy(read_rate_limit_policy(value, name)?.into()),
        Kind::EnvoyFilter => Object::EnvoyFilter(read_envoy_filter(value, name)?.into()),
        Kind::MeshConfig => Object::MeshConfig(MeshConfig::read(&value)?.into()),
    })
}

fn stand_in_for(kind: Kind, value: &Value, name: &ObjectName, origin: &Origin) -> Option<Entry> {
    let (object, effect) = stand_in(kind, value, name)?;
    Some(Entry::in_place_of(name, origin, object, effect))
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
            Self::VirtualService(_) => Kind::VirtualService,
            Self::HttpRoute(_) => Kind::HttpRoute,
            Self::GrpcRoute(_) => Kind::GrpcRoute,
            Self::ReferenceGrant(_) => Kind::ReferenceGrant,
            Self::IstioGateway(_) => Kind::IstioGateway,
            Self::TlsRoute(_) => Kind::TlsRoute,
            Self::TcpRoute(_) => Kind::TcpRoute,
            Self::ServiceEntry(_) => Kind::ServiceEntry,
            Self::WorkloadEntry(_) => Kind::WorkloadEntry,
            Self::Secret(_) => Kind::Secret,
            Self::MeshConfig(_) => Kind::MeshConfig,
            Self::Telemetry(_) => Kind::Telemetry,
            Self::RateLimitPolicy(_) => Kind::RateLimitPolicy,
            Self::EnvoyFilter(_) => Kind::EnvoyFilter,
        }
    }
}

fn decode<T: DeserializeOwned>(value: Value) -> Result<T, Flaw> {
    serde_path_to_error::deserialize(value).map_err(|error| Flaw {
        code: Code::WrongField,
        field: error.path().to_string(),
        message: error.inner().to_string(),
    })
}

/// What an error would quote of a Secret is nobody's to read.
fn secret(value: Value, name: &ObjectName) -> Result<Secret, Flaw> {
    let read = decode::<KubeSecret>(value);
    let read = read.map_err(|flaw| Flaw { message: "it is not of the form that the API has".to_owned(), ..flaw })?;
    Ok(Secret::of(read, name))
}
