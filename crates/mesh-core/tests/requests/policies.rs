//! What policies ask of a request.

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_core::l7::{Served, Waypoint};
use mesh_core::policy::request::{Claim, Token, template};
use mesh_core::policy::{
    Action, Answered, AuthorizationPolicy, Decision, Facts, PathPatterns, Pattern, Patterns, Peer, PolicyTarget,
    RequestFacts, RequestTest, Rule, TargetedPolicy, Term, Test, authorize_connection, authorize_request,
};
use mesh_core::{Policies, PolicyName, Service, SpiffeId, TrustDomain};

use crate::{Request, connection_of};

fn patterns(values: &[&str]) -> Patterns {
    values.iter().map(|value| Pattern::parse(value).unwrap()).collect()
}

fn name(text: &str) -> Arc<PolicyName> {
    Arc::new(PolicyName { namespace: "shop".into(), name: text.into() })
}

fn policy(action: Action, rule: Rule) -> Arc<AuthorizationPolicy> {
    let name = name(action.as_str());
    Arc::new(AuthorizationPolicy { name, selector: None, action, provider: None, dry_run: false, rules: vec![rule] })
}

fn term(test: RequestTest) -> Term {
    Term { negated: false, test: Test::Request(test) }
}

/// A policy about one thing that is asked of a request.
fn about(action: Action, test: RequestTest) -> Arc<AuthorizationPolicy> {
    policy(action, Rule { to: vec![vec![term(test)]], needs_request: vec!["a field".into()], ..Rule::default() })
}

/// A policy about paths.
pub(crate) fn paths(action: Action, values: &[&str]) -> Arc<AuthorizationPolicy> {
    let (templates, plain): (Vec<_>, Vec<_>) = values.iter().copied().partition(|value| value.contains('{'));
    let templates = templates.into_iter().map(|value| template(value).unwrap()).collect();
    about(action, RequestTest::Path(PathPatterns::new(patterns(&plain), templates)))
}

fn allowed_with(policies: &[Arc<AuthorizationPolicy>], request: &Request, token: Option<&Token>) -> bool {
    let identity = SpiffeId::new(&TrustDomain::default(), "shop", "web").unwrap();
    let facts = connection_of(&identity);
    let policies: Vec<_> = policies.iter().collect();
    let request = RequestFacts { view: request, token };
    match authorize_request(&policies, &facts, &request, &Answered::default()) {
        Decision::Settled(settled) => settled.verdict.is_ok(),
        Decision::Ask(question) => panic!("{question:?}, and no policy names an authorizer"),
    }
}

/// Whether a request of `shop/web` may go on.
pub(crate) fn allowed(policies: &[Arc<AuthorizationPolicy>], request: &Request) -> bool {
    allowed_with(policies, request, None)
}

#[test]
fn a_request_is_judged_by_what_it_asks_for() {
    let get = Request::get("/items/1");
    let post = Request { method: "POST", headers: vec![("x-token", "abc")], ..get.clone() };
    let cases = [
        (RequestTest::Method(patterns(&["GET"])), true, false),
        (RequestTest::Host(patterns(&["cart.*"])), true, true),
        (RequestTest::Host(patterns(&["cart.shop:8080"])), true, true),
        (RequestTest::Host(patterns(&["other"])), false, false),
        (RequestTest::Header("x-token".into(), patterns(&["ab*"])), false, true),
        (RequestTest::Header("x-token".into(), patterns(&["*"])), false, true),
        (RequestTest::RequestPrincipal(patterns(&["*"])), false, false),
        (RequestTest::Sni(patterns(&["*"])), false, false),
    ];
    for (test, of_get, of_post) in cases {
        for (request, matched) in [(&get, of_get), (&post, of_post)] {
            assert_eq!(allowed(&[about(Action::Allow, test.clone())], request), matched, "{test:?} {request:?}");
            assert_eq!(allowed(&[about(Action::Deny, test.clone())], request), !matched, "{test:?} {request:?}");
            assert_eq!(allowed(&[about(Action::Custom, test.clone())], request), !matched, "nobody can be asked");
            assert!(allowed(&[about(Action::Audit, test.clone())], request), "it only tells");
        }
    }
}

