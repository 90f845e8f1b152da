//! Ingress gateways in a lab.

use anyhow::Result;

use crate::waypoint::GATEWAY_NAME;
use crate::{Lab, Pod, PodSpec};

/// An ingress gateway: a pod outside the mesh's capture that lets traffic in.
#[derive(Clone, Debug)]
pub struct Ingress {
    namespace: String,
    name: String,
    ports: Vec<u16>,
    labels: Vec<(String, String)>,
}

impl Ingress {
    /// One that serves the Gateway of that name, and has it as its service account; it listens at no port yet.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.to_owned(), name: name.to_owned(), ports: Vec::new(), labels: Vec::new() }
    }

    /// A port at which it is expected to listen.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.ports.push(port);
        self
    }

    /// A label of its pod, by which Istio's Gateways select it.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.push((key.to_owned(), value.to_owned()));
        self
    }

    /// A Gateway of the Gateway API with a TCP listener, and a route from it to a port of a Service of the namespace `app`.
    pub fn lead_tcp(&self, lab: &Lab, service: &str, port: u16) -> Result<()> {
        let Self { namespace, name, ports, .. } = self;
        let listeners = ports.iter().map(|port| {
            format!("{{name: tcp-{port}, port: {port}, protocol: TCP, allowedRoutes: {{namespaces: {{from: All}}}}}}")
        });
        let listeners = listeners.collect::<Vec<_>>().join(", ");
        let manifests = format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
             spec: {{gatewayClassName: mesh, listeners: [{listeners}]}}\n---\n\
             apiVersion: gateway.networking.k8s.io/v1alpha2\nkind: TCPRoute\nmetadata: {{name: {name}, namespace: app}}\n\
             spec:\n  parentRefs: [{{name: {name}, namespace: {namespace}}}]\n  \
             rules: [{{backendRefs: [{{name: {service}, port: {port}}}]}}]\n"
        );
        lab.apply(&format!("gateway.{namespace}.{name}.yaml"), &manifests)
    }

    /// Starts its pod on a node and waits until it listens at its ports. `certificate` are the flags by which it gets its
    /// certificate.
    pub fn start(&self, lab: &Lab, node: &str, certificate: &[String]) -> Result<Pod> {
        let (own, pod) = (format!("{}/{}", self.namespace, self.name), format!("{}-1", self.name));
        let (config, pod_name) = (lab.config_dir().display().to_string(), format!("{}/{pod}", self.namespace));
        let command =
            ["mesh-waypoint", "serve", "--name", &own, "--identity", &own, "--pod", &pod_name, "--config", &config];
        let socket = lab.waypoint_socket(&self.namespace, &pod).display().to_string();
        let command = command.into_iter().chain(["--admin-socket", &*socket]);
        let command = command.into_iter().chain(certificate.iter().map(String::as_str));
        let spec = PodSpec::new(&self.namespace, &pod).on(node).service_account(&self.name).command(command);
        let spec = spec.label(GATEWAY_NAME, &self.name).label("istio.io/dataplane-mode", "none");
        let spec = self.ports.iter().fold(spec, |spec, port| spec.port(&format!("port-{port}"), *port));
        lab.deploy(self.labels.iter().fold(spec, |spec, (key, value)| spec.label(key, value)))
    }

    /// The same with a certificate of the lab's own authority.
    pub fn start_here(&self, lab: &Lab, node: &str) -> Result<Pod> {
        self.start(lab, node, &["--ca".to_owned(), lab.ca_dir()?.display().to_string()])
    }
}
