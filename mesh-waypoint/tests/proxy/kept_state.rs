//! What is known of clusters and limits, and what is under way, while the configuration changes around it.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::spawn_local;

use crate::server::{Client, serve, serve_carts};
use crate::world::{CARTS, OUTSIDE, World, authorization, run_with};

/// What stays the same through every change.
const KEPT: &str = "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: cart, namespace: shop}
spec:
  host: cart
  trafficPolicy:
    loadBalancer: {simple: ROUND_ROBIN}
    outlierDetection: {consecutive5xxErrors: 1, interval: 1s, baseEjectionTime: 60s, maxEjectionPercent: 100}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: outside, namespace: shop}
spec:
  host: outside
  trafficPolicy: {connectionPool: {http: {http2MaxRequests: 1}}}
---
apiVersion: policy.mesh.dev/v1alpha1
kind: RateLimitPolicy
metadata: {name: cart, namespace: shop}
spec:
  targetRefs: [{kind: Service, name: cart}]
  limits:
  - {requests: 3, interval: 1h, matches: [{path: {value: /limited}}]}
  - {requests: 1, interval: 1h, matches: [{path: {value: /keyed}}], key: {source: Principal}}
---
";

/// Changes that concern none of it: other Services, their rules and routes. A request to one of them is answered with the
/// change's number, once it is in force.
fn unrelated(number: u16) -> String {
    let status = 200 + number;
    format!(
        "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: empty, namespace: shop}}
spec: {{hosts: [empty], http: [{{directResponse: {{status: {status}}}}}]}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: empty, namespace: shop}}
spec: {{host: empty, trafficPolicy: {{connectionPool: {{tcp: {{maxConnections: {status}}}}}}}}}
---
apiVersion: v1
kind: Service
metadata: {{name: other-{number}, namespace: shop}}
spec: {{clusterIP: 10.96.1.{number}, ports: [{{name: http, port: 80}}]}}
---
apiVersion: policy.mesh.dev/v1alpha1
kind: RateLimitPolicy
metadata: {{name: other, namespace: shop}}
spec: {{targetRefs: [{{kind: Service, name: empty}}], limits: [{{requests: {status}, interval: 1h}}]}}
---
{}---
",
        authorization(
            "{kind: Service, group: '', name: empty}",
            "DENY",
            &format!("{{to: [{{operation: {{paths: [/{number}]}}}}]}}")
        )
    )
}

/// Changes of the cart's own route, rule and policies, by which the requests of the test are still allowed.
fn related(number: u16) -> String {
    let timeout = 30 + number;
    format!(
        "{}---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: cart, namespace: shop}}
spec:
  hosts: [cart]
  http:
  - {{match: [{{uri: {{exact: /gone}}}}], directResponse: {{status: {}}}}}
  - {{route: [{{destination: {{host: cart}}}}], timeout: {timeout}s, retries: {{attempts: 0}}}}
---
",
        authorization("{kind: Service, group: '', name: cart}", "ALLOW", "{to: [{operation: {methods: [GET, POST]}}]}")
            .replace("of-test", "of-cart"),
        400 + number
    )
}

