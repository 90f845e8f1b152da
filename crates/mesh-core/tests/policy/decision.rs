//! Who may talk to whom, against a second implementation that is slow and obvious: it reads each field's text as
//! Istio's reference describes it, for one policy after the other, and shares nothing with the first.
use std::net::IpAddr;

use mesh_core::policy::{Action, Basis, Denial, ROOT_NAMESPACE};
use proptest::prelude::*;

use crate::written::{Connection, Field, Written, WrittenRule, decided, snapshot};

/// How the facts of a connection read.
fn fact(key: &str, connection: &Connection) -> Option<String> {
    match key {
        "source.principal" => connection.identity.map(|(ns, sa)| format!("cluster.local/ns/{ns}/sa/{sa}")),
        "source.namespace" => connection.identity.map(|(ns, _)| ns.to_owned()),
        "source.serviceAccount" => connection.identity.map(|(ns, sa)| format!("{ns}/{sa}")),
        "source.ip" | "remote.ip" => Some(connection.client.to_owned()),
        "destination.ip" => Some(connection.destination.to_owned()),
        "destination.port" => Some(connection.port.to_string()),
        _ => unreachable!("{key}"),
    }
}

fn text_matches(pattern: &str, text: &str) -> bool {
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(""), _) => true,
        (Some(end), _) => text.ends_with(end),
        (_, Some(beginning)) => text.starts_with(beginning),
        _ => pattern == text,
    }
}

/// The address as a text of zeroes and ones; a mapped one is the IPv4 address that it means.
fn bits(address: &str) -> String {
    let address = address.strip_prefix("::ffff:").unwrap_or(address);
    match address.parse().unwrap() {
        IpAddr::V4(v4) => format!("{:032b}", v4.to_bits()),
        IpAddr::V6(v6) => format!("{:0128b}", v6.to_bits()),
    }
}

fn block_holds(block: &str, address: &str) -> bool {
    let (network, length) = block.split_once('/').unwrap_or((block, "128"));
    let (network, address) = (bits(network), bits(address));
    let length = length.parse::<usize>().unwrap().min(network.len());
    network.len() == address.len() && network[..length] == address[..length]
}

fn field_holds(field: &Field, connection: &Connection) -> bool {
    let holds = fact(field.key, connection).is_some_and(|fact| {
        field.values.iter().any(|value| match field.key {
            "source.ip" | "remote.ip" | "destination.ip" => block_holds(value, &fact),
            "source.serviceAccount" | "destination.port" => **value == fact,
            _ => text_matches(value, &fact),
        })
    });
    holds != field.not
}

fn rule_holds(rule: &WrittenRule, action: Action, connection: &Connection) -> bool {
    if rule.needs_request && action == Action::Allow {
        return false;
    }
    let all = |fields: &Vec<Field>| fields.iter().all(|field| field_holds(field, connection));
    (rule.from.is_empty() || rule.from.iter().any(all))
        && (rule.to.is_empty() || rule.to.iter().any(all))
        && all(&rule.when)
}

/// What the policies that `counts` picks decide, and which of them does.
fn decide(policies: &[Written], connection: &Connection, counts: impl Fn(&Written) -> bool) -> String {
    let about = |(_, policy): &(usize, &Written)| applies(policy) && counts(policy);
    let of = |action: Action| policies.iter().enumerate().filter(about).filter(move |(_, p)| p.action == action);
    let holds = |(_, policy): &(usize, &Written)| policy.rules.iter().any(|r| rule_holds(r, policy.action, connection));
    if let Some((index, _)) = of(Action::Custom).find(holds) {
        return format!("refused by CUSTOM policy-{index}");
    }
    if let Some((index, _)) = of(Action::Deny).find(holds) {
        return format!("refused by DENY policy-{index}");
    }
    match (of(Action::Allow).find(holds), of(Action::Allow).count()) {
        (Some((index, _)), _) => format!("allowed by policy-{index}"),
        (None, 0) => "allowed".to_owned(),
        (None, count) => format!("refused by none of {count}"),
    }
}

/// A decision in the words of [`decide`].
fn told(verdict: Result<&Basis, &Denial>) -> String {
    match verdict {
        Ok(Basis::NoAllowPolicy) => "allowed".to_owned(),
        Ok(Basis::AllowedBy(policy)) => format!("allowed by {}", policy.name),
        Err(Denial::PlaintextUnderStrict(_)) => "refused as plaintext".to_owned(),
        Err(Denial::Custom(policy)) => format!("refused by CUSTOM {}", policy.name),
        Err(Denial::DeniedBy(policy)) => format!("refused by DENY {}", policy.name),
        Err(Denial::NoAllowMatches { count, .. }) => format!("refused by none of {count}"),
        Err(Denial::PastWaypoint(waypoint)) => format!("for waypoint {waypoint} alone"),
    }
}

