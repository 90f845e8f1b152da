//! Endpoints of a ServiceEntry: listed in it, or objects of their own.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use mesh_core::{EndpointTraits, LabelSet, Locality};
use serde::Deserialize;
use serde_json::Value;

use super::super::{Flaw, Remark, decode};
use super::is_host;
use crate::code::Code;
use crate::kubernetes::Address;

/// An endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryEndpoint {
    /// Where it is.
    pub address: EndpointAddress,
    /// Ports by the names of the ServiceEntry's, where they are others.
    pub ports: BTreeMap<String, u16>,
    /// Labels, locality and weight.
    pub traits: Arc<EndpointTraits>,
}

/// Where an endpoint is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EndpointAddress {
    /// At an address.
    Ip(IpAddr),
    /// Where DNS says.
    Name(Arc<str>),
}

/// A WorkloadEntry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkloadEntry {
    /// What it is to a ServiceEntry that selects it. Its labels are the object's and its own.
    pub endpoint: EntryEndpoint,
    /// What is worth a finding.
    pub remarks: Vec<Remark>,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(in crate::istio) struct RawEndpoint {
    /// An IP address, or a name of DNS.
    #[serde(default)]
    address: String,
    /// Ports by the names of the ServiceEntry's, where they are others.
    #[serde(default)]
    ports: BTreeMap<String, u16>,
    /// Its labels.
    #[serde(default)]
    labels: BTreeMap<String, String>,
    /// Read, and not honoured: a finding says so.
    network: Option<String>,
    /// Where it is: `region/zone/subzone`.
    locality: Option<String>,
    /// Its share, in relation to the others', at waypoints and gateways.
    weight: Option<u32>,
    /// Read, and not honoured: a finding says so.
    service_account: Option<String>,
}

impl RawEndpoint {
    pub(super) fn read(self, field: &str, remarks: &mut Vec<Remark>) -> Result<EntryEndpoint, Flaw> {
        let at = |name: &str| format!("{field}.{name}");
        let address = match Address::read(&self.address) {
            ip @ Address::Ip(_) => EndpointAddress::Ip(ip.unicast().map_err(|why| Flaw::value(at("address"), why))?),
            Address::Text(text) if text.starts_with("unix://") => {
                return Err(Flaw::value(at("address"), "a Unix socket is nobody's on another machine"));
            }
            Address::Text(text) if is_host(&text) => EndpointAddress::Name(text.to_ascii_lowercase().into()),
            Address::Text(text) => {
                return Err(Flaw::value(at("address"), format!("{text:?} is neither an IP address nor a host name")));
            }
        };
        if let Some((name, _)) = self.ports.iter().find(|(_, port)| **port == 0) {
            return Err(Flaw::value(at(&format!("ports[{name:?}]")), "0 is no port number"));
        }
        if self.network.is_some_and(|network| !network.is_empty()) {
            let message = "there is one network: the address is connected as it is";
            remarks.push(Remark::new(Code::FieldNotHonoured, at("network"), message));
        }
        if self.service_account.is_some_and(|account| !account.is_empty()) {
            let message = "an endpoint that is no Pod of the mesh proves no identity: it is reached without one";
            remarks.push(Remark::new(Code::FieldNotHonoured, at("serviceAccount"), message));
        }
        if self.weight.is_some_and(|weight| weight > 1) {
            let message =
                "waypoints and gateways go by it; where the host has no waypoint, nodes spread connections evenly";
            remarks.push(Remark::new(Code::FieldNotHonoured, at("weight"), message));
        }
        let locality = self.locality.filter(|text| !text.is_empty()).map(|text| Locality::parse(&text));
        let weight = self.weight.filter(|weight| *weight > 0);
        let traits = Arc::new(EndpointTraits { labels: label_set(self.labels), locality, weight, hints: None });
        Ok(EntryEndpoint { address, ports: self.ports, traits })
    }
}

impl WorkloadEntry {
    pub(crate) fn read(value: &Value) -> Result<Self, Flaw> {
        let resource = decode::<RawEndpoint>(value)?;
        let Some(mut spec) = resource.spec else {
            return Err(Flaw::value("spec.address", "the WorkloadEntry has no address"));
        };
        for (key, value) in resource.metadata.labels.unwrap_or_default() {
            spec.labels.entry(key).or_insert(value);
        }
        let mut remarks = Vec::new();
        let endpoint = spec.read("spec", &mut remarks)?;
        Ok(Self { endpoint, remarks })
    }
}

fn label_set(labels: BTreeMap<String, String>) -> LabelSet {
    labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect()
}
