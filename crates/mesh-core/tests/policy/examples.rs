//! What Istio's reference and its tasks say of AuthorizationPolicies, example by example.
use mesh_core::policy::{Action, ROOT_NAMESPACE};

use crate::written::{Connection, Field, Written, WrittenRule, decided, snapshot};

const WEB: &str = "cluster.local/ns/shop/sa/web";

fn field(key: &'static str, values: &[&'static str]) -> Field {
    Field { not: false, key, values: values.to_vec() }
}

fn not(key: &'static str, values: &[&'static str]) -> Field {
    Field { not: true, key, values: values.to_vec() }
}

/// A rule `from` one source.
fn from(source: Vec<Field>) -> WrittenRule {
    WrittenRule { from: vec![source], ..WrittenRule::default() }
}

/// A rule `to` one operation.
fn to(operation: Vec<Field>) -> WrittenRule {
    WrittenRule { to: vec![operation], ..WrittenRule::default() }
}

/// A rule with `when` alone.
fn when(condition: Field) -> WrittenRule {
    WrittenRule { when: vec![condition], ..WrittenRule::default() }
}

/// The rule with `to.operation.methods` besides.
fn with_methods(rule: WrittenRule) -> WrittenRule {
    WrittenRule { needs_request: true, ..rule }
}

/// `{}`: a rule that asks for nothing.
fn anything() -> WrittenRule {
    WrittenRule::default()
}

/// A policy of the namespace `shop` for all its workloads.
fn policy(action: Action, rules: Vec<WrittenRule>) -> Written {
    Written { namespace: "shop", selector: None, action, dry_run: false, rules }
}

fn allow(rules: Vec<WrittenRule>) -> Written {
    policy(Action::Allow, rules)
}

fn deny(rules: Vec<WrittenRule>) -> Written {
    policy(Action::Deny, rules)
}

fn connection(
    identity: Option<(&'static str, &'static str)>,
    client: &'static str,
    destination: &'static str,
    port: u16,
) -> Connection {
    Connection { identity, by_kernel: false, client, destination, port }
}

/// Whether `shop/web` and `bank/teller`, both on port 80, and plaintext on port 9000, get in, in this order.
fn let_in(policies: &[Written]) -> [bool; 3] {
    let snapshot = snapshot(policies, false);
    let connections = [
        connection(Some(("shop", "web")), "10.0.0.1", "10.0.0.9", 80),
        connection(Some(("bank", "teller")), "fd00::1", "fd00::9", 80),
        connection(None, "192.168.0.1", "10.0.0.9", 9000),
    ];
    connections.map(|connection| decided(&snapshot, &connection).verdict.is_ok())
}

const ALL: [bool; 3] = [true; 3];
const NONE: [bool; 3] = [false; 3];
const WEB_ALONE: [bool; 3] = [true, false, false];
const PROVEN: [bool; 3] = [true, true, false];

#[track_caller]
fn check(cases: &[(&str, Vec<Written>, [bool; 3])]) {
    for (example, policies, expected) in cases {
        assert_eq!(let_in(policies), *expected, "{example}");
    }
}

#[test]
fn policies_without_rules_match_nothing_and_an_empty_rule_matches_everything() {
    check(&[
        ("no policy", vec![], ALL),
        ("allow-nothing: spec: {}", vec![allow(vec![])], NONE),
        ("allow-all: rules: [{}]", vec![allow(vec![anything()])], ALL),
        ("deny-all: action: DENY, rules: [{}]", vec![deny(vec![anything()])], NONE),
        ("action: DENY without rules", vec![deny(vec![])], ALL),
        ("allow-nothing beside allow-all", vec![allow(vec![]), allow(vec![anything()])], ALL),
    ]);
}

#[test]
fn custom_and_deny_come_before_allow_in_whatever_order_they_are_written() {
    let from_bank = || from(vec![field("source.namespace", &["bank"])]);
    let (everything, no_bank) = (allow(vec![anything()]), deny(vec![from_bank()]));
    let asks = policy(Action::Custom, vec![from_bank()]);
    check(&[
        ("DENY first", vec![no_bank.clone(), everything.clone()], [true, false, true]),
        ("DENY last", vec![everything.clone(), no_bank], [true, false, true]),
        ("CUSTOM with nobody to ask", vec![everything, asks], [true, false, true]),
        ("AUDIT neither refuses nor allows", vec![policy(Action::Audit, vec![anything()])], ALL),
        ("AUDIT beside allow-nothing", vec![policy(Action::Audit, vec![anything()]), allow(vec![])], NONE),
    ]);
}

