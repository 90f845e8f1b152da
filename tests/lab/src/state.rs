//! What a lab holds, and how changes reach manifests, hosts files and the nodes' rules.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};

use crate::addresses::{self, Pair};
use crate::config_dir::ConfigDir;
use crate::manifests::{self, Family, Labels, PodObject, SliceEndpoint};
use crate::netns::Netns;
use crate::network;
use crate::node::NodeState;
use crate::owner::LabId;
use crate::pod_spec::PodSpec;
use crate::process::Process;
use crate::rules::{self, Frontend};
use crate::sandbox::Sandbox;
use crate::service::{Backends, Service};

/// A namespace and a name in it.
pub(crate) type Key = (String, String);

/// What all handles of a lab share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) id: LabId,
    pub(crate) home: PathBuf,
    pub(crate) config: ConfigDir,
    pub(crate) cgroup: PathBuf,
    pub(crate) wire: Netns,
    pub(crate) nodes: Vec<NodeState>,
    /// Everything stays after the owner's end.
    pub(crate) keep: bool,
    pub(crate) numbers: AtomicUsize,
    pub(crate) state: Mutex<State>,
}

/// What changes while a lab runs.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) namespaces: BTreeMap<String, Labels>,
    pub(crate) pods: BTreeMap<Key, PodState>,
    pub(crate) services: BTreeMap<Key, Service>,
    pub(crate) services_made: usize,
    /// The highest pod number given out, by node.
    pub(crate) pod_numbers: BTreeMap<usize, u8>,
    pub(crate) outside: usize,
    pub(crate) ca: BTreeSet<PathBuf>,
    pub(crate) daemon_logs: Vec<PathBuf>,
    /// The rules that are in force on every node.
    rules: String,
}

/// A pod that has a sandbox.
#[derive(Debug)]
pub(crate) struct PodState {
    pub(crate) spec: PodSpec,
    pub(crate) uid: String,
    pub(crate) node: usize,
    /// None in the node's network namespace.
    pub(crate) own: Option<Pair>,
    pub(crate) sandbox: Sandbox,
    pub(crate) main: Option<Process>,
    pub(crate) ready: bool,
}

