//! Who may talk to whom, against a second implementation that is slow and obvious: it reads each field's text as
//! Istio's reference describes it, for one policy after the other, and shares nothing with the first.
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use mesh_core::policy::{
    Action, AuthorizationPolicy, Facts, IpBlock, Mode, Pattern, Peer, PeerAuthentication, ROOT_NAMESPACE, Rule,
    Selector, Term, Test, authorize, explain,
};
use mesh_core::{Policies, PolicyName, Service, Snapshot, SpiffeId, TrustDomain};
use proptest::prelude::*;

use crate::{DESTINATION, cart};

/// A field of a rule, with its values as a manifest has them.
#[derive(Clone, Debug)]
struct Field {
    not: bool,
    key: &'static str,
    values: Vec<&'static str>,
}

#[derive(Clone, Debug)]
struct WrittenRule {
    from: Vec<Vec<Field>>,
    to: Vec<Vec<Field>>,
    when: Vec<Field>,
    /// Whether it has a field that only a request shows.
    needs_request: bool,
}

#[derive(Clone, Debug)]
struct Written {
    namespace: &'static str,
    selector: Option<(&'static str, &'static str)>,
    action: Action,
    dry_run: bool,
    rules: Vec<WrittenRule>,
}

/// A connection into `shop/cart`.
#[derive(Clone, Debug)]
struct Connection {
    /// Namespace and account; none for plaintext.
    identity: Option<(&'static str, &'static str)>,
    by_kernel: bool,
    client: &'static str,
    port: u16,
}

