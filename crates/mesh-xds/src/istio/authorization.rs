//! Policies as Istio's node proxies read them: `istio.security.Authorization`.
//!
//! They know AuthorizationPolicies of connections, ALLOW and DENY. What else refuses a connection here is written as a DENY
//! of its own kind: plaintext that PeerAuthentications refuse, and connections past a waypoint ([`derived`]).

use std::collections::BTreeSet;
use std::net::IpAddr;

use mesh_core::identity::SpiffeId;
use mesh_core::model::Workload;
use mesh_core::policy::{
    self, AuthorizationPolicy, IpBlocks, Mode, Pattern, Patterns, Scope, ServiceAccounts, Term, Test, effective_mode,
    unmentioned_port,
};
use mesh_core::snapshot::Snapshot;
use prost::Message as _;

use super::address::octets;
use super::proto::{self, Action, Authorization, Clause, IpRange, Match, Rule, StringMatch, string_match};
use crate::table::version_of;

/// Whether there is a resource of the policy: not of one that only reports.
pub(super) fn is_told(policy: &AuthorizationPolicy) -> bool {
    policy.action != policy::Action::Audit
}

/// The policy as a resource; none where [`is_told`] says so.
pub(super) fn policy(policy: &AuthorizationPolicy, root_namespace: &str) -> Option<Authorization> {
    let action = match policy.action {
        policy::Action::Allow => Action::Allow,
        // No authorizer is asked about a connection: what the policy matches is refused.
        policy::Action::Deny | policy::Action::Custom => Action::Deny,
        policy::Action::Audit => return None,
    };
    let scope = match policy.scope(root_namespace) {
        Scope::Mesh => proto::Scope::Global,
        Scope::Namespace => proto::Scope::Namespace,
        Scope::Selected => proto::Scope::WorkloadSelector,
        // It is for a waypoint or a gateway, which no node proxy is.
        Scope::Target => return None,
    };
    // Where nobody reads requests, a rule about one allows nothing, and refuses by what is left of it.
    let judged = policy.rules.iter().filter(|rule| action == Action::Deny || rule.needs_request.is_empty());
    Some(Authorization {
        name: policy.name.name.to_string(),
        namespace: policy.name.namespace.to_string(),
        scope: scope.into(),
        action: action.into(),
        rules: judged.flat_map(rules).collect(),
        dry_run: policy.dry_run,
    })
}

/// A rule; several where one cannot say it.
fn rules(rule: &policy::Rule) -> Vec<Rule> {
    let (from, to) = (one_of(&rule.from), one_of(&rule.to));
    let Some(when) = all_of(&rule.when) else { return Vec::new() };
    let pairs = from.iter().flat_map(|from| to.iter().map(move |to| (from, to)));
    pairs.map(|(from, to)| Rule { clauses: [from, to, &when].into_iter().flatten().cloned().collect() }).collect()
}

/// Alternatives, as clauses that all have to hold. Each element is a way for that; none if there is no way.
fn one_of(alternatives: &[policy::Clause]) -> Vec<Vec<Clause>> {
    if alternatives.is_empty() {
        return vec![Vec::new()];
    }
    let possible: Vec<Vec<Clause>> = alternatives.iter().filter_map(all_of).collect();
    if possible.iter().any(Vec::is_empty) {
        return vec![Vec::new()];
    }
    let joined: Option<Vec<Match>> = possible.iter().map(|clauses| join(clauses)).collect();
    match joined {
        Some(matches) if !matches.is_empty() => vec![vec![Clause { matches }]],
        Some(_) => Vec::new(),
        None => possible,
    }
}

/// Terms that all have to hold, a clause each; none if one cannot.
fn all_of(clause: &policy::Clause) -> Option<Vec<Clause>> {
    let mut all = Vec::new();
    for term in clause {
        match one(term) {
            Held::Always => {}
            Held::Never => return None,
            Held::If(found) => all.push(Clause { matches: vec![*found] }),
        }
    }
    Some(all)
}

