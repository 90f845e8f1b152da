//! Policies to the model.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use mesh_core::policy::{ClientTlsRule, HostPattern, Selector};
use mesh_core::{Policies, PolicyName, Service};

use super::destination_rules;
use crate::code::Code;
use crate::config::Options;
use crate::finding::Finding;
use crate::istio::{Age, Remark};
use crate::object::{Key, Located, ObjectSet};

/// Translates all policies.
pub(super) fn policies(
    objects: &ObjectSet,
    options: &Options,
    services: &[Arc<Service>],
    findings: &mut Vec<Finding>,
) -> Policies {
    let authorization = by_age(&objects.authorization_policies, |read| &read.age);
    let peers = by_age(&objects.peer_authentications, |read| &read.age);
    let rules = by_age(&objects.destination_rules, |read| &read.age);
    for located in &authorization {
        // Who judges by it is known once gateways are.
        let remarks = located.object.remarks.iter().filter(|remark| remark.code != Code::FieldNeedsRequest);
        report(located, remarks, findings);
    }
    let tokens = by_age(&objects.request_authentications, |read| &read.age);
    tokens.iter().for_each(|located| report(located, &located.object.remarks, findings));
    peers.iter().for_each(|located| report(located, &located.object.remarks, findings));
    rules.iter().for_each(|located| report(located, &located.object.remarks, findings));
    report_conflicts(
        peers.iter().map(|located| {
            let policy = &located.object.policy;
            (*located, &policy.name, (policy.name.namespace.clone(), selector_key(policy.selector.as_ref())))
        }),
        findings,
    );
    let mut rules: Vec<_> =
        rules.iter().map(|located| (*located, located.object.rule(&options.cluster_domain))).collect();
    destination_rules::join(&mut rules, findings);
    report_conflicts(
        rules
            .iter()
            .filter(|(_, rule)| rule.says_something())
            .map(|(located, rule)| (*located, &rule.name, destination_rules::subject(rule))),
        findings,
    );
    report_hosts(&rules, services, findings);
    let selecting = tokens.iter().filter(|located| located.object.targets.is_empty());
    let of_connections = authorization.iter().filter(|located| located.object.targets.is_empty());
    Policies::build(
        options.root_namespace.as_str().into(),
        of_connections.map(|located| Arc::clone(&located.object.policy)).collect(),
        peers.iter().map(|located| Arc::clone(&located.object.policy)).collect(),
        rules.into_iter().map(|(_, rule)| Arc::new(rule)).collect(),
    )
    .with_locality(objects.mesh_configs.values().next().map(|it| it.object.locality.clone()).unwrap_or_default())
    .with_targeted(authorization.iter().filter_map(|located| located.object.targeted()).collect())
    .with_request_authentication(
        selecting.map(|located| Arc::clone(&located.object.policy)).collect(),
        tokens.iter().filter_map(|located| located.object.targeted()).collect(),
    )
}

/// Says which rules are about hosts that there are not.
fn report_hosts<T>(rules: &[(&Located<T>, ClientTlsRule)], services: &[Arc<Service>], findings: &mut Vec<Finding>) {
    let hosts: HashSet<&str> = services.iter().map(|service| &*service.hostname).collect();
    for (located, rule) in rules {
        let message = match &rule.host {
            HostPattern::Exact(host) => (!hosts.contains(&**host)).then(|| format!("{host} is no Service's")),
            many @ HostPattern::Suffix(end) => {
                (!hosts.iter().any(|host| many.matches(host))).then(|| format!("no Service's host ends in {end:?}"))
            }
        };
        if let Some(message) = message {
            findings.push(Finding::new(Code::UnknownHost, (*located.origin).clone(), message).at("spec.host"));
        }
    }
}

/// The oldest first, and among equals by namespace and name.
pub(super) fn by_age<T>(objects: &BTreeMap<Key, Located<T>>, age: impl Fn(&T) -> &Age) -> Vec<&Located<T>> {
    let mut objects: Vec<_> = objects.values().collect();
    objects.sort_by(|a, b| age(&a.object).cmp(age(&b.object)));
    objects
}

pub(super) fn report<'a, T>(
    located: &Located<T>,
    remarks: impl IntoIterator<Item = &'a Remark>,
    findings: &mut Vec<Finding>,
) {
    for remark in remarks {
        let finding = Finding::new(remark.code, (*located.origin).clone(), remark.message.clone());
        findings.push(finding.at(remark.field.clone()));
    }
}

/// Says which objects an older one of the same key makes useless.
fn report_conflicts<'a, T: 'a, K: std::hash::Hash + Eq>(
    oldest_first: impl Iterator<Item = (&'a Located<T>, &'a Arc<PolicyName>, K)>,
    findings: &mut Vec<Finding>,
) {
    let mut first: HashMap<K, &PolicyName> = HashMap::new();
    for (located, name, key) in oldest_first {
        if let Some(older) = first.get(&key) {
            let message = format!("{older} is older and about the same: it is in force, and this one is not");
            findings.push(Finding::new(Code::PolicyConflict, (*located.origin).clone(), message));
        } else {
            first.insert(key, name);
        }
    }
}

fn selector_key(selector: Option<&Selector>) -> Option<String> {
    selector.map(ToString::to_string)
}
