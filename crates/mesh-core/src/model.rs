//! Plain data: workloads, services and their endpoints, as one moment of the cluster.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;
use std::sync::{Arc, LazyLock};

use crate::entry::{EndpointTraits, Entry, Resolution};
use crate::few::Few;
use crate::hosts::is_automatic;
use crate::identity::SpiffeId;
use crate::label_set::LabelSet;
use crate::labels::TLS_MODE;
use crate::locality::{Locality, Placement};
use crate::unwatched::Unwatched;
use crate::workload_uid::WorkloadUid;

/// A Node's `metadata.name`, as Pods give it in `spec.nodeName`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeName(Arc<str>);

impl NodeName {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<T: Into<Arc<str>>> From<T> for NodeName {
    fn from(text: T) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A Pod, as the mesh sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// The Pod's uid.
    pub uid: WorkloadUid,
    /// The Pod's name.
    pub name: Arc<str>,
    /// The node that runs it.
    pub node: NodeName,
    /// Where that is; what is not known is empty.
    pub locality: Arc<Locality>,
    /// Its addresses, of both families; the node's own for a Pod on the host's network.
    pub addresses: Few<IpAddr>,
    /// Whether it is ready to serve.
    pub ready: bool,
    /// What others of its controller have in common with it; its fields are read as if they were the workload's own.
    pub template: Arc<Template>,
}

/// There are as many as Pods: what they take decides what a node needs for a large cluster.
const _: () = assert!(size_of::<Workload>() <= 104);

/// What the Pods of one controller have in common, as a rule: of a hundred replicas it is held once. A Pod that differs in
/// any of it has one of its own.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Template {
    /// The Pod's namespace.
    pub namespace: Arc<str>,
    /// Who it is: its trust domain, namespace and service account.
    pub identity: SpiffeId,
    /// Whether it is part of the mesh.
    pub enrolment: Enrolment,
    /// The ports at which kubelet knocks: its probes' and lifecycle hooks', in order.
    pub probe_ports: Vec<u16>,
    /// The ports at which nodes do not look for requests.
    pub unwatched: Unwatched,
    /// Whether what it asks of DNS is left to its resolver (`ambient.istio.io/dns-capture`).
    pub asks_itself: bool,
    /// The Pod's labels, for selectors.
    pub labels: LabelSet,
    /// The owner's name: a Deployment, StatefulSet and so on; the Pod's own without an owner.
    pub workload_name: Arc<str>,
    /// Istio's canonical service ([`crate::labels::canonical_service`]).
    pub canonical_service: Arc<str>,
    /// Istio's canonical revision ([`crate::labels::canonical_revision`]).
    pub canonical_revision: Arc<str>,
    /// The `app` label, or the canonical service.
    pub app: Arc<str>,
    /// The `version` label, or the canonical revision.
    pub version: Arc<str>,
}

impl Deref for Workload {
    type Target = Template;

    fn deref(&self) -> &Template {
        &self.template
    }
}

impl Workload {
    /// Whether its traffic goes by the mesh.
    #[must_use]
    pub fn is_enrolled(&self) -> bool {
        self.enrolment == Enrolment::Enrolled
    }

    /// Whether it is outside the mesh and has a sidecar of Istio's: its injection says so by a label.
    #[must_use]
    pub fn has_sidecar(&self) -> bool {
        !self.is_enrolled() && self.labels.get(TLS_MODE) == Some("istio")
    }

    /// Whether its addresses are its node's, shared with others.
    #[must_use]
    pub fn is_on_host_network(&self) -> bool {
        self.enrolment == Enrolment::Outside(OutsideReason::HostNetwork)
    }
}

/// Whether a workload is part of the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Enrolment {
    /// It is; its traffic is authenticated and encrypted.
    Enrolled,
    /// It is not.
    Outside(OutsideReason),
}

/// Why a workload is not part of the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OutsideReason {
    /// Neither the Pod nor its namespace asks for it.
    NotLabelled,
    /// The Pod's own label keeps it out of an enrolled namespace.
    OptedOut,
    /// The Pod has no network namespace of its own.
    HostNetwork,
}

impl fmt::Display for OutsideReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotLabelled => "neither the pod nor its namespace is labelled to join",
            Self::OptedOut => "the pod's own label keeps it out",
            Self::HostNetwork => "it is on the host's network",
        })
    }
}

/// A Kubernetes Service, or a host of a ServiceEntry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Service {
    /// The Service's namespace.
    pub namespace: Arc<str>,
    /// The Service's name; the host of a ServiceEntry.
    pub name: Arc<str>,
    /// The full host name, such as `cart.shop.svc.cluster.local`.
    pub hostname: Arc<str>,
    /// The cluster addresses, of both families; none for a headless Service. A host's own, or those that the mesh has given it.
    pub vips: Vec<IpAddr>,
    /// The declared ports.
    pub ports: Vec<ServicePort>,
    /// What a ServiceEntry says beside that; none for a Kubernetes Service.
    pub entry: Option<Arc<Entry>>,
    /// Where its clients are led.
    pub placement: Placement,
}

