//! The mesh's own pods, which answer by the API server's port-forward.

use std::collections::BTreeMap;
use std::pin::Pin;

use anyhow::{anyhow, bail};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{AttachParams, ListParams};
use kube::{Api, ResourceExt as _};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};

use super::Cluster;
use crate::daemon::{Asked, Daemon};
use crate::fleet::Target;

/// The daemons' pods, as the chart labels them.
pub(super) const DAEMONS: &str = "app.kubernetes.io/name=mesh-node";
/// mesh-control's pods.
const CONTROL: &str = "app.kubernetes.io/name=mesh-control";
/// The label of what a Gateway's pods are of.
const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";
/// The pods of Gateways that are this mesh's.
pub(super) const OURS: &str = "gateway.istio.io/managed=mesh.dev-gateway-controller";

/// What is read of what a program in a pod says, in bytes.
const MAX_SAID: u64 = 1 << 20;

/// A way to the admin API of a pod.
#[derive(Clone)]
pub(crate) struct PodName {
    api: Api<Pod>,
    namespace: String,
    name: String,
    port: u16,
}

/// What a pod says of why a port of it cannot be used, if it says anything.
pub(crate) type Complaint = Pin<Box<dyn Future<Output = Option<String>> + Send>>;

impl std::fmt::Debug for PodName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

impl std::fmt::Display for PodName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "pod {}/{}", self.namespace, self.name)
    }
}

impl PodName {
    /// Connects to the pod's loopback.
    pub(crate) async fn connect(&self) -> anyhow::Result<(tokio::io::DuplexStream, Option<Complaint>)> {
        let forwarded = self.api.portforward(&self.name, &[self.port]).await;
        let mut forwarded = forwarded.map_err(|error| {
            let right = format!("it takes the right to create pods/portforward in {}", self.namespace);
            anyhow!("{self}: the API server forwards no port: {error}; {right}")
        })?;
        let complaint = forwarded.take_error(self.port).map(|told| Box::pin(told) as Complaint);
        let stream = forwarded.take_stream(self.port);
        Ok((stream.ok_or_else(|| anyhow!("{self}: the API server forwards no port {}", self.port))?, complaint))
    }

    /// Runs a program in the pod's first container; what it said on standard output.
    pub(crate) async fn run(&self, command: &[&str], input: &[u8]) -> anyhow::Result<Vec<u8>> {
        let parameters = AttachParams::default().stdin(true).stdout(true).stderr(true);
        let process = self.api.exec(&self.name, command.iter().copied(), &parameters).await;
        let mut process = process.map_err(|error| {
            let right = format!("it takes the right to create pods/exec in {}", self.namespace);
            anyhow!("{self}: the API server runs nothing there: {error}; {right}")
        })?;
        let (stdin, stdout, stderr) = (process.stdin(), process.stdout(), process.stderr());
        let status = process.take_status();
        let write = async {
            let mut stdin = stdin?;
            stdin.write_all(input).await.ok()?;
            stdin.shutdown().await.ok()
        };
        let (_, said, complaint) = tokio::join!(write, read(stdout), read(stderr));
        let status = match status {
            Some(status) => status.await,
            None => None,
        };
        if status.as_ref().and_then(|status| status.status.as_deref()) == Some("Success") {
            return Ok(said);
        }
        let complaint = String::from_utf8_lossy(&complaint);
        let why = status.and_then(|status| status.message).unwrap_or_else(|| "it broke off".to_owned());
        bail!("`{}` in {self}: {}; {why}", command.join(" "), complaint.trim())
    }

    /// What to do where nobody listens.
    pub(crate) fn remedy(&self) -> String {
        format!("is it of this version, with --admin-port {}? `mesh-ctl` in the pod asks by its socket", self.port)
    }
}

impl Cluster {
    /// The daemons of all nodes, or of one.
    pub(crate) async fn daemons(&self, node: Option<&str>) -> anyhow::Result<Vec<Target>> {
        let mut daemons = self.daemons_if_any().await?;
        if daemons.is_empty() {
            bail!(
                "no mesh-node runs in namespace {}: install the mesh (`mesh-ctl install`), or name its namespace with \
                 --mesh-namespace",
                self.mesh_namespace
            );
        }
        let Some(node) = node else { return Ok(daemons) };
        match daemons.iter().position(|daemon| daemon.name == node) {
            Some(at) => Ok(vec![daemons.swap_remove(at)]),
            None => {
                let nodes: Vec<String> = daemons.into_iter().map(|daemon| daemon.name).collect();
                bail!("--node {node}: no mesh-node runs there; it runs on {}", nodes.join(", "))
            }
        }
    }

