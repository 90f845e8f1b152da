//! Which of several rules counts, against a second implementation that looks at every one.

use std::cmp::Reverse;
use std::sync::Arc;

use mesh_core::l7::{
    Action, FieldMatch, HeaderEdits, HostRules, PathMatch, Precedence, Regex, RequestMatch, RouteTable, Rule, RuleRef,
    TextMatch,
};
use mesh_core::policy::HostPattern;
use proptest::prelude::*;

use super::Request;

fn rule(index: usize, matches: Vec<RequestMatch>) -> Arc<Rule> {
    let at = RuleRef { kind: "HTTPRoute", namespace: "shop".into(), object: "r".into(), index, name: None };
    Arc::new(Rule {
        at,
        matches,
        action: Action::Forward(Vec::new()),
        request_headers: HeaderEdits::default(),
        response_headers: HeaderEdits::default(),
        rewrite: Default::default(),
        mirrors: Vec::new(),
        fault: Default::default(),
        retry: None,
        timeouts: Default::default(),
        cors: None,
        session: None,
    })
}

fn on_path(path: PathMatch) -> RequestMatch {
    RequestMatch { path, ..RequestMatch::default() }
}

fn found(table: &RouteTable, request: &Request) -> Option<usize> {
    table.find(request).map(|found| found.rule.at.index)
}

#[test]
fn a_prefix_is_of_whole_elements_or_of_octets_as_each_api_has_it() {
    let table = |path| RouteTable::of_any_host(vec![rule(0, vec![on_path(path)])], Precedence::AsWritten);
    let elements = table(PathMatch::ElementPrefix("/cart".into()));
    for (path, matches) in [("/cart", true), ("/cart/", true), ("/cart/1", true), ("/carts", false), ("/", false)] {
        assert_eq!(found(&elements, &Request::get(path)).is_some(), matches, "{path}");
    }
    let octets = table(PathMatch::Prefix("/cart".into()));
    for (path, matches) in [("/cart", true), ("/carts", true), ("/car", false)] {
        assert_eq!(found(&octets, &Request::get(path)).is_some(), matches, "{path}");
    }
}

#[test]
fn a_field_that_is_not_there_satisfies_what_must_not_be() {
    let without = FieldMatch { name: "x-beta".into(), claim: None, value: TextMatch::Exact("1".into()) };
    let matched = RequestMatch { without_headers: vec![without], ..RequestMatch::default() };
    let table = RouteTable::of_any_host(vec![rule(0, vec![matched])], Precedence::AsWritten);
    let mut request = Request::get("/");
    assert_eq!(found(&table, &request), Some(0));
    request.headers.push(("x-beta", "1"));
    assert_eq!(found(&table, &request), None);
}

#[test]
fn the_most_specific_host_decides_alone() {
    let hosts =
        |hosts: &[HostPattern], rules| HostRules { hosts: hosts.to_vec(), rules, precedence: Precedence::AsWritten };
    let table = RouteTable::build(vec![
        hosts(&[HostPattern::Suffix("".into())], vec![rule(0, Vec::new())]),
        hosts(&[HostPattern::Suffix(".shop".into())], vec![rule(1, Vec::new())]),
        hosts(&[HostPattern::Exact("a.shop".into())], vec![rule(2, vec![on_path(PathMatch::Exact("/a".into()))])]),
    ]);
    let at = |host, path: &str| found(&table, &Request { host, ..Request::get(path) });
    assert_eq!(at("else", "/"), Some(0));
    assert_eq!(at("b.shop", "/"), Some(1));
    assert_eq!(at("a.shop", "/a"), Some(2));
    assert_eq!(at("a.shop", "/b"), None, "no other host's rules are asked");
}

fn paths() -> impl Strategy<Value = String> {
    "(/[ab]{1,2}){1,3}/?".prop_map(|path| path)
}

