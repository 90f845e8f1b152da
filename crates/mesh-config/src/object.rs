//! Documents to typed objects, each with where it stands.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::code::Code;
use crate::finding::{Finding, ObjectName, Origin};
use crate::gateway_api::{Gateway, ReferenceGrant, Route, grpc_route, http_route};
use crate::istio::{AuthorizationPolicy, DestinationRule, Flaw, PeerAuthentication, VirtualService, stand_in};
use crate::kind::{Kind, Treatment, treatment};
use crate::probes::ProbePorts;

/// An object and where it stands.
#[derive(Debug, PartialEq)]
pub struct Located<T> {
    /// Where.
    pub origin: Arc<Origin>,
    /// What.
    pub object: Arc<T>,
}

impl<T> Clone for Located<T> {
    fn clone(&self) -> Self {
        Self { origin: Arc::clone(&self.origin), object: Arc::clone(&self.object) }
    }
}

/// A Pod without what is never looked at, and where kubelet knocks at it.
#[derive(Debug, Clone, PartialEq)]
pub struct TrimmedPod {
    /// The Pod, without its containers.
    pub pod: Pod,
    /// What of its containers matters.
    pub probes: ProbePorts,
}

/// All objects that are translated, by namespace and name, each name once.
#[derive(Debug, Clone, Default)]
pub struct ObjectSet {
    /// Namespaces, by name.
    pub namespaces: BTreeMap<String, Located<Namespace>>,
    /// Nodes, by name.
    pub nodes: BTreeMap<String, Located<Node>>,
    /// Service accounts.
    pub service_accounts: BTreeMap<(String, String), Located<ServiceAccount>>,
    /// Pods.
    pub pods: BTreeMap<(String, String), Located<TrimmedPod>>,
    /// Services.
    pub services: BTreeMap<(String, String), Located<Service>>,
    /// EndpointSlices.
    pub endpoint_slices: BTreeMap<(String, String), Located<EndpointSlice>>,
    /// AuthorizationPolicies.
    pub authorization_policies: BTreeMap<(String, String), Located<AuthorizationPolicy>>,
    /// PeerAuthentications.
    pub peer_authentications: BTreeMap<(String, String), Located<PeerAuthentication>>,
    /// DestinationRules.
    pub destination_rules: BTreeMap<(String, String), Located<DestinationRule>>,
    /// Gateways of the Gateway API.
    pub gateways: BTreeMap<(String, String), Located<Gateway>>,
    /// VirtualServices.
    pub virtual_services: BTreeMap<(String, String), Located<VirtualService>>,
    /// HTTPRoutes.
    pub http_routes: BTreeMap<(String, String), Located<Route>>,
    /// GRPCRoutes.
    pub grpc_routes: BTreeMap<(String, String), Located<Route>>,
    /// ReferenceGrants.
    pub reference_grants: BTreeMap<(String, String), Located<ReferenceGrant>>,
}

/// A typed object of one document or list item.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Object {
    Namespace(Arc<Namespace>),
    Node(Arc<Node>),
    ServiceAccount(Arc<ServiceAccount>),
    Pod(Arc<TrimmedPod>),
    Service(Arc<Service>),
    EndpointSlice(Arc<EndpointSlice>),
    AuthorizationPolicy(Arc<AuthorizationPolicy>),
    PeerAuthentication(Arc<PeerAuthentication>),
    DestinationRule(Arc<DestinationRule>),
    Gateway(Arc<Gateway>),
    VirtualService(Arc<VirtualService>),
    HttpRoute(Arc<Route>),
    GrpcRoute(Arc<Route>),
    ReferenceGrant(Arc<ReferenceGrant>),
}

/// A typed object, its name and its place.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) name: ObjectName,
    pub(crate) origin: Arc<Origin>,
    pub(crate) object: Object,
    /// Whether it stays in force although its file no longer says it.
    pub(crate) kept: bool,
    /// What it does, if it is there in the place of a broken object of which no good version is known.
    pub(crate) stands_in: Option<String>,
}

impl ObjectSet {
    /// Adds an object unless its name is taken; then gives the finding about it.
    pub(crate) fn insert(&mut self, entry: &Entry) -> Option<Finding> {
        fn put<K: Ord, T>(
            map: &mut BTreeMap<K, Located<T>>,
            key: K,
            origin: &Arc<Origin>,
            object: &Arc<T>,
        ) -> Option<Finding> {
            if let Some(first) = map.get(&key) {
                let message = format!("the first definition is at {}", place(&first.origin));
                return Some(Finding::new(Code::DefinedTwice, Origin::clone(origin), message));
            }
            map.insert(key, Located { origin: Arc::clone(origin), object: Arc::clone(object) });
            None
        }
        let name = entry.name.name.clone();
        let namespace = entry.name.namespace.clone().unwrap_or_default();
        let (key, at) = ((namespace, name.clone()), &entry.origin);
        match &entry.object {
            Object::Namespace(object) => put(&mut self.namespaces, name, at, object),
            Object::Node(object) => put(&mut self.nodes, name, at, object),
            Object::ServiceAccount(object) => put(&mut self.service_accounts, key, at, object),
            Object::Pod(object) => put(&mut self.pods, key, at, object),
            Object::Service(object) => put(&mut self.services, key, at, object),
            Object::EndpointSlice(object) => put(&mut self.endpoint_slices, key, at, object),
            Object::AuthorizationPolicy(object) => put(&mut self.authorization_policies, key, at, object),
            Object::PeerAuthentication(object) => put(&mut self.peer_authentications, key, at, object),
            Object::DestinationRule(object) => put(&mut self.destination_rules, key, at, object),
            Object::Gateway(object) => put(&mut self.gateways, key, at, object),
            Object::VirtualService(object) => put(&mut self.virtual_services, key, at, object),
            Object::HttpRoute(object) => put(&mut self.http_routes, key, at, object),
            Object::GrpcRoute(object) => put(&mut self.grpc_routes, key, at, object),
            Object::ReferenceGrant(object) => put(&mut self.reference_grants, key, at, object),
        }
    }
}

