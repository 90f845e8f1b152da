//! Hosts outside: ServiceEntries, reached through the waypoint.

use std::net::Ipv4Addr;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::spawn_local;

use crate::server::{Answer, Client, serve, serve_carts};
use crate::world::{CARTS, OUTSIDE, STRANGER, World, run_with};

const PAUSE: Duration = Duration::from_millis(20);

fn entry(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec: {{{spec}}}\n"
    )
}

fn by_dns(host: &str, address: &str) -> String {
    let ports = "ports: [{number: 80, name: http, protocol: HTTP, targetPort: 8080}]";
    entry("api", &format!("hosts: [{host}], addresses: [{address}], {ports}, resolution: DNS"))
}

fn address(text: &str) -> Ipv4Addr {
    text.parse().expect("an address")
}

async fn client(world: &World, target: &str) -> Client {
    Client::http1(world.tunnel(target).await.expect("tunnel")).await
}

async fn get(client: &mut Client, host: &str, path: &str) -> Answer {
    let request = Request::get(path).header("host", host).body(Full::<Bytes>::default());
    client.ask(request.expect("valid")).await
}

#[test]
fn endpoints_have_the_shares_that_their_weights_say() {
    let endpoints = format!("endpoints: [{{address: {OUTSIDE}, weight: 1}}, {{address: {STRANGER}, weight: 4}}]");
    let ports = "ports: [{number: 80, name: http, protocol: HTTP, targetPort: 8080}]";
    let hosts = "hosts: [api.example.com], addresses: [240.240.0.1]";
    let entry = entry("api", &format!("{hosts}, {ports}, resolution: STATIC, {endpoints}"));
    run_with(&entry, async |world| {
        let (light, heavy) = (serve(OUTSIDE, 8080, false).await, serve(STRANGER, 8080, false).await);
        let mut client = client(&world, "240.240.0.1:80").await;
        for _ in 0..1_000 {
            assert_eq!(get(&mut client, "api.example.com", "/").await.status, 200);
        }
        let seen = (light.seen.borrow().len(), heavy.seen.borrow().len());
        assert_eq!(seen.0 + seen.1, 1_000);
        // A fifth of 1000, five standard deviations to either side.
        assert!((137..=263).contains(&seen.0), "{seen:?}");
    });
}

#[test]
fn what_dns_says_is_followed_and_the_last_good_answer_stays() {
    run_with(&by_dns("api.example.com", "240.240.0.1"), async |world| {
        for server in [OUTSIDE, STRANGER] {
            serve(server, 8080, false).await;
        }
        let say = |addresses: &[&str]| {
            let addresses = addresses.iter().map(|text| address(text)).collect();
            world.names.borrow_mut().insert("api.example.com".to_owned(), addresses);
        };
        let mut client = client(&world, "240.240.0.1:80").await;
        assert_eq!(get(&mut client, "api.example.com", "/").await.status, 503, "nobody knows the name yet");
        say(&[OUTSIDE]);
        while get(&mut client, "api.example.com", "/").await.body != OUTSIDE {
            tokio::time::sleep(PAUSE).await;
        }
        say(&[STRANGER]);
        while get(&mut client, "api.example.com", "/").await.body != STRANGER {
            tokio::time::sleep(PAUSE).await;
        }
        // Where the name is gone, and where an answer leads back to the waypoint itself.
        let failures = || {
            let log = world.log.lock().expect("log");
            log.iter().filter(|line| line.contains("no addresses by DNS")).count()
        };
        for nothing in [None, Some(vec![address("127.0.0.1")])] {
            let before = failures();
            match nothing {
                None => drop(world.names.borrow_mut().remove("api.example.com")),
                Some(itself) => drop(world.names.borrow_mut().insert("api.example.com".to_owned(), itself)),
            }
            while failures() < before + 2 {
                tokio::time::sleep(PAUSE).await;
            }
            assert_eq!(get(&mut client, "api.example.com", "/").await.body, STRANGER);
        }
    });
}

#[test]
fn routes_of_both_apis_act_on_hosts_outside() {
    let virtual_service = "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\n\
        metadata: {name: api, namespace: shop}\nspec:\n  hosts: [api.example.com]\n  http:\n\
        \x20 - match: [{uri: {prefix: /cart}}]\n    route: [{destination: {host: cart}}]\n\
        \x20 - match: [{uri: {prefix: /v1}}]\n    rewrite: {uri: /v2}\n    \
        route: [{destination: {host: api.example.com}}]\n\
        \x20 - directResponse: {status: 403}\n";
    let route = "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: www, namespace: shop}\n\
        spec:\n  parentRefs: [{group: networking.istio.io, kind: ServiceEntry, name: www}]\n  rules:\n\
        \x20 - matches: [{path: {value: /api}}]\n    \
        backendRefs: [{group: networking.istio.io, kind: Hostname, name: api.example.com, port: 80}]\n";
    let www = entry(
        "www",
        "hosts: [www.example.com], addresses: [240.240.0.2], ports: [{number: 80, name: http, protocol: HTTP}], \
         resolution: STATIC, endpoints: [{address: 10.1.0.2, ports: {http: 8080}}]",
    );
    let manifests = by_dns("api.example.com", "240.240.0.1") + &www + virtual_service + route;
    run_with(&manifests, async |world| {
        world.names.borrow_mut().insert("api.example.com".to_owned(), vec![address(OUTSIDE)]);
        let outside = serve(OUTSIDE, 8080, false).await;
        serve_carts().await;
        let mut client = client(&world, "240.240.0.1:80").await;
        assert_eq!(get(&mut client, "api.example.com", "/v1/items").await.body, OUTSIDE, "after DNS has answered");
        assert_eq!(outside.seen.borrow().last().expect("a request").uri, "/v2/items");
        assert_eq!(outside.seen.borrow().last().expect("a request").headers["host"], "api.example.com");
        assert!(get(&mut client, "api.example.com", "/cart").await.body.starts_with(b"10.1.0.1"));
        assert_eq!(get(&mut client, "api.example.com", "/").await.status, 403);
        // What the route says nothing of.
        let mut client = self::client(&world, "240.240.0.2:80").await;
        assert_eq!(get(&mut client, "www.example.com", "/api").await.body, OUTSIDE);
        assert_eq!(get(&mut client, "www.example.com", "/").await.status, 404);
    });
}

