//! What was carried for each Service, as counters since the program began: rates are the reader's to make.

use serde::{Deserialize, Serialize};

/// Traffic of all Services, at one moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Traffic {
    /// By namespace and name.
    pub services: Vec<ServiceTraffic>,
}

/// Traffic to one Service. Each connection and each request is counted by one program: connections by the node of the server or,
/// where that is outside the mesh or was never reached, of the client; requests by the waypoint, else by the same node.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceTraffic {
    /// The Service's namespace.
    pub namespace: String,
    /// The Service's name.
    pub name: String,
    /// Requests.
    pub requests: u64,
    /// Those of them that failed for the server's sake: 5xx, no answer though the client waited, such a status of gRPC.
    pub request_errors: u64,
    /// Requests by how long they took, each bucket with those of the shorter ones.
    pub durations: Vec<Bucket>,
    /// Connections that were opened, or came to nothing.
    pub connections: u64,
    /// Those of them that came to nothing, other than by policy.
    pub connection_errors: u64,
    /// Connections that are over.
    pub connections_closed: u64,
    /// Connections in mutual TLS.
    pub mutual_tls: u64,
    /// Those of them that are over.
    pub mutual_tls_closed: u64,
    /// Payload in bytes, both ways.
    pub bytes: u64,
}

/// Requests that took no longer than that.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bucket {
    /// In milliseconds; what takes longer than the last one's is in no bucket.
    pub at_most_milliseconds: f64,
    /// How many.
    pub requests: u64,
}
