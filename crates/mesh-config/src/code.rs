//! The table of findings: every code, how bad it is, what it means and what to do. Codes are never reused.

use std::fmt;

use serde::{Serialize, Serializer};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing; nothing to do.
    Info,
    /// In force, but perhaps not what was meant.
    Warning,
    /// Something is not in force.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

macro_rules! codes {
    ($($name:ident = $id:literal $severity:ident $title:literal $remedy:literal)*) => {
        /// What a finding is about. The text form (`MESH0001`) is stable across versions.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $(#[doc = concat!($id, ": ", $title, ".")] $name,)*
        }

        impl Code {
            /// Every code, in order.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The stable text, such as `MESH0001`.
            #[must_use]
            pub const fn id(self) -> &'static str {
                match self { $(Self::$name => $id,)* }
            }

            /// How bad it is.
            #[must_use]
            pub const fn severity(self) -> Severity {
                match self { $(Self::$name => Severity::$severity,)* }
            }

            /// What it means, in a few words.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }

            /// What to do about it.
            #[must_use]
            pub const fn remedy(self) -> &'static str {
                match self { $(Self::$name => $remedy,)* }
            }
        }
    };
}

codes! {
    // Files and documents.
    Syntax = "MESH0001" Error "document is broken"
        "Correct the document at the line given; the other documents of the file are in force."
    Unreadable = "MESH0002" Error "file cannot be read"
        "Make the path a readable UTF-8 file, or take it out of the directory."
    FileTooLarge = "MESH0003" Error "file is too large"
        "Split the file into several."
    TooManyDocuments = "MESH0004" Error "file has too many documents"
        "Split the file into several."
    DirectoryTooLarge = "MESH0005" Error "directory is too large or too deep"
        "Point the mesh at a directory that holds only its manifests."
    NoHeader = "MESH0006" Error "document is no Kubernetes object"
        "Give the document apiVersion, kind and metadata.name."
    UnknownKind = "MESH0007" Warning "kind is unknown"
        "Check the spelling of kind and apiVersion; if the mesh has no use for the object, move it elsewhere."
    NotEnforced = "MESH0008" Warning "kind is read, not yet enforced"
        "Do not rely on it yet; this version carries traffic without it."
    WrongField = "MESH0009" Error "field has the wrong type"
        "Write the field as the Kubernetes API reference says; quote text that looks like a number."
    MissingField = "MESH0010" Error "required field is missing"
        "Add the field."
    LastGood = "MESH0011" Warning "last good version stays in force"
        "Correct the document, or delete it if its object is meant to go."
    DefinedTwice = "MESH0012" Error "object is defined twice"
        "Keep one of the two definitions; the first in path order is in force."

    // Pods and what they refer to.
    PodWithoutUid = "MESH0101" Error "Pod has no uid"
        "Take the Pod as the API server gives it; metadata.uid ties its tunnels to it."
    BadPodAddress = "MESH0102" Error "Pod's address is not usable"
        "Write a unicast IPv4 or IPv6 address; the Pod's other addresses are in force."
    SharedPodAddress = "MESH0103" Error "two Pods have one address"
        "Delete the Pod that is gone or correct its address; the first by namespace and name has it."
    SharedPodUid = "MESH0104" Error "two Pods have one uid"
        "Give each Pod its own metadata.uid; the first by namespace and name is in force."
    PodNotPlaced = "MESH0105" Info "Pod has no node or no address yet"
        "Nothing, if it is still starting; otherwise see spec.nodeName and status.podIPs."
    NoServiceAccount = "MESH0106" Warning "ServiceAccount is absent"
        "Create the ServiceAccount, or correct the Pod's spec.serviceAccountName."
    NoNamespace = "MESH0107" Warning "Namespace is absent"
        "Create the Namespace; its labels decide whether its Pods join the mesh."
    NoNode = "MESH0108" Warning "Node is absent"
        "Create the Node, or correct the Pod's spec.nodeName."
    BadIdentity = "MESH0109" Error "no identity can be made"
        "Use letters, digits, '.', '-' and '_' in the namespace and the service account."
    BadJoinLabel = "MESH0110" Warning "enrolment label has an unknown value"
        "Write mesh.dev/join: enabled or disabled, or istio.io/dataplane-mode: ambient or none."
    HostNetworkCannotJoin = "MESH0111" Warning "Pod on the host's network cannot join"
        "Remove the label from the Pod, or spec.hostNetwork."
    ProbePortUnknown = "MESH0112" Warning "probe's port is none of the container's"
        "Correct the port, or declare it in the container's ports; kubelet's probe fails until then."
    BadPortsLabel = "MESH0113" Warning "label names no ports"
        "Write mesh.dev/no-request-metrics: all, none, or port numbers with dots between them."
    BadCaptureAnnotation = "MESH0114" Warning "annotation says neither true nor false"
        "Write true or false, in quotes, at ambient.istio.io/dns-capture; the Pod is told of hosts until then."

    // Services and their endpoints.
    NoEndpoints = "MESH0201" Warning "Service has no ready endpoints"
        "Start the Pods behind it, or make its selector match them; connections are refused until then."
    NoService = "MESH0202" Warning "EndpointSlice of a Service that does not exist"
        "Create the Service, or correct the label kubernetes.io/service-name."
    SliceWithoutService = "MESH0203" Warning "EndpointSlice names no Service"
        "Set the label kubernetes.io/service-name to the Service's name."
    ProtocolNotCarried = "MESH0204" Info "port's protocol is not carried by the mesh"
        "Nothing; only TCP goes by the mesh."
    BadServiceAddress = "MESH0205" Error "Service's address is not usable"
        "Write a unicast IPv4 or IPv6 address; the Service's other addresses are in force."
    SharedServiceAddress = "MESH0206" Error "two Services have one address"
        "Give each Service its own clusterIP; the first by namespace and name has it."
    BadPort = "MESH0207" Error "port is not usable"
        "Write a port from 1 to 65535 and a protocol of TCP, UDP or SCTP."
    AddressTypeNotSupported = "MESH0208" Warning "EndpointSlice's address type is not supported"
        "Use addressType IPv4 or IPv6."
    BadEndpointAddress = "MESH0209" Error "endpoint's address is not usable"
        "Write a unicast address of the slice's addressType."
    NoSuchServicePort = "MESH0210" Warning "EndpointSlice's port matches none of the Service"
        "Give the slice's port the name and protocol of the Service's port."
    FieldNotHonoured = "MESH0211" Warning "field is read, not honoured"
        "Remove the field, or do without what it asks for."
    NoClusterAddress = "MESH0212" Warning "Service of type ExternalName is not carried"
        "Use the external name directly."
    HostTaken = "MESH0213" Error "host is another's already"
        "Join the two in one ServiceEntry, or give this one another host; it is not in force for the host until then."
    NotCaptured = "MESH0214" Info "clients reach the host past the mesh"
        "Give the host what it lacks: a waypoint (istio.io/use-waypoint), addresses, an entry without wildcards or without other ports than TCP, or one in the namespace of its name. Until then its requests are told by their host at gateways alone."
    NotSelected = "MESH0215" Info "WorkloadEntry is nobody's endpoint"
        "Let the workloadSelector of a ServiceEntry in its namespace select its labels."

    // Policies.
    BadPolicyValue = "MESH0301" Error "policy says something impossible"
        "Correct the field."
    FieldNeedsRequest = "MESH0302" Warning "field needs a request, and connections are judged here"
        "Use fields of connections alone, or put the policy on a waypoint with targetRefs."
    NoAuthorizer = "MESH0303" Warning "action CUSTOM has no authorizer"
        "Name a provider of the mesh configuration (extensionProviders), and put the policy on a waypoint or gateway with targetRefs."
    NeverMatches = "MESH0304" Warning "policy can never match"
        "Correct the rule; a rule {} matches everything."
    PolicyForWaypoint = "MESH0305" Warning "policy is attached to what no waypoint takes"
        "Name a Gateway of a waypoint's class, or give the Service a waypoint (istio.io/use-waypoint)."
    PolicyConflict = "MESH0306" Warning "another policy is older and about the same"
        "Delete one of the two, or join them in one."
    ModeNotHonoured = "MESH0307" Warning "mode DISABLE refuses no tunnel"
        "Write PERMISSIVE, or take the workload out of the mesh."
    TlsNotOriginated = "MESH0308" Error "TLS is not originated"
        "Create a waypoint for the host, and name files in the rule, or a Secret of the waypoint's namespace; or let the application speak TLS itself, with mode DISABLE or none."
    UnknownHost = "MESH0309" Warning "rule is about a host that is no Service's"
        "Write SERVICE in the rule's own namespace, or SERVICE.NAMESPACE.svc.CLUSTER-DOMAIN."
    StrictestStandsIn = "MESH0310" Error "broken policy, and no good version is known"
        "Correct the document; until then the strictest that it can have meant is in force."
    LimitWithoutEffect = "MESH0311" Warning "limit limits nothing"
        "Give the limit a share that is above 0, and attach it to a gateway, to a Service with a waypoint, or to a route."
    WithoutEffect = "MESH0312" Warning "field has no effect as it is written"
        "Give the field what it needs to have one, or take it out."
    TokensNotRead = "MESH0321" Warning "tokens are read at waypoints and gateways alone"
        "Attach the policy to a waypoint or a Gateway with targetRefs, or select a gateway's pods."

    // Waypoints and routes.
    NoSuchWaypoint = "MESH0401" Warning "waypoint does not exist"
        "Create the Gateway that the label names, or correct the label."
    WaypointNotAllowed = "MESH0402" Warning "waypoint takes nothing of this namespace"
        "Let the Gateway's allowedRoutes admit the namespace, or name a waypoint of its own."
    BadWaypointLabel = "MESH0403" Warning "waypoint label has an unknown value"
        "Write istio.io/waypoint-for: service, workload, all or none."
    RouteOfNoService = "MESH0404" Warning "route is about a host that is no Service's"
        "Write SERVICE in the route's own namespace, or SERVICE.NAMESPACE.svc.CLUSTER-DOMAIN."
    BackendNotFound = "MESH0405" Error "destination does not exist"
        "Correct the host and the port; the destination's share of requests is answered with an error until then."
    SubsetNotDefined = "MESH0406" Error "subset is not defined"
        "Define the subset in a DestinationRule of the host; its share of requests is answered with 503 until then."
    RouteConflict = "MESH0407" Warning "another route is older and about the same host"
        "Join the two in one, or delete one."
    NoWaypoint = "MESH0408" Warning "Service has no waypoint to do that"
        "Create a waypoint, and label the Service or its namespace istio.io/use-waypoint."
    ParentNotFound = "MESH0409" Error "parent is not there"
        "Correct the parentRef; nothing is in force there until then."
    ReferenceNotGranted = "MESH0410" Error "reference to another namespace is not granted"
        "Create a ReferenceGrant in the other namespace; its share of requests is answered with 500 until then."
    FilterNotHonoured = "MESH0411" Error "filter is not known here"
        "Remove the filter; requests of its rule are answered with 500 until then."
    RuleShadowed = "MESH0412" Warning "rule's requests are another rule's already"
        "Put the rule first if it is to have them, or take it out."
    SubsetWithoutPods = "MESH0413" Warning "subset has no ready pods"
        "Start pods with the subset's labels, or correct the labels; its share of requests is answered with 503 until then."

    // Gateways.
    ListenerConflict = "MESH0414" Warning "listener asks for what another one has"
        "Give it another port, or another hostname; it is not opened until then."
    NoCertificate = "MESH0415" Error "certificate cannot be used"
        "Create a Secret of type kubernetes.io/tls with tls.crt and tls.key; handshakes fail until then."
    RouteNotAllowed = "MESH0416" Error "no listener admits the route"
        "Let a listener's allowedRoutes and hostname admit the route, or correct the route."
    NoSuchGateway = "MESH0417" Warning "gateway does not exist"
        "Create the Gateway of networking.istio.io that is named, or correct the name."

    // Delegates.
    NoSuchDelegate = "MESH0418" Error "delegate cannot be used"
        "Name a VirtualService without hosts whose exportTo admits the namespace; the rule is left out until then."
    DelegateConflict = "MESH0419" Error "delegate's rule matches what its root does not"
        "Let each match of the delegate be narrower than one of the root's; the rule is left out until then."
    UnusedDelegate = "MESH0420" Warning "nobody delegates to it"
        "Name it as delegate in a VirtualService with hosts, or give it hosts."
    ListenerNotOpened = "MESH0421" Error "listener cannot be opened as it is written"
        "Correct the field; the Gateway's other listeners are open."
    NoRoots = "MESH0422" Error "certificates of authorities cannot be used"
        "Create a ConfigMap, or a Secret, with the authorities' certificates as ca.crt; nobody is let in, or believed, without one."
    ListenersNotTaken = "MESH0423" Warning "Gateway takes no listeners of the ListenerSet"
        "Let the Gateway's allowedListeners admit the namespace: a Gateway that does not say so takes nobody's."

    // Weights, and gateways that nobody is.
    WeightsNotWhole = "MESH0431" Warning "weights do not add up to 100"
        "Write percentages that add up to 100, if that is what is meant."
    NoWeight = "MESH0432" Error "no backend has a weight"
        "Give a backend a weight; every request of the rule is answered with 500 until then."
    GatewayWithoutPods = "MESH0433" Warning "gateway has no pods"
        "Start a gateway with the labels that it selects, or correct the selector."

    // The mesh configuration.
    ProviderNotFound = "MESH0501" Warning "provider is not there"
        "Write a Service's full host name, SERVICE.NAMESPACE.svc.CLUSTER-DOMAIN, and one of its ports; until then it answers nobody."
}

impl Code {
    /// Whether an object of which this is found is not read at all.
    #[must_use]
    pub const fn breaks_objects(self) -> bool {
        matches!(self, Self::Syntax | Self::NoHeader | Self::WrongField | Self::MissingField | Self::BadPolicyValue)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.id())
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_ordered_and_complete() {
        assert!(Code::ALL.is_sorted_by(|a, b| a.id() < b.id()));
        for code in Code::ALL {
            assert_eq!(code.id().len(), 8, "{code}");
            assert!(code.id().starts_with("MESH"), "{code}");
            assert!(code.remedy().ends_with('.'), "{code}");
            assert!(!code.title().ends_with('.'), "{code}");
        }
    }
}
