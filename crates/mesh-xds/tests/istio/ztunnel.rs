//! How Istio's node proxy decides on a connection by what it is told, as its documentation of the messages has it.

use std::net::{IpAddr, SocketAddr};

use mesh_core::SpiffeId;
use mesh_xds::istio_proto::{
    Action, Authorization, Clause, IpRange, Match, Scope, StringMatch, Workload, string_match,
};

use crate::Told;

/// A connection.
pub struct Connection<'a> {
    pub identity: Option<&'a SpiffeId>,
    pub client: IpAddr,
    pub destination: SocketAddr,
}

/// Whether it may enter.
pub fn allows(told: &Told, workload: &Workload, connection: &Connection<'_>) -> bool {
    let selected = |name: &String| told.policies.get(name).unwrap_or_else(|| panic!("{name} is told of nowhere"));
    let wide = told.policies.values().filter(|policy| match policy.scope() {
        Scope::Global => true,
        Scope::Namespace => policy.namespace == workload.namespace,
        Scope::WorkloadSelector => false,
    });
    let about: Vec<&Authorization> = wide.chain(workload.authorization_policies.iter().map(selected)).collect();
    let in_force = |action| about.iter().filter(move |policy| policy.action() == action && !policy.dry_run);
    if in_force(Action::Deny).any(|policy| matches(policy, connection)) {
        return false;
    }
    in_force(Action::Allow).count() == 0 || in_force(Action::Allow).any(|policy| matches(policy, connection))
}

fn matches(policy: &Authorization, connection: &Connection<'_>) -> bool {
    policy.rules.iter().any(|rule| rule.clauses.iter().all(|clause| holds(clause, connection)))
}

fn holds(clause: &Clause, connection: &Connection<'_>) -> bool {
    // A match that asks for nothing is none.
    let one = |one: &Match| *one != Match::default() && fits(one, connection);
    clause.matches.is_empty() || clause.matches.iter().any(one)
}

fn fits(asked: &Match, connection: &Connection<'_>) -> bool {
    let principal = connection.identity.map(SpiffeId::principal);
    let namespace = connection.identity.map_or("", SpiffeId::namespace);
    let is_principal = |text: &StringMatch| principal.is_some_and(|principal| is_text(text, principal));
    let is_namespace = |text: &StringMatch| is_text(text, namespace);
    let is_port = |port: &u32| *port == u32::from(connection.destination.port());
    let is_source = |range: &IpRange| is_within(range, connection.client);
    let is_destination = |range: &IpRange| is_within(range, connection.destination.ip());
    field(&asked.principals, &asked.not_principals, is_principal)
        && field(&asked.namespaces, &asked.not_namespaces, is_namespace)
        && field(&asked.source_ips, &asked.not_source_ips, is_source)
        && field(&asked.destination_ips, &asked.not_destination_ips, is_destination)
        && field(&asked.destination_ports, &asked.not_destination_ports, is_port)
}

fn field<T>(values: &[T], not_values: &[T], is: impl Fn(&T) -> bool) -> bool {
    (values.is_empty() || values.iter().any(&is)) && !not_values.iter().any(is)
}

fn is_text(asked: &StringMatch, text: &str) -> bool {
    match asked.match_type.as_ref().unwrap() {
        string_match::Type::Exact(exact) => exact == text,
        string_match::Type::Prefix(beginning) => text.starts_with(beginning),
        string_match::Type::Suffix(end) => text.ends_with(end),
        string_match::Type::Presence(()) => !text.is_empty(),
    }
}

fn is_within(range: &IpRange, address: IpAddr) -> bool {
    let bits = |octets: &[u8]| octets.iter().map(|octet| format!("{octet:08b}")).collect::<String>();
    let own = match address.to_canonical() {
        IpAddr::V4(v4) => bits(&v4.octets()),
        IpAddr::V6(v6) => bits(&v6.octets()),
    };
    let length = usize::try_from(range.length).unwrap();
    let network = bits(&range.address);
    network.len() == own.len() && network[..length] == own[..length]
}
