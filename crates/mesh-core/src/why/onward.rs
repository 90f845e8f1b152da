//! Where a waypoint or gateway sends a request, and whether the servers' nodes let it in.

use std::net::SocketAddr;
use std::sync::Arc;

use super::imagined::Imagined;
use super::ranks::{Preferred, Rank, Ranks};
use crate::identity::SpiffeId;
use crate::l7::{Backend, BackendTarget, Backing, PathMatch, RequestView as _, Rule, traffic};
use crate::label_set::LabelSet;
use crate::locality::Locality;
use crate::model::{Endpoint, Service, Workload};
use crate::policy::{Facts, Peer, explain};
use crate::resolve::{PlaintextReason, Transport, transport_to};
use crate::snapshot::Snapshot;

/// Servers of a share that are looked at one by one.
pub const MAX_SERVERS: usize = 16;

/// Whoever reads a request and sends it on: a replica of a waypoint or gateway.
#[derive(Clone, Copy)]
pub(super) struct Forwarder<'a> {
    /// Its Gateway, by namespace and name.
    pub(super) gateway: (&'a str, &'a str),
    /// Its identity, where one is known.
    pub(super) identity: Option<&'a SpiffeId>,
    /// Its pods, as far as they are known; any of them may have the request.
    pub(super) replicas: &'a [Arc<Workload>],
    /// Whose node counts where a Service serves its clients' nodes alone.
    pub(super) nearby: Option<&'a Arc<Workload>>,
}

impl<'a> Forwarder<'a> {
    /// One of its pods, where one is known.
    pub(super) fn pod(self) -> Option<&'a Workload> {
        self.replicas.first().map(|pod| &**pod)
    }

    /// Whose DestinationRules count: the namespace, and the pod's labels.
    fn sender(self) -> (&'a str, Option<&'a LabelSet>) {
        (self.gateway.0, self.pod().map(|pod| &pod.labels))
    }
}

/// One of those who may get a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// Its weight, in relation to the others'.
    pub weight: u32,
    /// Where: `host:port`, perhaps with a subset, or an address.
    pub to: String,
    /// How many servers may get it; names that DNS has are one each.
    pub endpoints: usize,
    /// Each of the first [`MAX_SERVERS`], with those that get nothing at the end.
    pub servers: Vec<Onward>,
    /// Why they are not all alike; none where they are, or nobody knows.
    pub preferred: Option<Preferred>,
    /// The path that is asked for there, where it is another one.
    pub path: Option<String>,
    /// The host that is asked for there, where it is another one.
    pub host: Option<Arc<str>>,
    /// Why none of them answers, where none does.
    pub fails: Option<Failure>,
}

/// What is answered in place of a server or a policy, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The status.
    pub status: u16,
    /// What is the matter.
    pub why: String,
}

impl Failure {
    /// With that status, for that reason.
    #[must_use]
    pub fn new(status: u16, why: impl Into<String>) -> Self {
        Self { status, why: why.into() }
    }
}

/// A server, as whoever sends on reaches it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Onward {
    /// The application's address.
    pub endpoint: SocketAddr,
    /// Its workload, where known.
    pub workload: Option<Arc<Workload>>,
    /// Where it is; what is not known is empty.
    pub locality: Locality,
    /// What it is among the others; none where all are alike.
    pub rank: Option<Rank>,
    /// How it is reached, or why not.
    pub transport: Result<Transport, String>,
    /// Why its node refuses who sends on.
    pub denial: Option<String>,
}

impl Share {
    fn new(weight: u32, to: String) -> Self {
        Self { weight, to, endpoints: 0, servers: Vec::new(), preferred: None, path: None, host: None, fails: None }
    }

    fn failing(weight: u32, to: String, status: u16, why: impl Into<String>) -> Self {
        Self { fails: Some(Failure::new(status, why)), ..Self::new(weight, to) }
    }

    /// Of a rule's backends, for a request to that port.
    pub(super) fn of_backends(
        snapshot: &Snapshot,
        forwarder: Forwarder<'_>,
        backends: &[Backend],
        port: u16,
    ) -> Vec<Self> {
        let share = |backend: &Backend| {
            let (weight, to) = (backend.weight, backend.target.at_port(port));
            match &backend.target {
                BackendTarget::Unresolved { status, reason } => Self::failing(weight, to, *status, &**reason),
                BackendTarget::Service { hostname, port: own_port, subset } => {
                    let port = own_port.unwrap_or(port);
                    match Backing::find(snapshot, forwarder.sender(), hostname, (port, subset.as_deref())) {
                        Some(backing) => Self::new(weight, to).backed(snapshot, forwarder, &backing, subset.as_deref()),
                        None => Self::failing(weight, to, 503, "there is no such Service, port or subset"),
                    }
                }
            }
        };
        backends.iter().map(share).collect()
    }

