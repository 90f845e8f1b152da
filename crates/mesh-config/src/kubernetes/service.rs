//! A Service.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Service as KubeService, ServicePort as KubePort, ServiceSpec};
use mesh_core::LabelSet;

use super::Address;
use crate::texts;

/// The annotation by which Istio's users say what `spec.trafficDistribution` says.
pub(crate) const TRAFFIC_DISTRIBUTION: &str = "networking.istio.io/traffic-distribution";

/// What matters of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its labels.
    pub labels: LabelSet,
    /// Its addresses; none where it says nothing of them, which is not an empty list.
    pub addresses: Option<Box<[Address]>>,
    /// Whether these are `spec.clusterIPs`, and not `spec.clusterIP`.
    pub lists_addresses: bool,
    /// Its ports.
    pub ports: Box<[GivenPort]>,
    /// What `spec.externalName` says of a Service of type ExternalName.
    pub external_name: Option<Arc<str>>,
    /// Whether it has `spec.externalIPs`.
    pub has_external_addresses: bool,
    /// `spec.sessionAffinity`, where that is something else than None.
    pub session_affinity: Option<Arc<str>>,
    /// `spec.internalTrafficPolicy`.
    pub internal_traffic_policy: Option<Arc<str>>,
    /// `spec.trafficDistribution`.
    pub traffic_distribution: Option<Arc<str>>,
    /// The annotation [`TRAFFIC_DISTRIBUTION`].
    pub annotated_distribution: Option<Arc<str>>,
}

/// A declared port, as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenPort {
    /// Its name; none where that is empty.
    pub name: Option<Arc<str>>,
    /// Its number.
    pub port: i32,
    /// Its protocol.
    pub protocol: Option<Arc<str>>,
    /// `appProtocol`.
    pub app_protocol: Option<Arc<str>>,
}

impl Service {
    pub(crate) fn of(service: &KubeService) -> Self {
        let (metadata, nothing) = (&service.metadata, ServiceSpec::default());
        let spec = service.spec.as_ref().unwrap_or(&nothing);
        let annotation = |name| metadata.annotations.as_ref().and_then(|all| all.get(name));
        let listed = spec.cluster_ips.as_deref();
        let lists_addresses = listed.is_some_and(|listed| !listed.is_empty());
        let single = || spec.cluster_ip.as_slice();
        let given = if lists_addresses { listed.unwrap_or_default() } else { single() };
        let says = spec.cluster_ip.is_some() || listed.is_some();
        Self {
            labels: texts::labels(metadata.labels.as_ref()),
            addresses: says.then(|| given.iter().map(|text| Address::read(text)).collect()),
            lists_addresses,
            ports: spec.ports.iter().flatten().map(GivenPort::of).collect(),
            external_name: (spec.type_.as_deref() == Some("ExternalName"))
                .then(|| texts::text(spec.external_name.as_deref().unwrap_or_default())),
            has_external_addresses: spec.external_ips.as_ref().is_some_and(|addresses| !addresses.is_empty()),
            session_affinity: text(spec.session_affinity.as_ref()).filter(|affinity| **affinity != *"None"),
            internal_traffic_policy: text(spec.internal_traffic_policy.as_ref()),
            traffic_distribution: text(spec.traffic_distribution.as_ref()),
            annotated_distribution: text(annotation(TRAFFIC_DISTRIBUTION)),
        }
    }

    /// The field that has the address of that index.
    pub(crate) fn address_field(&self, index: usize) -> String {
        if self.lists_addresses { format!("spec.clusterIPs[{index}]") } else { "spec.clusterIP".to_owned() }
    }
}

impl GivenPort {
    fn of(port: &KubePort) -> Self {
        Self {
            name: text(port.name.as_ref()).filter(|name| !name.is_empty()),
            port: port.port,
            protocol: text(port.protocol.as_ref()),
            app_protocol: text(port.app_protocol.as_ref()),
        }
    }
}

fn text(given: Option<&String>) -> Option<Arc<str>> {
    given.map(|given| texts::text(given))
}
