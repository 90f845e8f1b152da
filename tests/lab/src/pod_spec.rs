//! What a pod is to be.

use std::net::IpAddr;

use crate::manifests::Labels;

/// When a pod is ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// When something listens at every TCP port of the pod; at once without ports or without a command. No packet is sent.
    Listening,
    /// When the command has printed a line that contains this.
    Line(String),
    /// When [`crate::Pod::set_ready`] says so.
    Manual,
}

/// A pod to be deployed.
#[derive(Clone, Debug)]
pub struct PodSpec {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) service_account: String,
    pub(crate) node: Option<String>,
    pub(crate) labels: Labels,
    pub(crate) annotations: Labels,
    pub(crate) command: Option<Vec<String>>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) ports: Vec<(String, u16)>,
    pub(crate) probe: Option<String>,
    pub(crate) host_network: bool,
    pub(crate) address: Option<IpAddr>,
    pub(crate) readiness: Readiness,
}

impl PodSpec {
    /// A pod with the namespace's default service account, on the first node, that runs nothing.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
            service_account: "default".into(),
            node: None,
            labels: Labels::new(),
            annotations: Labels::new(),
            command: None,
            env: Vec::new(),
            ports: Vec::new(),
            probe: None,
            host_network: false,
            address: None,
            readiness: Readiness::Listening,
        }
    }

    /// Puts the pod on a node.
    #[must_use]
    pub fn on(mut self, node: &str) -> Self {
        self.node = Some(node.into());
        self
    }

    /// Gives the pod a service account, which is made where it is missing.
    #[must_use]
    pub fn service_account(mut self, name: &str) -> Self {
        self.service_account = name.into();
        self
    }

    /// Adds a label.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }

    /// Adds an annotation.
    #[must_use]
    pub fn annotation(mut self, key: &str, value: &str) -> Self {
        self.annotations.insert(key.into(), value.into());
        self
    }

    /// What the pod runs: a program, by path or by name, and its arguments.
    #[must_use]
    pub fn command<S: Into<String>>(mut self, argv: impl IntoIterator<Item = S>) -> Self {
        self.command = Some(argv.into_iter().map(Into::into).collect());
        self
    }

    /// Sets a variable in the environment of what runs in the pod.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Declares a TCP port.
    #[must_use]
    pub fn port(mut self, name: &str, port: u16) -> Self {
        self.ports.push((name.into(), port));
        self
    }

    /// Declares a readiness probe that connects to a port, by its name or number. Nobody makes it: there is no kubelet.
    #[must_use]
    pub fn probe(mut self, port: &str) -> Self {
        self.probe = Some(port.into());
        self
    }

    /// Puts the pod into its node's network namespace.
    #[must_use]
    pub fn host_network(mut self) -> Self {
        self.host_network = true;
        self
    }

    /// Asks for addresses by the IPv4 one of the pair; it must be of the node's and free.
    #[must_use]
    pub fn address(mut self, ipv4: IpAddr) -> Self {
        self.address = Some(ipv4);
        self
    }

    /// Sets when the pod is ready.
    #[must_use]
    pub fn ready_when(mut self, readiness: Readiness) -> Self {
        self.readiness = readiness;
        self
    }
}
