//! Which of a share's servers come first, by where they are.

use std::sync::Arc;

use super::onward::Forwarder;
use crate::l7::{Backing, TrafficPolicy};
use crate::locality::{Division, Preference, Reason, Standpoint, divide};
use crate::model::{Endpoint, Workload};
use crate::snapshot::Snapshot;

/// Why a share's servers are not all alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preferred {
    /// What asks for it.
    pub reason: Reason,
    /// From where it is seen: a replica of whoever sends on, or the client where its own node counts.
    pub from: Arc<Workload>,
    /// How many replicas see it otherwise, from where they are.
    pub otherwise: usize,
    /// How many endpoints get nothing.
    pub others: usize,
}

/// What a server is among the others of its share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rank {
    /// It stands in for those of lower numbers as they are ejected; the first, 0, get all that they can carry.
    Priority(u32),
    /// Those that are where it is have this share together.
    Share(u32),
    /// It is where the client is, and only such count.
    Near,
    /// It gets nothing.
    Never,
}

/// A share's endpoints, told apart.
pub(super) struct Ranks {
    pub(super) preferred: Preferred,
    division: Division,
}

impl Ranks {
    /// None where all are alike, or nobody knows from where they are seen.
    pub(super) fn of(
        snapshot: &Snapshot,
        forwarder: Forwarder<'_>,
        backing: &Backing<'_>,
        policy: Option<&TrafficPolicy>,
        endpoints: &[&Endpoint],
    ) -> Option<Self> {
        let (from, division, otherwise) = if backing.service.placement.node_only {
            let from = forwarder.nearby?;
            (from, divide(endpoints, true, Preference::None, Standpoint::of(from))?, 0)
        } else {
            let seen = |from: &Arc<Workload>| backing.divide(snapshot, policy, from, endpoints);
            let seen: Vec<_> = forwarder.replicas.iter().map(seen).collect();
            let (from, division) = forwarder.replicas.iter().zip(&seen).find(|(_, division)| division.is_some())?;
            let otherwise = seen.iter().filter(|other| *other != division).count();
            (from, division.clone()?, otherwise)
        };
        let others = division.part_of.iter().filter(|part| part.is_none()).count();
        let preferred = Preferred { reason: division.reason, from: Arc::clone(from), otherwise, others };
        Some(Self { preferred, division })
    }

    /// The endpoints, those that come first in front.
    pub(super) fn in_order<'e>(&self, endpoints: &[&'e Endpoint]) -> Vec<(&'e Endpoint, Option<Rank>)> {
        let parts = self.division.part_of.iter().map(|part| part.unwrap_or(u32::MAX));
        let mut ranked: Vec<_> = parts.zip(endpoints).collect();
        ranked.sort_by_key(|(part, _)| *part);
        ranked.into_iter().map(|(part, endpoint)| (*endpoint, Some(self.rank(part)))).collect()
    }

    fn rank(&self, part: u32) -> Rank {
        let share = usize::try_from(part).ok().and_then(|part| self.division.shares.get(part));
        match (part, share) {
            (u32::MAX, _) => Rank::Never,
            (_, Some(share)) => Rank::Share(*share),
            (_, None) if self.division.reason == Reason::NodeOnly => Rank::Near,
            (part, None) => Rank::Priority(part),
        }
    }
}
