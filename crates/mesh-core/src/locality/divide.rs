//! Endpoints by where they are, seen from a client.

use super::{HOSTNAME, Locality, LocalitySetting, Nearest, Preference, Priority, REGION, Reason, SUBZONE, ZONE};
use crate::label_set::LabelSet;
use crate::model::{Endpoint, NodeName, Workload};

/// From where endpoints are looked at.
#[derive(Debug, Clone, Copy)]
pub struct Standpoint<'a> {
    /// The client's node.
    pub node: &'a NodeName,
    /// Where that is.
    pub locality: &'a Locality,
    /// The client's labels.
    pub labels: &'a LabelSet,
}

impl<'a> Standpoint<'a> {
    /// A workload's.
    #[must_use]
    pub fn of(workload: &'a Workload) -> Self {
        Self { node: &workload.node, locality: &workload.locality, labels: &workload.labels }
    }
}

/// Endpoints, told apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Division {
    /// The part that each endpoint is of, in their order; none for one that is left out. No part is empty.
    pub part_of: Vec<Option<u32>>,
    /// The parts' shares. Where there are none, the first part gets all, and the next stands in for it.
    pub shares: Vec<u32>,
    /// Why.
    pub reason: Reason,
}

/// Tells endpoints apart; none where all are alike to the client. With `node_only`, those of other nodes are left out.
#[must_use]
pub fn divide(
    endpoints: &[&Endpoint],
    node_only: bool,
    preference: Preference<'_>,
    from: Standpoint<'_>,
) -> Option<Division> {
    if node_only {
        let on_node = |endpoint: &&Endpoint| node_of(endpoint).is_some_and(|node| node == from.node);
        let part_of = endpoints.iter().map(|endpoint| on_node(endpoint).then_some(0)).collect();
        return Some(Division { part_of, shares: Vec::new(), reason: Reason::NodeOnly });
    }
    match preference {
        Preference::None => None,
        Preference::Service(nearest) => by_hints(endpoints, from).or_else(|| {
            let nearest = nearest?;
            by_rank(endpoints, Reason::Nearest(nearest), |endpoint| distance(nearest, endpoint, from))
        }),
        Preference::Setting(setting, fails_over) => by_shares(endpoints, setting, from)
            .or_else(|| if fails_over { by_failover(endpoints, setting, from) } else { None }),
    }
}

/// As kube-proxy takes hints: where all endpoints have some, and some are for this node or zone. Those come first.
fn by_hints(endpoints: &[&Endpoint], from: Standpoint<'_>) -> Option<Division> {
    let hints = |endpoint: &Endpoint| endpoint.traits.as_ref()?.hints.clone();
    let hints: Option<Vec<_>> = endpoints.iter().map(|endpoint| hints(endpoint)).collect();
    let hints = hints?;
    let meant = |reason, is_meant: &dyn Fn(&super::Hints) -> bool| {
        let part_of: Vec<_> = hints.iter().map(|hints| Some(u32::from(!is_meant(hints)))).collect();
        part_of.contains(&Some(0)).then_some(Division { part_of, shares: Vec::new(), reason })
    };
    if hints.iter().all(|hints| !hints.nodes.is_empty())
        && let Some(of_node) = meant(Reason::NodeHints, &|hints| hints.nodes.contains(from.node))
    {
        return Some(of_node);
    }
    let zone = &from.locality.zone;
    if zone.is_empty() || hints.iter().any(|hints| hints.zones.is_empty()) {
        return None;
    }
    meant(Reason::ZoneHints, &|hints| hints.zones.contains(zone))
}

/// How far away an endpoint is: the number of steps from the nearest.
fn distance(nearest: Nearest, endpoint: &Endpoint, from: Standpoint<'_>) -> u32 {
    let (own, other) = (from.locality, endpoint.locality());
    let same_node = || node_of(endpoint).is_some_and(|node| node == from.node);
    let alike: [bool; 4] = [
        own.region == other.region,
        own.zone == other.zone,
        own.subzone == other.subzone,
        nearest == Nearest::Node && same_node(),
    ];
    let steps = match nearest {
        Nearest::Zone => 2,
        Nearest::Close => 3,
        Nearest::Node => 4,
    };
    missing(alike.into_iter().take(steps))
}