/// Has a change of that number in force on the threads of these clients.
async fn change(world: &World, manifests: &str, number: u16, clients: &mut [Client]) {
    world.configure(&format!("{manifests}{}", unrelated(number)));
    for client in clients {
        while client.get("/").await.status != 200 + number {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Clients of the Service that answers with the change's number: enough of them that each thread has one.
async fn watchers(world: &World) -> Vec<Client> {
    let mut clients = Vec::new();
    for _ in 0..2 {
        clients.push(Client::http1(world.tunnel("10.96.0.3:80").await.expect("tunnel")).await);
    }
    clients
}

#[test]
fn ejections_connections_bounds_and_buckets_outlive_changes_that_are_not_about_them() {
    run_with(&(KEPT.to_owned() + &unrelated(1)), async |world: World| {
        let carts = serve_carts().await;
        let outside = serve(OUTSIDE, 8080, false).await;
        let mut watchers = watchers(&world).await;
        change(&world, KEPT, 1, &mut watchers).await;
        let mut client = Client::http1(world.tunnel("10.96.0.1:80").await.expect("tunnel")).await;
        carts[0].status.set(500);
        while client.get("/").await.status != 500 {}
        carts[0].status.set(200);
        for _ in 0..6 {
            assert_eq!(client.get("/").await.status, 200);
        }
        for status in [200, 200, 200, 429] {
            assert_eq!(client.get("/limited").await.status, status);
        }
        for status in [200, 429] {
            assert_eq!(client.get("/keyed").await.status, status);
        }
        // The only request that may be under way.
        let mut busy = Client::http1(world.tunnel("10.96.0.2:80").await.expect("tunnel")).await;
        spawn_local(async move { drop(busy.get("/never").await) });
        while outside.seen.borrow().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let ejected = carts[0].seen.borrow().len();
        let connections: Vec<usize> = carts.iter().map(|cart| cart.connections.get()).collect();
        for number in 2..=9 {
            change(&world, KEPT, number, &mut watchers).await;
            for _ in 0..6 {
                assert_eq!(client.get("/").await.status, 200);
            }
            assert_eq!(carts[0].seen.borrow().len(), ejected, "change {number} brings the ejected one back");
            let now: Vec<usize> = carts.iter().map(|cart| cart.connections.get()).collect();
            assert_eq!(now, connections, "change {number} costs connections");
            assert_eq!(client.get("/limited").await.status, 429, "change {number} fills the bucket");
            assert_eq!(client.get("/keyed").await.status, 429, "change {number} fills the key's bucket");
            let mut other = Client::http1(world.tunnel("10.96.0.2:80").await.expect("tunnel")).await;
            let answer = other.get("/").await;
            assert_eq!(answer.status, 503, "change {number} forgets what is under way");
        }
        // Nor does a change of the route to it, or of who may ask.
        for number in 10..=14 {
            change(&world, &(KEPT.to_owned() + &related(number)), number, &mut watchers).await;
            for _ in 0..6 {
                assert_eq!(client.get("/").await.status, 200);
            }
            assert_eq!(carts[0].seen.borrow().len(), ejected, "change {number} brings the ejected one back");
            let now: Vec<usize> = carts.iter().map(|cart| cart.connections.get()).collect();
            assert_eq!(now, connections, "change {number} costs connections");
            assert_eq!(client.get("/limited").await.status, 429, "change {number} fills the bucket");
        }
    });
}

/// A server of bytes at the second port of the carts.
async fn echoes() {
    for cart in CARTS {
        let listener = TcpListener::bind((cart, 9090)).await.expect("listen");
        spawn_local(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                spawn_local(async move {
                    let (mut read, mut write) = stream.split();
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                    let _ = write.shutdown().await;
                });
            }
        });
    }
}

#[test]
fn what_is_under_way_goes_on_through_changes_of_its_own_route_rule_and_policy() {
    const STEPS: u16 = 8;
    run_with(&(KEPT.to_owned() + &unrelated(1)), async |world: World| {
        serve_carts().await;
        serve(OUTSIDE, 8080, false).await;
        echoes().await;
        let mut watchers = watchers(&world).await;
        // A request whose body comes piece by piece and goes back so, one that became a stream of bytes, and bytes alone.
        let mut streaming = world.tunnel("10.96.0.1:80").await.expect("tunnel");
        let head = format!("POST /echo HTTP/1.1\r\nhost: cart.shop\r\ncontent-length: {STEPS}\r\n\r\n");
        streaming.write_all(head.as_bytes()).await.expect("write");
        let mut upgraded = world.tunnel("10.96.0.2:80").await.expect("tunnel");
        let head = b"GET /ws HTTP/1.1\r\nhost: outside\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
        upgraded.write_all(head).await.expect("write");
        let mut bytes = world.tunnel("10.96.0.1:90").await.expect("tunnel");
        let mut read = [Vec::new(), Vec::new(), Vec::new()];
        for (step, letter) in (0..STEPS).zip(b'a'..) {
            let number = 2 + step;
            for (stream, read) in [&mut streaming, &mut upgraded, &mut bytes].into_iter().zip(&mut read) {
                stream.write_all(&[letter]).await.expect("write");
                while !read.ends_with(&[letter]) {
                    assert!(stream.read_buf(read).await.expect("read") > 0, "it ends at step {step}");
                }
            }
            let other = KEPT.replace("ROUND_ROBIN", if step % 2 == 0 { "LEAST_REQUEST" } else { "RANDOM" });
            let other = other.replace("http2MaxRequests: 1", &format!("http2MaxRequests: {number}"));
            change(&world, &(other + &related(number)), number, &mut watchers).await;
        }
        for (stream, read) in [streaming, upgraded, bytes].into_iter().zip(&read) {
            assert!(read.ends_with(b"abcdefgh"), "{}", String::from_utf8_lossy(read));
            drop(stream);
        }
    });
}
