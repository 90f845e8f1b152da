//! An endpoint's node that goes without a word.

use std::rc::Rc;

use http::Request;
use http_body_util::Full;
use mesh_admin::{ClusterEndpoint, List, WaypointCluster, path};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::spawn_local;

use crate::admin::get;
use crate::metrics::value;
use crate::server::{Answer, Backend, Client, serve};
use crate::world::{CARTS, OUTSIDE, STRANGER, World, ip, run, run_by_hbone_with, run_with};

/// One endpoint.
const POD: &str = "10.1.0.11:9595";
const SERVICE: &str = "10.96.0.1:80";
/// Clients of one user, at once.
const CLIENTS: usize = 6;
/// How many endpoints were passed by.
const PASSED_BY: &str = "mesh_waypoint_endpoints_passed_by_total";

/// Each user has an endpoint, nothing is tried again, and a connection may take for ever.
fn rules(host: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {host}, namespace: shop}}\n\
         spec: {{hosts: [{host}], http: [{{retries: {{attempts: 0}}, route: [{{destination: {{host: {host}}}}}]}}]}}\n\
         ---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: {host}, namespace: shop}}\n\
         spec: {{host: {host}, trafficPolicy: {{loadBalancer: {{consistentHash: {{httpHeaderName: x-user}}}}, \
         connectionPool: {{tcp: {{connectTimeout: 600s}}}}}}}}\n"
    )
}

