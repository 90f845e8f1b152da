//! Workloads and Services as Istio's node proxies read them: `istio.workload.Address`.

use std::net::IpAddr;

use bytes::Bytes;
use mesh_core::entry::Resolution;
use mesh_core::l7::{WAYPOINT_PORT, Waypoint};
use mesh_core::locality::{Locality, Nearest};
use mesh_core::model::{Protocol, Service, Workload};
use mesh_core::snapshot::Snapshot;

use super::members::{Member, Members, Membership};
use super::proto::{
    self, GatewayAddress, IpFamilies, LoadBalancing, LoadBalancingMode, LoadBalancingScope, NamespacedHostname,
    NetworkAddress, NetworkMode, Port, PortList, TunnelProtocol, WorkloadStatus, WorkloadType,
};

/// The cluster's name where Istio's installation gives it none.
const CLUSTER: &str = "Kubernetes";

/// The name of a member's resource: Istio's `cluster/group/kind/namespace/name` for pods.
pub(super) fn uid(member: &Member) -> String {
    match member {
        Member::Workload(namespace, name) => format!("{CLUSTER}//Pod/{namespace}/{name}"),
        Member::Address(address) => format!("{CLUSTER}/mesh.dev/Address//{address}"),
        Member::Name(name) => format!("{CLUSTER}/mesh.dev/Name//{name}"),
    }
}

/// Other names of a resource that has those addresses: `network/address`, in the network that has no name.
pub(super) fn aliases<'a>(addresses: impl IntoIterator<Item = &'a IpAddr>) -> Box<[Box<str>]> {
    addresses.into_iter().map(|address| format!("/{address}").into()).collect()
}

/// A workload.
pub(super) fn workload(
    snapshot: &Snapshot,
    workload: &Workload,
    policies: Vec<String>,
    members: &Members,
) -> proto::Workload {
    let l7 = snapshot.l7();
    let is_waypoint = l7.waypoints().iter().any(|waypoint| waypoint.runs_as(workload));
    let tunnel = if workload.is_enrolled() || is_waypoint { TunnelProtocol::Hbone } else { TunnelProtocol::None };
    let owner = if workload.workload_name == workload.name { WorkloadType::Pod } else { WorkloadType::Deployment };
    let status = if workload.ready { WorkloadStatus::Healthy } else { WorkloadStatus::Unhealthy };
    let network = if workload.is_on_host_network() { NetworkMode::HostNetwork } else { NetworkMode::Standard };
    let member = Member::Workload(workload.namespace.clone(), workload.name.clone());
    proto::Workload {
        name: workload.name.to_string(),
        namespace: workload.namespace.to_string(),
        addresses: workload.addresses.iter().copied().map(octets).collect(),
        tunnel_protocol: tunnel.into(),
        trust_domain: workload.identity.trust_domain().to_string(),
        service_account: workload.identity.service_account().to_owned(),
        waypoint: l7
            .waypoint_of_workload(workload)
            .filter(|waypoint| !waypoint.runs_as(workload))
            .map(|it| by_way_of(it)),
        node: workload.node.to_string(),
        canonical_name: workload.canonical_service.to_string(),
        canonical_revision: workload.canonical_revision.to_string(),
        workload_type: owner.into(),
        workload_name: workload.workload_name.to_string(),
        native_tunnel: is_waypoint,
        authorization_policies: policies,
        status: status.into(),
        locality: locality(&workload.locality),
        network_mode: network.into(),
        ..endpoint(&member, members)
    }
}

/// An endpoint that is no workload: what it is an endpoint of, and where it is found.
pub(super) fn endpoint(member: &Member, members: &Members) -> proto::Workload {
    let mut endpoint =
        proto::Workload { uid: uid(member), cluster_id: CLUSTER.to_owned(), ..proto::Workload::default() };
    match member {
        Member::Workload(..) => {}
        Member::Address(address) => endpoint.addresses.push(octets(*address)),
        Member::Name(name) => endpoint.hostname = name.to_string(),
    }
    for (service, membership) in members.services_of(member) {
        endpoint.services.insert(service.to_string(), ports(membership));
        endpoint.capacity = endpoint.capacity.or(membership.weight);
        endpoint.locality = endpoint.locality.or_else(|| locality(membership.locality.as_ref()?));
    }
    endpoint
}

