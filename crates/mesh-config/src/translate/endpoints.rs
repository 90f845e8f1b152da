//! EndpointSlices to the ready endpoints of Services' ports.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use k8s_openapi::api::discovery::v1::{Endpoint as SliceEndpoint, EndpointPort, EndpointSlice};
use mesh_core::{Endpoint, Protocol, Workload};

use super::pods::Workloads;
use super::{port_number, protocol, unicast};
use crate::code::Code;
use crate::finding::{Finding, Origin};
use crate::object::{Located, ObjectSet};

/// The label that names a slice's Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Ready endpoints by Service.
#[derive(Debug, Default)]
pub(super) struct Endpoints {
    by_service: HashMap<(String, String), Vec<SlicePort>>,
}

/// One port of one slice, with what is ready behind it.
#[derive(Debug)]
struct SlicePort {
    name: String,
    protocol: Protocol,
    endpoints: Vec<Endpoint>,
    origin: Arc<Origin>,
    field: String,
    taken: bool,
}

impl Endpoints {
    /// The ready endpoints of a Service's port, by address, each once.
    pub(super) fn take(&mut self, service: &(String, String), port: &str, protocol: Protocol) -> Vec<Endpoint> {
        let mut endpoints = Vec::new();
        for slice in self.by_service.get_mut(service).into_iter().flatten() {
            if slice.name == port && slice.protocol == protocol {
                slice.taken = true;
                endpoints.extend(slice.endpoints.iter().cloned());
            }
        }
        endpoints.sort_by_key(|endpoint| endpoint.address);
        endpoints.dedup_by_key(|endpoint| endpoint.address);
        endpoints
    }

    /// Says which slices' ports no Service asked for.
    pub(super) fn report_unmatched(&self, objects: &ObjectSet, findings: &mut Vec<Finding>) {
        for (service, ports) in &self.by_service {
            if !objects.services.contains_key(service) {
                continue;
            }
            for port in ports.iter().filter(|port| !port.taken) {
                let (namespace, name) = service;
                let message = format!("{namespace}/{name} has no {} port named {:?}", port.protocol, port.name);
                let origin = Origin::clone(&port.origin);
                let finding = Finding::new(Code::NoSuchServicePort, origin, message);
                findings.push(finding.at(port.field.clone()));
            }
        }
    }
}

/// Collects the endpoints of all slices.
pub(super) fn collect(objects: &ObjectSet, workloads: &Workloads, findings: &mut Vec<Finding>) -> Endpoints {
    let mut endpoints = Endpoints::default();
    for ((namespace, _), slice) in &objects.endpoint_slices {
        let Some(service) = service_of(objects, namespace, slice, findings) else {
            continue;
        };
        let Some(ready) = ready_addresses(namespace, slice, workloads, findings) else {
            continue;
        };
        let ports = slice.object.ports.iter().flatten().enumerate();
        for (index, port) in ports {
            let field = format!("ports[{index}]");
            match slice_port(port, &ready, slice, field.clone()) {
                Ok(port) => {
                    let ports = endpoints.by_service.entry(service.clone());
                    ports.or_default().push(port);
                }
                Err((sub, message)) => {
                    let origin = Origin::clone(&slice.origin);
                    let finding = Finding::new(Code::BadPort, origin, message);
                    findings.push(finding.at(format!("{field}.{sub}")));
                }
            }
        }
    }
    endpoints
}

fn service_of(
    objects: &ObjectSet,
    namespace: &str,
    slice: &Located<EndpointSlice>,
    findings: &mut Vec<Finding>,
) -> Option<(String, String)> {
    let labels = slice.object.metadata.labels.as_ref();
    let field = format!("metadata.labels[{SERVICE_NAME:?}]");
    let name = labels.and_then(|labels| labels.get(SERVICE_NAME));
    let Some(name) = name.filter(|name| !name.is_empty()) else {
        let message = "its endpoints are not used";
        let finding = Finding::new(Code::SliceWithoutService, Origin::clone(&slice.origin), message);
        findings.push(finding.at(field));
        return None;
    };
    let service = (namespace.to_owned(), name.clone());
    if !objects.services.contains_key(&service) {
        let message = format!("{namespace}/{name} does not exist");
        let finding = Finding::new(Code::NoService, Origin::clone(&slice.origin), message);
        findings.push(finding.at(field));
        return None;
    }
    Some(service)
}

type Ready = (IpAddr, Option<Arc<Workload>>);

/// The addresses that are ready; none when the slice's type of address is not supported.
fn ready_addresses(
    namespace: &str,
    slice: &Located<EndpointSlice>,
    workloads: &Workloads,
    findings: &mut Vec<Finding>,
) -> Option<Vec<Ready>> {
    let object = &slice.object;
    let ipv6 = match object.address_type.as_str() {
        "IPv4" => false,
        "IPv6" => true,
        other => {
            let message = format!("{other:?} is not carried; the slice's endpoints are not used");
            let origin = Origin::clone(&slice.origin);
            let finding = Finding::new(Code::AddressTypeNotSupported, origin, message);
            findings.push(finding.at("addressType"));
            return None;
        }
    };
    let mut ready = Vec::new();
    for (index, endpoint) in object.endpoints.iter().flatten().enumerate() {
        for (position, text) in endpoint.addresses.iter().enumerate() {
            let address = unicast(text).and_then(|address| {
                let fits = address.is_ipv6() == ipv6;
                fits.then_some(address).ok_or_else(|| format!("{text} is not of type {}", object.address_type))
            });
            match address {
                Ok(address) if is_ready(endpoint) => {
                    let workload = workloads.find(pod_of(endpoint, namespace), address);
                    ready.push((address, workload.cloned()));
                }
                Ok(_) => {}
                Err(message) => {
                    let origin = Origin::clone(&slice.origin);
                    let finding = Finding::new(Code::BadEndpointAddress, origin, message);
                    findings.push(finding.at(format!("endpoints[{index}].addresses[{position}]")));
                }
            }
        }
    }
    Some(ready)
}

fn slice_port(
    port: &EndpointPort,
    ready: &[Ready],
    slice: &Located<EndpointSlice>,
    field: String,
) -> Result<SlicePort, (&'static str, String)> {
    let number = port_number(port.port.unwrap_or(0)).map_err(|message| ("port", message))?;
    let protocol = protocol(port.protocol.as_deref()).map_err(|message| ("protocol", message))?;
    let endpoints = ready
        .iter()
        .map(|(address, workload)| Endpoint { address: SocketAddr::new(*address, number), workload: workload.clone() });
    Ok(SlicePort {
        name: port.name.clone().unwrap_or_default(),
        protocol,
        endpoints: endpoints.collect(),
        origin: Arc::clone(&slice.origin),
        field,
        taken: false,
    })
}

/// Unknown counts as ready, as the API says.
fn is_ready(endpoint: &SliceEndpoint) -> bool {
    let conditions = endpoint.conditions.as_ref();
    conditions.and_then(|conditions| conditions.ready) != Some(false)
}

fn pod_of<'a>(endpoint: &'a SliceEndpoint, namespace: &'a str) -> Option<(&'a str, &'a str)> {
    let target = endpoint.target_ref.as_ref()?;
    if target.kind.as_deref() != Some("Pod") {
        return None;
    }
    let namespace = target.namespace.as_deref().unwrap_or(namespace);
    Some((namespace, target.name.as_deref()?))
}
