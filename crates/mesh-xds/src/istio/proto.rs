//! Istio's messages for node proxies, as protobuf: `workloadapi/workload.proto` (package `istio.workload`) and
//! `workloadapi/security/authorization.proto` (package `istio.security`), the fields that are written.

use std::collections::BTreeMap;

use bytes::Bytes;

/// `istio.workload.Address`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Address {
    /// Which of the two it is.
    #[prost(oneof = "address::Type", tags = "1, 2")]
    pub r#type: Option<address::Type>,
}

/// What an [`Address`] may be.
pub mod address {
    /// The kinds of resource.
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Type {
        /// A pod, or another endpoint.
        #[prost(message, boxed, tag = "1")]
        Workload(Box<super::Workload>),
        /// A Service, or a host of a ServiceEntry.
        #[prost(message, boxed, tag = "2")]
        Service(Box<super::Service>),
    }
}

/// `istio.workload.Workload`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Workload {
    /// The pod's name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// The pod's namespace.
    #[prost(string, tag = "2")]
    pub namespace: String,
    /// Its addresses, of 4 or 16 octets.
    #[prost(bytes = "bytes", repeated, tag = "3")]
    pub addresses: Vec<Bytes>,
    /// How it is reached.
    #[prost(enumeration = "TunnelProtocol", tag = "5")]
    pub tunnel_protocol: i32,
    /// The trust domain of its identity.
    #[prost(string, tag = "6")]
    pub trust_domain: String,
    /// The service account of its identity.
    #[prost(string, tag = "7")]
    pub service_account: String,
    /// The waypoint that takes what is sent to its own address.
    #[prost(message, optional, tag = "8")]
    pub waypoint: Option<GatewayAddress>,
    /// The node that runs it.
    #[prost(string, tag = "9")]
    pub node: String,
    /// The canonical service.
    #[prost(string, tag = "10")]
    pub canonical_name: String,
    /// The canonical revision.
    #[prost(string, tag = "11")]
    pub canonical_revision: String,
    /// What owns it.
    #[prost(enumeration = "WorkloadType", tag = "12")]
    pub workload_type: i32,
    /// Its owner's name.
    #[prost(string, tag = "13")]
    pub workload_name: String,
    /// Whether it takes tunnels itself, as a waypoint does.
    #[prost(bool, tag = "14")]
    pub native_tunnel: bool,
    /// The policies that are about it and not about its whole namespace or the mesh, as `namespace/name`.
    #[prost(string, repeated, tag = "16")]
    pub authorization_policies: Vec<String>,
    /// Whether it is ready.
    #[prost(enumeration = "WorkloadStatus", tag = "17")]
    pub status: i32,
    /// The cluster.
    #[prost(string, tag = "18")]
    pub cluster_id: String,
    /// The name of the resource.
    #[prost(string, tag = "20")]
    pub uid: String,
    /// The name that DNS has its addresses of.
    #[prost(string, tag = "21")]
    pub hostname: String,
    /// What it is an endpoint of, by `namespace/hostname`.
    #[prost(btree_map = "string, message", tag = "22")]
    pub services: BTreeMap<String, PortList>,
    /// Where it runs.
    #[prost(message, optional, tag = "24")]
    pub locality: Option<Locality>,
    /// Whether its addresses are its node's.
    #[prost(enumeration = "NetworkMode", tag = "25")]
    pub network_mode: i32,
    /// Its share, in relation to the others'.
    #[prost(message, optional, tag = "27")]
    pub capacity: Option<u32>,
}

/// `istio.workload.Service`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Service {
    /// The Service's name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its namespace.
    #[prost(string, tag = "2")]
    pub namespace: String,
    /// Its full host name.
    #[prost(string, tag = "3")]
    pub hostname: String,
    /// Its own addresses.
    #[prost(message, repeated, tag = "4")]
    pub addresses: Vec<NetworkAddress>,
    /// Its ports.
    #[prost(message, repeated, tag = "5")]
    pub ports: Vec<Port>,
    /// Of these its endpoints' certificates have one.
    #[prost(string, repeated, tag = "6")]
    pub subject_alt_names: Vec<String>,
    /// The waypoint that takes what is sent to it.
    #[prost(message, optional, tag = "7")]
    pub waypoint: Option<GatewayAddress>,
    /// How an endpoint is chosen.
    #[prost(message, optional, tag = "8")]
    pub load_balancing: Option<LoadBalancing>,
    /// Of which families its addresses are.
    #[prost(enumeration = "IpFamilies", tag = "9")]
    pub ip_families: i32,
}