fn ports(membership: &Membership) -> PortList {
    let port = |(service, target): &(u16, u16)| Port { service_port: (*service).into(), target_port: (*target).into() };
    PortList { ports: membership.ports.iter().map(port).collect() }
}

/// A Service.
pub(super) fn service(snapshot: &Snapshot, service: &Service) -> proto::Service {
    let tcp = service.ports.iter().filter(|port| port.protocol == Protocol::Tcp);
    // Each endpoint says which of its ports a port is.
    let ports = tcp.map(|port| Port { service_port: port.port.into(), target_port: 0 });
    let names = service.entry.iter().flat_map(|entry| &entry.subject_alt_names);
    proto::Service {
        name: service.name.to_string(),
        namespace: service.namespace.to_string(),
        hostname: service.hostname.to_string(),
        addresses: service.vips.iter().map(|vip| NetworkAddress { address: octets(*vip) }).collect(),
        ports: ports.collect(),
        subject_alt_names: names.map(ToString::to_string).collect(),
        waypoint: snapshot.l7().waypoint_of(service).map(|waypoint| by_way_of(waypoint)),
        load_balancing: load_balancing(service),
        ip_families: families(&service.vips).into(),
    }
}

fn locality(locality: &Locality) -> Option<proto::Locality> {
    let Locality { region, zone, subzone } = locality;
    let said = || proto::Locality { region: region.to_string(), zone: zone.to_string(), subzone: subzone.to_string() };
    (!locality.is_unknown()).then(said)
}

fn load_balancing(service: &Service) -> Option<LoadBalancing> {
    use LoadBalancingScope::{Node, Region, Subzone, Zone};
    let of = |mode: LoadBalancingMode, scopes: &[LoadBalancingScope]| LoadBalancing {
        routing_preference: scopes.iter().map(|scope| (*scope).into()).collect(),
        mode: mode.into(),
    };
    if service.resolution() == Resolution::None {
        return Some(of(LoadBalancingMode::Passthrough, &[]));
    }
    if service.placement.node_only {
        return Some(of(LoadBalancingMode::Strict, &[Node]));
    }
    service.placement.nearest.map(|nearest| match nearest {
        Nearest::Close => of(LoadBalancingMode::Failover, &[Region, Zone, Subzone]),
        Nearest::Zone => of(LoadBalancingMode::Failover, &[Region, Zone]),
        Nearest::Node => of(LoadBalancingMode::Failover, &[Region, Zone, Subzone, Node]),
    })
}

fn families(addresses: &[IpAddr]) -> IpFamilies {
    match (addresses.iter().any(IpAddr::is_ipv4), addresses.iter().any(IpAddr::is_ipv6)) {
        (false, false) => IpFamilies::Automatic,
        (true, false) => IpFamilies::Ipv4Only,
        (false, true) => IpFamilies::Ipv6Only,
        (true, true) => IpFamilies::Dual,
    }
}

fn by_way_of(waypoint: &Waypoint) -> GatewayAddress {
    let (namespace, hostname) = (waypoint.namespace.to_string(), waypoint.hostname.to_string());
    GatewayAddress { hostname: Some(NamespacedHostname { namespace, hostname }), hbone_mtls_port: WAYPOINT_PORT.into() }
}

/// An address as protobuf has it.
pub(super) fn octets(address: IpAddr) -> Bytes {
    match address {
        IpAddr::V4(v4) => Bytes::copy_from_slice(&v4.octets()),
        IpAddr::V6(v6) => Bytes::copy_from_slice(&v6.octets()),
    }
}