/// A Service with two endpoints outside of the mesh.
const PLAIN: &str = "
apiVersion: v1
kind: Service
metadata: {name: plain, namespace: shop}
spec: {clusterIP: 10.96.0.7, ports: [{name: http, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: plain, namespace: shop, labels: {kubernetes.io/service-name: plain}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints: [{addresses: [10.1.0.21]}, {addresses: [10.1.0.2]}]
";

/// From here on nothing comes to that address, by connections that are there either, and nothing says so.
fn vanish(address: &str) {
    ip(&["address", "del", &format!("{address}/32"), "dev", "lo"]);
    ip(&["route", "add", &format!("{address}/32"), "dev", "lo"]);
}

fn come_back(address: &str) {
    ip(&["route", "del", &format!("{address}/32"), "dev", "lo"]);
    ip(&["address", "add", &format!("{address}/32"), "dev", "lo"]);
}

fn request(method: &str, user: usize) -> Request<Full<bytes::Bytes>> {
    let request = Request::builder().method(method).uri("/").header("host", "cart.shop");
    request.header("x-user", user).body(Full::default()).expect("valid")
}

/// A user whose endpoint it is.
async fn user_of(client: &mut Client, endpoint: &str) -> usize {
    for user in 0.. {
        if client.ask(request("GET", user)).await.body == endpoint {
            return user;
        }
    }
    unreachable!("there are more users than that")
}

async fn servers(addresses: &[&'static str], http2: bool) -> Vec<Rc<Backend>> {
    let mut servers = Vec::new();
    for address in addresses {
        servers.push(serve(address, 8080, http2).await);
    }
    servers
}

async fn clients(world: &World, http2: bool, service: &str) -> Vec<Client> {
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(Client::of(http2, world.tunnel(service).await.expect("tunnel")).await);
    }
    clients
}

/// One request of each, at once.
async fn all(clients: &mut [Client], method: &str, user: usize) -> Vec<Answer> {
    futures_util::future::join_all(clients.iter_mut().map(|client| client.ask(request(method, user)))).await
}

/// An endpoint, as the waypoint tells of it.
async fn told(world: &World, cluster: &str, address: &str) -> ClusterEndpoint {
    let clusters: List<WaypointCluster> = get(world, path::WAYPOINT_CLUSTERS).await;
    let cluster = clusters.items.into_iter().find(|it| it.name == cluster).expect("the cluster");
    let mut endpoints = cluster.endpoints.into_iter();
    endpoints.find(|endpoint| endpoint.address.ip().to_string() == address).expect("the endpoint")
}

/// What TCP by itself would find after a quarter of an hour.
#[test]
fn a_request_to_a_node_that_has_vanished_ends() {
    run(async |world| {
        let backend = serve(CARTS[0], 9595, false).await;
        let mut client = Client::http1(world.tunnel(POD).await.expect("tunnel")).await;
        assert_eq!(client.get("/").await.status, 200);
        vanish(CARTS[0]);
        assert_eq!(client.get("/").await.status, 503);
        assert_eq!(backend.seen.borrow().len(), 1);
    });
}

/// Requests on connections that are kept to a node that has vanished are answered by others, and so is what is dialled.
async fn go_elsewhere(world: World, http2: bool) {
    let _servers = servers(&CARTS, http2).await;
    let mut clients = clients(&world, http2, SERVICE).await;
    let user = user_of(&mut clients[0], CARTS[0]).await;
    assert!(all(&mut clients, "GET", user).await.iter().all(|answer| answer.body == CARTS[0]));
    vanish(CARTS[0]);
    for _ in 0..3 {
        for answer in all(&mut clients, "GET", user).await {
            assert!(answer.status == 200 && answer.body != CARTS[0], "{answer:?}");
        }
    }
    assert!(value(PASSED_BY, &[]).await >= 1.0);
    // As long as it is away it is told of, but for the moments before somebody tries it again.
    let told = loop {
        let told = told(&world, "cart.shop.svc.cluster.local:80", CARTS[0]).await;
        if told.returns_in_seconds.is_some() {
            break told;
        }
        assert_eq!(clients[0].ask(request("GET", user)).await.status, 200);
    };
    assert_eq!((&*told.health, told.ejected_for.as_deref()), ("passed by", Some("it does not answer at all")));
    come_back(CARTS[0]);
    while clients[0].ask(request("GET", user)).await.body != CARTS[0] {}
    let told = self::told(&world, "cart.shop.svc.cluster.local:80", CARTS[0]).await;
    assert_eq!((&*told.health, told.returns_in_seconds), ("healthy", None));
}

#[test]
fn requests_of_http1_go_elsewhere_from_a_node_that_has_vanished() {
    run_with(&rules("cart"), async |world| go_elsewhere(world, false).await);
}

#[test]
fn requests_of_http2_go_elsewhere_from_a_node_that_has_vanished() {
    run_with(&rules("cart"), async |world| go_elsewhere(world, true).await);
}

#[test]
fn requests_by_hbone_go_elsewhere_from_a_node_that_has_vanished() {
    for http2 in [false, true] {
        run_by_hbone_with(&rules("cart"), async move |world| go_elsewhere(world, http2).await);
    }
}

#[test]
fn what_may_do_harm_twice_is_not_sent_again() {
    run_with(&rules("cart"), async |world| {
        let _servers = servers(&CARTS, false).await;
        let mut client = Client::http1(world.tunnel(SERVICE).await.expect("tunnel")).await;
        let user = user_of(&mut client, CARTS[0]).await;
        vanish(CARTS[0]);
        let answer = client.ask(request("POST", user)).await;
        assert_eq!((answer.status, value(PASSED_BY, &[]).await), (503, 1.0), "{answer:?}");
        let answer = client.ask(request("POST", user)).await;
        assert!(answer.status == 200 && answer.body != CARTS[0], "{answer:?}");
    });
}

#[test]
fn a_dial_without_an_answer_goes_to_another_endpoint() {
    run_with(&(rules("cart") + &rules("plain") + "---" + PLAIN), async |world| {
        let _servers = servers(&[CARTS[0], CARTS[1], CARTS[2], OUTSIDE, STRANGER], false).await;
        // No request was with it yet.
        for (service, address) in [(SERVICE, CARTS[0]), ("10.96.0.7:80", OUTSIDE)] {
            vanish(address);
            let before = value(PASSED_BY, &[]).await;
            let mut client = Client::http1(world.tunnel(service).await.expect("tunnel")).await;
            let mut user = 0;
            while value(PASSED_BY, &[]).await == before {
                // Nothing is sent twice for that, whatever it is.
                let answer = client.ask(request("POST", user)).await;
                assert!(answer.status == 200 && answer.body != address, "{answer:?}");
                user += 1;
            }
        }
        assert_eq!(told(&world, "plain.shop.svc.cluster.local:80", OUTSIDE).await.health, "passed by");
    });
}

#[test]
fn a_connection_goes_to_another_endpoint_where_one_does_not_answer() {
    let rule = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: cart, namespace: shop}\n\
                spec: {host: cart, trafficPolicy: {loadBalancer: {consistentHash: {useSourceIp: true}}, \
                connectionPool: {tcp: {connectTimeout: 600s}}}}\n";
    run_with(rule, async |world| {
        for cart in CARTS {
            let listener = TcpListener::bind((cart, 9090)).await.expect("listen");
            spawn_local(async move {
                while let Ok((mut stream, _)) = listener.accept().await {
                    stream.write_all(cart.as_bytes()).await.expect("write");
                }
            });
        }
        let connect = async || {
            let mut stream = world.tunnel("10.96.0.1:90").await.expect("tunnel");
            stream.write_all(b"\x16\x03\x01").await.expect("write");
            let mut said = vec![0; CARTS[0].len()];
            stream.read_exact(&mut said).await.expect("whose it is");
            String::from_utf8(said).expect("an address")
        };
        let first = connect().await;
        vanish(&first);
        for _ in 0..3 {
            assert_ne!(connect().await, first);
        }
        assert!(value(PASSED_BY, &[]).await >= 1.0);
    });
}
