//! Where a connection goes: from the address that an application asked for to an endpoint and a way to reach it.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::identity::SpiffeId;
use crate::model::{Endpoint, Protocol, Service, Workload};
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
}

/// Decides where a TCP connection to `dst` goes.
///
/// A Service's address leads to one of its ready endpoints of the same address family, chosen by `random`, which
/// should be uniform over `u64`. Any other address leads to itself.
///
/// # Errors
/// When `dst` is a Service's address that cannot be served now.
pub fn resolve(snapshot: &Snapshot, dst: SocketAddr, random: u64) -> Result<Destination, Refusal> {
    let dst = canonical(dst);
    let Some(service) = snapshot.service_by_vip(dst.ip()) else {
        let workload = snapshot.workload_by_address(dst.ip()).cloned();
        return Ok(Destination { endpoint: dst, service: None, transport: transport(workload.as_deref()), workload });
    };
    let Some(port) = service.port(dst.port(), Protocol::Tcp) else {
        return Err(Refusal::ServicePortNotDeclared { service: Arc::clone(service), port: dst.port() });
    };
    let Some(endpoint) = pick(of_family(&port.endpoints, dst.is_ipv6()), random) else {
        return Err(Refusal::ServiceWithoutEndpoints { service: Arc::clone(service) });
    };
    Ok(Destination {
        endpoint: endpoint.address,
        service: Some(Arc::clone(service)),
        transport: transport(endpoint.workload.as_deref()),
        workload: endpoint.workload.clone(),
    })
}

fn transport(workload: Option<&Workload>) -> Transport {
    match workload {
        None => Transport::Plaintext(PlaintextReason::DestinationUnknown),
        Some(workload) if workload.is_enrolled() => Transport::Hbone { identity: workload.identity.clone() },
        Some(_) => Transport::Plaintext(PlaintextReason::DestinationNotEnrolled),
    }
}

/// The endpoints of one family; [`Snapshot::build`] has put IPv4 before IPv6.
fn of_family(endpoints: &[Endpoint], ipv6: bool) -> &[Endpoint] {
    let (v4, v6) = endpoints.split_at(endpoints.partition_point(|e| e.address.is_ipv4()));
    if ipv6 { v6 } else { v4 }
}

/// Scales `random` from `0..2^64` to an index, without the bias of a remainder.
fn pick(endpoints: &[Endpoint], random: u64) -> Option<&Endpoint> {
    let scaled = (u128::from(random) * endpoints.len() as u128) >> 64;
    endpoints.get(usize::try_from(scaled).ok()?)
}
