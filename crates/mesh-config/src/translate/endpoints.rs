//! EndpointSlices to the ready endpoints of one Service's ports.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use mesh_core::{Endpoint, EndpointTraits, Protocol, Snapshot, Workload};

use super::{port_number, protocol};
use crate::code::Code;
use crate::finding::{Finding, Origin};
use crate::kind::Kind;
use crate::kubernetes::{EndpointSlice, SERVICE_NAME, SlicePort as GivenPort};
use crate::object::{Key, Located};

/// A slice by its name.
pub(super) type Slice = (Key, Located<EndpointSlice>);

/// Ready endpoints of a Service, by its slices' ports.
#[derive(Debug, Default)]
pub(super) struct Endpoints<'a>(Vec<SlicePort<'a>>);

/// One port of one slice, with what is ready behind it.
#[derive(Debug)]
struct SlicePort<'a> {
    name: Arc<str>,
    protocol: Protocol,
    endpoints: Vec<Endpoint>,
    slice: &'a Slice,
    field: String,
    taken: bool,
}

impl<'a> Endpoints<'a> {
    /// The ready endpoints of a port, by address, each once.
    pub(super) fn take(&mut self, port: &str, protocol: Protocol) -> Vec<Endpoint> {
        let mut endpoints = Vec::new();
        for slice in &mut self.0 {
            if *slice.name == *port && slice.protocol == protocol {
                slice.taken = true;
                endpoints.append(&mut slice.endpoints.clone());
            }
        }
        endpoints.sort_by_key(|endpoint| endpoint.address);
        endpoints.dedup_by_key(|endpoint| endpoint.address);
        endpoints.shrink_to_fit();
        endpoints
    }

    /// Says which slices' ports the Service did not ask for.
    pub(super) fn report_unmatched(&self, (namespace, name): &Key, findings: &mut Vec<Finding>) {
        for port in self.0.iter().filter(|port| !port.taken) {
            let message = format!("{namespace}/{name} has no {} port named {:?}", port.protocol, port.name);
            let finding = Finding::new(Code::NoSuchServicePort, origin_of(port.slice), message);
            findings.push(finding.at(port.field.clone()));
        }
    }

    /// Collects the endpoints of a Service's slices, which come in the order of their names.
    pub(super) fn of(
        (namespace, _): &Key,
        slices: &'a [Slice],
        snapshot: &Snapshot,
        findings: &mut Vec<Finding>,
    ) -> Self {
        let mut endpoints = Vec::new();
        for slice in slices {
            let Some(ready) = ready_addresses(namespace, slice, snapshot, findings) else {
                continue;
            };
            for (index, port) in slice.1.object.ports.iter().enumerate() {
                let field = format!("ports[{index}]");
                match slice_port(port, &ready, slice, field.clone()) {
                    Ok(port) => endpoints.push(port),
                    Err((sub, message)) => {
                        let finding = Finding::new(Code::BadPort, origin_of(slice), message);
                        findings.push(finding.at(format!("{field}.{sub}")));
                    }
                }
            }
        }
        Self(endpoints)
    }
}

/// Says of slices that no Service has them; those of an empty name name none.
pub(super) fn report_without_service((namespace, name): &Key, slices: &[Slice], findings: &mut Vec<Finding>) {
    for slice in slices {
        let (code, message) = match &**name {
            "" => (Code::SliceWithoutService, "its endpoints are not used".to_owned()),
            name => (Code::NoService, format!("{namespace}/{name} does not exist")),
        };
        let finding = Finding::new(code, origin_of(slice), message);
        findings.push(finding.at(format!("metadata.labels[{SERVICE_NAME:?}]")));
    }
}

fn origin_of((key, slice): &Slice) -> Origin {
    slice.origin_of(Kind::EndpointSlice, key)
}

type Ready = (IpAddr, Option<Arc<Workload>>, Option<Arc<EndpointTraits>>);

/// The addresses that are ready; none when the slice's type of address is not supported.
fn ready_addresses(
    namespace: &str,
    slice: &Slice,
    snapshot: &Snapshot,
    findings: &mut Vec<Finding>,
) -> Option<Vec<Ready>> {
    let read = &slice.1.object;
    let kind = &read.address_type;
    let ipv6 = match &**kind {
        "IPv4" => false,
        "IPv6" => true,
        other => {
            let message = format!("{other:?} is not carried; the slice's endpoints are not used");
            let finding = Finding::new(Code::AddressTypeNotSupported, origin_of(slice), message);
            findings.push(finding.at("addressType"));
            return None;
        }
    };
    let mut ready = Vec::with_capacity(read.endpoints.len());
    for endpoint in &read.endpoints {
        let address = endpoint.address.unicast().and_then(|address| {
            let fits = address.is_ipv6() == ipv6;
            fits.then_some(address).ok_or_else(|| format!("{} is not of type {kind}", endpoint.address))
        });
        match address {
            Ok(address) if endpoint.ready => {
                let workload = workload(snapshot, namespace, endpoint.pod.as_deref(), address);
                ready.push((address, workload.cloned(), endpoint.traits.clone()));
            }
            Ok(_) => {}
            Err(message) => {
                let finding = Finding::new(Code::BadEndpointAddress, origin_of(slice), message);
                let (index, position) = (endpoint.index, endpoint.position);
                findings.push(finding.at(format!("endpoints[{index}].addresses[{position}]")));
            }
        }
    }
    Some(ready)
}

/// The Pod of that name that has `address`, else the one that has it.
fn workload<'a>(
    snapshot: &'a Snapshot,
    namespace: &str,
    pod: Option<&str>,
    address: IpAddr,
) -> Option<&'a Arc<Workload>> {
    let named = pod.and_then(|name| snapshot.workload(namespace, name));
    let named = named.filter(|workload| workload.addresses.contains(&address));
    named.or_else(|| snapshot.workload_by_address(address))
}

fn slice_port<'a>(
    port: &GivenPort,
    ready: &[Ready],
    slice: &'a Slice,
    field: String,
) -> Result<SlicePort<'a>, (&'static str, String)> {
    let number = port_number(port.port).map_err(|message| ("port", message))?;
    let protocol = protocol(port.protocol.as_deref()).map_err(|message| ("protocol", message))?;
    let endpoints = ready.iter().map(|(address, workload, traits)| Endpoint {
        traits: traits.clone(),
        ..Endpoint::new(SocketAddr::new(*address, number), workload.clone())
    });
    Ok(SlicePort { name: Arc::clone(&port.name), protocol, endpoints: endpoints.collect(), slice, field, taken: false })
}
