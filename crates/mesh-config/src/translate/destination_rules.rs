//! DestinationRules that are about the same, as one.

use std::collections::HashMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use mesh_core::l7::TrafficRule;
use mesh_core::policy::{ClientTlsRule, HostPattern};

use crate::code::Code;
use crate::finding::Finding;
use crate::istio::DestinationRule;
use crate::object::Located;

/// What tells whether two rules are about the same: namespace, host, and the clients that they are for.
pub(super) type Subject = (Arc<str>, String, Option<String>);

pub(super) fn subject(rule: &ClientTlsRule) -> Subject {
    let host = match &rule.host {
        HostPattern::Exact(host) => host.to_string(),
        HostPattern::Suffix(end) => format!("*{end}"),
    };
    (Arc::clone(&rule.name.namespace), host, rule.clients.as_ref().map(ToString::to_string))
}

/// Gives all rules about the same subject what any of them says beside TLS, as Istio does: subsets of all of them, and
/// for each group of settings the oldest's. A subset that is there twice is told of.
pub(super) fn join(rules: &mut [(&Located<DestinationRule>, ClientTlsRule)], findings: &mut Vec<Finding>) {
    let mut joined: HashMap<Subject, TrafficRule> = HashMap::new();
    for (located, rule) in &*rules {
        let all = joined.entry(subject(rule)).or_default();
        for (name, subset) in &rule.traffic.subsets {
            match all.subsets.entry(Arc::clone(name)) {
                Entry::Vacant(entry) => {
                    entry.insert(subset.clone());
                }
                Entry::Occupied(_) => {
                    let message = format!("subset {name} is defined by an older DestinationRule of the same host");
                    let finding = Finding::new(Code::PolicyConflict, (*located.origin).clone(), message);
                    findings.push(finding.at("spec.subsets"));
                }
            }
        }
        all.policy = std::mem::take(&mut all.policy).or(&rule.traffic.policy);
        for (port, policy) in &rule.traffic.ports {
            all.ports.entry(*port).or_insert_with(|| policy.clone());
        }
    }
    let joined: HashMap<Subject, Arc<TrafficRule>> =
        joined.into_iter().map(|(subject, traffic)| (subject, Arc::new(traffic))).collect();
    for (_, rule) in rules {
        if let Some(traffic) = joined.get(&subject(rule)) {
            rule.traffic = Arc::clone(traffic);
        }
    }
}
