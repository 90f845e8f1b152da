//! Where a connection goes: from the address that an application asked for to an endpoint and a way to reach it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::entry::Resolution;
use crate::hosts::is_automatic;
use crate::identity::SpiffeId;
use crate::l7::{WAYPOINT_PORT, Waypoint};
use crate::locality::{Candidates, candidates};
use crate::model::{Endpoint, Protocol, Service, Workload};
use crate::policy::{ClientTls, ClientTlsRule, Mode, PolicyName, effective_mode};
use crate::snapshot::{Snapshot, canonical};

/// Where a TCP connection goes, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// The address of the application itself, or of a waypoint's replica; never a Service's, never IPv4-mapped.
    pub endpoint: SocketAddr,
    /// The Service whose address was asked for.
    pub service: Option<Arc<Service>>,
    /// The workload that has the endpoint, where known: the application's, or the waypoint's.
    pub workload: Option<Arc<Workload>>,
    /// How to reach it.
    pub transport: Transport,
    /// The DestinationRule that has a word on how to reach it.
    pub rule: Option<Arc<ClientTlsRule>>,
}

/// How to reach a destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transport {
    /// Over mTLS; the peer must prove exactly this identity.
    Hbone {
        /// The only identity that the destination may have.
        identity: SpiffeId,
    },
    /// Over mTLS to a waypoint, which is asked for the address that the application asked for and goes on from there.
    Waypoint {
        /// The waypoint.
        waypoint: Arc<Waypoint>,
        /// The only identity that its replica may have.
        identity: SpiffeId,
        /// What it is asked for: an address and port of the Service, or the workload's own.
        asked: SocketAddr,
    },
    /// Over mTLS at the endpoint itself, as a sidecar of Istio's takes it there; it must prove exactly this identity.
    Sidecar {
        /// The only identity that the destination may have.
        identity: SpiffeId,
    },
    /// As it is.
    Plaintext(PlaintextReason),
}

/// Why a connection leaves the mesh as plaintext.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PlaintextReason {
    /// No workload is known at the address.
    DestinationUnknown,
    /// The workload at the address is not part of the mesh.
    DestinationNotEnrolled,
    /// A DestinationRule says so (`tls.mode: DISABLE`).
    DisabledByRule,
}

/// Why a connection goes nowhere. A caller may retry after the snapshot has changed, not before.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nothing ready stands behind the Service's port in the family that was asked for.
    #[error("service {}/{} has no ready endpoint of this address family", service.namespace, service.name)]
    ServiceWithoutEndpoints {
        /// The Service asked for.
        service: Arc<Service>,
    },
    /// Nothing ready stands behind the Service's port on the client's node, and it serves no other node.
    #[error("service {}/{} has internalTrafficPolicy: Local and no ready endpoint on the client's node", service.namespace, service.name)]
    NoEndpointOnNode {
        /// The Service asked for.
        service: Arc<Service>,
    },
    /// The host is a ServiceEntry's that DNS has the endpoints of, and it has no waypoint: nodes ask no DNS.
    #[error("host {} is found by DNS, which a waypoint asks, and it has none", service.hostname)]
    NamesNotResolved {
        /// The host asked for.
        service: Arc<Service>,
    },
    /// The Service does not declare the port for TCP.
    #[error("service {}/{} declares no TCP port {port}", service.namespace, service.name)]
    ServicePortNotDeclared {
        /// The Service asked for.
        service: Arc<Service>,
        /// The port asked for.
        port: u16,
    },
    /// The address is of those that the mesh gives hosts, and is none's, or not for the client.
    #[error(
        "{address} is of the mesh's own for hosts, and is no host's for this client: its name leads to another by now"
    )]
    NoHost {
        /// The address asked for.
        address: IpAddr,
    },
    /// The waypoint has no replica that is ready. Nothing goes past it.
    #[error("waypoint {waypoint} has no ready replica of this address family, and nothing goes past it")]
    WaypointWithoutReplicas {
        /// The waypoint.
        waypoint: Arc<Waypoint>,
        /// The Service asked for; none for a workload's own address.
        service: Option<Arc<Service>>,
    },
    /// A DestinationRule asks for the mesh's mTLS, which the endpoint cannot do.
    #[error("DestinationRule {rule} asks for ISTIO_MUTUAL, and the endpoint is not part of the mesh")]
    MutualTlsImpossible {
        /// The Service asked for.
        service: Arc<Service>,
        /// The rule.
        rule: Arc<PolicyName>,
    },
    /// A BackendTLSPolicy asks for TLS, and none of the authorities that it names is there. Nothing is sent instead.
    #[error("BackendTLSPolicy {policy} names no authority that is there: nobody is believed")]
    NobodyBelieved {
        /// The Service asked for.
        service: Arc<Service>,
        /// The policy.
        policy: Arc<PolicyName>,
    },
    /// A DestinationRule asks for TLS that is not originated for a connection, or cannot be read. Plaintext is not sent instead.
    #[error("DestinationRule {rule} asks for TLS of mode {}, which is not originated here", mode.as_str())]
    TlsNotOriginated {
        /// The Service asked for.
        service: Arc<Service>,
        /// The rule.
        rule: Arc<PolicyName>,
        /// What it asks for.
        mode: ClientTls,
    },
}