/// How the facts of a connection read.
fn fact(key: &str, connection: &Connection) -> Option<String> {
    match key {
        "source.principal" => connection.identity.map(|(ns, sa)| format!("cluster.local/ns/{ns}/sa/{sa}")),
        "source.namespace" => connection.identity.map(|(ns, _)| ns.to_owned()),
        "source.serviceAccount" => connection.identity.map(|(ns, sa)| format!("{ns}/{sa}")),
        "source.ip" | "remote.ip" => Some(connection.client.to_owned()),
        "destination.ip" => Some(DESTINATION.to_owned()),
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

/// The address as a text of zeroes and ones.
fn bits(address: &str) -> String {
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

/// Whether the connection may be carried by the policies that `counts` picks.
fn decide(policies: &[Written], connection: &Connection, counts: impl Fn(&Written) -> bool) -> bool {
    let about = |policy: &&Written| applies(policy) && counts(policy);
    let of = |action: Action| policies.iter().filter(about).filter(move |policy| policy.action == action);
    let holds = |policy: &Written| policy.rules.iter().any(|rule| rule_holds(rule, policy.action, connection));
    if of(Action::Custom).any(holds) || of(Action::Deny).any(holds) {
        return false;
    }
    of(Action::Allow).next().is_none() || of(Action::Allow).any(holds)
}

/// Whether a policy is about `shop/cart`, whose only label is `app: cart`.
fn applies(policy: &Written) -> bool {
    let near = policy.namespace == "shop" || policy.namespace == ROOT_NAMESPACE;
    near && policy.selector.is_none_or(|selector| selector == ("app", "cart"))
}

fn patterns(values: &[&str]) -> mesh_core::policy::Patterns {
    values.iter().map(|value| Pattern::parse(value).unwrap()).collect()
}

fn term(field: &Field) -> Term {
    let values = &field.values;
    let blocks = || values.iter().map(|value| value.parse::<IpBlock>().unwrap()).collect();
    let test = match field.key {
        "source.principal" => Test::Principal(patterns(values)),
        "source.namespace" => Test::Namespace(patterns(values)),
        "source.serviceAccount" => Test::ServiceAccount(
            values.iter().map(|value| value.split_once('/').map(|(ns, sa)| (ns.into(), sa.into())).unwrap()).collect(),
        ),
        "source.ip" => Test::SourceIp(blocks()),
        "remote.ip" => Test::RemoteIp(blocks()),
        "destination.ip" => Test::DestinationIp(blocks()),
        _ => {
            let mut ports: Vec<u16> = values.iter().map(|value| value.parse().unwrap()).collect();
            ports.sort_unstable();
            Test::DestinationPort(ports.into())
        }
    };
    Term { negated: field.not, test }
}

fn translate(index: usize, written: &Written) -> Arc<AuthorizationPolicy> {
    let clause = |fields: &Vec<Field>| fields.iter().map(term).collect();
    let rules = written.rules.iter().map(|rule| Rule {
        from: rule.from.iter().map(clause).collect(),
        to: rule.to.iter().map(clause).collect(),
        when: clause(&rule.when),
        needs_request: rule.needs_request.then(|| "to[0].operation.methods".into()).into_iter().collect(),
    });
    Arc::new(AuthorizationPolicy {
        name: Arc::new(PolicyName { namespace: written.namespace.into(), name: format!("policy-{index}").into() }),
        selector: written.selector.and_then(|label| Selector::new([label])),
        action: written.action,
        dry_run: written.dry_run,
        rules: rules.collect(),
    })
}

fn snapshot(policies: &[Written], strict: bool) -> Snapshot {
    let strict = strict.then(|| {
        let name = Arc::new(PolicyName { namespace: ROOT_NAMESPACE.into(), name: "default".into() });
        Arc::new(PeerAuthentication { name, selector: None, mode: Some(Mode::Strict), ports: Default::default() })
    });
    let authorization = policies.iter().enumerate().map(|(index, policy)| translate(index, policy)).collect();
    let policies = Policies::build(ROOT_NAMESPACE.into(), authorization, strict.into_iter().collect(), Vec::new());
    Snapshot::build([cart()], Vec::<Service>::new()).with_policies(policies)
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
    let client = prop::sample::select(vec!["10.0.0.1", "10.0.0.4", "192.168.0.1", "fd00::1", "2001:db8::1"]);
    (identity, any::<bool>(), client, prop::sample::select(vec![80, 443, 9000, 1]))
        .prop_map(|(identity, by_kernel, client, port)| Connection { identity, by_kernel, client, port })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_decision_is_istios(
        policies in prop::collection::vec(policy(), 0..6),
        connection in connection(),
        strict in prop::bool::weighted(0.2),
    ) {
        let snapshot = snapshot(&policies, strict);
        let identity = connection.identity.map(|(ns, sa)| SpiffeId::new(&TrustDomain::default(), ns, sa).unwrap());
        let peer = match &identity {
            None => Peer::Unproven,
            Some(identity) if connection.by_kernel => Peer::Kernel(identity),
            Some(identity) => Peer::Certificate(identity),
        };
        let destination = SocketAddr::new(DESTINATION.parse().unwrap(), connection.port);
        let facts = Facts { peer, client: connection.client.parse().unwrap(), destination };
        let decided = authorize(&snapshot, &cart(), &facts);

        let in_force = decide(&policies, &connection, |policy| !policy.dry_run);
        let allowed = in_force && !(strict && identity.is_none());
        prop_assert_eq!(decided.verdict.is_ok(), allowed, "{:?}", decided.verdict);

        let rehearsed = |policy: &Written| policy.dry_run && policy.action != Action::Audit;
        let has_shadow = policies.iter().any(|policy| applies(policy) && rehearsed(policy));
        let expected = has_shadow.then(|| decide(&policies, &connection, rehearsed));
        prop_assert_eq!(decided.shadow.as_ref().map(|shadow| shadow.verdict.is_ok()), expected);

        let audits = policies.iter().filter(|policy| applies(policy) && policy.action == Action::Audit && !policy.dry_run);
        let holds = |policy: &&Written| policy.rules.iter().any(|rule| rule_holds(rule, Action::Audit, &connection));
        prop_assert_eq!(decided.audited.len(), audits.filter(holds).count());

        prop_assert_eq!(explain(&snapshot, &cart(), &facts).authorization, decided, "what explains is what decides");
    }
}
