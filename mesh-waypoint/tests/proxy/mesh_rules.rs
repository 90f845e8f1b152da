//! Rules of VirtualServices by who sends and, of connections that nobody looks into, by where they go: in the mesh, at a waypoint.

use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::spawn_local;

use crate::server::{Client, serve};
use crate::world::{CARTS, OUTSIDE, STRANGER, World, run_with};

/// A port that is declared to be TCP, and one of which nothing is said.
const RAW: &str = "10.96.0.1:90";
const ANY: &str = "10.96.0.1:95";

const SUBSETS: &str = "apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: cart, namespace: shop}
spec:
  host: cart
  subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]
---
";

fn virtual_service(rules: &str) -> String {
    format!(
        "{SUBSETS}apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: cart, namespace: shop}}\n\
         spec:\n  hosts: [cart]\n{rules}"
    )
}

/// Servers whose first word is their name, whatever they hear, and which then hear their client out.
async fn first_words(port: u16) {
    for cart in CARTS.into_iter().chain([OUTSIDE]) {
        let port = if cart == OUTSIDE { 8080 } else { port };
        let listener = TcpListener::bind((cart, port)).await.expect("listen");
        spawn_local(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                spawn_local(async move {
                    let _ = stream.write_all(cart.as_bytes()).await;
                    let _ = stream.shutdown().await;
                    let _ = stream.read_to_end(&mut Vec::new()).await;
                });
            }
        });
    }
}

/// Who answers a connection that begins with those bytes.
async fn answers(world: &World, (pod, account): (&str, &str), target: &str, said: &[u8]) -> String {
    let mut stream = world.tunnel_from(pod, account, target).await.expect("tunnel");
    stream.write_all(said).await.expect("write");
    let mut name = String::new();
    stream.read_to_string(&mut name).await.expect("a name");
    name
}

const KNOWN: (&str, &str) = (crate::world::CLIENT, "client");

/// The first message of a client of TLS.
fn hello(server: &'static str) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("versions");
    let config = Arc::new(config.with_root_certificates(RootCertStore::empty()).with_no_client_auth());
    let name = ServerName::try_from(server).expect("a name");
    let mut client = ClientConnection::new(config, name).expect("a client");
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).expect("into memory");
    bytes
}

#[test]
fn connections_go_by_weight_where_all_of_a_match_holds() {
    let rules = "  tcp:
  - {match: [{port: 91}], route: [{destination: {host: outside, port: {number: 80}}}]}
  - {match: [{sourceNamespace: elsewhere}], route: [{destination: {host: outside}}]}
  - {match: [{sourceLabels: {app: another}}], route: [{destination: {host: outside}}]}
  - {match: [{destinationSubnets: [10.97.0.0/16]}], route: [{destination: {host: outside}}]}
  - match: [{port: 90, sourceNamespace: shop, sourceLabels: {app: client}, destinationSubnets: [10.96.0.0/16]}]
    route: [{destination: {host: cart, subset: v2}, weight: 75}, {destination: {host: outside}, weight: 25}]
";
    run_with(&virtual_service(rules), async |world| {
        first_words(9090).await;
        let mut counts = [0; 2];
        for _ in 0..200 {
            match answers(&world, KNOWN, RAW, b"").await {
                name if name == CARTS[2] => counts[0] += 1,
                name if name == OUTSIDE => counts[1] += 1,
                name => panic!("{name} answered"),
            }
        }
        // Of 200 with a chance of 3 in 4; beyond six standard deviations.
        assert!((114..=186).contains(&counts[0]), "{counts:?}");
        // Who is not known is nobody's match, and goes where it was sent to.
        let stranger = answers(&world, (STRANGER, "stranger"), RAW, b"").await;
        assert!(CARTS.contains(&&*stranger), "{stranger}");
    });
}

#[test]
fn connections_go_by_the_server_that_they_name_in_tls() {
    let rules = "  tls:
  - {match: [{port: 90, sniHosts: [out.example]}], route: [{destination: {host: outside}}]}
  - {match: [{sniHosts: ['*.cart.example']}], route: [{destination: {host: cart, subset: v2}}]}
  tcp: [{match: [{port: 90}], route: [{destination: {host: cart, subset: v1}}]}]
";
    run_with(&virtual_service(rules), async |world| {
        first_words(9090).await;
        assert_eq!(answers(&world, KNOWN, RAW, &hello("out.example")).await, OUTSIDE);
        assert_eq!(answers(&world, KNOWN, RAW, &hello("a.cart.example")).await, CARTS[2]);
        for said in [&hello("other.example")[..], b"PING\r\n"] {
            let name = answers(&world, KNOWN, RAW, said).await;
            assert!(CARTS[..2].contains(&&*name), "{name}");
        }
    });
}

#[test]
fn what_turns_out_to_be_tls_goes_by_its_server_too() {
    let rules = "  tls: [{match: [{port: 95, sniHosts: [out.example]}], route: [{destination: {host: outside}}]}]\n";
    run_with(&virtual_service(rules), async |world| {
        first_words(9595).await;
        assert_eq!(answers(&world, KNOWN, ANY, &hello("out.example")).await, OUTSIDE);
        let other = answers(&world, KNOWN, ANY, &hello("other.example")).await;
        assert!(CARTS.contains(&&*other), "{other}");
    });
}

#[test]
fn requests_go_by_the_labels_and_the_namespace_of_their_client() {
    let rules = "  http:
  - {match: [{sourceNamespace: elsewhere}, {sourceLabels: {app: another}}], directResponse: {status: 418}}
  - {match: [{sourceNamespace: shop, sourceLabels: {app: client}}], route: [{destination: {host: outside}}]}
  - {route: [{destination: {host: cart, subset: v2}}]}
";
    run_with(&virtual_service(rules), async |world| {
        for (address, port) in [(OUTSIDE, 8080), (CARTS[2], 8080)] {
            serve(address, port, false).await;
        }
        for ((pod, account), expected) in [(KNOWN, OUTSIDE), ((STRANGER, "stranger"), CARTS[2])] {
            let tunnel = world.tunnel_from(pod, account, "10.96.0.1:80").await.expect("tunnel");
            assert_eq!(Client::http1(tunnel).await.get("/").await.body, expected, "{pod}");
        }
    });
}