/// Clauses of one match each as a single match; none where two have values for one field.
fn join(clauses: &[Clause]) -> Option<Match> {
    let mut joined = Match::default();
    for one in clauses.iter().flat_map(|clause| &clause.matches) {
        let Match { namespaces, principals, source_ips, destination_ips, destination_ports, .. } = one.clone();
        fill(&mut joined.namespaces, namespaces)?;
        fill(&mut joined.principals, principals)?;
        fill(&mut joined.source_ips, source_ips)?;
        fill(&mut joined.destination_ips, destination_ips)?;
        fill(&mut joined.destination_ports, destination_ports)?;
        joined.not_namespaces.extend_from_slice(&one.not_namespaces);
        joined.not_principals.extend_from_slice(&one.not_principals);
        joined.not_source_ips.extend_from_slice(&one.not_source_ips);
        joined.not_destination_ips.extend_from_slice(&one.not_destination_ips);
        joined.not_destination_ports.extend_from_slice(&one.not_destination_ports);
    }
    Some(joined)
}

fn fill<T>(field: &mut Vec<T>, values: Vec<T>) -> Option<()> {
    if !values.is_empty() {
        if !field.is_empty() {
            return None;
        }
        *field = values;
    }
    Some(())
}

/// When a term holds.
enum Held {
    Always,
    Never,
    If(Box<Match>),
}

fn one(term: &Term) -> Held {
    let mut found = Match::default();
    let negated = term.negated;
    match &term.test {
        Test::Request(_) => return Held::Always,
        Test::Principal(patterns) => {
            *either(&mut found.principals, &mut found.not_principals, negated) = texts(patterns)
        }
        Test::ServiceAccount(set) => *either(&mut found.principals, &mut found.not_principals, negated) = accounts(set),
        Test::Namespace(patterns) => {
            *either(&mut found.namespaces, &mut found.not_namespaces, negated) = texts(patterns)
        }
        Test::SourceIp(set) | Test::RemoteIp(set) => {
            *either(&mut found.source_ips, &mut found.not_source_ips, negated) = blocks(set);
        }
        Test::DestinationIp(set) => {
            *either(&mut found.destination_ips, &mut found.not_destination_ips, negated) = blocks(set);
        }
        Test::DestinationPort(set) => {
            let ports = set.iter().copied().map(u32::from).collect();
            *either(&mut found.destination_ports, &mut found.not_destination_ports, negated) = ports;
        }
    }
    match (found == Match::default(), negated) {
        (false, _) => Held::If(Box::new(found)),
        // Without a value nothing is met.
        (true, true) => Held::Always,
        (true, false) => Held::Never,
    }
}

const fn either<'a, T>(positive: &'a mut T, negative: &'a mut T, negated: bool) -> &'a mut T {
    if negated { negative } else { positive }
}

fn text(kind: string_match::Type) -> StringMatch {
    StringMatch { match_type: Some(kind) }
}

fn texts(patterns: &Patterns) -> Vec<StringMatch> {
    let exact = patterns.exact().map(|exact| string_match::Type::Exact(exact.to_owned()));
    let others = patterns.others().iter().map(|pattern| match pattern {
        Pattern::Exact(exact) => string_match::Type::Exact(exact.to_string()),
        Pattern::Prefix(beginning) => string_match::Type::Prefix(beginning.to_string()),
        Pattern::Suffix(end) => string_match::Type::Suffix(end.to_string()),
        Pattern::Presence => string_match::Type::Presence(()),
    });
    exact.chain(others).map(text).collect()
}

/// Accounts of whatever trust domain: a principal ends in namespace and account, which have no slash.
fn accounts(accounts: &ServiceAccounts) -> Vec<StringMatch> {
    let end = |(namespace, account): (&str, &str)| string_match::Type::Suffix(format!("/ns/{namespace}/sa/{account}"));
    accounts.iter().map(end).map(text).collect()
}

