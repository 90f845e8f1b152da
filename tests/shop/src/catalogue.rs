//! The shop's workloads as data, for whoever makes pods and Services without a controller.
//!
//! The manifests beside this package say the same to a real cluster; a test compares them.

/// The namespace of the whole shop.
pub const NAMESPACE: &str = "shop";

/// What a workload's port speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1; port name `http`.
    Http,
    /// gRPC over HTTP/2 without TLS; port name `grpc`.
    Grpc,
    /// Lines over TCP; port name `tcp`.
    Tcp,
}

impl Protocol {
    /// The name that a Service's port bears.
    pub fn port_name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Grpc => "grpc",
            Self::Tcp => "tcp",
        }
    }
}

/// One Deployment of the shop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Workload {
    /// The Deployment's name and the stem of its pods' names: `cart-v1`, `product-v2`.
    pub name: &'static str,
    /// The Service that it stands behind, the label `app`, and the subcommand of `mesh-shop`.
    pub service: &'static str,
    /// The service account; of the same name as the Service.
    pub service_account: &'static str,
    /// The label `version`.
    pub version: &'static str,
    /// The node it prefers among two: 0 or 1. Most calls so cross nodes; order to notification does not.
    pub node: usize,
    /// The port of both Service and pod.
    pub port: u16,
    /// What the port speaks.
    pub protocol: Protocol,
}

impl Workload {
    const fn new(
        name: &'static str,
        service: &'static str,
        version: &'static str,
        node: usize,
        port: u16,
        protocol: Protocol,
    ) -> Self {
        Self { name, service, service_account: service, version, node, port, protocol }
    }

    /// The pod's labels.
    pub fn labels(&self) -> [(&'static str, &'static str); 2] {
        [("app", self.service), ("version", self.version)]
    }

    /// The arguments of `mesh-shop` that run this workload on both families.
    pub fn arguments(&self) -> Vec<String> {
        let listen = format!("[::]:{}", self.port);
        let arguments = [self.service, "--listen", &listen, "--version", self.version];
        arguments.map(str::to_owned).to_vec()
    }
}

/// All workloads of the shop; a Service is a distinct [`Workload::service`].
pub fn catalogue() -> &'static [Workload] {
    const ALL: [Workload; 7] = [
        Workload::new("frontend-v1", "frontend", "v1", 0, 8080, Protocol::Http),
        Workload::new("cart-v1", "cart", "v1", 1, 8080, Protocol::Http),
        Workload::new("product-v1", "product", "v1", 0, 8080, Protocol::Http),
        Workload::new("product-v2", "product", "v2", 1, 8080, Protocol::Http),
        Workload::new("order-v1", "order", "v1", 1, 8080, Protocol::Http),
        Workload::new("payment-v1", "payment", "v1", 0, 9090, Protocol::Grpc),
        Workload::new("notification-v1", "notification", "v1", 1, 7070, Protocol::Tcp),
    ];
    &ALL
}
