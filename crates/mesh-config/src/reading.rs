//! A value of a document to a typed object, or to what is wrong with it.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node as KubeNode, Pod as KubePod, Secret as KubeSecret, Service as KubeService};
use k8s_openapi::api::discovery::v1::EndpointSlice as KubeSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

use crate::code::Code;
use crate::credential::{CaBundle, Secret};
use crate::finding::{Finding, ObjectName, Origin};
use crate::gateway_api::{
    BackendTlsPolicy, Gateway, ListenerSet, ReferenceGrant, connection_route, grpc_route, http_route,
};
use crate::istio::{
    AuthorizationPolicy, DestinationRule, Flaw, IstioGateway, MeshConfig, PeerAuthentication, RequestAuthentication,
    ServiceEntry, Telemetry, VirtualService, WorkloadEntry, deserialized, read_envoy_filter, stand_in,
};
use crate::kind::{Kind, Treatment, treatment};
use crate::kubernetes::{EndpointSlice, Node, Pod, Service, trimmed};
use crate::limits::Limits;
use crate::object::{Entry, Object, ObjectId, Presence};
use crate::own::read_rate_limit_policy;
use crate::served::{Source, told, told_whole};
use crate::texts;

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
pub(crate) fn read(value: Value, origin: &Arc<Origin>, limits: &Limits) -> Reading {
    let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str);
    let (Some(api_version), Some(kind)) = (text("/apiVersion"), text("/kind")) else {
        return no_header(&value, (**origin).clone());
    };
    let treatment = treatment(api_version, kind);
    let name = ObjectName {
        group: texts::text(api_version.split_once('/').map_or("", |(group, _)| group)),
        kind: texts::text(kind),
        namespace: text("/metadata/namespace").map(texts::text),
        name: texts::text(text("/metadata/name").unwrap_or_default()),
    };
    let finding = |code, message: String| {
        let object = (!name.name.is_empty()).then(|| name.clone());
        Box::new(Finding::new(code, Origin { object, ..(**origin).clone() }, message))
    };
    match treatment {
        Treatment::Ignored => Reading::Nothing(None),
        Treatment::Read(Kind::Secret) if !limits.credentials => Reading::Nothing(None),
        Treatment::Read(Kind::MeshConfig) if !MeshConfig::is_named(&name, limits) => {
            // Others matter to those who read Secrets, where they have roots.
            let has_roots = limits.credentials && CaBundle::is_one(&value) && !name.name.is_empty();
            if has_roots { typed(Kind::CaBundle, value, name, origin, limits) } else { Reading::Nothing(None) }
        }
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
        Treatment::List => list(value, (**origin).clone()),
        Treatment::Read(_) if name.name.is_empty() => {
            let finding = finding(Code::MissingField, format!("the {kind} has no name"));
            Reading::broken(finding.at("metadata.name"))
        }
        Treatment::Read(kind) => typed(kind, value, name, origin, limits),
    }
}

/// Reads the text of an object of that name, without a value in between. None where it has to be looked at more closely: there are
/// few of its kind, or it is not as it should be.
pub(crate) fn read_directly(name: &ObjectName, text: &str, source: &Arc<Origin>) -> Option<Entry> {
    let namespace = name.namespace.as_deref()?;
    let is_named = |metadata: &ObjectMeta| {
        (metadata.namespace.as_deref(), metadata.name.as_deref()) == (Some(namespace), Some(&*name.name))
    };
    let (kind, object) = match (&*name.group, &*name.kind) {
        ("", "Pod") => {
            let pod: KubePod = serde_json::from_str(text).ok().filter(|pod: &KubePod| is_named(&pod.metadata))?;
            (Kind::Pod, Object::Pod(Pod::of(&pod, &name.name).into()))
        }
        ("", "Service") => {
            let service = serde_json::from_str(text).ok().filter(|read: &KubeService| is_named(&read.metadata))?;
            (Kind::Service, Object::Service(Service::of(&service).into()))
        }
        ("discovery.k8s.io", "EndpointSlice") => {
            let slice = serde_json::from_str(text).ok().filter(|read: &KubeSlice| is_named(&read.metadata))?;
            (Kind::EndpointSlice, Object::EndpointSlice(EndpointSlice::of(&slice, namespace).into()))
        }
        _ => return None,
    };
    let (id, origin) = (name.id(kind), Arc::clone(source));
    Some(Entry { id, origin, object, kept: false, stands_in: None, source: None })
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
    let header = ListHeader::of(&value);
    let mut items = match value.get_mut("items").map(Value::take) {
        Some(Value::Array(items)) => items,
        None | Some(Value::Null) => Vec::new(),
        Some(_) => {
            let finding = Finding::new(Code::WrongField, origin, "items is no list").at("items");
            return Reading::broken(finding);
        }
    };
    items.iter_mut().for_each(|item| header.complete(item));
    Reading::List(items)
}

/// What a list says of items that do not say it themselves.
#[derive(Debug, Hash)]
pub(crate) struct ListHeader {
    api_version: Option<String>,
    kind: Option<String>,
}

impl ListHeader {
    /// That of a value, if it is a list.
    pub(crate) fn of_list(value: &Value) -> Option<Self> {
        let text = |field| value.get(field).and_then(Value::as_str);
        let is_list = treatment(text("apiVersion")?, text("kind")?) == Treatment::List;
        is_list.then(|| Self::of(value))
    }

    fn of(value: &Value) -> Self {
        let said = |field| {
            let text = value.get(field).and_then(Value::as_str)?;
            Some(text.strip_suffix("List").unwrap_or(text).to_owned())
        };
        Self { api_version: said("apiVersion"), kind: said("kind").filter(|kind| !kind.is_empty()) }
    }

