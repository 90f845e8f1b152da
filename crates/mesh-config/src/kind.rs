//! Which kinds of object there are, and what becomes of them.

use crate::config::Options;
use crate::istio::MESH_CONFIG;

/// What becomes of an object of some apiVersion and kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Treatment {
    /// It is translated.
    Read(Kind),
    /// It is a list of objects.
    List,
    /// It is known, its effect is still to come.
    NotEnforced,
    /// It is Kubernetes' own and says nothing to the mesh.
    Ignored,
    /// The kind is known in other versions than this.
    UnknownVersion(&'static [&'static str]),
    /// Nothing is known of it.
    Unknown,
}

/// A kind that is translated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    Namespace,
    Node,
    ServiceAccount,
    Pod,
    Service,
    EndpointSlice,
    AuthorizationPolicy,
    PeerAuthentication,
    RequestAuthentication,
    DestinationRule,
    Gateway,
    ListenerSet,
    IstioGateway,
    VirtualService,
    HttpRoute,
    GrpcRoute,
    TlsRoute,
    TcpRoute,
    ReferenceGrant,
    BackendTlsPolicy,
    ServiceEntry,
    WorkloadEntry,
    Secret,
    /// A ConfigMap with certificates of authorities.
    CaBundle,
    Telemetry,
    MeshConfig,
    RateLimitPolicy,
    EnvoyFilter,
}

impl Kind {
    /// Whether objects of this kind live in a namespace.
    pub(crate) fn is_namespaced(self) -> bool {
        !matches!(self, Self::Namespace | Self::Node)
    }

    /// Whether a cluster has about as many of them as Pods, so that what each of them takes counts.
    pub(crate) const fn is_numerous(self) -> bool {
        matches!(self, Self::ServiceAccount | Self::Pod | Self::Service | Self::EndpointSlice)
    }

    /// The numerous kind of that group and name, if it is one.
    pub(crate) fn numerous(group: &str, kind: &str) -> Option<Self> {
        let known = READ.into_iter().find(|(version, name, _)| *name == kind && group_of(version) == group);
        known.map(|(.., kind)| kind).filter(|kind| kind.is_numerous())
    }

    /// Its API group, and its name in that.
    pub(crate) fn group_and_name(self) -> (&'static str, &'static str) {
        let known = READ.into_iter().find(|(.., kind)| *kind == self);
        // A ConfigMap is read as one of two kinds, of which one is listed.
        known.map_or(("", "ConfigMap"), |(version, name, _)| (group_of(version), name))
    }
}

/// The group of an apiVersion; empty for Kubernetes' core.
fn group_of(api_version: &str) -> &str {
    api_version.split_once('/').map_or("", |(group, _)| group)
}

