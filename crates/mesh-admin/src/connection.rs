//! Connections while they live.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// A connection that a daemon carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Connection {
    /// Its name, never used again by the same daemon.
    pub id: u64,
    /// Whether both of its ends are connected; it is being opened else.
    pub open: bool,
    /// Seconds since it was accepted.
    pub age_seconds: u64,
    /// Who talks to whom, and how much.
    #[serde(flatten)]
    pub talk: Talk,
}

/// Who talks to whom, how, and how much.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Talk {
    /// Which end the daemon stands for: `source` or `destination`.
    pub reporter: String,
    /// The client.
    pub source: Party,
    /// The server.
    pub destination: Party,
    /// Host name of the Service that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// What the client connected to, where it is another address than the server's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original_destination: Option<SocketAddr>,
    /// How the connection is protected: `mutual_tls`, `kernel_attested` (plain, between pods of one node) or `none`.
    pub security: String,
    /// The policy that decided on it, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// Payload, in bytes, from the client to the server.
    pub bytes_from_client: u64,
    /// Payload, in bytes, from the server to the client.
    pub bytes_to_client: u64,
}

/// One end of a connection, as far as it is known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Party {
    /// Its address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<SocketAddr>,
    /// Its namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its pod's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// Its pod's owner: a Deployment, StatefulSet and so on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
    /// Its SPIFFE ID, proven by a certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<String>,
}

impl Talk {
    /// Whether one of its ends is in the namespace.
    #[must_use]
    pub fn touches(&self, namespace: &str) -> bool {
        [&self.source, &self.destination].iter().any(|party| party.namespace.as_deref() == Some(namespace))
    }
}
