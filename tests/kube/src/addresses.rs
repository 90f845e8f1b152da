//! Which addresses a cluster has. Only its bridge is seen by the machine, so only that differs from cluster to cluster.

use std::net::Ipv4Addr;

/// Pods of all nodes.
pub(crate) const PODS: &str = "10.244.0.0/16";
/// Services.
pub(crate) const SERVICES: &str = "10.96.0.0/16";
/// The API server as a Service.
pub(crate) const API_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
/// Where DNS is looked for.
pub(crate) const DNS_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
/// The API server's port.
pub(crate) const API_PORT: u16 = 6443;

/// The addresses on one cluster's bridge.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Addresses {
    number: u8,
}

impl Addresses {
    pub(crate) fn of(number: u8) -> Self {
        Self { number }
    }

    fn on_bridge(self, last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 231, self.number, last)
    }

    /// The machine's own.
    pub(crate) fn machine(self) -> Ipv4Addr {
        self.on_bridge(254)
    }

    /// The control plane's.
    pub(crate) fn control(self) -> Ipv4Addr {
        self.on_bridge(1)
    }

    /// A node's, counted from 0.
    pub(crate) fn node(self, index: u8) -> Ipv4Addr {
        self.on_bridge(11 + index)
    }

    /// Those of Services of type LoadBalancer.
    pub(crate) fn balanced(self) -> Vec<Ipv4Addr> {
        (1..=254).map(|last| Ipv4Addr::new(10, 232, self.number, last)).collect()
    }

    /// All of them, as routes have it.
    pub(crate) fn balanced_range(self) -> String {
        format!("10.232.{}.0/24", self.number)
    }

    /// Where the API server is reached.
    pub(crate) fn api(self) -> String {
        format!("https://{}:{API_PORT}", self.control())
    }
}

/// The range of a node's pods.
pub(crate) fn pods(index: u8) -> String {
    format!("10.244.{}.0/24", index + 1)
}