    /// Adds to an item what it does not say.
    pub(crate) fn complete(&self, item: &mut Value) {
        let Some(item) = item.as_object_mut() else { return };
        for (field, said) in [("apiVersion", &self.api_version), ("kind", &self.kind)] {
            if let Some(text) = said {
                item.entry(field).or_insert_with(|| text.clone().into());
            }
        }
    }
}

fn typed(kind: Kind, value: Value, mut name: ObjectName, place: &Arc<Origin>, limits: &Limits) -> Reading {
    name.namespace = kind.is_namespaced().then(|| name.namespace.unwrap_or_else(|| texts::text("default")));
    let origin = Origin { object: Some(name.clone()), ..(**place).clone() };
    let stand_in = stand_in_for(kind, &value, &name, &origin);
    match object(kind, &value, &name) {
        Ok(object) => {
            let source = limits
                .served
                .then(|| told(kind, &value))
                .flatten()
                .map(|object| Source { object, refused: None }.into());
            let origin = if kind.is_numerous() { Arc::clone(place) } else { Arc::new(origin) };
            let id = name.id(kind);
            Reading::Object(Box::new(Entry { id, origin, object, kept: false, stands_in: None, source }))
        }
        Err(flaw) => {
            let finding = Finding::new(flaw.code, origin, flaw.message).at(flaw.field);
            let whole = limits.served.then(|| told_whole(kind, &value)).flatten();
            let stand_in = stand_in.map(|entry| entry.told_as(whole.clone()));
            Reading::Broken(Box::new(Broken { finding, stand_in, told: whole }))
        }
    }
}

impl ObjectName {
    pub(crate) fn id(&self, kind: Kind) -> ObjectId {
        ObjectId { kind, key: (self.namespace.clone().unwrap_or_default(), Arc::clone(&self.name)) }
    }
}

fn object(kind: Kind, value: &Value, name: &ObjectName) -> Result<Object, Flaw> {
    Ok(match kind {
        Kind::Namespace => Object::Namespace(trimmed::namespace(deserialized(value)?).into()),
        Kind::Node => Object::Node(Node::of(&deserialized::<KubeNode>(value)?).into()),
        Kind::ServiceAccount => Object::ServiceAccount(deserialized::<Presence>(value)?.into()),
        Kind::Pod => Object::Pod(Pod::of(&deserialized::<KubePod>(value)?, &name.name).into()),
        Kind::Service => Object::Service(Service::of(&deserialized::<KubeService>(value)?).into()),
        Kind::EndpointSlice => {
            let namespace = name.namespace.as_deref().unwrap_or_default();
            Object::EndpointSlice(EndpointSlice::of(&deserialized::<KubeSlice>(value)?, namespace).into())
        }
        Kind::AuthorizationPolicy => Object::AuthorizationPolicy(AuthorizationPolicy::read(value, name)?.into()),
        Kind::PeerAuthentication => Object::PeerAuthentication(PeerAuthentication::read(value, name)?.into()),
        Kind::RequestAuthentication => Object::RequestAuthentication(RequestAuthentication::read(value, name)?.into()),
        Kind::DestinationRule => Object::DestinationRule(DestinationRule::read(value, name)?.into()),
        Kind::Gateway => Object::Gateway(Gateway::read(value, name)?.into()),
        Kind::ListenerSet => Object::ListenerSet(ListenerSet::read(value, name)?.into()),
        Kind::VirtualService => Object::VirtualService(VirtualService::read(value, name)?.into()),
        Kind::HttpRoute => Object::HttpRoute(http_route::read(value, name)?.into()),
        Kind::GrpcRoute => Object::GrpcRoute(grpc_route::read(value, name)?.into()),
        Kind::ReferenceGrant => Object::ReferenceGrant(ReferenceGrant::read(value)?.into()),
        Kind::BackendTlsPolicy => Object::BackendTlsPolicy(BackendTlsPolicy::read(value, name)?.into()),
        Kind::IstioGateway => Object::IstioGateway(IstioGateway::read(value, name)?.into()),
        Kind::TlsRoute => Object::TlsRoute(connection_route::read("TLSRoute", value, name)?.into()),
        Kind::TcpRoute => Object::TcpRoute(connection_route::read("TCPRoute", value, name)?.into()),
        Kind::ServiceEntry => Object::ServiceEntry(ServiceEntry::read(value, name)?.into()),
        Kind::WorkloadEntry => Object::WorkloadEntry(WorkloadEntry::read(value)?.into()),
        Kind::Secret => Object::Secret(secret(value, name)?.into()),
        Kind::CaBundle => Object::CaBundle(CaBundle::of(value).into()),
        Kind::Telemetry => Object::Telemetry(Telemetry::read(value, name)?.into()),
        Kind::RateLimitPolicy => Object::RateLimitPolicy(read_rate_limit_policy(value, name)?.into()),
        Kind::EnvoyFilter => Object::EnvoyFilter(read_envoy_filter(value, name)?.into()),
        Kind::MeshConfig => Object::MeshConfig(MeshConfig::read(value)?.into()),
    })
}

fn stand_in_for(kind: Kind, value: &Value, name: &ObjectName, origin: &Origin) -> Option<Entry> {
    let (object, effect) = stand_in(kind, value, name)?;
    Some(Entry::in_place_of(name, origin, object, effect))
}

/// What an error would quote of a Secret is nobody's to read.
fn secret(value: &Value, name: &ObjectName) -> Result<Secret, Flaw> {
    let read = deserialized::<KubeSecret>(value);
    let read = read.map_err(|flaw| Flaw { message: "it is not of the form that the API has".to_owned(), ..flaw })?;
    Ok(Secret::of(read, name))
}