/// `istio.workload.LoadBalancing`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct LoadBalancing {
    /// What an endpoint has in common with the client, the widest first.
    #[prost(enumeration = "LoadBalancingScope", repeated, tag = "1")]
    pub routing_preference: Vec<i32>,
    /// The mode.
    #[prost(enumeration = "LoadBalancingMode", tag = "2")]
    pub mode: i32,
}

/// `istio.workload.LoadBalancing.Mode`, of which what is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum LoadBalancingMode {
    /// Nothing is said.
    Unspecified = 0,
    /// Endpoints with all of it in common, and no others.
    Strict = 1,
    /// Those first that have more of it in common.
    Failover = 2,
    /// Connections go to the address that was asked for.
    Passthrough = 3,
}

/// `istio.workload.LoadBalancing.Scope`, of which what is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum LoadBalancingScope {
    /// Nothing.
    Unspecified = 0,
    /// The region.
    Region = 1,
    /// The zone.
    Zone = 2,
    /// The sub-zone.
    Subzone = 3,
    /// The node.
    Node = 4,
}

/// `istio.workload.PortList`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PortList {
    /// The ports.
    #[prost(message, repeated, tag = "1")]
    pub ports: Vec<Port>,
}

/// `istio.workload.Port`.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Port {
    /// At the Service.
    #[prost(uint32, tag = "1")]
    pub service_port: u32,
    /// At the endpoint; 0 where each endpoint says it.
    #[prost(uint32, tag = "2")]
    pub target_port: u32,
}

/// `istio.workload.Locality`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Locality {
    /// The region.
    #[prost(string, tag = "1")]
    pub region: String,
    /// The zone.
    #[prost(string, tag = "2")]
    pub zone: String,
    /// The sub-zone.
    #[prost(string, tag = "3")]
    pub subzone: String,
}

/// `istio.workload.GatewayAddress`, by host name.
#[derive(Clone, PartialEq, prost::Message)]
pub struct GatewayAddress {
    /// The gateway's Service.
    #[prost(message, optional, tag = "1")]
    pub hostname: Option<NamespacedHostname>,
    /// The port at which it takes tunnels.
    #[prost(uint32, tag = "3")]
    pub hbone_mtls_port: u32,
}

/// `istio.workload.NamespacedHostname`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct NamespacedHostname {
    /// The Service's namespace.
    #[prost(string, tag = "1")]
    pub namespace: String,
    /// The Service's full host name.
    #[prost(string, tag = "2")]
    pub hostname: String,
}

/// `istio.workload.NetworkAddress`, in the network that has no name.
#[derive(Clone, PartialEq, prost::Message)]
pub struct NetworkAddress {
    /// 4 or 16 octets.
    #[prost(bytes = "bytes", tag = "2")]
    pub address: Bytes,
}

/// `istio.workload.TunnelProtocol`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum TunnelProtocol {
    /// As it is.
    None = 0,
    /// By HTTP CONNECT over mTLS.
    Hbone = 1,
}

/// `istio.workload.WorkloadType`, of which what is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum WorkloadType {
    /// A controller's.
    Deployment = 0,
    /// Nobody's.
    Pod = 2,
}

/// `istio.workload.WorkloadStatus`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum WorkloadStatus {
    /// Ready.
    Healthy = 0,
    /// Not ready.
    Unhealthy = 1,
}

/// `istio.workload.NetworkMode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum NetworkMode {
    /// Its addresses are its own.
    Standard = 0,
    /// They are its node's.
    HostNetwork = 1,
}

