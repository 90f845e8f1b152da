//! What a node's kernel may decide by itself, tabulated from what [`authorize`] and [`resolve`] decide: which of the
//! node's pods it may connect with nothing between them, and for which Services it may pick the endpoint.
//!
//! The kernel only ever permits. Whatever is not plainly permitted goes by the daemon, which decides, refuses and says why.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use crate::locality::candidates;
use crate::model::{Endpoint, Service, ServicePort, Workload};
use crate::policy::{Facts, Peer, authorize, mentioned_ports, unmentioned_port};
use crate::resolve::{Transport, resolve};
use crate::snapshot::Snapshot;

/// At which ports of a server the kernel may connect a client to it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DirectPorts {
    /// Ports that differ from the others.
    pub exceptions: BTreeMap<u16, bool>,
    /// All others.
    pub others: bool,
}

impl DirectPorts {
    /// Whether the kernel may connect at `port`.
    #[must_use]
    pub fn allow(&self, port: u16) -> bool {
        self.exceptions.get(&port).copied().unwrap_or(self.others)
    }
}

/// A workload to which others of its node may want to connect.
#[derive(Debug)]
pub struct DirectServer<'a> {
    snapshot: &'a Snapshot,
    workload: &'a Workload,
    /// The ports that policies or DestinationRules may tell from others.
    ports: BTreeSet<u16>,
}

impl<'a> DirectServer<'a> {
    /// Collects the ports that matter.
    #[must_use]
    pub fn new(snapshot: &'a Snapshot, workload: &'a Workload) -> Self {
        let mut ports = mentioned_ports(snapshot, workload);
        if !snapshot.policies().client_tls().is_empty() || !snapshot.l7().waypoints().is_empty() {
            ports.extend(snapshot.headless_ports(workload));
        }
        Self { snapshot, workload, ports }
    }

    /// The ports at which the kernel may connect `client`, with its word for the client's identity.
    #[must_use]
    pub fn ports_for(&self, client: &Workload) -> DirectPorts {
        let allowed = |port: u16| self.allows(client, port);
        let others = unmentioned_port(&self.ports).is_some_and(allowed);
        let each = self.ports.iter().map(|port| (*port, allowed(*port)));
        DirectPorts { exceptions: each.filter(|(_, allowed)| *allowed != others).collect(), others }
    }

    /// The kernel's table does not tell address families apart: what is allowed has to be so in all that both have.
    fn allows(&self, client: &Workload, port: u16) -> bool {
        let pairs = self.workload.addresses.iter().filter_map(|server| Some((same_family(client, *server)?, *server)));
        let mut verdicts = pairs.map(|(from, to)| self.allows_at(client, from, SocketAddr::new(to, port))).peekable();
        verdicts.peek().is_some() && verdicts.all(|allowed| allowed)
    }

    fn allows_at(&self, client: &Workload, from: IpAddr, to: SocketAddr) -> bool {
        // One who asks for TLS, or for none, by a DestinationRule, gets it from the daemon.
        let automatic = resolve(self.snapshot, Some(client), to, 0).is_ok_and(|destination| {
            matches!(destination.transport, Transport::Hbone { .. }) && destination.rule.is_none()
        });
        let facts = Facts {
            peer: Peer::Kernel(&client.identity),
            client: from,
            forwarded: None,
            server: None,
            destination: to,
        };
        automatic && authorize(self.snapshot, self.workload, &facts).verdict.is_ok()
    }
}

/// The address of `workload` in the family of `other`.
fn same_family(workload: &Workload, other: IpAddr) -> Option<IpAddr> {
    workload.addresses.iter().copied().find(|own| own.is_ipv4() == other.is_ipv4())
}

/// The endpoints of a Service's port among which the kernel may pick for all of `clients`, each with the same share; none where
/// they differ. The clients are of one node, and in one locality each.
#[must_use]
pub fn kernel_candidates<'a>(
    snapshot: &'a Snapshot,
    clients: &[&Workload],
    (service, port): (&'a Service, &'a ServicePort),
    ipv6: bool,
) -> Option<Vec<&'a Endpoint>> {
    let mut each = clients.iter().map(|client| candidates(snapshot, Some(client), service, port, ipv6).alike());
    let first = each.next()??;
    each.all(|other| other.as_ref() == Some(&first)).then_some(first)
}

/// Of workloads, one for each locality.
#[must_use]
pub fn one_for_each_locality<'a>(workloads: impl Iterator<Item = &'a Workload>) -> Vec<&'a Workload> {
    let mut found: Vec<&Workload> = Vec::new();
    for workload in workloads {
        if found.iter().all(|known| known.locality != workload.locality) {
            found.push(workload);
        }
    }
    found
}

/// Whether the kernel may pick among the Service's endpoints: not where a waypoint does, nor where each client has its own, nor
/// where a DestinationRule is about it, whosever it is.
#[must_use]
pub fn kernel_may_pick(snapshot: &Snapshot, service: &Service) -> bool {
    snapshot.l7().waypoint_of(service).is_none()
        && service.entry.is_none()
        && !service.placement.is_sticky
        && !snapshot.policies().client_tls().iter().any(|rule| rule.host.matches(&service.hostname))
}