const READ: [(&str, &str, Kind); 48] = [
    ("v1", "Namespace", Kind::Namespace),
    ("v1", "Node", Kind::Node),
    ("v1", "ServiceAccount", Kind::ServiceAccount),
    ("v1", "Pod", Kind::Pod),
    ("v1", "Service", Kind::Service),
    ("discovery.k8s.io/v1", "EndpointSlice", Kind::EndpointSlice),
    ("security.istio.io/v1", "AuthorizationPolicy", Kind::AuthorizationPolicy),
    ("security.istio.io/v1beta1", "AuthorizationPolicy", Kind::AuthorizationPolicy),
    ("security.istio.io/v1", "PeerAuthentication", Kind::PeerAuthentication),
    ("security.istio.io/v1beta1", "PeerAuthentication", Kind::PeerAuthentication),
    ("security.istio.io/v1", "RequestAuthentication", Kind::RequestAuthentication),
    ("security.istio.io/v1beta1", "RequestAuthentication", Kind::RequestAuthentication),
    ("networking.istio.io/v1", "DestinationRule", Kind::DestinationRule),
    ("networking.istio.io/v1beta1", "DestinationRule", Kind::DestinationRule),
    ("networking.istio.io/v1alpha3", "DestinationRule", Kind::DestinationRule),
    ("networking.istio.io/v1", "VirtualService", Kind::VirtualService),
    ("networking.istio.io/v1beta1", "VirtualService", Kind::VirtualService),
    ("networking.istio.io/v1alpha3", "VirtualService", Kind::VirtualService),
    ("gateway.networking.k8s.io/v1", "HTTPRoute", Kind::HttpRoute),
    ("gateway.networking.k8s.io/v1beta1", "HTTPRoute", Kind::HttpRoute),
    ("gateway.networking.k8s.io/v1", "GRPCRoute", Kind::GrpcRoute),
    ("gateway.networking.k8s.io/v1", "TLSRoute", Kind::TlsRoute),
    ("gateway.networking.k8s.io/v1alpha3", "TLSRoute", Kind::TlsRoute),
    ("gateway.networking.k8s.io/v1alpha2", "TLSRoute", Kind::TlsRoute),
    ("gateway.networking.k8s.io/v1", "TCPRoute", Kind::TcpRoute),
    ("gateway.networking.k8s.io/v1alpha2", "TCPRoute", Kind::TcpRoute),
    ("gateway.networking.k8s.io/v1", "ReferenceGrant", Kind::ReferenceGrant),
    ("gateway.networking.k8s.io/v1beta1", "ReferenceGrant", Kind::ReferenceGrant),
    ("gateway.networking.k8s.io/v1", "BackendTLSPolicy", Kind::BackendTlsPolicy),
    ("gateway.networking.k8s.io/v1alpha3", "BackendTLSPolicy", Kind::BackendTlsPolicy),
    ("gateway.networking.k8s.io/v1", "Gateway", Kind::Gateway),
    ("gateway.networking.k8s.io/v1beta1", "Gateway", Kind::Gateway),
    ("gateway.networking.k8s.io/v1", "ListenerSet", Kind::ListenerSet),
    ("networking.istio.io/v1", "Gateway", Kind::IstioGateway),
    ("networking.istio.io/v1beta1", "Gateway", Kind::IstioGateway),
    ("networking.istio.io/v1alpha3", "Gateway", Kind::IstioGateway),
    ("networking.istio.io/v1", "ServiceEntry", Kind::ServiceEntry),
    ("networking.istio.io/v1beta1", "ServiceEntry", Kind::ServiceEntry),
    ("networking.istio.io/v1alpha3", "ServiceEntry", Kind::ServiceEntry),
    ("networking.istio.io/v1", "WorkloadEntry", Kind::WorkloadEntry),
    ("networking.istio.io/v1beta1", "WorkloadEntry", Kind::WorkloadEntry),
    ("networking.istio.io/v1alpha3", "WorkloadEntry", Kind::WorkloadEntry),
    ("v1", "Secret", Kind::Secret),
    ("telemetry.istio.io/v1", "Telemetry", Kind::Telemetry),
    ("telemetry.istio.io/v1alpha1", "Telemetry", Kind::Telemetry),
    ("v1", "ConfigMap", Kind::MeshConfig),
    ("policy.mesh.dev/v1alpha1", "RateLimitPolicy", Kind::RateLimitPolicy),
    ("networking.istio.io/v1alpha3", "EnvoyFilter", Kind::EnvoyFilter),
];

/// A kind that is translated, as a cluster's API server knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadKind {
    /// The API group; empty for Kubernetes' core.
    pub group: &'static str,
    /// The versions that are read, the preferred one first.
    pub versions: Vec<&'static str>,
    /// The kind.
    pub kind: &'static str,
    /// The namespace and name of the one object that is read; none for all of the kind.
    pub only: Option<(String, &'static str)>,
}

/// Every kind that is translated and read whole. Secrets are not: those that are needed are read by name.
#[must_use]
pub fn read_kinds(options: &Options) -> Vec<ReadKind> {
    let mut kinds: Vec<ReadKind> = Vec::new();
    for (api_version, kind, read) in READ.into_iter().filter(|(.., kind)| *kind != Kind::Secret) {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let only = (read == Kind::MeshConfig).then(|| (options.root_namespace.clone(), MESH_CONFIG));
        match kinds.iter_mut().find(|known| known.group == group && known.kind == kind) {
            Some(known) => known.versions.push(version),
            None => kinds.push(ReadKind { group, versions: vec![version], kind, only }),
        }
    }
    kinds
}