fn path_matches() -> impl Strategy<Value = PathMatch> {
    let prefix = paths().prop_map(|path| path.trim_end_matches('/').to_owned());
    prop_oneof![
        Just(PathMatch::Any),
        Just(PathMatch::ElementPrefix("/".into())),
        paths().prop_map(|path| PathMatch::Exact(path.into())),
        prefix.prop_map(|path| PathMatch::ElementPrefix(path.into())),
        paths().prop_map(|path| PathMatch::Prefix(path.into())),
        paths().prop_map(|path| PathMatch::PrefixIgnoringCase(path.to_uppercase().into())),
        Just(PathMatch::Regex(Regex::new("/a+(/.*)?").expect("a pattern"))),
    ]
}

fn matches() -> impl Strategy<Value = RequestMatch> {
    let method = prop::option::of(prop_oneof![Just("GET"), Just("POST")]);
    let headers = prop::collection::vec(prop_oneof![Just("x-a"), Just("x-b")], 0..3);
    (path_matches(), method, headers).prop_map(|(path, method, headers)| RequestMatch {
        path,
        method: method.map(|method| TextMatch::Exact(method.into())),
        headers: headers
            .into_iter()
            .map(|name| FieldMatch { name: name.into(), claim: None, value: TextMatch::Present })
            .collect(),
        ..RequestMatch::default()
    })
}

/// Looks at every match of every rule, and sorts the ones that hold.
fn slow(rules: &[Arc<Rule>], precedence: Precedence, request: &Request) -> Option<usize> {
    let everything = RequestMatch::default();
    let mut holding = Vec::new();
    for rule in rules {
        let all: Vec<&RequestMatch> =
            if rule.matches.is_empty() { vec![&everything] } else { rule.matches.iter().collect() };
        for matched in all {
            if matched.matches(request) {
                let path = match &matched.path {
                    PathMatch::Exact(path) => (0, Reverse(path.len())),
                    PathMatch::Any => (1, Reverse(1)),
                    PathMatch::ElementPrefix(path) | PathMatch::Prefix(path) | PathMatch::PrefixIgnoringCase(path) => {
                        (1, Reverse(path.len()))
                    }
                    other => (2, Reverse(format!("{other:?}").len())),
                };
                let rank = (path, matched.method.is_none(), Reverse(matched.headers.len()));
                holding.push((rank, rule.at.index));
            }
        }
    }
    match precedence {
        Precedence::AsWritten => holding.first().map(|(_, index)| *index),
        Precedence::MostSpecific => {
            holding.sort_by_key(|(rank, _)| *rank);
            holding.first().map(|(_, index)| *index)
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn the_compiled_table_finds_what_looking_at_every_rule_finds(
        written in prop::collection::vec(prop::collection::vec(matches(), 0..3), 0..8),
        path in paths(),
        post in any::<bool>(),
        with_a in any::<bool>(),
        specific in any::<bool>(),
    ) {
        let rules: Vec<_> = written.into_iter().enumerate().map(|(index, matches)| rule(index, matches)).collect();
        let mut request = Request::get(path);
        request.method = if post { "POST" } else { "GET" };
        if with_a {
            request.headers.push(("x-a", "1"));
        }
        let precedence = if specific { Precedence::MostSpecific } else { Precedence::AsWritten };
        let table = RouteTable::of_any_host(rules.clone(), precedence);
        prop_assert_eq!(found(&table, &request), slow(&rules, precedence, &request));
    }
}

#[test]
fn a_host_is_matched_with_and_without_the_port_that_it_was_asked_at() {
    let request = Request { port: 8080, ..Request::get("/") };
    for (wanted, expected) in [("cart", true), ("cart:8080", true), ("cart:80", false), ("car", false)] {
        let host = Some(TextMatch::Exact(wanted.into()));
        assert_eq!(RequestMatch { host, ..RequestMatch::default() }.matches(&request), expected, "{wanted}");
    }
}
