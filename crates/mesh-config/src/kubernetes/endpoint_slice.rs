//! An EndpointSlice.

use std::sync::Arc;

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice as KubeSlice};
use mesh_core::EndpointTraits;
use mesh_core::locality::Hints;

use super::Address;
use crate::texts;

/// The label that names a slice's Service.
pub(crate) const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// What matters of an EndpointSlice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointSlice {
    /// The name of its Service; empty for none.
    pub service: Arc<str>,
    /// `addressType`.
    pub address_type: Arc<str>,
    /// Its endpoints, each address on its own.
    pub endpoints: Box<[SliceEndpoint]>,
    /// Its ports.
    pub ports: Box<[SlicePort]>,
}

/// An address of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SliceEndpoint {
    /// The address.
    pub address: Address,
    /// The name of the Pod that it is said to be, of the slice's namespace.
    pub pod: Option<Arc<str>>,
    /// The index of the endpoint.
    pub index: u32,
    /// That of the address in it.
    pub position: u16,
    /// Whether it is ready; unknown counts as ready, as the API says.
    pub ready: bool,
    /// Whom it is meant for, where that is said.
    pub traits: Option<Arc<EndpointTraits>>,
}

/// There are about as many as Pods.
const _: () = assert!(size_of::<SliceEndpoint>() <= 56);

/// A port of all endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlicePort {
    /// Its name; empty for none.
    pub name: Arc<str>,
    /// Its number, as it is written.
    pub port: i32,
    /// Its protocol, as it is written.
    pub protocol: Option<Arc<str>>,
}

impl EndpointSlice {
    pub(crate) fn of(slice: &KubeSlice, namespace: &str) -> Self {
        let labels = slice.metadata.labels.as_ref();
        let service = labels.and_then(|labels| labels.get(SERVICE_NAME)).map_or("", String::as_str);
        let endpoints = (0u32..).zip(slice.endpoints.iter().flatten());
        let ports = slice.ports.iter().flatten().map(|port| SlicePort {
            name: texts::text(port.name.as_deref().unwrap_or_default()),
            port: port.port.unwrap_or(0),
            protocol: port.protocol.as_deref().map(texts::text),
        });
        // Of endpoints for the same zones or nodes there are many.
        let mut known: Vec<Arc<EndpointTraits>> = Vec::new();
        let endpoints = endpoints.flat_map(|(index, endpoint)| {
            let traits = hints(endpoint).map(|hints| shared(hints, &mut known));
            addresses(index, endpoint, namespace, traits)
        });
        Self {
            service: texts::text(service),
            address_type: texts::text(&slice.address_type),
            endpoints: endpoints.collect(),
            ports: ports.collect(),
        }
    }
}

fn hints(endpoint: &Endpoint) -> Option<Hints> {
    let hints = endpoint.hints.as_ref()?;
    let zones: Vec<_> = hints.for_zones.iter().flatten().map(|zone| texts::text(&zone.name)).collect();
    let nodes: Vec<_> = hints.for_nodes.iter().flatten().map(|node| texts::text(&node.name).into()).collect();
    (!zones.is_empty() || !nodes.is_empty()).then_some(Hints { zones, nodes })
}

fn shared(hints: Hints, known: &mut Vec<Arc<EndpointTraits>>) -> Arc<EndpointTraits> {
    if let Some(same) = known.iter().find(|traits| traits.hints.as_ref() == Some(&hints)) {
        return Arc::clone(same);
    }
    let new = Arc::new(EndpointTraits { hints: Some(hints), ..EndpointTraits::default() });
    known.push(Arc::clone(&new));
    new
}

fn addresses(
    index: u32,
    endpoint: &Endpoint,
    namespace: &str,
    traits: Option<Arc<EndpointTraits>>,
) -> impl Iterator<Item = SliceEndpoint> {
    let conditions = endpoint.conditions.as_ref();
    let ready = conditions.and_then(|conditions| conditions.ready) != Some(false);
    let target = endpoint.target_ref.as_ref().filter(|target| {
        target.kind.as_deref() == Some("Pod") && target.namespace.as_deref().is_none_or(|other| other == namespace)
    });
    let pod = target.and_then(|target| target.name.as_deref()).map(texts::text);
    // The API takes 100.
    (0..u16::MAX).zip(&endpoint.addresses).map(move |(position, text)| SliceEndpoint {
        address: Address::read(text),
        pod: pod.clone(),
        index,
        position,
        ready,
        traits: traits.clone(),
    })
}
