//! TLS that waypoints and gateways begin as BackendTLSPolicies say.

use std::time::Duration;

use crate::gateway::{GATEWAY, gateway, get};
use crate::origination::Pki;
use crate::server::{Client, serve_tls};
use crate::world::{OUTSIDE, World, run_as, run_with};

const HOST: &str = "api.example.com";
const URI: &str = "spiffe://example.com/api";

/// A policy about `outside`.
fn policy(name: &str, section: &str, validation: &str) -> String {
    let section = if section.is_empty() { String::new() } else { format!(", sectionName: {section}") };
    format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {{name: {name}, namespace: shop, creationTimestamp: '2026-01-01T00:00:0{}Z'}}
spec: {{targetRefs: [{{group: '', kind: Service, name: outside{section}}}], validation: {{{validation}}}}}
---
",
        name.len()
    )
}

fn config_map(pki: &Pki) -> String {
    let roots = pki.pem().trim_end().replace('\n', "\n    ");
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: roots, namespace: shop}}\ndata:\n  ca.crt: |\n    {roots}\n---\n"
    )
}

const ROOTS: &str = "caCertificateRefs: [{group: '', kind: ConfigMap, name: roots}]";
const ABSENT: &str = "{group: '', kind: ConfigMap, name: absent}";

fn of_host(hostname: &str) -> String {
    format!("hostname: {hostname}, {ROOTS}")
}

async fn asked(world: &World) -> u16 {
    Client::http1(world.tunnel("10.96.0.2:80").await.expect("tunnel")).await.get("/").await.status
}

/// Waits until requests are answered so by the manifests; that they are is what is tested.
async fn becomes(world: &World, manifests: &str, status: u16) {
    world.configure(manifests);
    while asked(world).await != status {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Manifests, and how requests are answered by them. Each is its neighbours' counterpart: what stays as it was would not be told
/// from what was taken up.
fn cases(pki: &Pki) -> Vec<(&'static str, String, u16)> {
    let (roots, strangers) = (config_map(pki), config_map(&Pki::new()));
    let with = |policies: &[String]| format!("{roots}{}", policies.concat());
    let only = |validation: &str| with(&[policy("one", "", validation)]);
    let named = |name: &str| only(&format!("{}, subjectAltNames: [{name}]", of_host("other.example.com")));
    let (right, wrong) = (of_host(HOST), of_host("x.example"));
    let system = format!("hostname: {HOST}, wellKnownCACertificates: System");
    vec![
        ("its name", only(&right), 200),
        ("another name", only(&wrong), 503),
        ("the name of a certificate", named(&format!("{{type: Hostname, hostname: {HOST}}}")), 200),
        ("of another", named("{type: Hostname, hostname: x.example.com}"), 503),
        ("a URI", named(&format!("{{type: URI, uri: '{URI}'}}")), 200),
        ("another URI", named("{type: URI, uri: 'spiffe://example.com/other'}"), 503),
        ("one of two authorities", only(&right.replace("name: roots}", &format!("name: roots}}, {ABSENT}"))), 200),
        ("an authority that is not there", only(&format!("hostname: {HOST}, caCertificateRefs: [{ABSENT}]")), 503),
        ("the port's own", with(&[policy("a", "", &wrong), policy("of-port", "http", &right)]), 200),
        ("another authority", format!("{strangers}{}", policy("one", "", &right)), 503),
        ("the older of two", with(&[policy("a", "", &right), policy("younger", "", &wrong)]), 200),
        ("what the system does not know", policy("one", "", &system), 503),
    ]
}

#[test]
fn a_waypoint_believes_whom_the_policy_names_and_sends_nothing_to_others() {
    run_with("", async |world| {
        let pki = Pki::new();
        let backend = serve_tls(OUTSIDE, 8080, pki.server(&format!("{HOST} {URI}"), false)).await;
        for (what, manifests, status) in cases(&pki) {
            let changed = tokio::time::timeout(Duration::from_secs(10), becomes(&world, &manifests, status)).await;
            assert!(changed.is_ok(), "{what}: no {status}");
        }
        std::fs::write(world.roots(), pki.pem()).expect("the system's roots");
        let rule = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: plain, namespace: shop}\n\
                    spec: {host: outside, trafficPolicy: {tls: {mode: DISABLE}}}\n---\n";
        let system = policy(
            "two",
            "",
            &format!(
                "hostname: {HOST}, wellKnownCACertificates: System, subjectAltNames: [{{type: Hostname, hostname: {HOST}}}]"
            ),
        );
        becomes(&world, &format!("{rule}{system}"), 200).await;
        assert!(!backend.seen.borrow().is_empty());
        // Without the policy the rule is in force, and the server takes no plaintext.
        world.configure(rule);
        while asked(&world).await == 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
}

#[test]
fn a_gateway_begins_tls_to_the_service_of_a_route() {
    run_as(GATEWAY, "", async |world| {
        let pki = Pki::new();
        let backend = serve_tls(OUTSIDE, 8080, pki.server(HOST, false)).await;
        let listeners = gateway("{name: http, port: 8000, protocol: HTTP}");
        world.configure(&format!("{listeners}{}{}", config_map(&pki), policy("one", "http", &of_host(HOST))));
        while get("http://a.example:8000/", &[]).await != ("200".into(), OUTSIDE.into()) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let seen = backend.seen.borrow();
        assert_eq!(seen.last().expect("a request").headers["host"], "a.example:8000", "the host is the client's");
    });
}

#[test]
fn a_gateway_shows_servers_the_certificate_that_it_has_for_them() {
    run_as(GATEWAY, "", async |world| {
        let pki = Pki::new();
        let _backend = serve_tls(OUTSIDE, 8080, pki.server(HOST, true)).await;
        let listeners = gateway("{name: http, port: 8000, protocol: HTTP}");
        let showing = |secret: &str| {
            let class = "gatewayClassName: mesh, ";
            let tls = format!("tls: {{backend: {{clientCertificateRef: {{name: {secret}}}}}}}, ");
            listeners.replace(class, &format!("{class}{tls}"))
        };
        let rest = format!("{}{}", config_map(&pki), policy("one", "http", &of_host(HOST)));
        // Neighbours are answered otherwise: what stays as it was would not be told from what was taken up.
        for (gateway, secret, status) in [
            (showing("own"), pki.secret("own"), "200"),
            (listeners.clone(), pki.secret("own"), "503"),
            (showing("renewed"), pki.secret("renewed"), "200"),
            (showing("absent"), String::new(), "503"),
            (showing("own"), pki.secret("own"), "200"),
            (showing("own"), Pki::new().secret("own"), "503"),
        ] {
            world.configure(&format!("{gateway}{rest}{secret}"));
            while get("http://a.example:8000/", &[]).await.0 != status {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    });
}