/// Whether a policy is about `shop/cart`, whose only label is `app: cart`.
fn applies(policy: &Written) -> bool {
    let near = policy.namespace == "shop" || policy.namespace == ROOT_NAMESPACE;
    near && policy.selector.is_none_or(|selector| selector == ("app", "cart"))
}

fn values(key: &'static str) -> impl Strategy<Value = Vec<&'static str>> {
    let some: &'static [&'static str] = match key {
        "source.principal" => {
            &["cluster.local/ns/shop/sa/web", "cluster.local/ns/bank/sa/web", "cluster.local/*", "*/sa/api", "*"]
        }
        "source.namespace" => &["shop", "bank", "s*", "*k", "*"],
        "source.serviceAccount" => &["shop/web", "bank/web", "shop/api"],
        "destination.ip" => &["10.0.0.9", "10.0.0.0/8", "fd00::/8", "10.1.0.0/16"],
        "destination.port" => &["80", "443", "9000"],
        _ => &["10.0.0.1", "10.0.0.0/30", "10.0.0.0/8", "0.0.0.0/0", "fd00::/8", "fd00::1"],
    };
    prop::sample::subsequence(some, 1..=some.len().min(3))
}

fn field(keys: &'static [&'static str]) -> impl Strategy<Value = Field> {
    let of = |key| values(key).prop_map(move |values| (key, values));
    (any::<bool>(), prop::sample::select(keys).prop_flat_map(of)).prop_map(|(not, (key, values))| Field {
        not,
        key,
        values,
    })
}

const SOURCE: &[&str] = &["source.principal", "source.namespace", "source.serviceAccount", "source.ip", "remote.ip"];
const OPERATION: &[&str] = &["destination.port"];
const ANY: &[&str] =
    &["source.principal", "source.namespace", "source.ip", "remote.ip", "destination.ip", "destination.port"];

fn rule() -> impl Strategy<Value = WrittenRule> {
    let clauses = |keys| prop::collection::vec(prop::collection::vec(field(keys), 1..3), 0..3);
    (clauses(SOURCE), clauses(OPERATION), prop::collection::vec(field(ANY), 0..2), prop::bool::weighted(0.15))
        .prop_map(|(from, to, when, needs_request)| WrittenRule { from, to, when, needs_request })
}

fn policy() -> impl Strategy<Value = Written> {
    let action = prop::sample::select(vec![Action::Allow, Action::Allow, Action::Deny, Action::Custom, Action::Audit]);
    let selector = prop::option::of(prop::sample::select(vec![("app", "cart"), ("app", "other"), ("tier", "cart")]));
    let namespace = prop::sample::select(vec!["shop", "shop", "bank", ROOT_NAMESPACE]);
    (namespace, selector, action, prop::bool::weighted(0.2), prop::collection::vec(rule(), 0..3)).prop_map(
        |(namespace, selector, action, dry_run, rules)| Written { namespace, selector, action, dry_run, rules },
    )
}

fn connection() -> impl Strategy<Value = Connection> {
    let identity = prop::option::weighted(
        0.8,
        prop::sample::select(vec![("shop", "web"), ("shop", "api"), ("bank", "web"), ("stock", "web")]),
    );
    let clients = vec!["10.0.0.1", "10.0.0.4", "192.168.0.1", "fd00::1", "2001:db8::1", "::ffff:10.0.0.1"];
    let client = prop::sample::select(clients);
    let destination = prop::sample::select(vec!["10.0.0.9", "fd00::9", "::ffff:10.0.0.9"]);
    (identity, any::<bool>(), client, destination, prop::sample::select(vec![80, 443, 9000, 1])).prop_map(
        |(identity, by_kernel, client, destination, port)| Connection {
            identity,
            by_kernel,
            client,
            destination,
            port,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_decision_is_istios(
        policies in prop::collection::vec(policy(), 0..6),
        connection in connection(),
        strict in prop::bool::weighted(0.2),
    ) {
        let decided = decided(&snapshot(&policies, strict), &connection);

        let by_policies = decide(&policies, &connection, |policy| !policy.dry_run);
        let refused = strict && connection.identity.is_none();
        let expected = if refused { "refused as plaintext".to_owned() } else { by_policies };
        prop_assert_eq!(told(decided.verdict.as_ref().map(|permit| permit.basis())), expected);

        let rehearsed = |policy: &Written| policy.dry_run && policy.action != Action::Audit;
        let has_shadow = policies.iter().any(|policy| applies(policy) && rehearsed(policy));
        let expected = has_shadow.then(|| decide(&policies, &connection, rehearsed));
        prop_assert_eq!(decided.shadow.as_ref().map(|shadow| told(shadow.verdict.as_ref())), expected);

        let audits = policies.iter().filter(|policy| applies(policy) && policy.action == Action::Audit && !policy.dry_run);
        let holds = |policy: &&Written| policy.rules.iter().any(|rule| rule_holds(rule, Action::Audit, &connection));
        prop_assert_eq!(decided.audited.len(), audits.filter(holds).count());
    }
}
