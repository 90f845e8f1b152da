//! Where requests are read, and what is asked there: the policies, the rules for tokens, the routes and the limits.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use super::{RouteTable, Waypoint};
use crate::model::{Service, Workload};
use crate::policy::{AuthorizationPolicy, PolicyTarget, RequestAuthentication};
use crate::rate_limit::{Applied, Seat};
use crate::snapshot::Snapshot;
use crate::telemetry::Side;

/// What a request was sent to, as whoever reads it knows.
#[derive(Debug, Clone, Copy)]
pub enum Place<'a> {
    /// A port of a Service, at its waypoint.
    Service(&'a Arc<Service>, u16),
    /// A workload's own address, at its waypoint.
    Workload(SocketAddr),
    /// A port of a gateway.
    Gateway(GatewayPlace<'a>),
}

/// A port of a gateway, and who the gateway is.
#[derive(Debug, Clone, Copy)]
pub struct GatewayPlace<'a> {
    /// The Gateway's namespace.
    pub namespace: &'a str,
    /// The Gateway's name.
    pub name: &'a str,
    /// Its pod, where known: policies select it.
    pub pod: Option<&'a Workload>,
    /// The port, as clients know it.
    pub port: u16,
}

impl<'a> Place<'a> {
    /// The waypoint that reads what is sent there, and the Service if it is one; none of a gateway.
    #[must_use]
    pub fn waypoint<'s>(&self, snapshot: &'s Snapshot) -> Option<(&'s Arc<Waypoint>, Option<&'a Service>)> {
        match *self {
            Self::Service(service, _) => Some((snapshot.l7().waypoint_of(service)?, Some(service))),
            Self::Workload(address) => {
                let workload = snapshot.workload_by_address(address.ip())?;
                Some((snapshot.l7().waypoint_of_workload(workload)?, None))
            }
            Self::Gateway(_) => None,
        }
    }

    /// The policies that judge what is sent there. What comes in at a gateway is for the gateway's own pod.
    #[must_use]
    pub fn policies<'s>(&self, snapshot: &'s Snapshot) -> Vec<&'s Arc<AuthorizationPolicy>> {
        let policies = snapshot.policies();
        if let Self::Gateway(gateway) = self {
            return policies.authorization_for_gateway(gateway.namespace, gateway.name, gateway.pod);
        }
        if policies.targeted().is_empty() {
            return Vec::new();
        }
        let waypoint = self.waypoint(snapshot);
        waypoint.map_or_else(Vec::new, |(waypoint, service)| policies.for_waypoint(waypoint, service))
    }

    /// The RequestAuthentications whose rules say which tokens are believed there, the oldest first.
    #[must_use]
    pub fn authentication<'s>(&self, snapshot: &'s Snapshot) -> Vec<&'s Arc<RequestAuthentication>> {
        let policies = snapshot.policies();
        if let Self::Gateway(gateway) = self {
            return policies.authentication_for_gateway(gateway.namespace, gateway.name, gateway.pod);
        }
        let waypoint = self.waypoint(snapshot);
        waypoint.map_or_else(Vec::new, |(waypoint, service)| policies.authentication_for_waypoint(waypoint, service))
    }

    /// The limits that judge requests there, in the order of their policies. `gateway` is who reads them, by namespace and
    /// name, and `pod` its pod, where known.
    #[must_use]
    pub fn limits(&self, snapshot: &Snapshot, gateway: (&str, &str), pod: Option<&Workload>) -> Vec<Applied> {
        let service = match *self {
            Self::Service(service, _) => Some(service),
            Self::Workload(_) | Self::Gateway(_) => None,
        };
        let waypoint = service.and_then(|service| snapshot.l7().waypoint_of(service));
        let asked = service.map(|service| PolicyTarget::of_service(service));
        let endpoints = service.into_iter().flat_map(|service| &service.ports).flat_map(|port| &port.endpoints);
        let behind = endpoints.filter_map(|endpoint| snapshot.workload_by_address(endpoint.address.ip()));
        let behind: Vec<_> = behind.map(|workload| &workload.labels).collect();
        snapshot.rate_limits().at(&Seat {
            side: if matches!(self, Self::Gateway(_)) { Side::Client } else { Side::Server },
            gateway: (gateway.0, gateway.1, waypoint.map_or("", |waypoint| &*waypoint.class)),
            labels: pod.map(|pod| &pod.labels),
            service: asked.as_ref(),
            behind: &behind,
        })
    }

    /// What a policy's ports are about: the port that was asked for.
    #[must_use]
    pub fn destination(&self) -> SocketAddr {
        match self {
            Self::Workload(address) => *address,
            Self::Service(service, port) => {
                SocketAddr::new(service.vips.first().copied().unwrap_or(Ipv4Addr::UNSPECIFIED.into()), *port)
            }
            Self::Gateway(gateway) => SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), gateway.port),
        }
    }
}

/// The Service that a request is for, of those that share the address that it was sent to. Hosts of one ServiceEntry may: then
/// the request's own word tells which is meant.
#[must_use]
pub fn service_meant<'s>(snapshot: &'s Snapshot, reached: &'s Arc<Service>, host: &str) -> &'s Arc<Service> {
    let Some(entry) = reached.entry.as_ref().filter(|_| *host != *reached.hostname) else { return reached };
    let named = snapshot.service_by_hostname(host).filter(|named| named.namespace == reached.namespace);
    named.filter(|named| named.entry.as_ref().is_some_and(|own| own.object == entry.object)).unwrap_or(reached)
}

/// The rules for a request to a port of a Service: by the host that it names where a VirtualService is about that, else the
/// Service's. None where nobody has written any, and it goes on as it is. `clients` is the client's namespace, where known.
#[must_use]
pub fn routes_for<'s>(
    snapshot: &'s Snapshot,
    clients: Option<&str>,
    (service, port): (&Service, u16),
    host: &str,
) -> Option<&'s Arc<RouteTable>> {
    let l7 = snapshot.l7();
    let by_host = l7.host_routes(clients, &service.namespace, host);
    by_host.or_else(|| l7.service_routes(clients, &service.hostname, port))
}