#[test]
fn who_and_what_have_to_hold_together() {
    let from = |account| vec![Term { negated: false, test: Test::Principal(patterns(&[account])) }];
    let rule = |account| Rule {
        from: vec![from(account)],
        to: vec![vec![term(RequestTest::Method(patterns(&["GET"])))]],
        needs_request: vec!["to[0].operation.methods".into()],
        ..Rule::default()
    };
    let get = Request::get("/");
    let put = Request { method: "PUT", ..get.clone() };
    let web = policy(Action::Allow, rule("cluster.local/ns/shop/sa/web"));
    assert!(allowed(std::slice::from_ref(&web), &get));
    assert!(!allowed(&[web], &put));
    assert!(!allowed(&[policy(Action::Allow, rule("cluster.local/ns/shop/sa/other"))], &get));
}

#[test]
fn where_nobody_reads_requests_what_is_asked_of_them_opens_nothing() {
    let identity = SpiffeId::new(&TrustDomain::default(), "shop", "web").unwrap();
    let facts = connection_of(&identity);
    for (action, allowed) in [(Action::Allow, false), (Action::Deny, false), (Action::Audit, true)] {
        let policy = about(action, RequestTest::Method(patterns(&["PUT"])));
        assert_eq!(authorize_connection(&[&policy], &facts).verdict.is_ok(), allowed, "{action:?}");
    }
}

#[test]
fn templates_are_those_of_istios_reference() {
    for (written, matched, not_matched) in [
        ("/foo/{*}", vec!["/foo/bar"], vec!["/foo/bar/baz", "/foo/", "/foo"]),
        ("/foo/{**}/", vec!["/foo/bar/", "/foo//"], vec!["/foo/bar"]),
        ("/foo/{*}/bar/{**}", vec!["/foo/buzz/bar/", "/foo/buzz/bar/baz"], vec!["/foo/bar/baz", "/foo/a/b/bar/c"]),
        ("/v1.0/{*}", vec!["/v1.0/a"], vec!["/v1x0/a"]),
    ] {
        let template = template(written).unwrap();
        matched.iter().for_each(|path| assert!(template.matches(path), "{written} {path}"));
        not_matched.iter().for_each(|path| assert!(!template.matches(path), "{written} {path}"));
    }
    for malformed in ["/*/baz/{*}", "/**/baz/{*}", "/{**}/foo/{*}", "/foo/{*}.txt", "/foo/{name}", "/foo/{*"] {
        assert!(template(malformed).is_err(), "{malformed}");
    }
}

#[test]
fn claims_are_those_of_a_token_that_was_verified() {
    let roles = Claim::Texts(vec!["reader".to_owned(), "writer".to_owned()]);
    let token = Token {
        principal: Some("https://issuer/alice".to_owned()),
        audiences: vec!["shop".to_owned()],
        presenter: Some("app".to_owned()),
        claims: BTreeMap::from([("realm".to_owned(), Claim::Nested(BTreeMap::from([("roles".to_owned(), roles)])))]),
    };
    let claim = |names: &[&str], value: &str| {
        RequestTest::Claim(names.iter().map(|name| (*name).into()).collect(), patterns(&[value]))
    };
    let cases = [
        (RequestTest::RequestPrincipal(patterns(&["https://issuer/*"])), true),
        (RequestTest::RequestPrincipal(patterns(&["https://issuer/bob"])), false),
        (RequestTest::Audience(patterns(&["shop"])), true),
        (RequestTest::Audience(patterns(&["bank"])), false),
        (RequestTest::Presenter(patterns(&["app"])), true),
        (claim(&["realm", "roles"], "writer"), true),
        (claim(&["realm", "roles"], "admin"), false),
        (claim(&["realm"], "*"), false),
        (claim(&["roles"], "*"), false),
    ];
    let request = Request::get("/");
    for (test, expected) in cases {
        let policies = [about(Action::Allow, test.clone())];
        assert_eq!(allowed_with(&policies, &request, Some(&token)), expected, "{test:?}");
        assert!(!allowed_with(&policies, &request, None), "without a token: {test:?}");
    }
}