fn place(origin: &Origin) -> String {
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
    /// Meant to be translated, and broken; named as far as it can be told. Perhaps with what is in force in its place
    /// if there is no good version.
    Broken(Box<Finding>, Option<Box<Entry>>),
}

/// Reads one value. `origin` has the place; the object's name is added here.
pub(crate) fn read(value: Value, origin: Origin) -> Reading {
    let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str);
    let (Some(api_version), Some(kind)) = (text("/apiVersion"), text("/kind")) else {
        return no_header(&value, origin);
    };
    let treatment = treatment(api_version, kind);
    let name = ObjectName {
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
            Reading::Broken(Box::new(finding.at("metadata.name")), None)
        }
        Treatment::Read(kind) => typed(kind, value, name, origin),
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
    Reading::Broken(Box::new(finding), None)
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
            return Reading::Broken(Box::new(finding), None);
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

fn typed(kind: Kind, value: Value, mut name: ObjectName, mut origin: Origin) -> Reading {
    name.namespace = kind.is_namespaced().then(|| name.namespace.unwrap_or_else(|| "default".to_owned()));
    origin.object = Some(name.clone());
    let stand_in = stand_in_for(kind, &value, &name, &origin);
    match object(kind, value, &name) {
        Ok(object) => {
            let entry = Entry { name, origin: Arc::new(origin), object, kept: false, stands_in: None };
            Reading::Object(Box::new(entry))
        }
        Err(flaw) => {
            let finding = Finding::new(flaw.code, origin, flaw.message).at(flaw.field);
            Reading::Broken(Box::new(finding), stand_in)
        }
    }
}

fn object(kind: Kind, value: Value, name: &ObjectName) -> Result<Object, Flaw> {
    Ok(match kind {
        Kind::Namespace => Object::Namespace(decode(value)?),
        Kind::Node => Object::Node(decode(value)?),
        Kind::ServiceAccount => Object::ServiceAccount(decode(value)?),
        Kind::Pod => Object::Pod(Arc::new(TrimmedPod::of(Arc::unwrap_or_clone(decode::<Pod>(value)?)))),
        Kind::Service => Object::Service(decode(value)?),
        Kind::EndpointSlice => Object::EndpointSlice(decode(value)?),
        Kind::AuthorizationPolicy => Object::AuthorizationPolicy(AuthorizationPolicy::read(value, name)?.into()),
        Kind::PeerAuthentication => Object::PeerAuthentication(PeerAuthentication::read(value, name)?.into()),
        Kind::DestinationRule => Object::DestinationRule(DestinationRule::read(value, name)?.into()),
        Kind::Gateway => Object::Gateway(Gateway::read(value, name)?.into()),
        Kind::VirtualService => Object::VirtualService(VirtualService::read(value, name)?.into()),
        Kind::HttpRoute => Object::HttpRoute(http_route::read(value, name)?.into()),
        Kind::GrpcRoute => Object::GrpcRoute(grpc_route::read(value, name)?.into()),
        Kind::ReferenceGrant => Object::ReferenceGrant(ReferenceGrant::read(value)?.into()),
    })
}

fn stand_in_for(kind: Kind, value: &Value, name: &ObjectName, origin: &Origin) -> Option<Box<Entry>> {
    let (object, effect) = stand_in(kind, value, name)?;
    Some(Box::new(Entry::in_place_of(name.clone(), origin, object, effect)))
}

impl Entry {
    /// What is in force in the place of the broken object at `origin`.
    pub(crate) fn in_place_of(name: ObjectName, origin: &Origin, object: Object, effect: String) -> Self {
        Self { name, origin: Arc::new(origin.clone()), object, kept: true, stands_in: Some(effect) }
    }
}

fn decode<T: DeserializeOwned>(value: Value) -> Result<Arc<T>, Flaw> {
    serde_path_to_error::deserialize(value).map(Arc::new).map_err(|error| Flaw {
        code: Code::WrongField,
        field: error.path().to_string(),
        message: error.inner().to_string(),
    })
}

impl TrimmedPod {
    /// Drops what is never looked at: a Pod's containers are most of it.
    fn of(mut whole: Pod) -> Self {
        whole.metadata.managed_fields = None;
        whole.metadata.annotations = None;
        let probes = whole.spec.as_ref().map(ProbePorts::of).unwrap_or_default();
        if let Some(spec) = &mut whole.spec {
            *spec = k8s_openapi::api::core::v1::PodSpec {
                node_name: spec.node_name.take(),
                service_account_name: spec.service_account_name.take(),
                host_network: spec.host_network,
                ..Default::default()
            };
        }
        if let Some(status) = &mut whole.status {
            status.container_statuses = None;
            status.init_container_statuses = None;
        }
        Self { pod: whole, probes }
    }
}
