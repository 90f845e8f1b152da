//! Services, as a daemon or a directory of manifests has them.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// Endpoints that are named for each port; [`Port::ready`] counts them all.
pub const MAX_ENDPOINTS: usize = 64;

/// A Service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Service {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its full host name.
    pub hostname: String,
    /// Its cluster addresses, or those that clients are told of a host; none for a headless Service.
    pub addresses: Vec<IpAddr>,
    /// Its ports.
    pub ports: Vec<Port>,
}

/// A port of a Service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Port {
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its number.
    pub port: u16,
    /// `TCP`, `UDP` or `SCTP`; the mesh carries TCP.
    pub protocol: String,
    /// How many endpoints are ready.
    pub ready: usize,
    /// The first [`MAX_ENDPOINTS`] of them.
    pub endpoints: Vec<Endpoint>,
}

/// A ready endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// Where it listens.
    pub address: SocketAddr,
    /// The pod, as `namespace/name`, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
}

impl Service {
    /// One of the snapshot's.
    #[must_use]
    pub fn of(snapshot: &mesh_core::Snapshot, service: &mesh_core::Service) -> Self {
        Self {
            namespace: service.namespace.to_string(),
            name: service.name.to_string(),
            hostname: service.hostname.to_string(),
            addresses: mesh_core::hosts::addresses(snapshot, service).to_vec(),
            ports: service.ports.iter().map(Port::from).collect(),
        }
    }
}

impl From<&mesh_core::ServicePort> for Port {
    fn from(port: &mesh_core::ServicePort) -> Self {
        Self {
            name: port.name.as_deref().map(str::to_owned),
            port: port.port,
            protocol: port.protocol.to_string(),
            ready: port.endpoints.len(),
            endpoints: port.endpoints.iter().take(MAX_ENDPOINTS).map(Endpoint::from).collect(),
        }
    }
}

impl From<&mesh_core::Endpoint> for Endpoint {
    fn from(endpoint: &mesh_core::Endpoint) -> Self {
        let pod = |pod: &mesh_core::Workload| format!("{}/{}", pod.namespace, pod.name);
        Self { address: endpoint.address, workload: endpoint.workload.as_deref().map(pod) }
    }
}