#[test]
fn a_waypoint_finds_the_policies_of_its_gateway_its_class_and_the_service() {
    let waypoint = Waypoint {
        namespace: "shop".into(),
        name: "waypoint".into(),
        class: "istio-waypoint".into(),
        hostname: "waypoint.shop.svc.cluster.local".into(),
        identities: Vec::new(),
        serves: Served::Services,
    };
    let cart = Service {
        namespace: "shop".into(),
        name: "cart".into(),
        hostname: "cart.shop.svc.cluster.local".into(),
        vips: Vec::new(),
        ports: Vec::new(),
        ..Default::default()
    };
    let other = Service { name: "other".into(), ..cart.clone() };
    let attached = |target| {
        let policy = about(Action::Deny, RequestTest::Method(patterns(&["GET"])));
        Arc::new(TargetedPolicy { targets: vec![target], policy })
    };
    let policies = Policies::default().with_targeted(vec![
        attached(PolicyTarget::Gateway(name("waypoint"))),
        attached(PolicyTarget::Gateway(name("other"))),
        attached(PolicyTarget::Service(name("cart"))),
        attached(PolicyTarget::GatewayClass("istio-waypoint".into())),
    ]);
    assert_eq!(policies.for_waypoint(&waypoint, Some(&cart)).len(), 3);
    assert_eq!(policies.for_waypoint(&waypoint, Some(&other)).len(), 2);
    assert_eq!(policies.for_waypoint(&waypoint, None).len(), 2);
    assert!(policies.authorization().is_empty(), "no connection is judged by them");
}

#[test]
fn the_server_that_a_client_asks_for_in_tls_is_a_fact_where_it_is_known() {
    let destination = "10.96.0.1:443".parse().unwrap();
    let client = "10.0.0.1".parse().unwrap();
    let facts = |server| Facts { peer: Peer::Unproven, client, forwarded: None, server, destination };
    let of_sni = |action| about(action, RequestTest::Sni(patterns(&["*.example.com"])));
    let (allow, deny) = (of_sni(Action::Allow), of_sni(Action::Deny));
    let request = Request::get("/");
    let request = RequestFacts { view: &request, token: None };
    for (server, named) in [(Some("a.example.com"), true), (Some("example.org"), false)] {
        let facts = facts(server);
        for (policy, allowed) in [(&allow, named), (&deny, !named)] {
            let Decision::Settled(settled) = authorize_request(&[policy], &facts, &request, &Answered::default())
            else {
                panic!("nobody is to be asked");
            };
            assert_eq!(settled.verdict.is_ok(), allowed, "a request for {server:?}");
            assert_eq!(authorize_connection(&[policy], &facts).verdict.is_ok(), allowed, "a connection for {server:?}");
        }
    }
    // A connection whose server nobody knows is refused either way.
    assert!(authorize_connection(&[&allow], &facts(None)).verdict.is_err());
    assert!(authorize_connection(&[&deny], &facts(None)).verdict.is_err());
    // What else a rule asks of a request, no name of a server answers.
    let terms = vec![term(RequestTest::Sni(patterns(&["*"]))), term(RequestTest::Method(patterns(&["GET"])))];
    let rule = Rule { when: terms, needs_request: vec!["a field".into()], ..Rule::default() };
    let both = policy(Action::Allow, rule);
    assert!(authorize_connection(&[&both], &facts(Some("a.example.com"))).verdict.is_err());
}