impl Refusal {
    /// The Service that was asked for, if one was.
    #[must_use]
    pub const fn service(&self) -> Option<&Arc<Service>> {
        match self {
            Self::ServiceWithoutEndpoints { service }
            | Self::NoEndpointOnNode { service }
            | Self::NamesNotResolved { service }
            | Self::ServicePortNotDeclared { service, .. }
            | Self::MutualTlsImpossible { service, .. }
            | Self::NobodyBelieved { service, .. }
            | Self::TlsNotOriginated { service, .. } => Some(service),
            Self::WaypointWithoutReplicas { service, .. } => service.as_ref(),
            Self::NoHost { .. } => None,
        }
    }
}

/// Decides where a TCP connection of `client` to `dst` goes.
///
/// A Service's address leads to one of its ready endpoints of the same address family, chosen by `random`, which
/// should be uniform over `u64`. Any other address leads to itself. Where a waypoint takes what is sent there, and the
/// client is known, it leads to one of the waypoint's replicas instead, chosen alike. DestinationRules are asked for the client's
/// namespace; without a client, only those of the Service's namespace and of the root namespace that are for all.
///
/// # Errors
/// When `dst` is a Service's that cannot be served now, or not as a DestinationRule asks.
pub fn resolve(
    snapshot: &Snapshot,
    client: Option<&Workload>,
    dst: SocketAddr,
    random: u64,
) -> Result<Destination, Refusal> {
    let dst = canonical(dst);
    let Some(service) = service_at(snapshot, client, dst) else {
        let workload = snapshot.workload_by_address(dst.ip()).cloned();
        if workload.is_none() && is_automatic(dst.ip()) {
            return Err(nobody_at(snapshot, client, dst));
        }
        let named = snapshot.headless_service(dst).filter(|(service, _)| is_there_for(service, client));
        let of_workload = || snapshot.l7().waypoint_of_workload(workload.as_deref()?);
        let of_service = || snapshot.l7().waypoint_of(named?.0);
        if let Some(waypoint) = between(client, of_workload().or_else(of_service)) {
            return by_waypoint(snapshot, client, waypoint, named.map(|(service, _)| service), dst, random);
        }
        let (transport, rule) = transport_to(snapshot, client, named, (dst.port(), workload.as_deref()))?;
        return Ok(Destination { endpoint: dst, service: None, workload, transport, rule });
    };
    let Some(port) = service.port(dst.port(), Protocol::Tcp) else {
        return Err(Refusal::ServicePortNotDeclared { service: Arc::clone(service), port: dst.port() });
    };
    if let Some(waypoint) = between(client, snapshot.l7().waypoint_of(service)) {
        return by_waypoint(snapshot, client, waypoint, Some(service), dst, random);
    }
    let itself;
    let endpoint = if service.resolution() == Resolution::None {
        itself = Endpoint::new(dst, snapshot.workload_by_address(dst.ip()).cloned());
        &itself
    } else {
        let picked = candidates(snapshot, client, service, port, dst.is_ipv6()).pick(random);
        picked.ok_or_else(|| without_endpoints(service, of_family(&port.endpoints, dst.is_ipv6())))?
    };
    let at = (endpoint.address.port(), endpoint.workload.as_deref());
    let (transport, rule) = transport_to(snapshot, client, Some((service, port.port)), at)?;
    Ok(Destination {
        endpoint: endpoint.address,
        service: Some(Arc::clone(service)),
        workload: endpoint.workload.clone(),
        transport,
        rule,
    })
}

