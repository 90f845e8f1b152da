//! Services: virtual addresses for sets of pods.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use crate::addresses::Pair;

/// A Service's transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// `TCP`
    Tcp,
    /// `UDP`
    Udp,
}

impl Protocol {
    /// As Kubernetes writes it.
    pub(crate) fn upper(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        }
    }

    /// As nftables writes it.
    pub(crate) fn lower(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// A port of a Service.
#[derive(Clone, Debug)]
pub struct ServicePort {
    /// Its name, by which EndpointSlices refer to it.
    pub name: String,
    /// The port at the Service's addresses.
    pub port: u16,
    /// The port at the pods.
    pub target_port: u16,
    /// The transport protocol.
    pub protocol: Protocol,
}

/// Which pods serve.
#[derive(Clone, Debug)]
pub(crate) enum Backends {
    /// The namespace's pods with these labels.
    Selector(BTreeMap<String, String>),
    /// The namespace's pods of these names; the Service has no selector.
    Pods(Vec<String>),
}

/// A Service to be made: dual-stack, with an address of each family.
#[derive(Clone, Debug)]
pub struct ServiceSpec {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) ports: Vec<ServicePort>,
    pub(crate) backends: Backends,
    pub(crate) traffic_distribution: Option<String>,
    pub(crate) internal_traffic_policy: Option<String>,
    pub(crate) session_affinity: Option<String>,
}

impl ServiceSpec {
    /// A Service that has no ports and no pods yet.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
            ports: Vec::new(),
            backends: Backends::Pods(Vec::new()),
            traffic_distribution: None,
            internal_traffic_policy: None,
            session_affinity: None,
        }
    }

    /// Which endpoints are preferred for where they are, such as `PreferSameZone`.
    #[must_use]
    pub fn traffic_distribution(self, preferred: &str) -> Self {
        Self { traffic_distribution: Some(preferred.into()), ..self }
    }

    /// Whether clients get endpoints of their own node alone: `Local` for that.
    #[must_use]
    pub fn internal_traffic_policy(self, policy: &str) -> Self {
        Self { internal_traffic_policy: Some(policy.into()), ..self }
    }

    /// Whether a client's connections all get the same endpoint: `ClientIP` for that.
    #[must_use]
    pub fn session_affinity(self, affinity: &str) -> Self {
        Self { session_affinity: Some(affinity.into()), ..self }
    }

    /// Adds a TCP port.
    #[must_use]
    pub fn port(self, name: &str, port: u16, target_port: u16) -> Self {
        self.port_of(name, port, target_port, Protocol::Tcp)
    }

    /// Adds a UDP port.
    #[must_use]
    pub fn udp_port(self, name: &str, port: u16, target_port: u16) -> Self {
        self.port_of(name, port, target_port, Protocol::Udp)
    }

    fn port_of(mut self, name: &str, port: u16, target_port: u16, protocol: Protocol) -> Self {
        self.ports.push(ServicePort { name: name.into(), port, target_port, protocol });
        self
    }

    /// Selects pods with this label, and with those of earlier calls.
    #[must_use]
    pub fn select(mut self, key: &str, value: &str) -> Self {
        let mut labels = match self.backends {
            Backends::Selector(labels) => labels,
            Backends::Pods(_) => BTreeMap::new(),
        };
        labels.insert(key.into(), value.into());
        self.backends = Backends::Selector(labels);
        self
    }

    /// Names the pods, in place of a selector.
    #[must_use]
    pub fn pods(mut self, names: &[&str]) -> Self {
        self.backends = Backends::Pods(names.iter().map(|name| (*name).into()).collect());
        self
    }
}

/// A Service of the lab.
#[derive(Clone, Debug)]
pub struct Service {
    pub(crate) spec: ServiceSpec,
    pub(crate) vips: Pair,
}

impl Service {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// Its namespace.
    pub fn namespace(&self) -> &str {
        &self.spec.namespace
    }

    /// The name that resolves everywhere in the cluster.
    pub fn hostname(&self) -> String {
        format!("{}.{}.svc.cluster.local", self.spec.name, self.spec.namespace)
    }

    /// The IPv4 address.
    pub fn vip4(&self) -> IpAddr {
        self.vips.v4.into()
    }

    /// The IPv6 address.
    pub fn vip6(&self) -> IpAddr {
        self.vips.v6.into()
    }

    /// The IPv4 address with a port.
    pub fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.vip4(), port)
    }

    /// The IPv6 address with a port.
    pub fn at_v6(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.vip6(), port)
    }
}
