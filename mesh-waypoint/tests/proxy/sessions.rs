//! Sessions: requests that bring a cookie, or a header field, go to the endpoint that gave it.

use std::collections::HashSet;

use http::Request;
use http_body_util::Full;

use crate::gateway::{Certificate, GATEWAY, gateway, get};
use crate::server::{Answer, Client, serve};
use crate::world::{CARTS, OUTSIDE, World, run_as, run_with};

/// A route of what is sent to `cart`: half of it goes to `outside`.
fn route(persistence: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: sessions, namespace: shop}}
spec:
  parentRefs: [{{group: '', kind: Service, name: cart}}]
  rules:
  - backendRefs: [{{name: cart, port: 80}}, {{name: outside, port: 80}}]
    sessionPersistence: {{{persistence}}}
---
"
    )
}

async fn servers() {
    for address in CARTS.into_iter().chain([OUTSIDE]) {
        serve(address, 8080, false).await;
    }
}

async fn ask(world: &World, field: Option<(&str, &str)>) -> Answer {
    let mut client = Client::http1(world.tunnel("10.96.0.1:80").await.expect("tunnel")).await;
    let request = Request::get("/").header("host", "cart.shop");
    let request = field.into_iter().fold(request, |request, (name, value)| request.header(name, value));
    client.ask(request.body(Full::default()).expect("valid")).await
}

fn backend(answer: &Answer) -> String {
    assert_eq!(answer.status, 200);
    answer.headers["x-backend"].to_str().expect("text").to_owned()
}

/// The cookie that an answer gives, as a request brings it; and its attributes.
fn cookie(answer: &Answer) -> (String, String) {
    let given = answer.headers["set-cookie"].to_str().expect("text");
    let (pair, attributes) = given.split_once("; ").expect("attributes");
    (pair.to_owned(), attributes.to_owned())
}

#[test]
fn keys_stay_with_their_endpoints_when_another_goes_whatever_the_ring_or_table() {
    const KEYS: usize = 90;
    for algorithm in ["ringHash: {minimumRingSize: 4096}", "maglev: {tableSize: 65537}"] {
        let rule = format!(
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: cart, namespace: shop}}\n\
             spec: {{host: cart, trafficPolicy: {{loadBalancer: {{consistentHash: {{httpHeaderName: x-key, {algorithm}}}}}}}}}\n"
        );
        run_with(&rule, async |world| {
            servers().await;
            let asked = async |key: usize| backend(&ask(&world, Some(("x-key", &key.to_string()))).await);
            let mut before = Vec::new();
            for key in 0..KEYS {
                before.push(asked(key).await);
            }
            for cart in CARTS {
                let keys = before.iter().filter(|backend| **backend == *cart).count();
                // Of 90 with a chance of a third, five standard deviations around 30.
                assert!((8..=52).contains(&keys), "{cart} has {keys} keys");
            }
            world.without_endpoint(CARTS[2]);
            let moved = before.iter().position(|backend| *backend == CARTS[2]).expect("it has keys");
            while asked(moved).await == CARTS[2] {}
            for (key, backend) in before.iter().enumerate() {
                let now = asked(key).await;
                assert!(now == *backend || (*backend == CARTS[2] && now != CARTS[2]), "{key}: {backend}, then {now}");
            }
        });
    }
}

#[test]
fn a_cookie_leads_to_the_endpoint_that_gave_it() {
    let persistence = "sessionName: sid, absoluteTimeout: 1h, cookieConfig: {lifetimeType: Permanent}";
    run_with(&route(persistence), async |world| {
        servers().await;
        let mut seen = HashSet::new();
        while seen.len() < 4 {
            let first = ask(&world, None).await;
            let (pair, attributes) = cookie(&first);
            assert!(pair.starts_with("sid="), "{pair}");
            assert_eq!(attributes, "Path=/; Max-Age=3600; HttpOnly; SameSite=Lax");
            let expected = backend(&first);
            for _ in 0..8 {
                let again = ask(&world, Some(("cookie", &format!("other=1; {pair}")))).await;
                assert_eq!(backend(&again), expected, "of the same backend and endpoint");
                assert!(!again.headers.contains_key("set-cookie"), "it knows already");
            }
            seen.insert(expected);
        }
        // What nobody gave out is no session: a new one begins.
        for wrong in ["sid=", "sid=x", "sid=Y2FydC5zaG9wOjgwQDEwLjEuMC45OjgwODB8MXwx"] {
            let answer = ask(&world, Some(("cookie", wrong))).await;
            assert!(CARTS.contains(&&*backend(&answer)) || backend(&answer) == OUTSIDE);
            assert!(cookie(&answer).0.starts_with("sid="), "{wrong}");
        }
    });
}