/// Why an address of those that the mesh gives leads nowhere.
fn nobody_at(snapshot: &Snapshot, client: Option<&Workload>, dst: SocketAddr) -> Refusal {
    match snapshot.service_by_vip(dst.ip()).filter(|service| is_there_for(service, client)) {
        Some(service) => Refusal::ServicePortNotDeclared { service: Arc::clone(service), port: dst.port() },
        None => Refusal::NoHost { address: dst.ip() },
    }
}

/// Why a Service with these ready endpoints has none for a client.
fn without_endpoints(service: &Arc<Service>, ready: &[Endpoint]) -> Refusal {
    let service = Arc::clone(service);
    match () {
        () if service.resolution().is_dns() => Refusal::NamesNotResolved { service },
        () if service.placement.node_only && !ready.is_empty() => Refusal::NoEndpointOnNode { service },
        () => Refusal::ServiceWithoutEndpoints { service },
    }
}

/// The Service that a client asks for by an address. An address of a ServiceEntry is perhaps a server's own: it is that of
/// the entry at the ports that are declared, and for the namespaces that it is exported to.
pub(crate) fn service_at<'a>(
    snapshot: &'a Snapshot,
    client: Option<&Workload>,
    dst: SocketAddr,
) -> Option<&'a Arc<Service>> {
    let service = snapshot.service_by_vip(dst.ip())?;
    let asked =
        service.entry.is_none() || service.port(dst.port(), Protocol::Tcp).is_some() && is_there_for(service, client);
    asked.then_some(service)
}

fn is_there_for(service: &Service, client: Option<&Workload>) -> bool {
    service.is_visible_to(client.map(|client| &*client.namespace))
}

/// The waypoint, if it stands between the client and where it wants to go: not for its own replicas, nor for nobody known.
fn between<'a>(client: Option<&Workload>, waypoint: Option<&'a Arc<Waypoint>>) -> Option<&'a Arc<Waypoint>> {
    let client = client?;
    waypoint.filter(|waypoint| !waypoint.runs_as(client))
}

/// One of the waypoint's replicas, chosen for the client as any Service's endpoint is.
fn by_waypoint(
    snapshot: &Snapshot,
    client: Option<&Workload>,
    waypoint: &Arc<Waypoint>,
    service: Option<&Arc<Service>>,
    asked: SocketAddr,
    random: u64,
) -> Result<Destination, Refusal> {
    let replica = waypoint_replicas(snapshot, client, waypoint, asked.is_ipv6()).pick(random);
    let replica = replica.and_then(|replica| Some((replica.address, replica.workload.clone()?)));
    let Some((endpoint, workload)) = replica else {
        return Err(Refusal::WaypointWithoutReplicas { waypoint: Arc::clone(waypoint), service: service.cloned() });
    };
    let (waypoint, identity) = (Arc::clone(waypoint), workload.identity.clone());
    let transport = Transport::Waypoint { waypoint, identity, asked };
    Ok(Destination { endpoint, service: service.cloned(), workload: Some(workload), transport, rule: None })
}

/// The replicas of a waypoint that are ready, as the client may get them.
pub(crate) fn waypoint_replicas<'a>(
    snapshot: &'a Snapshot,
    client: Option<&Workload>,
    waypoint: &Waypoint,
    ipv6: bool,
) -> Candidates<'a> {
    let service = snapshot.service_by_hostname(&waypoint.hostname);
    let at_port = service.and_then(|service| Some((service, service.port(WAYPOINT_PORT, Protocol::Tcp)?)));
    match at_port {
        Some((service, port)) => candidates(snapshot, client, service, port, ipv6),
        None => Candidates::All(&[]),
    }
}

