//! What a snapshot, and DNS, say of a cluster.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use mesh_core::{
    Locality, NamedEndpoint, PlaintextReason, Resolution, Service, Snapshot, Speaks, Transport, Workload,
    l7::{
        BackendTls, Backing, TrafficPolicy,
        traffic::{Algorithm, ClientCertificate, HashKey, LoadBalancer, Origination, Tls},
    },
    locality::{Division, Reason},
    policy::{ClientTls, PolicyName},
    transport_to,
};

use super::{cluster::ClusterKey, endpoint::EndpointKey, names::Answer};
use crate::listeners::Own;

/// What a snapshot says of a cluster.
pub(super) struct Settled {
    pub(super) speaks: Speaks,
    pub(super) policy: TrafficPolicy,
    pub(super) endpoints: Result<Vec<FoundEndpoint>, mesh_core::Refusal>,
    /// Whether a request goes to the address that its client asked for.
    pub(super) as_asked: bool,
    /// Whether clients get the endpoints of their own node alone.
    pub(super) node_only: bool,
    /// The shares of the endpoints' parts; none where the first gets all and others stand in for it.
    pub(super) shares: Vec<u32>,
    /// Why endpoints are told apart by where they are, where they are.
    pub(super) reason: Option<Reason>,
}

/// An endpoint, and how to reach it.
pub(super) struct FoundEndpoint {
    pub(super) address: SocketAddr,
    pub(super) workload: Option<Arc<Workload>>,
    pub(super) transport: Transport,
    /// TLS that is begun to it.
    pub(super) origination: Option<Arc<Origination>>,
    /// Its share, in relation to the others'.
    pub(super) weight: u32,
    /// Where it is.
    pub(super) locality: Locality,
    /// The part that it is of, by localities.
    pub(super) part: u32,
}

impl FoundEndpoint {
    pub(super) fn key(&self) -> EndpointKey {
        EndpointKey::new(self.address, self.workload.as_deref(), &self.transport).with(self.origination.clone())
    }
}

impl Settled {
    /// By a snapshot, and by what DNS has said so far. None where there is no such cluster.
    pub(super) fn of(
        key: &ClusterKey,
        snapshot: &Snapshot,
        own: &Own,
        answers: &dyn Fn(&Arc<str>) -> Answer,
    ) -> Option<Self> {
        match key {
            ClusterKey::Address(address) => Self::of_address(snapshot, *address),
            ClusterKey::Service { hostname, port, subset } => {
                let own_namespace = &own.gateway.namespace;
                let labels = own.workload(snapshot).map(|own| &own.labels);
                let sender = (&**own_namespace, labels);
                let backing = Backing::find(snapshot, sender, hostname, (*port, subset.as_deref()))?;
                let (service, rule) = (backing.service, backing.rule);
                let mut policy = rule.map(|rule| rule.traffic.effective(subset.as_deref(), *port)).unwrap_or_default();
                snapshot.l7().defaults().fill(&mut policy);
                if service.placement.is_sticky {
                    let algorithm = Algorithm::ConsistentHash(HashKey::SourceAddress);
                    policy.load_balancer.get_or_insert_with(|| LoadBalancer { algorithm, ..LoadBalancer::default() });
                }
                if let Some(said) = backing.backend_tls {
                    policy.tls = Some(shown(&said.tls, snapshot, own));
                }
                let mut all = backing.port.endpoints.clone();
                for named in named_at(service, *port) {
                    all.extend(by_name(named, &answers(&named.name), service.resolution(), snapshot));
                }
                let name = backing.backend_tls.map(|said| &said.name).or(rule.map(|rule| &rule.name));
                let tls = policy.tls.as_ref().zip(name);
                let chosen: Vec<_> = backing.reached(&all).collect();
                let from_here = own.workload(snapshot);
                let division = from_here.and_then(|from| backing.divide(snapshot, Some(&policy), from, &chosen));
                let (shares, reason) = division.as_ref().map(|it| (it.shares.clone(), it.reason)).unzip();
                let endpoints = match backing.backend_tls.filter(|said| said.tls == Tls::Impossible) {
                    Some(BackendTls { name, .. }) => {
                        Err(mesh_core::Refusal::NobodyBelieved { service: service.clone(), policy: name.clone() })
                    }
                    None => reached(snapshot, (service, *port), &chosen, tls),
                };
                let endpoints = endpoints.map(|found| match &division {
                    Some(division) => in_parts(found, division),
                    None => found,
                });
                let (speaks, as_asked) = (backing.port.speaks, service.resolution() == Resolution::None);
                let (shares, node_only) = (shares.unwrap_or_default(), service.placement.node_only);
                Some(Self { speaks, policy, endpoints, as_asked, node_only, shares, reason })
            }
        }
    }

    /// Of a workload's own address.
    fn of_address(snapshot: &Snapshot, address: SocketAddr) -> Option<Self> {
        let workload = snapshot.workload_by_address(address.ip())?;
        let transport = transport_to(snapshot, None, None, (address.port(), Some(workload)));
        let found = |(transport, _)| {
            let (workload, locality) = (Some(workload.clone()), Locality::default());
            FoundEndpoint { address, workload, transport, origination: None, weight: 1, locality, part: 0 }
        };
        let endpoints = transport.map(|transport| vec![found(transport)]);
        let mut policy = TrafficPolicy::default();
        snapshot.l7().defaults().fill(&mut policy);
        Some(Self {
            speaks: Speaks::default(),
            policy,
            endpoints,
            as_asked: false,
            node_only: false,
            shares: Vec::new(),
            reason: None,
        })
    }
}