/// Group, versions, kinds. Where a kind is in [`READ`] too, this says in which versions it is known.
type Group = (&'static str, &'static [&'static str], &'static [&'static str]);

const NOT_ENFORCED: [Group; 5] = [
    (
        "gateway.networking.k8s.io",
        &["v1", "v1beta1", "v1alpha3", "v1alpha2"],
        &[
            "GatewayClass",
            "Gateway",
            "ListenerSet",
            "HTTPRoute",
            "GRPCRoute",
            "TLSRoute",
            "TCPRoute",
            "UDPRoute",
            "ReferenceGrant",
            "BackendTLSPolicy",
        ],
    ),
    (
        "networking.istio.io",
        &["v1", "v1beta1", "v1alpha3"],
        &[
            "VirtualService",
            "DestinationRule",
            "Gateway",
            "ServiceEntry",
            "Sidecar",
            "WorkloadEntry",
            "WorkloadGroup",
            "ProxyConfig",
            "EnvoyFilter",
        ],
    ),
    ("security.istio.io", &["v1", "v1beta1"], &["AuthorizationPolicy", "PeerAuthentication", "RequestAuthentication"]),
    ("telemetry.istio.io", &["v1", "v1alpha1"], &["Telemetry"]),
    ("extensions.istio.io", &["v1alpha1"], &["WasmPlugin"]),
];

const IGNORED_CORE: [&str; 10] = [
    "Endpoints",
    "Event",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "LimitRange",
    "ResourceQuota",
    "ReplicationController",
    "PodTemplate",
    "Binding",
    "ComponentStatus",
];

const IGNORED_GROUPS: [&str; 14] = [
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "apiregistration.k8s.io",
    "apps",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "coordination.k8s.io",
    "events.k8s.io",
    "networking.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "scheduling.k8s.io",
    "storage.k8s.io",
];

/// What becomes of an object of that apiVersion and kind.
pub(crate) fn treatment(api_version: &str, kind: &str) -> Treatment {
    if kind == "List" && api_version == "v1" {
        return Treatment::List;
    }
    for (version, name, read) in READ {
        if name == kind && version == api_version {
            return Treatment::Read(read);
        }
        if kind.strip_suffix("List") == Some(name) && version == api_version {
            return Treatment::List;
        }
    }
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    for (name, versions, kinds) in NOT_ENFORCED {
        if name != group || !kinds.contains(&kind.strip_suffix("List").unwrap_or(kind)) {
            continue;
        }
        return match (versions.contains(&version), kind.ends_with("List")) {
            (false, _) => Treatment::UnknownVersion(versions),
            (true, true) => Treatment::List,
            (true, false) => Treatment::NotEnforced,
        };
    }
    if api_version == "v1" && IGNORED_CORE.contains(&kind) || IGNORED_GROUPS.contains(&group) {
        return Treatment::Ignored;
    }
    if kind == "EndpointSlice" && group == "discovery.k8s.io" {
        return Treatment::UnknownVersion(&["v1"]);
    }
    Treatment::Unknown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_apart_by_group_and_version() {
        let cases = [
            ("v1", "Pod", Treatment::Read(Kind::Pod)),
            ("v1", "PodList", Treatment::List),
            ("v1", "List", Treatment::List),
            ("discovery.k8s.io/v1", "EndpointSlice", Treatment::Read(Kind::EndpointSlice)),
            ("discovery.k8s.io/v1beta1", "EndpointSlice", Treatment::UnknownVersion(&["v1"])),
            ("networking.istio.io/v1alpha3", "Gateway", Treatment::Read(Kind::IstioGateway)),
            ("gateway.networking.k8s.io/v1", "Gateway", Treatment::Read(Kind::Gateway)),
            ("networking.istio.io/v1", "VirtualServiceList", Treatment::List),
            ("security.istio.io/v2", "PeerAuthentication", Treatment::UnknownVersion(&["v1", "v1beta1"])),
            ("apps/v1", "Deployment", Treatment::Ignored),
            ("v1", "ConfigMap", Treatment::Read(Kind::MeshConfig)),
            ("v1", "Deployment", Treatment::Unknown),
            ("v1", "Pood", Treatment::Unknown),
            ("example.com/v1", "Pod", Treatment::Unknown),
        ];
        for (api_version, kind, expected) in cases {
            assert_eq!(treatment(api_version, kind), expected, "{api_version} {kind}");
        }
    }
}
