//! What is told of requests: filters, and who has the last word.
#![allow(clippy::unwrap_used)]

use std::borrow::Cow;
use std::sync::Arc;

use mesh_core::LabelSet;
use mesh_core::l7::Percent;
use mesh_core::policy::{PolicyName, PolicyTarget, Selector};
use mesh_core::telemetry::filter::{Attributes, Number, Text};
use mesh_core::telemetry::value::{Peer, PeerAttribute};
use mesh_core::telemetry::{
    Choice, Logging, Scope, Side, Telemetries, TelemetryPolicy, TelemetryScope, Tracing, parse, parse_value,
};
use proptest::prelude::*;

/// GET /cart/1?a=b of a client of the mesh, answered with that code, if at all.
struct Ended(Option<i64>);

impl Attributes for Ended {
    fn number(&self, what: Number) -> Option<i64> {
        match what {
            Number::ResponseCode => self.0,
            Number::RequestSize => Some(0),
            Number::ResponseSize => Some(1024),
            _ => None,
        }
    }

    fn text(&self, what: &Text) -> Option<Cow<'_, str>> {
        Some(Cow::Borrowed(match what {
            Text::Method => "GET",
            Text::Path => "/cart/1?a=b",
            Text::UrlPath => "/cart/1",
            Text::Host => "cart.shop",
            Text::Header(name) if **name == *"x-user" => "jason",
            Text::PeerIdentity => "spiffe://cluster.local/ns/shop/sa/client",
            _ => return None,
        }))
    }

    fn mtls(&self) -> bool {
        true
    }

    fn peer(&self, peer: Peer, what: &PeerAttribute) -> Option<&str> {
        match (peer, what) {
            (Peer::Source, PeerAttribute::Workload) => Some("web"),
            (Peer::Destination, PeerAttribute::Label(key)) if **key == *"version" => Some("v2"),
            _ => None,
        }
    }
}