/// `istio.workload.IPFamilies`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum IpFamilies {
    /// As the addresses say.
    Automatic = 0,
    /// IPv4.
    Ipv4Only = 1,
    /// IPv6.
    Ipv6Only = 2,
    /// Both.
    Dual = 3,
}

/// `istio.security.Authorization`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Authorization {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its namespace.
    #[prost(string, tag = "2")]
    pub namespace: String,
    /// How far it reaches.
    #[prost(enumeration = "Scope", tag = "3")]
    pub scope: i32,
    /// What it does.
    #[prost(enumeration = "Action", tag = "4")]
    pub action: i32,
    /// Its rules: one has to match.
    #[prost(message, repeated, tag = "5")]
    pub rules: Vec<Rule>,
    /// Whether it is only reported what it would do.
    #[prost(bool, tag = "6")]
    pub dry_run: bool,
}

/// `istio.security.Rule` (`Group` before it was renamed).
#[derive(Clone, PartialEq, prost::Message)]
pub struct Rule {
    /// All have to hold.
    #[prost(message, repeated, tag = "1")]
    pub clauses: Vec<Clause>,
}

/// `istio.security.Clause` (`Rules` before it was renamed).
#[derive(Clone, PartialEq, prost::Message)]
pub struct Clause {
    /// One has to match; without any it holds.
    #[prost(message, repeated, tag = "2")]
    pub matches: Vec<Match>,
}

/// `istio.security.Match`: one value of each field that has any, and none of each `not_` field's.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Match {
    /// The identity's namespace.
    #[prost(message, repeated, tag = "1")]
    pub namespaces: Vec<StringMatch>,
    /// The identity's namespace.
    #[prost(message, repeated, tag = "2")]
    pub not_namespaces: Vec<StringMatch>,
    /// The identity, without `spiffe://`.
    #[prost(message, repeated, tag = "3")]
    pub principals: Vec<StringMatch>,
    /// The identity, without `spiffe://`.
    #[prost(message, repeated, tag = "4")]
    pub not_principals: Vec<StringMatch>,
    /// Where the connection comes from.
    #[prost(message, repeated, tag = "5")]
    pub source_ips: Vec<IpRange>,
    /// Where the connection comes from.
    #[prost(message, repeated, tag = "6")]
    pub not_source_ips: Vec<IpRange>,
    /// The workload's own address.
    #[prost(message, repeated, tag = "7")]
    pub destination_ips: Vec<IpRange>,
    /// The workload's own address.
    #[prost(message, repeated, tag = "8")]
    pub not_destination_ips: Vec<IpRange>,
    /// The workload's own port.
    #[prost(uint32, repeated, tag = "9")]
    pub destination_ports: Vec<u32>,
    /// The workload's own port.
    #[prost(uint32, repeated, tag = "10")]
    pub not_destination_ports: Vec<u32>,
}

/// `istio.security.Address`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct IpRange {
    /// 4 or 16 octets.
    #[prost(bytes = "bytes", tag = "1")]
    pub address: Bytes,
    /// Bits of the prefix.
    #[prost(uint32, tag = "2")]
    pub length: u32,
}

/// `istio.security.StringMatch`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct StringMatch {
    /// How it matches.
    #[prost(oneof = "string_match::Type", tags = "1, 2, 3, 4")]
    pub match_type: Option<string_match::Type>,
}

/// How a [`StringMatch`] matches.
pub mod string_match {
    /// The kinds of match.
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Type {
        /// The whole text.
        #[prost(string, tag = "1")]
        Exact(String),
        /// Its beginning.
        #[prost(string, tag = "2")]
        Prefix(String),
        /// Its end.
        #[prost(string, tag = "3")]
        Suffix(String),
        /// Any text.
        #[prost(message, tag = "4")]
        Presence(()),
    }
}

/// `istio.security.Scope`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Scope {
    /// The whole mesh.
    Global = 0,
    /// Its namespace.
    Namespace = 1,
    /// The workloads that name it.
    WorkloadSelector = 2,
}

/// `istio.security.Action`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Action {
    /// What it matches is allowed.
    Allow = 0,
    /// What it matches is refused.
    Deny = 1,
}
