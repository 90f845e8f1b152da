//! What the waypoint says of itself on its socket, after real requests.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use http::{Method, Request};
use http_body_util::BodyExt as _;
use hyper_util::rt::TokioIo;
use mesh_admin::{List, LogFilter, Refusal, WaypointCluster, WaypointRoute, WaypointStatus, path};
use tokio::net::UnixStream;
use tokio::task::spawn_local;

use crate::metrics::value;
use crate::server::{Client, serve_carts};
use crate::world::{CARTS, World, run_with};

async fn ask(world: &World, method: Method, path: &str, body: &str) -> (u16, Vec<u8>) {
    let stream = UnixStream::connect(world.home().join("run/waypoint.sock")).await.expect("the admin socket");
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
    spawn_local(connection);
    let request = Request::builder().method(method).uri(path).header("host", "waypoint");
    let request = request.body(body.to_owned()).expect("valid");
    let answer = sender.send_request(request).await.expect("an answer");
    let status = answer.status().as_u16();
    (status, answer.into_body().collect().await.expect("a whole answer").to_bytes().to_vec())
}

pub(crate) async fn get<T: serde::de::DeserializeOwned>(world: &World, path: &str) -> T {
    let (status, body) = ask(world, Method::GET, path, "").await;
    let text = String::from_utf8_lossy(&body).into_owned();
    assert_eq!(status, 200, "{path}: {text}");
    serde_json::from_slice(&body).unwrap_or_else(|error| panic!("{path}: {error}: {text}"))
}

const RULES: &str = "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: cart, namespace: shop}
spec:
  host: cart
  trafficPolicy:
    connectionPool: {tcp: {maxConnections: 7}, http: {http1MaxPendingRequests: 5}}
    outlierDetection: {consecutive5xxErrors: 3, interval: 1s, baseEjectionTime: 60s, maxEjectionPercent: 100}
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: cart, namespace: shop}
spec:
  hosts: [cart]
  http:
  - match: [{uri: {exact: /direct}}]
    directResponse: {status: 418}
  - route:
    - {destination: {host: cart, subset: v1}, weight: 75}
    - {destination: {host: cart, subset: v2}, weight: 25}
    retries: {attempts: 0}
";

#[test]
fn status_routes_and_clusters_tell_of_the_requests_that_were_sent() {
    run_with(RULES, async |world: World| {
        let backends = serve_carts().await;
        let mut client = Client::http1(world.tunnel("10.96.0.1:80").await.expect("tunnel")).await;
        for _ in 0..100 {
            assert_eq!(client.get("/").await.status, 200);
        }
        for _ in 0..3 {
            assert_eq!(client.get("/direct").await.status, 418);
        }
        let status: WaypointStatus = get(&world, path::WAYPOINT_STATUS).await;
        assert_eq!((&*status.gateway, status.connections, status.draining), ("shop/waypoint", 1, false));
        assert_eq!(status.identity, "spiffe://cluster.local/ns/shop/sa/waypoint");
        assert!(status.certificate_expires_in_seconds.is_some_and(|left| left > 0), "{status:?}");
        assert_eq!(status.threads.len(), 2);
        assert_eq!(status.threads.iter().map(|thread| thread.served).sum::<u64>(), 103, "{status:?}");
        assert_eq!(status.threads.iter().map(|thread| thread.active).sum::<u64>(), 0, "{status:?}");

        let routes: List<WaypointRoute> = get(&world, path::WAYPOINT_ROUTES).await;
        let [direct, split] = &routes.items[..] else { panic!("two rules: {routes:?}") };
        assert_eq!((direct.requests, direct.errors, &*direct.action), (3, 0, "answered with 418"));
        assert_eq!(direct.matches, ["/direct"]);
        assert_eq!((split.requests, split.errors), (100, 0));
        assert_eq!(split.parents, ["cart.shop.svc.cluster.local:*"]);
        for (backend, carts) in split.backends.iter().zip([&backends[..2], &backends[2..]]) {
            let seen = carts.iter().map(|cart| cart.seen.borrow().len()).sum::<usize>() as u64;
            assert_eq!(backend.requests, seen, "what its servers saw: {backend:?}");
            assert_eq!(backend.seen_percent, Some(seen as f64), "of a hundred");
        }
        assert_eq!(split.backends.iter().map(|backend| backend.wanted_percent).collect::<Vec<_>>(), [75.0, 25.0]);
        // Prometheus is told the same.
        for (rule, destination, subset, requests) in [
            ("0", "none", "", direct.requests),
            ("1", "cart.shop.svc.cluster.local", "v1", split.backends[0].requests),
            ("1", "cart.shop.svc.cluster.local", "v2", split.backends[1].requests),
        ] {
            let labels =
                [("route_kind", "VirtualService"), ("route_namespace", "shop"), ("route", "cart"), ("rule", rule)];
            let labels = [&labels[..], &[("destination", destination), ("subset", subset)]].concat();
            assert_eq!(value("mesh_waypoint_route_requests_total", &labels).await, requests as f64, "{labels:?}");
            assert_eq!(value("mesh_waypoint_route_errors_total", &labels).await, 0.0, "{labels:?}");
        }
    });
}

