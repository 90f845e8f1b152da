//! Manifests of a large cluster, as an API server shows them: Services, each with an account, an EndpointSlice and its Pods.

use std::fmt::Write as _;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Services in one namespace.
const SERVICES_A_NAMESPACE: u32 = 100;
/// The first Pod's address, 10.0.1.0, and the first Service's, 172.16.1.0.
const POD_ADDRESSES: u32 = 0x0a00_0100;
const SERVICE_ADDRESSES: u32 = 0xac10_0100;

/// How large the cluster is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cluster {
    pub(crate) pods: u32,
    pub(crate) services: u32,
    pub(crate) nodes: u32,
}

impl Cluster {
    /// Writes everything: a file for each namespace's Services together would be read whole for one Pod's change, so each
    /// Service has a file of its own.
    pub(crate) fn write(self, directory: &Path) -> Result<()> {
        let mut nodes = String::new();
        for node in 0..self.nodes {
            writeln!(nodes, "apiVersion: v1\nkind: Node\nmetadata: {{name: node-{node}}}\n---")?;
        }
        put(&directory.join("nodes.yaml"), &nodes)?;
        for service in 0..self.services {
            let file = self.file(directory, service);
            if service % SERVICES_A_NAMESPACE == 0 {
                let folder = file.parent().context("a file stands in a folder")?;
                fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
                put(&folder.join("namespace.yaml"), &namespace(service))?;
            }
            put(&file, &self.service(service, 0))?;
        }
        Ok(())
    }

    /// Moves one Pod of the Service to another address; a higher `version` is another one.
    pub(crate) fn change(self, directory: &Path, service: u32, version: u32) -> Result<()> {
        let (file, staged) = (self.file(directory, service), directory.join(".staged"));
        put(&staged, &self.service(service, version))?;
        fs::rename(&staged, &file).with_context(|| format!("putting {} in place", file.display()))
    }

    /// The address of the Service's first Pod in that version.
    pub(crate) fn first_address(self, service: u32, version: u32) -> Ipv4Addr {
        let pod = if version == 0 { service } else { self.pods + service + version * self.services };
        Ipv4Addr::from(POD_ADDRESSES + pod)
    }

    fn file(self, directory: &Path, service: u32) -> PathBuf {
        let folder = format!("team-{}", service / SERVICES_A_NAMESPACE);
        directory.join(folder).join(format!("service-{service}.yaml"))
    }

    /// The Service and what stands behind it: Pods are dealt out in turn.
    fn service(self, service: u32, version: u32) -> String {
        let namespace = format!("team-{}", service / SERVICES_A_NAMESPACE);
        let vip = Ipv4Addr::from(SERVICE_ADDRESSES + service);
        let mut text = format!(
            "apiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: account-{service}, namespace: {namespace}}}\n---\n\
             apiVersion: v1\nkind: Service\nmetadata:\n  name: service-{service}\n  namespace: {namespace}\n  \
             labels: {{app: service-{service}}}\nspec:\n  clusterIP: {vip}\n  clusterIPs: [{vip}]\n  \
             selector: {{app: service-{service}}}\n  ports: [{{name: http, port: 80, targetPort: 8080, protocol: TCP}}]\n"
        );
        let mut slice = format!(
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: service-{service}-x7k2p\n  \
             namespace: {namespace}\n  labels: {{kubernetes.io/service-name: service-{service}}}\naddressType: IPv4\n\
             ports: [{{name: http, port: 8080, protocol: TCP}}]\nendpoints:\n"
        );
        for pod in (service..self.pods).step_by(self.services as usize) {
            let version = if pod == service { version } else { 0 };
            let address = match version {
                0 => Ipv4Addr::from(POD_ADDRESSES + pod),
                version => self.first_address(service, version),
            };
            let name = format!("service-{service}-6d5f7c9b4d-{pod:05}");
            let node = pod % self.nodes;
            text.push_str(&manifest(&namespace, service, &name, pod, node, address));
            slice.push_str(&format!(
                "- addresses: [{address}]\n  conditions: {{ready: true, serving: true, terminating: false}}\n  \
                 nodeName: node-{node}\n  targetRef: {{kind: Pod, name: {name}, namespace: {namespace}}}\n"
            ));
        }
        text + &slice
    }
}

fn put(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| format!("writing {}", file.display()))
}

fn namespace(service: u32) -> String {
    let team = service / SERVICES_A_NAMESPACE;
    format!("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: team-{team}\n  labels: {{mesh.dev/join: enabled}}\n")
}

fn manifest(namespace: &str, service: u32, name: &str, pod: u32, node: u32, address: Ipv4Addr) -> String {
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  namespace: {namespace}\n  \
         uid: 7f1c2b3a-0000-4000-8000-{pod:012x}\n  \
         labels: {{app: service-{service}, version: v1, pod-template-hash: 6d5f7c9b4d}}\n  \
         ownerReferences: [{{apiVersion: apps/v1, kind: ReplicaSet, name: service-{service}-6d5f7c9b4d, uid: u, controller: true}}]\n\
         spec:\n  nodeName: node-{node}\n  serviceAccountName: account-{service}\n  containers:\n  \
         - name: main\n    image: registry.example/team/service:1.4.2\n    ports: [{{containerPort: 8080}}]\n    \
         resources: {{requests: {{cpu: 100m, memory: 128Mi}}}}\n    env: [{{name: LOG_LEVEL, value: info}}]\n\
         status:\n  phase: Running\n  podIP: {address}\n  podIPs: [{{ip: {address}}}]\n  \
         conditions: [{{type: Initialized, status: 'True'}}, {{type: Ready, status: 'True'}}]\n"
    )
}
