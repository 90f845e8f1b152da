//! Which ports a workload's policies tell apart, so that verdicts can be tabulated.

use std::collections::BTreeSet;

use super::{Clause, Test};
use crate::model::Workload;
use crate::snapshot::Snapshot;

/// The ports of `workload` that its policies mention. For any two others, and the same facts apart from the port,
/// [`super::authorize`] decides the same.
#[must_use]
pub fn mentioned_ports(snapshot: &Snapshot, workload: &Workload) -> BTreeSet<u16> {
    let policies = snapshot.policies();
    let of_clause = |clause: &Clause| {
        let ports = clause.iter().map(|term| match &term.test {
            Test::DestinationPort(ports) => &**ports,
            _ => &[],
        });
        ports.flatten().copied().collect::<Vec<u16>>()
    };
    let mut mentioned = BTreeSet::new();
    for policy in policies.authorization_of(workload) {
        for rule in &policy.rules {
            mentioned.extend(rule.to.iter().flat_map(of_clause));
            mentioned.extend(of_clause(&rule.when));
        }
    }
    for policy in policies.peer_authentication_of(workload) {
        mentioned.extend(policy.ports.keys());
    }
    mentioned.extend(snapshot.l7().guards_of(workload).iter().filter_map(|guard| guard.port));
    mentioned
}

/// A port that stands for all that are not mentioned, if any is left.
#[must_use]
pub fn unmentioned_port(mentioned: &BTreeSet<u16>) -> Option<u16> {
    (1..=u16::MAX).rev().find(|port| !mentioned.contains(port))
}