/// How many there are from the first that is false.
fn missing(alike: impl ExactSizeIterator<Item = bool>) -> u32 {
    let all = alike.len();
    let common = alike.take_while(|alike| *alike).count();
    u32::try_from(all - common).unwrap_or(u32::MAX)
}

fn by_shares(endpoints: &[&Endpoint], setting: &LocalitySetting, from: Standpoint<'_>) -> Option<Division> {
    let found = setting.distribute.iter().find(|distribute| distribute.from.matches(from.locality))?;
    let part = |endpoint: &&Endpoint| {
        let locality = endpoint.locality();
        found.to.iter().position(|(to, share)| *share > 0 && to.matches(locality))
    };
    let parts: Vec<Option<usize>> = endpoints.iter().map(part).collect();
    let mut shares = Vec::new();
    let mut numbers = Vec::with_capacity(found.to.len());
    for (index, (_, share)) in found.to.iter().enumerate() {
        let is_there = parts.contains(&Some(index));
        numbers.push(u32::try_from(shares.len()).ok());
        if is_there {
            shares.push(*share);
        }
    }
    let part_of = parts.iter().map(|part| numbers.get((*part)?).copied().flatten()).collect();
    Some(Division { part_of, shares, reason: Reason::Distribute })
}

fn by_failover(endpoints: &[&Endpoint], setting: &LocalitySetting, from: Standpoint<'_>) -> Option<Division> {
    let to = setting.failover.iter().find(|failover| failover.from == from.locality.region).map(|found| &found.to);
    let by_region = |endpoint: &Endpoint| {
        let (own, other) = (from.locality, endpoint.locality());
        let alike = [own.region == other.region, own.zone == other.zone, own.subzone == other.subzone];
        let distance = missing(alike.into_iter());
        let stands_in = to.is_none_or(|to| *to == other.region);
        distance + u32::from(distance == 3 && !stands_in)
    };
    if setting.failover_priority.is_empty() {
        return by_rank(endpoints, Reason::Failover, by_region);
    }
    let by_labels = |endpoint: &Endpoint| {
        let alike = setting.failover_priority.iter().map(|priority| is_alike(priority, endpoint, from));
        let rank = missing(alike);
        // What labels leave alike, the regions that stand in for each other tell apart.
        if to.is_some() { rank * 8 + by_region(endpoint) } else { rank }
    };
    by_rank(endpoints, Reason::FailoverPriority, by_labels)
}

/// Absent labels are alike.
fn is_alike(Priority { label, value }: &Priority, endpoint: &Endpoint, from: Standpoint<'_>) -> bool {
    let other = label_of(label, endpoint.locality(), node_of(endpoint), endpoint.labels());
    let own = label_of(label, from.locality, Some(from.node), Some(from.labels));
    value.as_deref().unwrap_or(own) == other
}

fn label_of<'a>(
    label: &str,
    locality: &'a Locality,
    node: Option<&'a NodeName>,
    labels: Option<&'a LabelSet>,
) -> &'a str {
    match label {
        REGION => &locality.region,
        ZONE => &locality.zone,
        SUBZONE => &locality.subzone,
        HOSTNAME => node.map_or("", NodeName::as_str),
        label => labels.and_then(|labels| labels.get(label)).unwrap_or_default(),
    }
}

/// Parts of the same rank, the lowest first. None where all are of one.
fn by_rank(endpoints: &[&Endpoint], reason: Reason, rank: impl Fn(&Endpoint) -> u32) -> Option<Division> {
    let ranks: Vec<u32> = endpoints.iter().map(|endpoint| rank(endpoint)).collect();
    let mut distinct = ranks.clone();
    distinct.sort_unstable();
    distinct.dedup();
    let number = |rank: &u32| distinct.binary_search(rank).ok().and_then(|number| u32::try_from(number).ok());
    Some(Division { part_of: ranks.iter().map(number).collect(), shares: Vec::new(), reason })
        .filter(|_| distinct.len() > 1)
}

fn node_of(endpoint: &Endpoint) -> Option<&NodeName> {
    endpoint.workload.as_ref().map(|workload| &workload.node)
}