#[test]
fn a_field_leads_there_too_and_a_session_moves_when_its_endpoint_is_gone() {
    let persistence = "sessionName: X-Session, type: Header, idleTimeout: 1h";
    run_with(&route(persistence), async |world| {
        servers().await;
        let token = |answer: &Answer| answer.headers["x-session"].to_str().expect("text").to_owned();
        let first = loop {
            let answer = ask(&world, None).await;
            if backend(&answer) != OUTSIDE {
                break answer;
            }
        };
        assert!(!first.headers.contains_key("set-cookie"));
        let (expected, mut held) = (backend(&first), token(&first));
        for _ in 0..8 {
            let again = ask(&world, Some(("x-session", &held))).await;
            assert_eq!(backend(&again), expected);
            // It tells when it was used last, which counts for its end.
            held = token(&again);
        }
        // The pod is no endpoint any more.
        world.without_endpoint(&expected);
        let moved = loop {
            let answer = ask(&world, Some(("x-session", &held))).await;
            if backend(&answer) != expected {
                break answer;
            }
        };
        let (expected, held) = (backend(&moved), token(&moved));
        for _ in 0..8 {
            assert_eq!(backend(&ask(&world, Some(("x-session", &held))).await), expected);
        }
    });
}

#[test]
fn a_cookie_of_a_hash_has_the_attributes_that_the_rule_gives_it() {
    let attributes = "[{name: SameSite, value: None}, {name: Secure}, {name: Partitioned, value: ''}]";
    let rule = format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: cart, namespace: shop}}\n\
         spec: {{host: cart, trafficPolicy: {{loadBalancer: {{consistentHash: {{\
         httpCookie: {{name: user, path: /, ttl: 60s, attributes: {attributes}}}}}}}}}}}\n"
    );
    run_with(&rule, async |world| {
        servers().await;
        let first = ask(&world, None).await;
        let (pair, attributes) = cookie(&first);
        assert!(pair.starts_with("user="), "{pair}");
        assert_eq!(attributes, "Path=/; Max-Age=60; HttpOnly; SameSite=None; Secure; Partitioned");
        for _ in 0..8 {
            let again = ask(&world, Some(("cookie", &pair))).await;
            assert_eq!(backend(&again), backend(&first));
            assert!(!again.headers.contains_key("set-cookie"), "it knows already");
        }
    });
}

#[test]
fn a_session_that_began_by_https_is_told_by_https_alone() {
    run_as(GATEWAY, "", async |world| {
        serve(OUTSIDE, 8080, false).await;
        let certificate = Certificate::new(&world, "cert", &["a.example.com"]);
        let listeners = "{name: http, port: 8000, protocol: HTTP}, \
                         {name: https, port: 4430, protocol: HTTPS, tls: {certificateRefs: [{name: cert}]}}";
        let backend = "backendRefs: [{name: outside, port: 80}]";
        let with_session = format!("{backend}, sessionPersistence: {{sessionName: sid}}");
        let gateway = gateway(listeners).replace(backend, &with_session);
        world.configure(&format!("{gateway}{}", certificate.secret("cert")));
        let asked = ["--cacert", certificate.roots(), "--write-out", "%{stderr}%{http_code} %header{set-cookie}"];
        for (url, attributes) in [
            ("http://a.example.com:8000/", "; Path=/; HttpOnly; SameSite=Lax"),
            ("https://a.example.com:4430/", "; Path=/; HttpOnly; SameSite=Lax; Secure"),
        ] {
            let (status, cookie) = get(url, &asked).await;
            assert_eq!(status, "200", "{url}: {cookie}");
            assert!(cookie.starts_with("sid=") && cookie.ends_with(attributes), "{url}: {cookie}");
        }
    });
}