    /// The same with the servers behind it.
    fn backed(
        mut self,
        snapshot: &Snapshot,
        forwarder: Forwarder<'_>,
        backing: &Backing<'_>,
        subset: Option<&str>,
    ) -> Self {
        let port = backing.port.port;
        let names = backing
            .service
            .entry
            .as_ref()
            .map_or(0, |entry| entry.names.iter().filter(|named| named.of_port == port).count());
        let reached: Vec<&Endpoint> = backing.reached(&backing.port.endpoints).collect();
        let traffic = backing.rule.map(|rule| rule.traffic.effective(subset, port));
        // Where a name's addresses are, whoever asks DNS sees.
        let told_apart = || Ranks::of(snapshot, forwarder, backing, traffic.as_ref(), &reached);
        let ranks = if names == 0 { told_apart() } else { None };
        self.endpoints = reached.len() + names - ranks.as_ref().map_or(0, |ranks| ranks.preferred.others);
        let tls = traffic.as_ref().and_then(|policy| policy.tls.as_ref());
        let named = tls.is_none().then_some((backing.service, port));
        let onward = |(endpoint, rank): (&Endpoint, Option<Rank>)| {
            let at = (endpoint.address.port(), endpoint.workload.as_deref());
            let transport = transport_to(snapshot, None, named, at);
            let transport = transport.map(|(transport, _)| match tls {
                Some(traffic::Tls::Disable) => Transport::Plaintext(PlaintextReason::DisabledByRule),
                _ => transport,
            });
            let transport = transport.map_err(|error| error.to_string());
            let server = Onward::new(snapshot, forwarder, (endpoint.address, endpoint.workload.clone()), transport);
            Onward { locality: endpoint.locality().clone(), rank, ..server }
        };
        let in_order = ranks.as_ref().map(|ranks| ranks.in_order(&reached));
        let in_order = in_order.unwrap_or_else(|| reached.iter().map(|endpoint| (*endpoint, None)).collect());
        self.servers = in_order.into_iter().take(MAX_SERVERS).map(onward).collect();
        self.preferred = ranks.map(|ranks| ranks.preferred);
        // Manifests without a single pod are not the cluster's: its pods are none of their business.
        self.fails = snapshot.workloads().next().and_then(|_| self.why_nobody(names));
        self
    }

    /// Of a port of a Service, without a rule.
    pub(super) fn of_service(snapshot: &Snapshot, forwarder: Forwarder<'_>, service: &Service, port: u16) -> Self {
        let to = format!("{}:{port}", service.hostname);
        match Backing::find(snapshot, forwarder.sender(), &service.hostname, (port, None)) {
            Some(backing) => Self::new(1, to).backed(snapshot, forwarder, &backing, None),
            None => Self::failing(1, to, 503, "there is no such Service or port"),
        }
    }

    /// Of a workload's own address.
    pub(super) fn of_address(snapshot: &Snapshot, forwarder: Forwarder<'_>, address: SocketAddr) -> Self {
        let workload = snapshot.workload_by_address(address.ip()).cloned();
        let at = (address.port(), workload.as_deref());
        let transport = transport_to(snapshot, None, None, at).map(|(transport, _)| transport);
        let server =
            Onward::new(snapshot, forwarder, (address, workload), transport.map_err(|error| error.to_string()));
        let mut share = Self::new(1, address.to_string());
        (share.endpoints, share.servers) = (1, vec![server]);
        share.fails = share.why_nobody(0);
        share
    }

    /// Why nobody answers, where nobody does.
    fn why_nobody(&self, names: usize) -> Option<Failure> {
        match &self.preferred {
            Some(Preferred { reason, .. }) if self.endpoints == 0 => {
                return Some(Failure::new(503, format!("{reason} leaves out all its endpoints")));
            }
            None if self.endpoints == 0 => return Some(Failure::new(503, "it has no ready endpoint")),
            _ if names > 0 || self.endpoints > self.servers.len() => return None,
            _ => {}
        }
        let stop = |server: &Onward| server.transport.as_ref().err().or(server.denial.as_ref()).cloned();
        let takers = self.servers.iter().filter(|server| server.rank != Some(Rank::Never));
        let stops: Option<Vec<_>> = takers.map(stop).collect();
        stops?.into_iter().next().map(|why| Failure::new(503, why))
    }

    /// What is asked for there instead.
    pub(super) fn rewrite(&mut self, rule: &Rule, backend: &Backend, (request, matched): (&Imagined, &PathMatch)) {
        let path = backend.rewrite.path.as_ref().or(rule.rewrite.path.as_ref());
        let path = path.map(|rewrite| rewrite.apply(request.path(), matched));
        self.path = path.filter(|path| path != request.path());
        let host = backend.rewrite.authority.as_ref().or(rule.rewrite.authority.as_ref());
        self.host = host.filter(|host| ***host != *request.host()).cloned();
    }
}

impl Onward {
    fn new(
        snapshot: &Snapshot,
        forwarder: Forwarder<'_>,
        (endpoint, workload): (SocketAddr, Option<Arc<Workload>>),
        transport: Result<Transport, String>,
    ) -> Self {
        let (identity, pod) = (forwarder.identity, forwarder.pod());
        let peer = match (&transport, identity) {
            (Ok(Transport::Hbone { .. }), Some(identity)) => Peer::Certificate(identity),
            _ => Peer::Unproven,
        };
        // Connections that several clients share say nothing of one client's address: they come from who sends on.
        let client = pod.and_then(|pod| pod.addresses.first().copied()).unwrap_or(endpoint.ip());
        let facts = Facts { peer, client, forwarded: None, server: None, destination: endpoint };
        // Without an identity nobody knows what would be said of it.
        let judge = workload.as_deref().filter(|workload| workload.is_enrolled() && identity.is_some());
        let denial = judge.and_then(|workload| explain(snapshot, workload, &facts).authorization.verdict.err());
        let denial = denial.map(|denial| denial.to_string());
        Self { endpoint, workload, locality: Locality::default(), rank: None, transport, denial }
    }
}
