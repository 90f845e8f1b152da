//! ServiceEntry and WorkloadEntry of networking.istio.io.

mod endpoint;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use mesh_core::hosts::is_automatic;
use mesh_core::labels::Labels;
use mesh_core::policy::Selector;
use mesh_core::{PolicyName, Protocol, Resolution, Speaks};
use serde::Deserialize;
use serde_json::Value;

pub(super) use self::endpoint::RawEndpoint;
pub use self::endpoint::{EndpointAddress, EntryEndpoint, WorkloadEntry};
use super::destination_rule::exported_to;
use super::{Flaw, Remark, decode, policy_name};
use crate::code::Code;
use crate::finding::ObjectName;
use crate::kubernetes::Address;

/// Endpoints of all ports of all hosts of one ServiceEntry.
const MAX_ENDPOINTS: usize = 100_000;

/// A ServiceEntry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceEntry {
    /// Its namespace and name.
    pub name: Arc<PolicyName>,
    /// Its labels, which may name a waypoint.
    pub labels: Labels,
    /// Its hosts, in lower case; `*.example.com` for all within a domain.
    pub hosts: Vec<Arc<str>>,
    /// The addresses at which clients ask for it.
    pub addresses: Vec<IpAddr>,
    /// Its ports.
    pub ports: Vec<EntryPort>,
    /// Where it is said to be; none where nothing is said.
    pub location: Option<Location>,
    /// How endpoints are found.
    pub resolution: Resolution,
    /// The endpoints that are listed.
    pub endpoints: Vec<EntryEndpoint>,
    /// The Pods and WorkloadEntries that are endpoints.
    pub selector: Option<Selector>,
    /// The namespaces whose clients it is for; none for all.
    pub exported_to: Option<Vec<Arc<str>>>,
    /// Of these the certificates of its endpoints have one.
    pub subject_alt_names: Vec<Arc<str>>,
    /// What is worth a finding.
    pub remarks: Vec<Remark>,
}

/// Where a ServiceEntry says that its hosts are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Location {
    /// Outside the mesh.
    External,
    /// In the mesh.
    Internal,
}