/// The DestinationRule by which plaintext from `client` to `endpoint`, which it asked for as `asked`, may not go on: one that
/// asks for TLS now. What else may have changed for a new connection (its endpoints, who is part of the mesh) ends none.
#[must_use]
pub fn forbids_plaintext(
    snapshot: &Snapshot,
    client: Option<&Workload>,
    asked: SocketAddr,
    endpoint: SocketAddr,
) -> Option<(Arc<PolicyName>, ClientTls)> {
    let asked = canonical(asked);
    let by_vip = || Some((snapshot.service_by_vip(asked.ip())?, asked.port()));
    let (service, port) = by_vip().or_else(|| snapshot.headless_service(canonical(endpoint)))?;
    let client = client.map(|client| (&*client.namespace, &client.labels));
    let rule = snapshot.policies().client_tls_for(client, &service.hostname, &service.namespace)?;
    rule.tls(port).filter(|tls| *tls != ClientTls::Disable).map(|tls| (Arc::clone(&rule.name), tls))
}

/// How to reach a port of a workload that was asked for as a port of a Service, and the DestinationRule that is about it.
///
/// # Errors
/// When a DestinationRule asks for what cannot be done.
pub fn transport_to(
    snapshot: &Snapshot,
    client: Option<&Workload>,
    named: Option<(&Arc<Service>, u16)>,
    (own_port, workload): (u16, Option<&Workload>),
) -> Result<(Transport, Option<Arc<ClientTlsRule>>), Refusal> {
    let automatic = match workload {
        None => Transport::Plaintext(PlaintextReason::DestinationUnknown),
        Some(workload) if workload.is_enrolled() => Transport::Hbone { identity: workload.identity.clone() },
        Some(workload) if sidecar_takes(snapshot, workload, own_port) => {
            Transport::Sidecar { identity: workload.identity.clone() }
        }
        Some(_) => Transport::Plaintext(PlaintextReason::DestinationNotEnrolled),
    };
    let client = client.map(|client| (&*client.namespace, &client.labels));
    let found = named.and_then(|(service, port)| {
        let rule = snapshot.policies().client_tls_for(client, &service.hostname, &service.namespace)?;
        Some((service, rule, rule.tls(port)))
    });
    let Some((service, rule, tls)) = found else {
        return Ok((automatic, None));
    };
    let (service, name) = (Arc::clone(service), Arc::clone(&rule.name));
    let transport = match (tls, automatic) {
        (None, automatic) => automatic,
        (Some(ClientTls::IstioMutual), mutual @ (Transport::Hbone { .. } | Transport::Sidecar { .. })) => mutual,
        (Some(ClientTls::IstioMutual), Transport::Plaintext(_)) => {
            return Err(Refusal::MutualTlsImpossible { service, rule: name });
        }
        (Some(ClientTls::Disable), Transport::Hbone { .. } | Transport::Sidecar { .. }) => {
            Transport::Plaintext(PlaintextReason::DisabledByRule)
        }
        (Some(ClientTls::Disable), plaintext @ Transport::Plaintext(_)) => plaintext,
        (Some(mode), _) => return Err(Refusal::TlsNotOriginated { service, rule: name, mode }),
    };
    Ok((transport, Some(Arc::clone(rule))))
}

/// Whether a sidecar of Istio's takes mutual TLS at this port: no PeerAuthentication turns it off, as Istio's own control plane
/// decides it (automatic mTLS).
fn sidecar_takes(snapshot: &Snapshot, workload: &Workload, port: u16) -> bool {
    workload.has_sidecar() && effective_mode(snapshot, workload, port).mode != Mode::Disable
}

/// The endpoints of one family; [`Snapshot::put_service`] has put IPv4 before IPv6.
pub(crate) fn of_family(endpoints: &[Endpoint], ipv6: bool) -> &[Endpoint] {
    let (v4, v6) = endpoints.split_at(endpoints.partition_point(|e| e.address.is_ipv4()));
    if ipv6 { v6 } else { v4 }
}