    /// The daemons of all nodes, of which there may be none.
    pub(crate) async fn daemons_if_any(&self) -> anyhow::Result<Vec<Target>> {
        Ok(self.by_node(self.pods(&self.mesh_namespace, DAEMONS).await?))
    }

    /// The daemon of each node, by its name.
    pub(super) fn by_node(&self, pods: impl IntoIterator<Item = Pod>) -> Vec<Target> {
        let mut by_node: BTreeMap<String, Vec<Pod>> = BTreeMap::new();
        for pod in pods {
            let of = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
            by_node.entry(of.unwrap_or_else(|| format!("(pod {})", pod.name_any()))).or_default().push(pod);
        }
        by_node.into_iter().map(|(node, pods)| self.target(node, pods, Asked::Node)).collect()
    }

    /// The pods of a namespace's waypoints and gateways, or of one of them; there may be none.
    pub(crate) async fn proxies(&self, namespace: &str, name: Option<&str>) -> anyhow::Result<Vec<Target>> {
        let selector = name.map_or_else(|| OURS.to_owned(), |name| format!("{OURS},{GATEWAY_NAME}={name}"));
        let pods = self.pods(namespace, &selector).await?;
        Ok(pods.into_iter().map(|pod| self.target(pod.name_any(), vec![pod], Asked::Waypoint)).collect())
    }

    /// The pods of all waypoints and gateways, each under its namespace and name.
    pub(crate) async fn all_proxies(&self) -> anyhow::Result<Vec<Target>> {
        let api: Api<Pod> = Api::all(self.client.clone());
        let pods = self.within("pods of all namespaces", api.list(&ListParams::default().labels(OURS))).await?.items;
        Ok(self.by_name(pods))
    }

    /// Each pod of a waypoint or gateway, under its namespace and name.
    pub(super) fn by_name(&self, pods: impl IntoIterator<Item = Pod>) -> Vec<Target> {
        let name = |pod: &Pod| format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any());
        pods.into_iter().map(|pod| self.target(name(&pod), vec![pod], Asked::Waypoint)).collect()
    }

    /// The replicas of mesh-control, at a port of theirs.
    pub(crate) async fn control(&self, port: u16) -> anyhow::Result<Vec<Target>> {
        let pods = self.pods(&self.mesh_namespace, CONTROL).await?;
        let at_port = Self { admin_port: port, ..self.clone() };
        Ok(pods.into_iter().map(|pod| at_port.target(pod.name_any(), vec![pod], Asked::Control)).collect())
    }

    async fn pods(&self, namespace: &str, labels: &str) -> anyhow::Result<Vec<Pod>> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let what = format!("pods of namespace {namespace}");
        Ok(self.within(&what, api.list(&ListParams::default().labels(labels))).await?.items)
    }

    /// Whom to ask of some pods that stand for one another: the one that runs.
    fn target(&self, name: String, pods: Vec<Pod>, asked: Asked) -> Target {
        let is_well = |pod: &&Pod| phase(pod) == "Running" && pod.metadata.deletion_timestamp.is_none();
        let Some(pod) = pods.iter().find(is_well) else {
            let states: Vec<String> =
                pods.iter().map(|pod| format!("pod {} is {}", pod.name_any(), state(pod))).collect();
            return Target { name, daemon: Err(states.join(", ")) };
        };
        let namespace = pod.namespace().unwrap_or_default();
        let api = Api::namespaced(self.client.clone(), &namespace);
        let pod = PodName { api, namespace, name: pod.name_any(), port: self.admin_port };
        Target { name, daemon: Ok(Daemon::in_pod(pod, asked)) }
    }
}

/// What a program says, up to a bound.
async fn read(stream: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut said = Vec::new();
    if let Some(stream) = stream {
        // What it said before it broke off is what there is.
        let _ = stream.take(MAX_SAID).read_to_end(&mut said).await;
    }
    said
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Unknown")
}

fn state(pod: &Pod) -> &str {
    if pod.metadata.deletion_timestamp.is_some() { "Terminating" } else { phase(pod) }
}