impl PodState {
    pub(crate) fn addresses(&self, nodes: &[NodeState]) -> Vec<IpAddr> {
        match self.own {
            Some(own) => vec![own.v4.into(), own.v6.into()],
            None => nodes[self.node].addresses().into(),
        }
    }
}

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn logs(&self) -> PathBuf {
        self.home.join("logs")
    }

    pub(crate) fn admin_socket(&self, node: &str) -> PathBuf {
        self.home.join(format!("admin.{node}.sock"))
    }

    pub(crate) fn waypoint_socket(&self, namespace: &str, pod: &str) -> PathBuf {
        self.home.join(format!("admin.{namespace}.{pod}.sock"))
    }

    /// A number that no other sandbox, machine or capture of the lab has.
    pub(crate) fn next_number(&self) -> usize {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn node_index(&self, name: &str) -> Result<usize> {
        let names = || self.nodes.iter().map(|node| node.name.as_str()).collect::<Vec<_>>().join(", ");
        self.nodes
            .iter()
            .position(|node| node.name == name)
            .with_context(|| format!("there is no node {name}; there are {}", names()))
    }

    /// A directory of the lab's own.
    pub(crate) fn directory(&self, name: &str) -> Result<PathBuf> {
        let path = self.home.join(name);
        std::fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
        Ok(path)
    }

    pub(crate) fn write_pod(&self, pod: &PodState) -> Result<()> {
        let spec = &pod.spec;
        let node = &self.nodes[pod.node];
        let object = manifests::pod(&PodObject {
            namespace: &spec.namespace,
            name: &spec.name,
            uid: &pod.uid,
            labels: &spec.labels,
            annotations: &spec.annotations,
            service_account: &spec.service_account,
            node: &node.name,
            node_addresses: &node.addresses(),
            addresses: &pod.addresses(&self.nodes),
            host_network: spec.host_network,
            ports: &spec.ports,
            probe: spec.probe.as_deref(),
            container_id: &pod.sandbox.container_id,
            ready: pod.ready,
        });
        self.config.write(&pod_file(&spec.namespace, &spec.name), &object)
    }

    /// Brings EndpointSlices and the nodes' rules in line with pods and Services.
    pub(crate) fn refresh_endpoints(&self, state: &mut State) -> Result<()> {
        let mut frontends = Vec::new();
        for service in state.services.values() {
            for family in Family::ALL {
                let endpoints = self.endpoints(state, service, family);
                let name = manifests::slice_name(service.name(), family);
                let object = manifests::endpoint_slice(service, family, &endpoints);
                self.config.write(&slice_file(service.namespace(), &name), &object)?;
                frontends.extend(frontends_of(service, family, &endpoints));
            }
        }
        let script = rules::script(&frontends);
        if script != state.rules {
            for node in &self.nodes {
                network::nft(&node.netns, &script)?;
            }
            state.rules = script;
        }
        Ok(())
    }

    fn endpoints<'a>(&'a self, state: &'a State, service: &'a Service, family: Family) -> Vec<SliceEndpoint<'a>> {
        let pods =
            state.pods.values().filter(|pod| pod.spec.namespace == service.namespace() && serves(service, &pod.spec));
        pods.filter_map(|pod| {
            let address = pod.addresses(&self.nodes).into_iter().find(|address| family.holds(address))?;
            let node = &self.nodes[pod.node].name;
            Some(SliceEndpoint { address, node, pod: &pod.spec.name, uid: &pod.uid, ready: pod.ready })
        })
        .collect()
    }

    /// Brings the pods' /etc/hosts in line with the Services.
    pub(crate) fn refresh_hosts(&self, state: &State) -> Result<()> {
        for pod in state.pods.values() {
            let own = pod.addresses(&self.nodes);
            pod.sandbox.set_hosts(&hosts(state, &pod.spec.namespace, &pod.spec.name, &own))?;
        }
        Ok(())
    }

    /// Gives out addresses for a pod: those that it asks for, or the node's next.
    pub(crate) fn allocate(&self, state: &mut State, node: usize, wanted: Option<IpAddr>) -> Result<Pair> {
        let number = self.nodes[node].number;
        let taken = |pair: Pair| state.pods.values().any(|pod| pod.own == Some(pair));
        if let Some(address) = wanted {
            let IpAddr::V4(v4) = address else { anyhow::bail!("ask for {address} by the IPv4 address of the pair") };
            let pod = addresses::pod_number(number, v4)
                .with_context(|| format!("{v4} is not of {}'s pods", self.nodes[node].name))?;
            let pair = addresses::pod(number, pod);
            anyhow::ensure!(!taken(pair), "another pod has {v4}");
            return Ok(pair);
        }
        let highest = state.pod_numbers.get(&node).copied().unwrap_or(1);
        let free = (highest.saturating_add(1)..255).chain(2..255).find(|pod| !taken(addresses::pod(number, *pod)));
        let pod = free.with_context(|| format!("{} has no address left for another pod", self.nodes[node].name))?;
        state.pod_numbers.insert(node, pod);
        Ok(addresses::pod(number, pod))
    }
}

fn serves(service: &Service, pod: &PodSpec) -> bool {
    match &service.spec.backends {
        Backends::Pods(names) => names.contains(&pod.name),
        Backends::Selector(labels) => labels.iter().all(|(key, value)| pod.labels.get(key) == Some(value)),
    }
}

fn frontends_of<'a>(
    service: &'a Service,
    family: Family,
    endpoints: &'a [SliceEndpoint<'_>],
) -> impl Iterator<Item = Frontend> + 'a {
    let vip = if family == Family::V4 { service.vip4() } else { service.vip6() };
    service.spec.ports.iter().map(move |port| Frontend {
        address: SocketAddr::new(vip, port.port),
        protocol: port.protocol,
        endpoints: endpoints
            .iter()
            .filter(|endpoint| endpoint.ready)
            .map(|endpoint| SocketAddr::new(endpoint.address, port.target_port))
            .collect(),
    })
}

/// A pod's /etc/hosts: itself and every Service, the Services of its namespace by their short names too.
pub(crate) fn hosts(state: &State, namespace: &str, pod: &str, own: &[IpAddr]) -> String {
    let mut text = String::from("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n");
    for address in own {
        text += &format!("{address} {pod}\n");
    }
    for service in state.services.values() {
        let (name, its) = (service.name(), service.namespace());
        let short = if its == namespace { format!("{name} ") } else { String::new() };
        for vip in [service.vip4(), service.vip6()] {
            text += &format!("{vip} {short}{name}.{its} {name}.{its}.svc {}\n", service.hostname());
        }
    }
    text
}

pub(crate) fn pod_file(namespace: &str, name: &str) -> String {
    format!("pod.{namespace}.{name}")
}

pub(crate) fn slice_file(namespace: &str, name: &str) -> String {
    format!("endpointslice.{namespace}.{name}")
}

pub(crate) fn service_file(namespace: &str, name: &str) -> String {
    format!("service.{namespace}.{name}")
}

/// The last lines of a log, for a person who has to find out why.
pub(crate) fn tail(path: &Path, lines: usize) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let all: Vec<_> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
