//! What is answered without an upstream: redirects and preflight requests.

use std::time::Duration;

use mesh_core::l7::cors::Crossing;
use mesh_core::l7::rule::{Cors, PathRewrite, Redirect, RedirectPort};
use mesh_core::l7::{PathMatch, TextMatch};

use super::Request;

#[test]
fn a_redirect_keeps_what_it_does_not_name() {
    let redirect = |scheme: Option<&str>, port, path| Redirect {
        scheme: scheme.map(Into::into),
        host: None,
        port,
        path,
        status: 302,
    };
    let mut request = Request::get("/a/b");
    request.query = Some("q=1");
    let to = |redirect: &Redirect| redirect.location(&request, &PathMatch::ElementPrefix("/a".into()));
    assert_eq!(to(&redirect(None, RedirectPort::Derived, None)), "http://cart/a/b?q=1");
    assert_eq!(to(&redirect(Some("https"), RedirectPort::Derived, None)), "https://cart/a/b?q=1");
    assert_eq!(to(&redirect(Some("https"), RedirectPort::Requested, None)), "https://cart:80/a/b?q=1");
    let elsewhere = Request { port: 8080, ..Request::get("/") };
    let location = |port| redirect(None, port, None).location(&elsewhere, &PathMatch::Any);
    assert_eq!(location(RedirectPort::Derived), "http://cart:8080/");
    assert_eq!(location(RedirectPort::OfScheme), "http://cart/");
    assert_eq!(to(&redirect(None, RedirectPort::Number(8080), None)), "http://cart:8080/a/b?q=1");
    let path = Some(PathRewrite::MatchedElements("/x".into()));
    assert_eq!(to(&redirect(None, RedirectPort::Derived, path)), "http://cart/x/b?q=1");
    let path = Some(PathRewrite::Full("/login?next=1".into()));
    assert_eq!(to(&redirect(None, RedirectPort::Derived, path)), "http://cart/login?next=1");
}

fn cors() -> Cors {
    Cors {
        allow_origins: vec![TextMatch::Exact("https://shop.example".into())],
        allow_methods: vec!["GET".into(), "PUT".into()],
        allow_headers: vec!["x-token".into()],
        expose_headers: vec!["x-id".into()],
        max_age: Some(Duration::from_secs(60)),
        allow_credentials: false,
        forward_unmatched_preflights: false,
    }
}

fn preflight(origin: &'static str) -> Request {
    let mut request = Request::get("/");
    request.method = "OPTIONS";
    request.headers = vec![("origin", origin), ("access-control-request-method", "PUT")];
    request
}

#[test]
fn a_preflight_request_is_answered_at_once() {
    let Crossing::Preflight(fields) = cors().judge(&preflight("https://shop.example")) else {
        panic!("it is a preflight request");
    };
    let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let expected = [
        ("access-control-allow-origin", "https://shop.example"),
        ("access-control-expose-headers", "x-id"),
        ("access-control-allow-methods", "GET, PUT"),
        ("access-control-allow-headers", "x-token"),
        ("access-control-max-age", "60"),
    ];
    assert_eq!(fields, expected);
    assert_eq!(cors().judge(&preflight("https://evil.example")), Crossing::Preflight(Vec::new()));
    let forwards = Cors { forward_unmatched_preflights: true, ..cors() };
    assert_eq!(forwards.judge(&preflight("https://evil.example")), Crossing::Silent);
}

#[test]
fn a_star_with_credentials_is_said_as_what_was_asked_for() {
    let cors = Cors { allow_methods: vec!["*".into()], allow_credentials: true, ..cors() };
    let Crossing::Preflight(fields) = cors.judge(&preflight("https://shop.example")) else {
        panic!("it is a preflight request");
    };
    assert!(fields.contains(&("access-control-allow-methods", "PUT".to_owned())), "{fields:?}");
    assert!(fields.contains(&("access-control-allow-credentials", "true".to_owned())), "{fields:?}");
}

#[test]
fn other_requests_go_on_and_only_those_of_known_origins_are_told() {
    let mut request = Request::get("/");
    assert_eq!(cors().judge(&request), Crossing::Silent);
    request.headers = vec![("origin", "https://evil.example")];
    assert_eq!(cors().judge(&request), Crossing::Silent);
    request.headers = vec![("origin", "https://shop.example")];
    let expected = vec![
        ("access-control-allow-origin", "https://shop.example".to_owned()),
        ("access-control-expose-headers", "x-id".to_owned()),
    ];
    assert_eq!(cors().judge(&request), Crossing::Allowed(expected));
}