#[test]
fn identities_are_compared_and_a_star_asks_for_any_proven_one() {
    let principals = |values: &[&'static str]| from(vec![field("source.principal", values)]);
    let namespaces = |values: &[&'static str]| from(vec![field("source.namespace", values)]);
    check(&[
        ("principals", vec![allow(vec![principals(&[WEB])])], WEB_ALONE),
        ("principals with spiffe://", vec![allow(vec![principals(&["spiffe://cluster.local/ns/shop/sa/web"])])], NONE),
        ("principals: [*]", vec![allow(vec![principals(&["*"])])], PROVEN),
        ("principals by prefix", vec![allow(vec![principals(&["cluster.local/ns/shop/*"])])], WEB_ALONE),
        ("principals by suffix", vec![allow(vec![principals(&["*/sa/web"])])], WEB_ALONE),
        ("DENY notPrincipals: [*]", vec![deny(vec![from(vec![not("source.principal", &["*"])])])], PROVEN),
        ("DENY notPrincipals", vec![deny(vec![from(vec![not("source.principal", &[WEB])])])], WEB_ALONE),
        ("namespaces", vec![allow(vec![namespaces(&["shop"])])], WEB_ALONE),
        ("namespaces by prefix", vec![allow(vec![namespaces(&["sh*"])])], WEB_ALONE),
        ("namespaces, several", vec![allow(vec![namespaces(&["bank", "shop"])])], PROVEN),
        ("ALLOW notNamespaces", vec![allow(vec![from(vec![not("source.namespace", &["shop"])])])], [false, true, true]),
        ("DENY notNamespaces", vec![deny(vec![from(vec![not("source.namespace", &["shop"])])])], WEB_ALONE),
        ("serviceAccounts", vec![allow(vec![from(vec![field("source.serviceAccount", &["shop/web"])])])], WEB_ALONE),
        ("when source.namespace", vec![allow(vec![when(field("source.namespace", &["shop"]))])], WEB_ALONE),
    ]);
}

#[test]
fn addresses_and_ports_are_compared_without_any_identity() {
    let blocks = |values: &[&'static str]| from(vec![field("source.ip", values)]);
    let ports = |values: &[&'static str]| to(vec![field("destination.port", values)]);
    let all_but_one = from(vec![field("source.ip", &["10.0.0.0/8", "fd00::/8"]), not("source.ip", &["fd00::1"])]);
    check(&[
        ("ipBlocks, one address", vec![allow(vec![blocks(&["10.0.0.1"])])], WEB_ALONE),
        ("ipBlocks of IPv4", vec![allow(vec![blocks(&["10.0.0.0/8"])])], WEB_ALONE),
        ("ipBlocks of IPv6", vec![allow(vec![blocks(&["fd00::/8"])])], [false, true, false]),
        ("0.0.0.0/0 holds no IPv6", vec![allow(vec![blocks(&["0.0.0.0/0"])])], [true, false, true]),
        ("blocks within blocks", vec![allow(vec![blocks(&["10.0.0.0/8", "10.0.0.0/30", "::/0"])])], PROVEN),
        ("ipBlocks and notIpBlocks", vec![allow(vec![all_but_one])], WEB_ALONE),
        ("DENY remoteIpBlocks", vec![deny(vec![from(vec![field("remote.ip", &["192.168.0.0/16"])])])], PROVEN),
        ("ports", vec![allow(vec![ports(&["80"])])], PROVEN),
        ("ports, several", vec![allow(vec![ports(&["80", "9000"])])], ALL),
        ("DENY ports", vec![deny(vec![ports(&["9000"])])], PROVEN),
        ("ALLOW notPorts", vec![allow(vec![to(vec![not("destination.port", &["9000"])])])], PROVEN),
        ("DENY notPorts", vec![deny(vec![to(vec![not("destination.port", &["80"])])])], PROVEN),
        ("when destination.port", vec![deny(vec![when(field("destination.port", &["80"]))])], [false, false, true]),
        ("when destination.ip", vec![allow(vec![when(field("destination.ip", &["fd00::9"]))])], [false, true, false]),
    ]);
}

#[test]
fn a_rule_is_one_source_one_operation_and_all_conditions() {
    let of = |namespace| vec![field("source.namespace", namespace)];
    let either = WrittenRule { from: vec![of(&["shop"]), of(&["bank"])], ..WrittenRule::default() };
    let on_9000 = WrittenRule { to: vec![vec![field("destination.port", &["9000"])]], ..either.clone() };
    let and_when = WrittenRule { when: vec![field("source.ip", &["10.0.0.0/8"])], ..either.clone() };
    let both = from(vec![field("source.namespace", &["shop"]), field("source.ip", &["fd00::/8"])]);
    let rules = vec![from(of(&["shop"])), to(vec![field("destination.port", &["9000"])])];
    check(&[
        ("one source of two", vec![allow(vec![either])], PROVEN),
        ("a source, but not the operation", vec![allow(vec![on_9000])], NONE),
        ("a source and a condition", vec![allow(vec![and_when])], WEB_ALONE),
        ("all fields of a source", vec![allow(vec![both])], NONE),
        ("one rule of two", vec![allow(rules)], [true, false, true]),
    ]);
}

#[test]
fn what_only_a_request_shows_never_allows_and_refuses_by_the_rest_of_its_rule() {
    let from_shop = || from(vec![field("source.namespace", &["shop"])]);
    check(&[
        ("ALLOW methods", vec![allow(vec![with_methods(anything())])], NONE),
        ("ALLOW methods from shop", vec![allow(vec![with_methods(from_shop())])], NONE),
        ("ALLOW with another rule", vec![allow(vec![with_methods(anything()), from_shop()])], WEB_ALONE),
        ("DENY methods", vec![deny(vec![with_methods(anything())])], NONE),
        ("DENY methods from shop", vec![deny(vec![with_methods(from_shop())])], [false, true, true]),
        (
            "CUSTOM methods from shop",
            vec![policy(Action::Custom, vec![with_methods(from_shop())])],
            [false, true, true],
        ),
    ]);
}

#[test]
fn a_policy_is_about_its_namespace_or_from_the_root_namespace_about_the_mesh() {
    let of = |namespace, selector| Written { namespace, selector, ..allow(vec![]) };
    check(&[
        ("another namespace's", vec![of("bank", None)], ALL),
        ("another namespace's for the same labels", vec![of("bank", Some(("app", "cart")))], ALL),
        ("the mesh's", vec![of(ROOT_NAMESPACE, None)], NONE),
        ("the mesh's for those labels", vec![of(ROOT_NAMESPACE, Some(("app", "cart")))], NONE),
        ("the mesh's for other labels", vec![of(ROOT_NAMESPACE, Some(("app", "web")))], ALL),
        ("the workload's", vec![of("shop", Some(("app", "cart")))], NONE),
        ("another workload's", vec![of("shop", Some(("app", "web")))], ALL),
        (
            "the mesh's allow-nothing, the namespace's allow-all",
            vec![of(ROOT_NAMESPACE, None), allow(vec![anything()])],
            ALL,
        ),
    ]);
}

#[test]
fn dry_run_only_tells_what_would_be() {
    let rehearsal = |written| Written { dry_run: true, ..written };
    let web = connection(Some(("shop", "web")), "10.0.0.1", "10.0.0.9", 80);
    for (policies, allowed, would_be) in [
        (vec![rehearsal(deny(vec![anything()]))], true, Some(false)),
        (vec![rehearsal(allow(vec![]))], true, Some(false)),
        (vec![rehearsal(allow(vec![anything()])), allow(vec![])], false, Some(true)),
        (vec![rehearsal(deny(vec![])), deny(vec![anything()])], false, Some(true)),
        (vec![deny(vec![anything()])], false, None),
    ] {
        let decided = decided(&snapshot(&policies, false), &web);
        assert_eq!(decided.verdict.is_ok(), allowed, "{policies:?}");
        assert_eq!(decided.shadow.map(|shadow| shadow.verdict.is_ok()), would_be, "{policies:?}");
    }
}

#[test]
fn strict_refuses_plaintext_that_a_policy_allows_and_takes_what_the_kernel_attests() {
    let strict = snapshot(&[allow(vec![anything()])], true);
    let plaintext = connection(None, "10.0.0.1", "10.0.0.9", 80);
    let attested = Connection { identity: Some(("shop", "web")), by_kernel: true, ..plaintext.clone() };
    let refusal = decided(&strict, &plaintext).verdict.unwrap_err().to_string();
    assert_eq!(refusal, "plaintext is refused: the mode is STRICT by PeerAuthentication istio-system/default");
    assert!(decided(&strict, &attested).verdict.is_ok());
}
