//! Which endpoints of a Service's port a connection may get, and with which share.

use std::net::IpAddr;

use super::{Preference, Reason, Standpoint, divide, rendezvous};
use crate::model::{Endpoint, Service, ServicePort, Workload};
use crate::resolve::of_family;
use crate::snapshot::Snapshot;

/// Endpoints that a connection may get.
#[derive(Debug, Clone)]
pub enum Candidates<'a> {
    /// All of them, alike.
    All(&'a [Endpoint]),
    /// Some of them.
    Some {
        /// In parts, each with its share; in a part all are alike.
        parts: Vec<(u32, Vec<&'a Endpoint>)>,
        /// Why these.
        reason: Reason,
        /// How many there are beside these.
        others: usize,
    },
}

/// The endpoints of a port that connections of `client` get. Of nobody known all are alike.
#[must_use]
pub fn candidates<'a>(
    snapshot: &'a Snapshot,
    client: Option<&Workload>,
    service: &'a Service,
    port: &'a ServicePort,
    ipv6: bool,
) -> Candidates<'a> {
    let all = of_family(&port.endpoints, ipv6);
    let Some(client) = client else { return Candidates::All(all) };
    let found = by_place(snapshot, client, (service, port), all);
    match client.addresses.first().filter(|_| service.placement.is_sticky) {
        Some(address) => found.own(*address),
        None => found,
    }
}

fn by_place<'a>(
    snapshot: &'a Snapshot,
    client: &Workload,
    (service, port): (&'a Service, &'a ServicePort),
    all: &'a [Endpoint],
) -> Candidates<'a> {
    let policies = snapshot.policies();
    let rule =
        policies.client_tls_for(Some((&*client.namespace, &client.labels)), &service.hostname, &service.namespace);
    let policy = rule.map(|rule| rule.traffic.of_port(port.port));
    let preference = Preference::of(service, policy, policies.locality());
    if !service.placement.node_only && preference == Preference::None {
        return Candidates::All(all);
    }
    let endpoints: Vec<&Endpoint> = all.iter().collect();
    let from = Standpoint::of(client);
    let Some(division) = divide(&endpoints, service.placement.node_only, preference, from) else {
        return Candidates::All(all);
    };
    // The model has those that are ready, and nodes eject none: the first part gets all.
    let shares = if division.shares.is_empty() { vec![1] } else { division.shares };
    let mut parts: Vec<(u32, Vec<&Endpoint>)> = shares.into_iter().map(|share| (share, Vec::new())).collect();
    for (endpoint, part) in endpoints.iter().zip(division.part_of) {
        if let Some((_, part)) = part.and_then(|part| parts.get_mut(usize::try_from(part).ok()?)) {
            part.push(endpoint);
        }
    }
    parts.retain(|(_, part)| !part.is_empty());
    let chosen: usize = parts.iter().map(|(_, part)| part.len()).sum();
    Candidates::Some { parts, reason: division.reason, others: endpoints.len() - chosen }
}

impl<'a> Candidates<'a> {
    /// Of these the one that is the client's with that address.
    fn own(self, client: IpAddr) -> Self {
        if self.len() < 2 {
            return self;
        }
        let mut own: Option<(&'a Endpoint, f64)> = None;
        let mut weigh = |endpoint: &'a Endpoint, share: f64| {
            let score = rendezvous(client, endpoint.address.ip(), share);
            if own.is_none_or(|(_, best)| score > best) {
                own = Some((endpoint, score));
            }
        };
        match &self {
            Self::All(all) => all.iter().for_each(|endpoint| weigh(endpoint, 1.0)),
            Self::Some { parts, .. } => {
                for (share, part) in parts {
                    let each = f64::from(*share) / part.len() as f64;
                    part.iter().for_each(|endpoint| weigh(endpoint, each));
                }
            }
        }
        let others = self.reason().map_or(0, |(_, others)| others) + self.len().saturating_sub(1);
        match own {
            Some((own, _)) => Self::Some { parts: vec![(1, vec![own])], reason: Reason::ClientAddress, others },
            None => self,
        }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::All(all) => all.len(),
            Self::Some { parts, .. } => parts.iter().map(|(_, part)| part.len()).sum(),
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Why these, and how many others there are; none where these are all.
    #[must_use]
    pub const fn reason(&self) -> Option<(Reason, usize)> {
        match self {
            Self::All(_) => None,
            Self::Some { reason, others, .. } => Some((*reason, *others)),
        }
    }

    /// The endpoints in their order, where all have the same share.
    #[must_use]
    pub fn alike(&self) -> Option<Vec<&'a Endpoint>> {
        match self {
            Self::All(all) => Some(all.iter().collect()),
            Self::Some { parts, .. } if parts.len() <= 1 => {
                Some(parts.first().map_or_else(Vec::new, |(_, part)| part.clone()))
            }
            Self::Some { .. } => None,
        }
    }

    /// The one that `random` of `0..2^64` falls to. No remainder is taken, which would prefer some.
    #[must_use]
    pub fn pick(&self, random: u64) -> Option<&'a Endpoint> {
        match self {
            Self::All(all) => all.get(usize::try_from((u128::from(random) * all.len() as u128) >> 64).ok()?),
            Self::Some { parts, .. } => {
                let total: u128 = parts.iter().map(|(share, _)| u128::from(*share)).sum();
                // In units of which each share has 2^64.
                let mut left = u128::from(random) * total;
                for (share, part) in parts {
                    let whole = u128::from(*share) << 64;
                    if left < whole {
                        return part.get(usize::try_from(left * part.len() as u128 / whole).ok()?).copied();
                    }
                    left -= whole;
                }
                None
            }
        }
    }

    /// Each with the least of `0..2^64` that falls to it.
    #[must_use]
    pub fn each(&self) -> Vec<(&'a Endpoint, u64)> {
        let mut each = Vec::with_capacity(self.len());
        let mut add =
            |before: u128, share: u128, total: u128, part: &mut dyn ExactSizeIterator<Item = &'a Endpoint>| {
                let count = part.len() as u128;
                for (index, endpoint) in (0u128..).zip(part) {
                    let least = (before << 64) + (index * (share << 64)).div_ceil(count);
                    each.push((endpoint, u64::try_from(least.div_ceil(total.max(1))).unwrap_or(u64::MAX)));
                }
            };
        match self {
            Self::All(all) => add(0, 1, 1, &mut all.iter()),
            Self::Some { parts, .. } => {
                let total: u128 = parts.iter().map(|(share, _)| u128::from(*share)).sum();
                let mut before = 0;
                for (share, part) in parts {
                    let share = u128::from(*share);
                    add(before, share, total, &mut part.iter().copied());
                    before += share;
                }
            }
        }
        each
    }
}