impl Service {
    /// The port that `number` means for `protocol`, if declared.
    #[must_use]
    pub fn port(&self, number: u16, protocol: Protocol) -> Option<&ServicePort> {
        self.ports.iter().find(|port| port.port == number && port.protocol == protocol)
    }

    /// Whether it is there for clients of that namespace (`exportTo`); none for clients that nobody knows.
    #[must_use]
    pub fn is_visible_to(&self, namespace: Option<&str>) -> bool {
        let exported_to = self.entry.as_ref().and_then(|entry| entry.exported_to.as_deref());
        exported_to.is_none_or(|listed| listed.iter().any(|own| Some(&**own) == namespace))
    }

    /// Whether it is a host of that ServiceEntry.
    #[must_use]
    pub fn is_of_entry(&self, namespace: &str, name: &str) -> bool {
        *self.namespace == *namespace && self.entry.as_ref().is_some_and(|entry| *entry.object == *name)
    }

    /// Whether it is asked for by its endpoints' own addresses: it has none, or is a host and has none but those that the mesh gives.
    #[must_use]
    pub fn is_headless(&self) -> bool {
        self.vips.is_empty() || self.entry.is_some() && self.vips.iter().all(|vip| is_automatic(*vip))
    }

    /// How endpoints are found.
    #[must_use]
    pub fn resolution(&self) -> Resolution {
        self.entry.as_ref().map_or(Resolution::Static, |entry| entry.resolution)
    }
}

/// A declared port of a Service, with what stands behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    /// The port's name; a Service with one port may leave it out.
    pub name: Option<Arc<str>>,
    /// The port number at the Service's address.
    pub port: u16,
    /// The transport protocol.
    pub protocol: Protocol,
    /// What it is declared to speak.
    pub speaks: Speaks,
    /// The endpoints that are ready now.
    pub endpoints: Vec<Endpoint>,
}

/// What a Service's port is declared to speak: by `appProtocol`, or by its name's beginning as Istio has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum Speaks {
    /// Nothing is said.
    #[default]
    Unknown,
    /// HTTP/1.1.
    Http,
    /// HTTP/2 without TLS, gRPC among it.
    Http2,
    /// Nothing that can be looked into.
    Opaque,
}

impl Speaks {
    /// What a port with that name and `appProtocol` is declared to speak.
    #[must_use]
    pub fn of(name: Option<&str>, app_protocol: Option<&str>) -> Self {
        let by_name = || name.and_then(|name| name.split('-').next());
        let Some(said) = app_protocol.or_else(by_name) else { return Self::Unknown };
        match said.to_ascii_lowercase().as_str() {
            "http" | "kubernetes.io/ws" => Self::Http,
            "http2" | "grpc" | "kubernetes.io/h2c" => Self::Http2,
            "tcp" | "tls" | "https" | "kubernetes.io/wss" | "mongo" | "mysql" | "redis" | "udp" => Self::Opaque,
            _ => Self::Unknown,
        }
    }
}

/// A ready endpoint of a Service's port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Where it listens.
    pub address: SocketAddr,
    /// The workload that it is, where known; endpoints outside the cluster have none.
    pub workload: Option<Arc<Workload>>,
    /// What a ServiceEntry says of it; none for what only a Pod says of itself.
    pub traits: Option<Arc<EndpointTraits>>,
}

impl Endpoint {
    /// An endpoint of which nothing is said.
    #[must_use]
    pub const fn new(address: SocketAddr, workload: Option<Arc<Workload>>) -> Self {
        Self { address, workload, traits: None }
    }

    /// Where it is: as is said of it, else where its workload is.
    #[must_use]
    pub fn locality(&self) -> &Locality {
        static UNKNOWN: LazyLock<Locality> = LazyLock::new(Locality::default);
        let said = self.traits.as_ref().and_then(|traits| traits.locality.as_ref());
        said.or_else(|| self.workload.as_ref().map(|workload| &*workload.locality)).unwrap_or(&UNKNOWN)
    }

    /// The labels that it is selected by: what is said of it, else the workload's.
    #[must_use]
    pub fn labels(&self) -> Option<&LabelSet> {
        let said = self.traits.as_ref().map(|traits| &traits.labels).filter(|labels| !labels.is_empty());
        said.or_else(|| self.workload.as_ref().map(|workload| &workload.labels))
    }
}

/// A transport protocol of a Service's port. The mesh carries TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// Carried by the mesh.
    Tcp,
    /// Not carried.
    Udp,
    /// Not carried.
    Sctp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        })
    }
}