/// The names that DNS is asked for.
pub(super) fn names_of<'a>(key: &ClusterKey, snapshot: &'a Snapshot) -> impl Iterator<Item = &'a Arc<str>> {
    let found = match key {
        ClusterKey::Service { hostname, port, .. } => {
            snapshot.service_by_hostname(hostname).map(|service| (service, *port))
        }
        ClusterKey::Address(_) => None,
    };
    found.into_iter().flat_map(|(service, port)| named_at(service, port)).map(|named| &named.name)
}

fn named_at(service: &Service, port: u16) -> impl Iterator<Item = &NamedEndpoint> {
    let names = service.entry.as_ref().map_or(&[][..], |entry| &entry.names);
    names.iter().filter(move |named| named.of_port == port)
}

/// The endpoints of a name, of the family that the system's resolver prefers.
fn by_name(
    named: &NamedEndpoint,
    answer: &Answer,
    resolution: Resolution,
    snapshot: &Snapshot,
) -> Vec<mesh_core::Endpoint> {
    let addresses = answer.as_deref().unwrap_or_default();
    let ipv6 = addresses.first().is_some_and(IpAddr::is_ipv6);
    let most = if resolution == Resolution::DnsRoundRobin { 1 } else { addresses.len() };
    let of_family = addresses.iter().filter(|address| address.is_ipv6() == ipv6).take(most);
    let endpoint = |address: &IpAddr| mesh_core::Endpoint {
        address: SocketAddr::new(*address, named.port),
        workload: snapshot.workload_by_address(*address).cloned(),
        traits: Some(named.traits.clone()),
    };
    of_family.map(endpoint).collect()
}

/// Part by part, without those that are of none.
fn in_parts(found: Vec<FoundEndpoint>, division: &Division) -> Vec<FoundEndpoint> {
    let numbered = found.into_iter().zip(&division.part_of);
    let mut found: Vec<FoundEndpoint> =
        numbered.filter_map(|(found, part)| Some(FoundEndpoint { part: (*part)?, ..found })).collect();
    found.sort_by_key(|found| found.part);
    found
}

/// How each is reached.
fn reached(
    snapshot: &Snapshot,
    (service, port): (&Arc<Service>, u16),
    endpoints: &[&mesh_core::Endpoint],
    tls: Option<(&Tls, &Arc<PolicyName>)>,
) -> Result<Vec<FoundEndpoint>, mesh_core::Refusal> {
    endpoints
        .iter()
        .map(|endpoint| {
            let workload = endpoint.workload.clone();
            let named = tls.is_none().then_some((service, port));
            let at = (endpoint.address.port(), workload.as_deref());
            let (automatic, _) = transport_to(snapshot, None, named, at)?;
            let (transport, origination) = match tls {
                None => (automatic, None),
                Some((tls, rule)) => by_rule(tls, rule, automatic, service)?,
            };
            let weight = endpoint.traits.as_ref().and_then(|traits| traits.weight).unwrap_or(1);
            let (address, locality) = (endpoint.address, endpoint.locality().clone());
            Ok(FoundEndpoint { address, workload, transport, origination, weight, locality, part: 0 })
        })
        .collect()
}

/// How an endpoint is reached where a rule says that for this port, or this subset.
fn by_rule(
    tls: &Tls,
    rule: &Arc<PolicyName>,
    automatic: Transport,
    service: &Arc<Service>,
) -> Result<(Transport, Option<Arc<Origination>>), mesh_core::Refusal> {
    let (of, name) = (|| service.clone(), || rule.clone());
    match (tls, automatic) {
        (Tls::Disable, _) => Ok((Transport::Plaintext(PlaintextReason::DisabledByRule), None)),
        (Tls::IstioMutual, mutual @ (Transport::Hbone { .. } | Transport::Sidecar { .. })) => Ok((mutual, None)),
        (Tls::IstioMutual, _) => Err(mesh_core::Refusal::MutualTlsImpossible { service: of(), rule: name() }),
        // That TLS is with the application, and in no other.
        (Tls::Originate(asked), Transport::Sidecar { .. }) => {
            let plain = Transport::Plaintext(PlaintextReason::DestinationNotEnrolled);
            Ok((plain, Some(completed(asked, service))))
        }
        (Tls::Originate(asked), automatic) => Ok((automatic, Some(completed(asked, service)))),
        (Tls::Impossible, _) => {
            let mode = ClientTls::Mutual;
            Err(mesh_core::Refusal::TlsNotOriginated { service: of(), rule: name(), mode })
        }
    }
}

/// With the certificate that the own Gateway has for backends.
fn shown(tls: &Tls, snapshot: &Snapshot, own: &Own) -> Tls {
    let held = snapshot.l7().shown_by(&own.gateway.namespace, &own.gateway.name);
    match (tls, held) {
        (Tls::Originate(asked), Some(held)) => {
            let client = Some(ClientCertificate::Held(held.clone()));
            Tls::Originate(Arc::new(Origination { client, ..Origination::clone(asked) }))
        }
        _ => tls.clone(),
    }
}

/// With what is said of the host where the rule says nothing.
fn completed(asked: &Arc<Origination>, service: &Service) -> Arc<Origination> {
    let mut whole = Origination::clone(asked);
    if whole.sni.is_none() && !service.hostname.starts_with('*') {
        whole.sni = Some(service.hostname.clone());
    }
    if let Some(entry) = &service.entry
        && whole.names.is_empty()
    {
        whole.names.clone_from(&entry.subject_alt_names);
    }
    Arc::new(whole)
}
