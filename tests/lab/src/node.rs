//! Nodes, and machines outside the cluster.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;

use crate::addresses::{self, Pair};
use crate::netns::Netns;
use crate::place::{Context, Place};
use crate::state::Shared;

/// How kubelet names cgroups on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CgroupDriver {
    /// `kubepods/besteffort/pod<uid>/<container>`
    Cgroupfs,
    /// `kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod<uid>.slice/cri-containerd-<container>.scope`
    Systemd,
}

/// What the lab holds of a node.
#[derive(Debug)]
pub(crate) struct NodeState {
    pub(crate) name: String,
    /// From 1; it is in the addresses of the node and of its pods.
    pub(crate) number: u8,
    pub(crate) netns: Netns,
    pub(crate) cgroup: PathBuf,
    pub(crate) driver: CgroupDriver,
    /// The wire's end of the node's link.
    pub(crate) port: String,
}

impl NodeState {
    pub(crate) fn addresses(&self) -> [IpAddr; 2] {
        let Pair { v4, v6 } = addresses::node(self.number);
        [v4.into(), v6.into()]
    }

    /// How to run something in the node's own namespaces, in a cgroup of its own below the node's.
    pub(crate) fn context(&self, shared: &Shared, service: &str) -> Result<Context> {
        let cgroup = self.cgroup.join(service);
        crate::cgroup::create(&cgroup)?;
        Ok(Context {
            netns: self.netns.path(),
            mounts: None,
            cgroup,
            env: vec![
                ("NODE_NAME".into(), self.name.clone()),
                ("MESH_ADMIN_SOCKET".into(), shared.admin_socket(&self.name).display().to_string()),
            ],
            logs: shared.logs(),
            name: self.name.clone(),
            outlives_owner: shared.keep,
        })
    }
}

/// A node of the lab. Programs run in its own network namespace, in the cgroup `system.slice/lab.service`.
#[derive(Clone, Debug)]
pub struct Node {
    pub(crate) shared: Arc<Shared>,
    pub(crate) index: usize,
}

impl Node {
    pub(crate) fn state(&self) -> &NodeState {
        &self.shared.nodes[self.index]
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.state().name
    }

    /// The network namespace's name, for `ip netns exec`.
    pub fn netns(&self) -> &str {
        self.state().netns.name()
    }

    /// A service of the node, such as `kubelet.service`, in whose cgroup programs run.
    pub fn service(&self, name: &str) -> NodeService {
        NodeService { node: self.clone(), name: name.to_owned() }
    }

    /// Runs `work` on a thread in the node's network namespace.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        self.state().netns.run(work)
    }
}

impl Place for Node {
    fn context(&self) -> Result<Context> {
        self.state().context(&self.shared, "system.slice/lab.service")
    }

    fn addresses(&self) -> Vec<IpAddr> {
        self.state().addresses().into()
    }
}

/// A place beside [`Node`] in the same namespaces, in a cgroup of its own: what systemd would run as another service.
#[derive(Clone, Debug)]
pub struct NodeService {
    node: Node,
    name: String,
}

impl Place for NodeService {
    fn context(&self) -> Result<Context> {
        self.node.state().context(&self.node.shared, &format!("system.slice/{}", self.name))
    }

    fn addresses(&self) -> Vec<IpAddr> {
        self.node.addresses()
    }
}

/// A machine on the wire that is no node: it routes to pods through their nodes, to Services through the first node.
#[derive(Clone, Debug)]
pub struct Outside {
    pub(crate) context: Context,
    pub(crate) own: Pair,
}

impl Outside {
    /// The network namespace's name, for `ip netns exec`.
    pub fn netns(&self) -> String {
        self.context.netns.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }
}

impl Place for Outside {
    fn context(&self) -> Result<Context> {
        Ok(self.context.clone())
    }

    fn addresses(&self) -> Vec<IpAddr> {
        vec![self.own.v4.into(), self.own.v6.into()]
    }
}
