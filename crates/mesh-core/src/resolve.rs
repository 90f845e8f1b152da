//! Where a connection goes: from the address that an application asked for to an endpoint and a way to reach it.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::identity::SpiffeId;
use crate::model::{Endpoint, Protocol, Service, Workload};
use crate::policy::{ClientTls, ClientTlsRule, PolicyName};
use crate::snapshot::{Snapshot, canonical};

/// Where a TCP connection goes, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// The address of the application itself, never a Service's, never IPv4-mapped.
    pub endpoint: SocketAddr,
    /// The Service whose address was asked for.
    pub service: Option<Arc<Service>>,
    /// The workload that has the endpoint, where known.
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
    /// The Service does not declare the port for TCP.
    #[error("service {}/{} declares no TCP port {port}", service.namespace, service.name)]
    ServicePortNotDeclared {
        /// The Service asked for.
        service: Arc<Service>,
        /// The port asked for.
        port: u16,
    },
    /// A DestinationRule asks for the mesh's mTLS, which the endpoint cannot do.
    #[error("DestinationRule {rule} asks for ISTIO_MUTUAL, and the endpoint is not part of the mesh")]
    MutualTlsImpossible {
        /// The Service asked for.
        service: Arc<Service>,
        /// The rule.
        rule: Arc<PolicyName>,
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
    /// The Service that was asked for.
    #[must_use]
    pub const fn service(&self) -> &Arc<Service> {
        match self {
            Self::ServiceWithoutEndpoints { service }
            | Self::ServicePortNotDeclared { service, .. }
            | Self::MutualTlsImpossible { service, .. }
            | Self::TlsNotOriginated { service, .. } => service,
        }
    }
}

/// Decides where a TCP connection of `client` to `dst` goes.
///
/// A Service's address leads to one of its ready endpoints of the same address family, chosen by `random`, which
/// should be uniform over `u64`. Any other address leads to itself. DestinationRules are asked for the client's
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
    let Some(service) = snapshot.service_by_vip(dst.ip()) else {
        let workload = snapshot.workload_by_address(dst.ip()).cloned();
        let named = snapshot.headless_service(dst);
        let (transport, rule) = transport(snapshot, client, named, workload.as_deref())?;
        return Ok(Destination { endpoint: dst, service: None, workload, transport, rule });
    };
    let Some(port) = service.port(dst.port(), Protocol::Tcp) else {
        return Err(Refusal::ServicePortNotDeclared { service: Arc::clone(service), port: dst.port() });
    };
    let Some(endpoint) = pick(of_family(&port.endpoints, dst.is_ipv6()), random) else {
        return Err(Refusal::ServiceWithoutEndpoints { service: Arc::clone(service) });
    };
    let (transport, rule) = transport(snapshot, client, Some((service, port.port)), endpoint.workload.as_deref())?;
    Ok(Destination {
        endpoint: endpoint.address,
        service: Some(Arc::clone(service)),
        workload: endpoint.workload.clone(),
        transport,
        rule,
    })
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

/// How to reach a workload that was asked for as a port of a Service, and the DestinationRule that is about it.
fn transport(
    snapshot: &Snapshot,
    client: Option<&Workload>,
    named: Option<(&Arc<Service>, u16)>,
    workload: Option<&Workload>,
) -> Result<(Transport, Option<Arc<ClientTlsRule>>), Refusal> {
    let automatic = match workload {
        None => Transport::Plaintext(PlaintextReason::DestinationUnknown),
        Some(workload) if workload.is_enrolled() => Transport::Hbone { identity: workload.identity.clone() },
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
        (Some(ClientTls::IstioMutual), hbone @ Transport::Hbone { .. }) => hbone,
        (Some(ClientTls::IstioMutual), Transport::Plaintext(_)) => {
            return Err(Refusal::MutualTlsImpossible { service, rule: name });
        }
        (Some(ClientTls::Disable), Transport::Hbone { .. }) => Transport::Plaintext(PlaintextReason::DisabledByRule),
        (Some(ClientTls::Disable), plaintext @ Transport::Plaintext(_)) => plaintext,
        (Some(mode), _) => return Err(Refusal::TlsNotOriginated { service, rule: name, mode }),
    };
    Ok((transport, Some(Arc::clone(rule))))
}

/// The endpoints of one family; [`Snapshot::put_service`] has put IPv4 before IPv6.
pub(crate) fn of_family(endpoints: &[Endpoint], ipv6: bool) -> &[Endpoint] {
    let (v4, v6) = endpoints.split_at(endpoints.partition_point(|e| e.address.is_ipv4()));
    if ipv6 { v6 } else { v4 }
}

/// Scales `random` from `0..2^64` to an index, without the bias of a remainder.
fn pick(endpoints: &[Endpoint], random: u64) -> Option<&Endpoint> {
    let scaled = (u128::from(random) * endpoints.len() as u128) >> 64;
    endpoints.get(usize::try_from(scaled).ok()?)
}
