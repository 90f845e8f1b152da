//! Waypoints in a lab.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::{Lab, Pod, PodSpec, ServiceSpec};

/// The label by which a Gateway's pods name it.
pub(crate) const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";
/// The mesh's tunnel port.
const HBONE: u16 = 15_008;

/// A waypoint, as its manifests have it: Gateway, Service, and pods that are no part of the mesh's
/// capture, under a service account of their own.
#[derive(Clone, Debug)]
pub struct Waypoint {
    /// The Gateway's name, the Service's and the account's.
    pub name: String,
    namespace: String,
}

impl Waypoint {
    /// Declares it; no replica runs yet.
    pub fn declare_in(lab: &impl AsRef<Lab>, namespace: &str, name: &str) -> Result<Self> {
        let gateway = format!(
            "apiVersion: gateway.networking.k8s.io/v1\n\
             kind: Gateway\n\
             metadata: {{name: {name}, namespace: {namespace}, labels: {{istio.io/waypoint-for: service}}}}\n\
             spec: {{gatewayClassName: istio-waypoint, listeners: [{{name: mesh, port: {HBONE}, protocol: HBONE}}]}}\n"
        );
        let lab = lab.as_ref();
        lab.apply(&format!("gateway.{name}.yaml"), &gateway)?;
        let service = ServiceSpec::new(namespace, name).select(GATEWAY_NAME, name);
        lab.service(service.port("mesh", HBONE, HBONE))?;
        Ok(Self { name: name.to_owned(), namespace: namespace.to_owned() })
    }

    /// Starts a replica and waits until it is ready.
    pub fn replica(&self, lab: &impl AsRef<Lab>, pod: &str, node: &str) -> Result<Pod> {
        self.replica_that_reads(lab, pod, node, lab.as_ref().config_dir())
    }

    /// The same, with a directory of manifests of its own.
    pub fn replica_that_reads(&self, lab: &impl AsRef<Lab>, pod: &str, node: &str, config: &Path) -> Result<Pod> {
        self.start(lab.as_ref(), pod, node, config, &[])
    }

    /// A replica with further flags.
    pub fn replica_with(&self, lab: &impl AsRef<Lab>, pod: &str, node: &str, flags: &[&str]) -> Result<Pod> {
        self.start(lab.as_ref(), pod, node, lab.as_ref().config_dir(), flags)
    }

    fn start(&self, lab: &Lab, pod: &str, node: &str, config: &Path, flags: &[&str]) -> Result<Pod> {
        let own = format!("{}/{}", self.namespace, self.name);
        let (config, ca) = (config.display().to_string(), lab.ca_dir()?.display().to_string());
        let socket = self.admin_socket(lab, pod).display().to_string();
        let command = ["mesh-waypoint", "serve", "--name", &own, "--identity", &own, "--config", &config, "--ca", &ca];
        let command = command.into_iter().chain(["--admin-socket", &*socket]).chain(flags.iter().copied());
        let spec = PodSpec::new(&self.namespace, pod).on(node).service_account(&self.name).command(command);
        let spec = spec.label(GATEWAY_NAME, &self.name).label("istio.io/dataplane-mode", "none");
        lab.deploy(spec.port("mesh", HBONE))
    }

    /// Where a replica has its admin API.
    pub fn admin_socket(&self, lab: &impl AsRef<Lab>, pod: &str) -> PathBuf {
        lab.as_ref().waypoint_socket(&self.namespace, pod)
    }

    /// Has what is sent to the namespace's Services go by it.
    pub fn serve_namespace(&self, lab: &impl AsRef<Lab>) -> Result<()> {
        lab.as_ref().label_namespace(&self.namespace, "istio.io/use-waypoint", &self.name)
    }

    /// Who its replicas are.
    pub fn identity(&self) -> String {
        format!("spiffe://cluster.local/ns/{}/sa/{}", self.namespace, self.name)
    }
}
