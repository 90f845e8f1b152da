//! Who is connected to pods that are not part of the mesh. Nobody carries that, but the kernel knows it: whoever wants a pod
//! to join may ask before.

use std::{
    collections::{BTreeMap, HashSet},
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use mesh_core::{Workload, WorkloadUid};

use super::discovery;
use crate::{netns::NetNamespace, sock_diag::PodSocketsError};

/// Who is connected to a pod, and how often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutsideClients {
    /// The pod.
    pub workload: Arc<Workload>,
    /// Connections by the port at which the pod listens, and by the other end's address.
    pub by_port: BTreeMap<(u16, IpAddr), usize>,
}

/// Where the node's pods run.
#[derive(Debug, Clone)]
pub struct Sandboxes {
    /// The proc file system of the node's pid namespace.
    pub(super) proc: PathBuf,
    /// Inode of the node's own network namespace, which is no pod's.
    pub(super) host_netns: u64,
}

impl Sandboxes {
    /// Who is connected to these pods, where somebody is. It enters namespaces, and must not run on a thread that others' tasks
    /// share.
    #[must_use]
    pub fn clients(&self, pods: &[Arc<Workload>]) -> Vec<OutsideClients> {
        let wanted: HashSet<&WorkloadUid> = pods.iter().map(|pod| &pod.uid).collect();
        let sandboxes = discovery::find(&self.proc, &wanted, self.host_netns);
        let of_pod = |pod: &Arc<Workload>| {
            let sandbox = sandboxes.get(&pod.uid)?;
            match clients(&self.proc.join(format!("{}/ns/net", sandbox.pid)), pod) {
                Ok(by_port) => Some(OutsideClients { workload: Arc::clone(pod), by_port }),
                Err(error) => {
                    // It may have ended meanwhile.
                    tracing::debug!(pod = %pod.name, %error, "connections of a pod outside the mesh not looked at");
                    None
                }
            }
        };
        pods.iter().filter_map(of_pod).filter(|found| !found.by_port.is_empty()).collect()
    }
}

fn clients(netns: &Path, pod: &Workload) -> Result<BTreeMap<(u16, IpAddr), usize>, PodSocketsError> {
    let sockets = NetNamespace::open(netns)?.sock_diag()?.all()?;
    let mut by_port = BTreeMap::new();
    for connection in &sockets.connections {
        let (port, client) = (connection.local.port(), connection.remote.ip());
        let is_own = client.is_loopback() || pod.addresses.contains(&client);
        if sockets.listening.contains(&port) && !is_own {
            *by_port.entry((port, client)).or_default() += 1;
        }
    }
    Ok(by_port)
}
