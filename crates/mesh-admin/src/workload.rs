//! Workloads, as a daemon or a directory of manifests has them.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// A Pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Workload {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// The node that runs it.
    pub node: String,
    /// Its addresses; its node's own on the host's network.
    pub addresses: Vec<IpAddr>,
    /// Its SPIFFE ID.
    pub identity: String,
    /// Its owner: a Deployment, StatefulSet and so on.
    pub workload: String,
    /// Whether it is ready to serve.
    pub ready: bool,
    /// Whether it is to be part of the mesh.
    pub enrolled: bool,
    /// Why it is not part of the mesh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outside: Option<String>,
    /// What the daemon has made of it, if it runs on the daemon's own node and is to be part of the mesh: `enrolled`,
    /// `pending` or `failed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Why it is pending or failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Plaintext connections that live on from before it joined, where there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub existing_connections: Option<usize>,
}

impl From<&mesh_core::Workload> for Workload {
    fn from(workload: &mesh_core::Workload) -> Self {
        let outside = match workload.enrolment {
            mesh_core::Enrolment::Enrolled => None,
            mesh_core::Enrolment::Outside(reason) => Some(reason.to_string()),
        };
        Self {
            namespace: workload.namespace.to_string(),
            name: workload.name.to_string(),
            uid: workload.uid.to_string(),
            node: workload.node.to_string(),
            addresses: workload.addresses.to_vec(),
            identity: workload.identity.to_string(),
            workload: workload.workload_name.to_string(),
            ready: workload.ready,
            enrolled: workload.is_enrolled(),
            outside,
            state: None,
            reason: None,
            existing_connections: None,
        }
    }
}