#[test]
fn who_is_ejected_is_told_and_why() {
    run_with(RULES, async |world: World| {
        let backends = serve_carts().await;
        backends[0].status.set(500);
        let mut client = Client::http1(world.tunnel("10.96.0.1:80").await.expect("tunnel")).await;
        while backends[0].seen.borrow().len() < 3 {
            client.get("/").await;
        }
        let clusters: List<WaypointCluster> = get(&world, path::WAYPOINT_CLUSTERS).await;
        let named = |name: &str| {
            let found = clusters.items.iter().find(|cluster| cluster.name == name);
            found.unwrap_or_else(|| panic!("{name}: {clusters:?}"))
        };
        let v1 = named("cart.shop.svc.cluster.local:80 subset v1");
        let at = |address: &str| {
            let found = v1.endpoints.iter().find(|endpoint| endpoint.address.ip().to_string() == address);
            found.unwrap_or_else(|| panic!("{address}: {v1:?}"))
        };
        let (ill, well) = (at(CARTS[0]), at(CARTS[1]));
        assert_eq!((&*ill.health, ill.ejections), ("ejected", 1));
        assert_eq!(ill.workload.as_deref(), Some("shop/cart-1"));
        assert!(ill.ejected_for.as_ref().is_some_and(|why| why.contains("5xx")), "{ill:?}");
        assert!(ill.returns_in_seconds.is_some_and(|left| (50..=60).contains(&left)), "{ill:?}");
        assert_eq!((&*well.health, well.returns_in_seconds), ("healthy", None));
        assert_eq!(v1.ejections, 1);
        assert_eq!((v1.pool.connections.most, v1.pool.pending.most), (Some(7), Some(5)));
        assert!((1..=7).contains(&v1.pool.connections.used), "{v1:?}");
        // What nothing was sent to is told as well.
        let empty = named("empty.shop.svc.cluster.local:80");
        assert!(empty.endpoints.is_empty() && empty.refused.is_none(), "{empty:?}");
        assert!(named("outside.shop.svc.cluster.local:80").endpoints.iter().all(|one| one.health == "unused"));
    });
}

#[test]
fn a_rule_counts_on_over_changes_that_are_none_of_its() {
    run_with(RULES, async |world: World| {
        serve_carts().await;
        let mut client = Client::http1(world.tunnel("10.96.0.1:80").await.expect("tunnel")).await;
        for _ in 0..5 {
            assert_eq!((client.get("/").await.status, client.get("/direct").await.status), (200, 418));
        }
        let before: WaypointStatus = get(&world, path::WAYPOINT_STATUS).await;
        world.configure(&RULES.replace("status: 418", "status: 419"));
        let changed = async {
            loop {
                let status: WaypointStatus = get(&world, path::WAYPOINT_STATUS).await;
                if status.config.generation > before.config.generation {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), changed).await.expect("the change is taken over");
        assert_eq!((client.get("/").await.status, client.get("/direct").await.status), (200, 419));
        let routes: List<WaypointRoute> = get(&world, path::WAYPOINT_ROUTES).await;
        let requests: Vec<u64> = routes.items.iter().map(|route| route.requests).collect();
        assert_eq!(requests, [1, 6], "the first rule is another one now: {routes:?}");
    });
}

#[test]
fn the_log_is_changed_and_what_is_wrong_is_refused_with_a_reason() {
    run_with("", async |world: World| {
        let socket = std::fs::metadata(world.home().join("run/waypoint.sock")).expect("the socket");
        assert_eq!(socket.permissions().mode() & 0o777, 0o600);
        let filter: LogFilter = get(&world, path::LOG).await;
        assert_eq!(filter.filter, "info");
        let (status, _) = ask(&world, Method::PUT, path::LOG, r#"{"filter": "warn,access=info"}"#).await;
        assert_eq!(status, 200);
        assert_eq!(get::<LogFilter>(&world, path::LOG).await.filter, "warn,access=info");
        for (method, path, body, expected) in [
            (Method::PUT, path::LOG, r#"{"filter": "loud"}"#, 400),
            (Method::PUT, path::LOG, "loud", 400),
            (Method::POST, path::WAYPOINT_STATUS, "", 405),
            (Method::GET, path::STATUS, "", 404),
            (Method::GET, "/v1/waypoint/routes?color=red", "", 400),
        ] {
            let (status, body) = ask(&world, method, path, body).await;
            assert_eq!(status, expected, "{path}");
            let refusal: Refusal = serde_json::from_slice(&body).expect("a refusal");
            assert!(!refusal.error.is_empty(), "{path}");
        }
    });
}