#[test]
fn endpoints_are_pods_of_the_mesh_others_and_subsets_of_them() {
    let vm = entry(
        "vm",
        "hosts: [vm.example.com], ports: [{number: 80, name: http, protocol: HTTP, targetPort: 8080}], \
         addresses: [240.240.0.1], resolution: STATIC, workloadSelector: {labels: {kind: vm}}",
    ) + "---\napiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {name: old, namespace: shop}\n\
         spec: {address: 10.1.0.21, labels: {kind: vm, version: v1}}\n\
         ---\napiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {name: new, namespace: shop}\n\
         spec: {address: 10.1.0.11, labels: {kind: vm, version: v2}}\n\
         ---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: vm, namespace: shop}\n\
         spec: {host: vm.example.com, subsets: [{name: v1, labels: {version: v1}}]}\n\
         ---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: vm, namespace: shop}\nspec:\n\
         \x20 hosts: [vm.example.com]\n  http:\n  - match: [{uri: {exact: /v1}}]\n    \
         route: [{destination: {host: vm.example.com, subset: v1}}]\n  - route: [{destination: {host: vm.example.com}}]\n";
    run_with(&vm, async |world| {
        serve(OUTSIDE, 8080, false).await;
        serve(CARTS[0], 8080, false).await;
        let mut client = client(&world, "240.240.0.1:80").await;
        let mut by_tunnel = 0;
        for _ in 0..40 {
            by_tunnel += usize::from(get(&mut client, "vm.example.com", "/").await.body == CARTS[0]);
            assert_eq!(get(&mut client, "vm.example.com", "/v1").await.body, OUTSIDE);
        }
        assert!((5..=35).contains(&by_tunnel), "{by_tunnel} of 40");
        assert!(world.tunnels.borrow().iter().any(|(_, target)| target == "10.1.0.11:8080"), "the pod's own mTLS");
        let refused = world.tunnel("240.240.0.1:81").await.err();
        assert_eq!(refused, Some(Some(http::StatusCode::BAD_REQUEST)), "no such port");
    });
}

#[test]
fn hosts_of_one_address_are_told_by_what_requests_name() {
    let both = entry(
        "both",
        "hosts: [a.example.com, b.example.com], addresses: [240.240.0.1], resolution: DNS, \
         ports: [{number: 80, name: http, protocol: HTTP, targetPort: 8080}]",
    );
    run_with(&both, async |world| {
        for (name, server) in [("a.example.com", OUTSIDE), ("b.example.com", STRANGER)] {
            serve(server, 8080, false).await;
            world.names.borrow_mut().insert(name.to_owned(), vec![address(server)]);
        }
        let mut client = client(&world, "240.240.0.1:80").await;
        assert_eq!(get(&mut client, "b.example.com", "/").await.body, STRANGER);
        assert_eq!(get(&mut client, "a.example.com", "/").await.body, OUTSIDE);
        assert_eq!(get(&mut client, "unknown.example.com", "/").await.body, OUTSIDE, "the first");
    });
}

#[test]
fn without_resolution_the_address_that_was_asked_for_is_connected() {
    let as_it_is = entry(
        "legacy",
        "hosts: [\"*.legacy.example.com\"], addresses: [10.1.0.21, 10.1.0.2], \
         ports: [{number: 8080, name: http, protocol: HTTP}, {number: 9000, name: tls, protocol: TLS}]",
    );
    // Without addresses, by those of its endpoints.
    let listed = entry(
        "listed",
        "hosts: [listed.example.com], ports: [{number: 80, name: http, protocol: HTTP, targetPort: 8081}], \
         resolution: STATIC, endpoints: [{address: 10.1.0.21}]",
    );
    run_with(&(as_it_is + &listed), async |world| {
        for server in [OUTSIDE, STRANGER] {
            serve(server, 8080, false).await;
            let mut client = client(&world, &format!("{server}:8080")).await;
            for _ in 0..8 {
                assert_eq!(get(&mut client, "a.legacy.example.com", "/").await.body, server);
            }
        }
        let backend = serve(OUTSIDE, 8081, false).await;
        let mut client = client(&world, &format!("{OUTSIDE}:8081")).await;
        assert_eq!(get(&mut client, "listed.example.com", "/").await.status, 200);
        assert_eq!(backend.seen.borrow().len(), 1);
        // Bytes that nobody looks into.
        let listener = TcpListener::bind((STRANGER, 9000)).await.expect("listen");
        spawn_local(async move {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            stream.write_all(b"the server speaks first").await.expect("written");
        });
        let mut tunnel = world.tunnel(&format!("{STRANGER}:9000")).await.expect("tunnel");
        let mut said = [0; 23];
        tunnel.read_exact(&mut said).await.expect("bytes");
        assert_eq!(&said, b"the server speaks first");
    });
}
