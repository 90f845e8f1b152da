//! Waypoints in the tests' meshes.

use anyhow::Result;
use mesh_lab::{Pod, PodSpec, ServiceSpec};

use crate::{Mesh, NAMESPACE};

/// The label by which a waypoint's pods name their Gateway.
const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";
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
    pub fn declare(mesh: &Mesh, name: &str) -> Result<Self> {
        Self::declare_in(mesh, NAMESPACE, name)
    }

    /// The same in another namespace.
    pub fn declare_in(mesh: &Mesh, namespace: &str, name: &str) -> Result<Self> {
        let gateway = format!(
            "apiVersion: gateway.networking.k8s.io/v1\n\
             kind: Gateway\n\
             metadata: {{name: {name}, namespace: {namespace}, labels: {{istio.io/waypoint-for: service}}}}\n\
             spec: {{gatewayClassName: istio-waypoint, listeners: [{{name: mesh, port: {HBONE}, protocol: HBONE}}]}}\n"
        );
        mesh.lab.apply(&format!("gateway.{name}.yaml"), &gateway)?;
        let service = ServiceSpec::new(namespace, name).select(GATEWAY_NAME, name);
        mesh.lab.service(service.port("mesh", HBONE, HBONE))?;
        Ok(Self { name: name.to_owned(), namespace: namespace.to_owned() })
    }

    /// Starts a replica and waits until it is ready.
    pub fn replica(&self, mesh: &Mesh, pod: &str, node: &str) -> Result<Pod> {
        let own = format!("{}/{}", self.namespace, self.name);
        let (config, ca) = (mesh.lab.config_dir().display().to_string(), mesh.lab.ca_dir()?.display().to_string());
        let command = ["mesh-waypoint", "serve", "--name", &own, "--identity", &own, "--config", &config, "--ca", &ca];
        let spec = PodSpec::new(&self.namespace, pod).on(node).service_account(&self.name).command(command);
        let spec = spec.label(GATEWAY_NAME, &self.name).label("istio.io/dataplane-mode", "none");
        mesh.lab.deploy(spec.port("mesh", HBONE))
    }

    /// Has what is sent to the namespace's Services go by it.
    pub fn serve_namespace(&self, mesh: &Mesh) -> Result<()> {
        mesh.lab.label_namespace(&self.namespace, "istio.io/use-waypoint", &self.name)
    }

    /// Who its replicas are.
    pub fn identity(&self) -> String {
        format!("spiffe://cluster.local/ns/{}/sa/{}", self.namespace, self.name)
    }
}