/// A port of a ServiceEntry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryPort {
    /// Its number.
    pub number: u16,
    /// Its name.
    pub name: Arc<str>,
    /// The transport.
    pub protocol: Protocol,
    /// What it is declared to speak.
    pub speaks: Speaks,
    /// The port at endpoints, where it is another.
    pub target: Option<u16>,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Spec {
    /// The hosts, in full; `*.example.com` for all within a domain.
    #[serde(default)]
    hosts: Vec<String>,
    /// Addresses at which clients ask for the hosts.
    #[serde(default)]
    addresses: Vec<String>,
    /// The ports.
    #[serde(default)]
    ports: Vec<RawPort>,
    /// MESH_EXTERNAL or MESH_INTERNAL. Read, and not honoured: who has an endpoint's address decides, and a finding says so
    /// where that is not what is written.
    location: Option<RawLocation>,
    /// NONE, STATIC, DNS or DNS_ROUND_ROBIN.
    #[serde(default)]
    resolution: RawResolution,
    /// The endpoints.
    #[serde(default)]
    endpoints: Vec<RawEndpoint>,
    /// The Pods and WorkloadEntries that are endpoints.
    workload_selector: Option<RawSelector>,
    /// The namespaces whose clients it is for; `.` for its own.
    export_to: Option<Vec<String>>,
    /// Of these names the certificates of endpoints have one, where TLS is begun to them.
    #[serde(default)]
    subject_alt_names: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawPort {
    /// The number.
    number: u16,
    /// What is spoken: HTTP, HTTPS, HTTP2, GRPC, TLS, TCP, MONGO.
    #[serde(default)]
    protocol: String,
    /// The name.
    #[serde(default)]
    name: String,
    /// The port at endpoints, where it is another.
    target_port: Option<u16>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
enum RawLocation {
    #[serde(rename = "MESH_EXTERNAL")]
    External,
    #[serde(rename = "MESH_INTERNAL")]
    Internal,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
enum RawResolution {
    #[default]
    #[serde(rename = "NONE")]
    None,
    #[serde(rename = "STATIC")]
    Static,
    #[serde(rename = "DNS")]
    Dns,
    #[serde(rename = "DNS_ROUND_ROBIN")]
    DnsRoundRobin,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct RawSelector {
    /// Labels that they have.
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

impl ServiceEntry {
    pub(crate) fn read(value: &Value, name: &ObjectName) -> Result<Self, Flaw> {
        let resource = decode::<Spec>(value)?;
        let labels = resource.metadata.labels.unwrap_or_default();
        let Some(spec) = resource.spec else {
            return Err(Flaw::value("spec.hosts", "the ServiceEntry is about no host"));
        };
        let name = policy_name(name);
        let mut remarks = Vec::new();
        let resolution = match spec.resolution {
            RawResolution::None => Resolution::None,
            RawResolution::Static => Resolution::Static,
            RawResolution::Dns => Resolution::Dns,
            RawResolution::DnsRoundRobin => Resolution::DnsRoundRobin,
        };
        let hosts = hosts(spec.hosts)?;
        let ports = ports(spec.ports, &mut remarks)?;
        let numbered = spec.endpoints.into_iter().enumerate();
        let endpoints = numbered
            .map(|(index, raw)| raw.read(&format!("spec.endpoints[{index}]"), &mut remarks))
            .collect::<Result<Vec<_>, _>>()?;
        remark_ports(&ports, &endpoints, &mut remarks);
        let selector = spec.workload_selector.map(|raw| raw.read()).transpose()?;
        check_endpoints(resolution, &hosts, &endpoints, selector.is_some())?;
        let count = hosts.len().saturating_mul(ports.len()).saturating_mul(endpoints.len());
        if count > MAX_ENDPOINTS {
            let message = format!("{count} endpoints of all hosts and ports are more than {MAX_ENDPOINTS}");
            return Err(Flaw::value("spec.endpoints", message));
        }
        Ok(Self {
            labels,
            hosts,
            addresses: addresses(&spec.addresses, &mut remarks),
            ports,
            location: spec.location.map(RawLocation::read),
            resolution,
            endpoints,
            selector,
            exported_to: exported_to(spec.export_to, &name.namespace)?,
            subject_alt_names: spec.subject_alt_names.into_iter().map(Into::into).collect(),
            remarks,
            name,
        })
    }
}

/// Says which ports of endpoints are nobody's, by their names.
fn remark_ports(ports: &[EntryPort], endpoints: &[EntryEndpoint], remarks: &mut Vec<Remark>) {
    for (index, endpoint) in endpoints.iter().enumerate() {
        for name in endpoint.ports.keys().filter(|name| !ports.iter().any(|port| *port.name == ***name)) {
            let field = format!("spec.endpoints[{index}].ports[{name:?}]");
            remarks.push(Remark::new(Code::WithoutEffect, field, "the ServiceEntry has no port of that name"));
        }
    }
}

impl RawLocation {
    const fn read(self) -> Location {
        match self {
            Self::External => Location::External,
            Self::Internal => Location::Internal,
        }
    }
}

impl RawSelector {
    fn read(self) -> Result<Selector, Flaw> {
        Selector::new(self.labels)
            .ok_or_else(|| Flaw::value("spec.workloadSelector.labels", "no label selects every Pod of the namespace"))
    }
}

fn hosts(given: Vec<String>) -> Result<Vec<Arc<str>>, Flaw> {
    if given.is_empty() {
        return Err(Flaw::value("spec.hosts", "the ServiceEntry is about no host"));
    }
    let mut hosts: Vec<Arc<str>> = Vec::with_capacity(given.len());
    for (index, host) in given.into_iter().enumerate() {
        let host = host.to_ascii_lowercase();
        let field = || format!("spec.hosts[{index}]");
        if !is_host(host.strip_prefix("*.").unwrap_or(&host)) {
            return Err(Flaw::value(field(), format!("{host:?} is no host name")));
        }
        if !host.contains('.') {
            return Err(Flaw::value(field(), format!("{host:?} has no dot: so Services are called; write it in full")));
        }
        let host: Arc<str> = host.into();
        if !hosts.contains(&host) {
            hosts.push(host);
        }
    }
    Ok(hosts)
}

/// Whether it is labels with dots between them (RFC 1123, section 2.1; with the underscore that DNS has as well).
fn is_host(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len()) && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    text.len() <= 253 && text.split('.').all(label)
}

fn addresses(given: &[String], remarks: &mut Vec<Remark>) -> Vec<IpAddr> {
    let mut addresses = Vec::with_capacity(given.len());
    for (index, text) in given.iter().enumerate() {
        let field = format!("spec.addresses[{index}]");
        let (host, length) = text.split_once('/').map_or((text.as_str(), None), |(host, length)| (host, Some(length)));
        let address = match Address::read(host).unicast() {
            Ok(address) => address,
            Err(message) => {
                remarks.push(Remark::new(Code::BadServiceAddress, field, message));
                continue;
            }
        };
        let whole = if address.is_ipv4() { "32" } else { "128" };
        if length.is_some_and(|length| length != whole) {
            let message = format!("{text} is a network; clients are told apart from others' by single addresses");
            remarks.push(Remark::new(Code::FieldNotHonoured, field, message));
        } else if is_automatic(address) {
            let message = format!("{address} is of those that the mesh gives hosts by their names");
            remarks.push(Remark::new(Code::BadServiceAddress, field, message));
        } else if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    addresses
}

fn ports(given: Vec<RawPort>, remarks: &mut Vec<Remark>) -> Result<Vec<EntryPort>, Flaw> {
    if given.is_empty() {
        return Err(Flaw::value("spec.ports", "the ServiceEntry has no port"));
    }
    let (mut numbers, mut names) = (BTreeSet::new(), BTreeSet::new());
    let mut ports = Vec::with_capacity(given.len());
    for (index, raw) in given.into_iter().enumerate() {
        let field = format!("spec.ports[{index}]");
        for (name, number) in [("number", Some(raw.number)), ("targetPort", raw.target_port)] {
            if number == Some(0) {
                return Err(Flaw::value(format!("{field}.{name}"), "0 is no port number"));
            }
        }
        if !numbers.insert(raw.number) {
            return Err(Flaw::value(format!("{field}.number"), format!("{} is declared before", raw.number)));
        }
        if !raw.name.is_empty() && !names.insert(raw.name.clone()) {
            return Err(Flaw::value(format!("{field}.name"), format!("{:?} is declared before", raw.name)));
        }
        let (protocol, speaks) = protocol(&raw.protocol)
            .ok_or_else(|| Flaw::value(format!("{field}.protocol"), format!("{:?} is no protocol", raw.protocol)))?;
        if protocol != Protocol::Tcp {
            let message = format!("{}/{protocol} goes past the mesh", raw.number);
            remarks.push(Remark::new(Code::ProtocolNotCarried, format!("{field}.protocol"), message));
        }
        let (number, target) = (raw.number, raw.target_port);
        ports.push(EntryPort { number, name: raw.name.into(), protocol, speaks, target });
    }
    Ok(ports)
}

/// The transport of a protocol, and what is spoken (Istio, "Protocol Selection").
fn protocol(text: &str) -> Option<(Protocol, Speaks)> {
    let speaks = match text.to_ascii_uppercase().as_str() {
        "" => Speaks::Unknown,
        "HTTP" | "HTTP_PROXY" | "GRPC-WEB" => Speaks::Http,
        "HTTP2" | "GRPC" => Speaks::Http2,
        "TCP" | "TLS" | "HTTPS" | "MONGO" | "MYSQL" | "REDIS" => Speaks::Opaque,
        "UDP" => return Some((Protocol::Udp, Speaks::Opaque)),
        _ => return None,
    };
    Some((Protocol::Tcp, speaks))
}

/// What cannot be meant of the ways to find endpoints, as Istio has it.
fn check_endpoints(
    resolution: Resolution,
    hosts: &[Arc<str>],
    endpoints: &[EntryEndpoint],
    selects: bool,
) -> Result<(), Flaw> {
    if selects && !endpoints.is_empty() {
        return Err(Flaw::value("spec.workloadSelector", "endpoints and workloadSelector exclude each other"));
    }
    let named = endpoints.iter().position(|endpoint| matches!(endpoint.address, EndpointAddress::Name(_)));
    match resolution {
        Resolution::None if selects || !endpoints.is_empty() => {
            Err(Flaw::value("spec.resolution", "with NONE there are no endpoints; write STATIC or DNS"))
        }
        Resolution::Static if !selects && endpoints.is_empty() => {
            Err(Flaw::value("spec.endpoints", "with STATIC there have to be endpoints, or a workloadSelector"))
        }
        Resolution::Static if named.is_some() => {
            let field = format!("spec.endpoints[{}].address", named.unwrap_or_default());
            Err(Flaw::value(field, "with STATIC an endpoint is an IP address; names need DNS"))
        }
        Resolution::DnsRoundRobin if endpoints.len() > 1 => {
            Err(Flaw::value("spec.endpoints", "with DNS_ROUND_ROBIN there is one endpoint at most"))
        }
        _ if resolution.is_dns() && !selects && endpoints.is_empty() => {
            match hosts.iter().position(|host| host.starts_with('*')) {
                Some(index) => {
                    let message = "DNS has no address of a wildcard: list endpoints, or write NONE";
                    Err(Flaw::value(format!("spec.hosts[{index}]"), message))
                }
                None => Ok(()),
            }
        }
        _ => Ok(()),
    }
}
