//! Paths that are asked for at an upstream.

use mesh_core::l7::rule::PathRewrite;
use mesh_core::l7::{PathMatch, Regex, RequestView};

use super::Request;

#[test]
fn a_rewrite_replaces_what_was_matched() {
    let elements = |prefix: &str| PathMatch::ElementPrefix(prefix.into());
    let replaced = |with: &str| PathRewrite::MatchedElements(with.into());
    // The table of HTTPPathModifier in the Gateway API.
    for (path, prefix, with, expected) in [
        ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
        ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
        ("/foo", "/foo", "/xyz", "/xyz"),
        ("/foo/", "/foo", "/xyz", "/xyz"),
        ("/foo/bar", "/foo", "", "/bar"),
        ("/foo/", "/foo", "", "/"),
        ("/foo", "/foo", "", "/"),
        ("/foo/", "/foo", "/", "/"),
        ("/foo", "/foo", "/", "/"),
        ("/foo/bar", "/", "/xyz", "/xyz/foo/bar"),
    ] {
        assert_eq!(replaced(with).apply(path, &elements(prefix)), expected, "{path} {prefix} {with}");
    }
    let octets = PathRewrite::Matched("/v2".into());
    assert_eq!(octets.apply("/api/x", &PathMatch::Prefix("/api".into())), "/v2/x");
    assert_eq!(octets.apply("/api", &PathMatch::Exact("/api".into())), "/v2");
    // Without a match on the path, Envoy has it begin with the prefix `/`.
    for (with, expected) in [("/", "/x"), ("/v2/", "/v2/x"), ("/v2", "/v2x")] {
        assert_eq!(PathRewrite::Matched(with.into()).apply("/x", &PathMatch::Any), expected);
    }
}

#[test]
fn a_pattern_rewrites_with_its_groups() {
    let pattern = Regex::anywhere("/service/([^/]+)(/.*)").expect("a pattern");
    let rewrite = PathRewrite::Regex { pattern, substitution: r"\2/instance/\1".into() };
    assert_eq!(rewrite.apply("/service/foo/v1/api", &PathMatch::Any), "/v1/api/instance/foo");
}

#[test]
fn a_pattern_of_more_than_its_bound_is_refused_by_name() {
    let error = Regex::new("(a{1000}){1000}").expect_err("too large");
    assert!(error.to_string().contains("(a{1000}){1000}"), "{error}");
}

#[test]
fn parameters_of_a_query_are_decoded() {
    let mut request = Request::get("/");
    request.query = Some("a=1&b%20c=x%2By+z&bad=%zz");
    assert_eq!(request.query_parameter("b c").as_deref(), Some("x+y z"));
    assert_eq!(request.query_parameter("bad").as_deref(), Some("%zz"));
    assert_eq!(request.query_parameter("d"), None);
}