fn blocks(blocks: &IpBlocks) -> Vec<IpRange> {
    let range = |(first, length): (IpAddr, u32)| IpRange { address: octets(first), length };
    blocks.iter().map(range).collect()
}

/// What refuses connections to a workload beside its AuthorizationPolicies, each named by what it says, so that workloads
/// that are alike have one in common.
pub(super) fn derived(snapshot: &Snapshot, workload: &Workload) -> Vec<Authorization> {
    let root = snapshot.policies().root_namespace();
    let plaintext = refused_plaintext(snapshot, workload).map(|at| Match { not_principals: anybody(), ..at });
    let past = passed_waypoints(snapshot, workload);
    let deny = |(kind, found): (&str, Match)| {
        let mut denial = Authorization {
            namespace: root.to_owned(),
            scope: proto::Scope::WorkloadSelector.into(),
            action: Action::Deny.into(),
            rules: vec![Rule { clauses: vec![Clause { matches: vec![found] }] }],
            ..Authorization::default()
        };
        denial.name = format!("mesh-{kind}-{:016x}", version_of(&[&denial.encode_to_vec()]));
        denial
    };
    plaintext
        .map(|found| ("strict", found))
        .into_iter()
        .chain(past.into_iter().map(|found| ("waypoint", found)))
        .map(deny)
        .collect()
}

fn anybody() -> Vec<StringMatch> {
    vec![text(string_match::Type::Presence(()))]
}

/// The ports at which a workload refuses plaintext; none where there is none.
fn refused_plaintext(snapshot: &Snapshot, workload: &Workload) -> Option<Match> {
    let policies = snapshot.policies().peer_authentication_of(workload);
    let mentioned: BTreeSet<u16> = policies.iter().flat_map(|policy| policy.ports.keys().copied()).collect();
    let is_strict = |port: u16| effective_mode(snapshot, workload, port).mode == Mode::Strict;
    let by_default = unmentioned_port(&mentioned).is_some_and(is_strict);
    let different = mentioned.into_iter().filter(|port| is_strict(*port) != by_default).map(u32::from).collect();
    match by_default {
        true => Some(Match { not_destination_ports: different, ..Match::default() }),
        false if different.is_empty() => None,
        false => Some(Match { destination_ports: different, ..Match::default() }),
    }
}

/// For each port, or set of ports, at which only waypoints may connect: what does not come from there.
fn passed_waypoints(snapshot: &Snapshot, workload: &Workload) -> Vec<Match> {
    let guards = snapshot.l7().guards_of(workload);
    let ports: BTreeSet<u16> = guards.iter().filter_map(|guard| guard.port).collect();
    let waypoints = |port: Option<u16>| {
        let here = guards.iter().filter(move |guard| guard.port.is_none() || guard.port == port);
        let all: BTreeSet<&SpiffeId> = here.flat_map(|guard| &guard.waypoint.identities).collect();
        let exact = all.into_iter().map(|identity| text(string_match::Type::Exact(identity.principal().to_owned())));
        exact.collect::<Vec<_>>()
    };
    let at = |port: &u16| Match {
        destination_ports: vec![(*port).into()],
        not_principals: waypoints(Some(*port)),
        ..Match::default()
    };
    let mut found: Vec<Match> = ports.iter().map(at).collect();
    if guards.iter().any(|guard| guard.port.is_none()) {
        let elsewhere = ports.iter().copied().map(u32::from).collect();
        found.push(Match { not_destination_ports: elsewhere, not_principals: waypoints(None), ..Match::default() });
    }
    // Where no waypoint has a replica and every port is meant, nothing at all may connect.
    for everything in found.iter_mut().filter(|found| **found == Match::default()) {
        everything.not_destination_ports = vec![0];
    }
    found
}