#[test]
fn the_values_of_labels_are_as_in_cel_and_what_is_not_known_says_so() {
    let of_503 = [
        ("request.method", "GET"),
        ("request.host", "cart.shop"),
        ("request.url_path", "/cart/1"),
        ("request.headers['X-User']", "jason"),
        ("request.headers['x-other']", "unknown"),
        ("response.code", "503"),
        ("string(response.code)", "503"),
        ("'fixed'", "fixed"),
        ("\"fixed\"", "fixed"),
        ("connection.mtls", "true"),
        ("downstream_peer.workload", "web"),
        ("source.workload.name", "web"),
        ("filter_state.upstream_peer.labels['version']", "v2"),
        ("destination.labels['app']", "unknown"),
        ("has(request.headers['x-user']) ? request.headers['x-user'] : 'nobody'", "jason"),
        ("has(request.headers['x-other']) ? 'some' : 'nobody'", "nobody"),
        ("response.code < 500 ? 'ok' : (response.code == 503 ? 'away' : 'bad')", "away"),
        ("connection.mtls ? 'yes' : 'no'", "yes"),
    ];
    for (text, expected) in of_503 {
        let value = parse_value(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(value.of(&Ended(Some(503))), expected, "{text}");
    }
    for (text, expected) in [
        ("", "text in quotes"),
        ("request.duration", "request.duration"),
        ("request.host + 'x'", "end"),
        ("'a' ? 'b' : 'c'", "end"),
        ("response.code >= 500 ? 'a'", "colon"),
        ("string(request.host", "parenthesis"),
        ("upstream_peer.labels", "NAME"),
        ("xds.cluster_name", "xds.cluster_name"),
    ] {
        let error = parse_value(text).expect_err(text).to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
    assert!(parse_value(&"(".repeat(1000)).is_err());
    let long = parse_value(&format!("'{}'", "ü".repeat(200))).unwrap().of(&Ended(None));
    assert_eq!(long.len(), 256, "cut between letters");
}

#[test]
fn expressions_mean_what_they_mean_in_cel() {
    let of_503 = [
        ("response.code >= 500", true),
        ("response.code == 200 || response.code == 503", true),
        ("response.code<500", false),
        ("!(response.code < 500) && request.method == 'GET'", true),
        ("request.method != \"GET\"", false),
        ("request.url_path.startsWith('/cart/') && !request.path.endsWith('/1')", true),
        ("request.path.matches('^/cart/[0-9]+')", true),
        ("request.host.contains('shop')", true),
        ("request.headers['X-User'] == 'jason'", true),
        ("request.headers['x-user'].startsWith('ja')", true),
        ("'x-user' in request.headers", true),
        ("has(request.headers['x-other'])", false),
        ("connection.mtls && true", true),
        ("connection.mtls == false", false),
        ("connection.uri_san_peer_certificate.endsWith('/sa/client')", true),
        ("response.size > 1000 && request.size == 0", true),
        // `&&` binds stronger.
        ("false && false || true", true),
        // What is absent is an error, and an error is no, unless the rest decides.
        ("request.headers['x-other'] != 'a'", false),
        ("!(request.headers['x-other'] == 'a')", false),
        ("request.headers['x-other'] == 'a' || response.code == 503", true),
        ("request.headers['x-other'] == 'a' && false", false),
    ];
    for (text, expected) in of_503 {
        let filter = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(filter.admits(&Ended(Some(503))), expected, "{text}");
    }
    assert!(!parse("response.code < 500").unwrap().admits(&Ended(None)), "there was no answer");
    assert!(parse("!has(response.code)").unwrap().admits(&Ended(None)));
}

#[test]
fn what_is_not_evaluated_says_so() {
    let cases = [
        ("", "an attribute"),
        ("response.code", "a comparison"),
        ("response.code >= '500'", "response.code is compared"),
        ("request.method == 5", "request.method is compared"),
        ("request.duration > duration('1s')", "request.duration is not known"),
        ("response.code >= 500 ? true : false", "&&, || or the end"),
        ("(response.code == 5", "closing parenthesis"),
        ("request.path.matches('(')", "no pattern"),
        ("request.path.size() > 5", "request.path.size is not known"),
        ("'a' == 'a'", "in request.headers"),
        ("xds.cluster_name == 'a'", "xds.cluster_name is not known"),
    ];
    for (text, expected) in cases {
        let error = parse(text).expect_err(text).to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
    assert!(parse(&"(".repeat(1000)).is_err() && parse(&"!".repeat(1000)).is_err());
}

fn policy(namespace: &str, name: &str, scope: Scope, disabled: bool, sampling: Option<f64>) -> Arc<TelemetryPolicy> {
    Arc::new(TelemetryPolicy {
        name: PolicyName { namespace: namespace.into(), name: name.into() }.into(),
        scope,
        logging: vec![Logging { side: None, providers: Vec::new(), disabled, choice: Choice::default() }],
        tracing: vec![Tracing { sampling: sampling.and_then(Percent::new), ..Tracing::default() }],
        metrics: Vec::new(),
    })
}

#[test]
fn the_nearest_has_the_last_word_and_the_rest_is_as_above() {
    let of = |namespace: &str, name: &str| Arc::new(PolicyName { namespace: namespace.into(), name: name.into() });
    let all = [
        policy("istio-system", "mesh", Scope::Namespace, true, Some(50.0)),
        policy("shop", "shop", Scope::Namespace, false, None),
        policy("other", "other", Scope::Namespace, true, Some(1.0)),
        policy("shop", "own", Scope::Targets(vec![PolicyTarget::Gateway(of("shop", "waypoint"))]), true, None),
        policy("shop", "cart", Scope::Targets(vec![PolicyTarget::Service(of("shop", "cart"))]), false, Some(7.0)),
        policy("shop", "app", Scope::Workloads(Selector::new([("app", "gw")]).unwrap()), true, None),
    ];
    let labels: LabelSet = [("app", "gw")].into_iter().collect();
    let (other, cart) = (PolicyTarget::Service(of("shop", "other")), PolicyTarget::Service(of("shop", "cart")));
    let teller =
        |service| TelemetryScope { side: Side::Server, gateway: ("shop", "waypoint", "class"), labels: None, service };
    let with = |count: usize, teller: &TelemetryScope<'_>| {
        let told = Telemetries::new("istio-system".into(), all[..count].to_vec()).told(teller);
        (!told.outputs.is_empty(), told.tracing.sampling.map(Percent::as_f64))
    };
    assert_eq!(with(0, &teller(None)), (true, None), "where nobody says anything there are lines");
    assert_eq!(with(1, &teller(None)), (false, Some(50.0)));
    assert_eq!(with(3, &teller(None)), (true, Some(50.0)));
    assert_eq!(with(4, &teller(Some(&other))), (false, Some(50.0)));
    assert_eq!(with(5, &teller(Some(&cart))), (true, Some(7.0)));
    let gateway = TelemetryScope { gateway: ("shop", "ingress", ""), labels: Some(&labels), ..teller(None) };
    assert_eq!((with(5, &gateway).0, with(6, &gateway).0), (true, false));
}

#[test]
fn an_entry_of_one_side_leaves_the_other_alone() {
    let mut only = (*policy("istio-system", "mesh", Scope::Namespace, true, None)).clone();
    only.logging[0].side = Some(Side::Client);
    let all = Telemetries::new("istio-system".into(), vec![Arc::new(only)]);
    let teller = |side| TelemetryScope { side, gateway: ("shop", "waypoint", ""), labels: None, service: None };
    let logs = |side| !all.told(&teller(side)).outputs.is_empty();
    assert!(logs(Side::Server) && !logs(Side::Client));
}

#[test]
fn a_share_of_what_the_filter_admits_has_a_line_and_all_that_failed() {
    let choice = |sampling: f64, filter: Option<&str>| Choice {
        filter: filter.map(|text| parse(text).unwrap()),
        sampling: Percent::new(sampling),
    };
    let half = choice(50.0, None);
    assert!(half.admits(&Ended(Some(200)), 0) && !half.admits(&Ended(Some(399)), u64::MAX));
    let none = choice(0.0, None);
    assert!(!none.admits(&Ended(Some(200)), 0) && choice(100.0, None).admits(&Ended(Some(200)), u64::MAX));
    for failed in [None, Some(400), Some(503)] {
        assert!(none.admits(&Ended(failed), u64::MAX), "{failed:?}");
    }
    let filtered = choice(50.0, Some("response.code >= 500"));
    assert!(!filtered.admits(&Ended(Some(404)), 0) && filtered.admits(&Ended(Some(503)), u64::MAX));
}

proptest! {
    #[test]
    fn reading_never_panics(text in any::<String>(), like in "[a-z.'\"()!&|=<> \\[\\]0-9é]{0,60}") {
        let _ = parse(&text).map(|filter| filter.admits(&Ended(Some(200))));
        let _ = parse(&like).map(|filter| filter.admits(&Ended(None)));
        let _ = parse(&format!("request.headers['{like}'] == '{like}' || response.code {like}"));
    }
}
