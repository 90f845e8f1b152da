//! Who is connected to pods that are not part of the mesh.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Who has connections open to a pod outside the mesh, as the kernel of its node has them: nobody of the mesh carries them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OutsideClient {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The port at which it listens.
    pub port: u16,
    /// Who is connected.
    pub client: IpAddr,
    /// By how many connections.
    pub connections: usize,
}
