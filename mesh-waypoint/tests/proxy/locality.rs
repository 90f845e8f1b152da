//! Which endpoints requests get by where those are: near ones first, others as these fail.

use std::rc::Rc;
use std::time::Duration;

use mesh_admin::{List, RequestWhy, WaypointCluster, path};

use crate::admin::get;
use crate::server::{Backend, Client, serve_carts};
use crate::world::{CLIENT, STRANGER, World, run_with};

/// The waypoint is near the first cart, less near the second, and far from the third.
const PLACES: &str = "
apiVersion: v1
kind: Node
metadata: {name: node-w, labels: {topology.kubernetes.io/region: eu, topology.kubernetes.io/zone: eu-a}}
---
apiVersion: v1
kind: Node
metadata: {name: node-a, labels: {topology.kubernetes.io/region: eu, topology.kubernetes.io/zone: eu-a}}
---
apiVersion: v1
kind: Node
metadata: {name: node-b, labels: {topology.kubernetes.io/region: eu, topology.kubernetes.io/zone: eu-b}}
---
apiVersion: v1
kind: Node
metadata: {name: node-c, labels: {topology.kubernetes.io/region: us, topology.kubernetes.io/zone: us-a}}
---
apiVersion: v1
kind: Pod
metadata: {name: waypoint-1, namespace: shop, uid: uid-waypoint, labels: {gateway.networking.k8s.io/gateway-name: waypoint}}
spec: {nodeName: node-w, serviceAccountName: waypoint, containers: []}
status: {podIP: 10.1.0.9, phase: Running, conditions: [{type: Ready, status: 'True'}]}
---
apiVersion: v1
kind: Pod
metadata: {name: stranger-1, namespace: shop, uid: uid-stranger, labels: {app: stranger}}
spec: {nodeName: node-c, serviceAccountName: stranger, containers: []}
status: {podIP: 10.1.0.2, phase: Running, conditions: [{type: Ready, status: 'True'}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: cart, namespace: shop}
spec: {hosts: [cart], http: [{route: [{destination: {host: cart}}], retries: {attempts: 0}}]}
---
";

fn rule(setting: &str) -> String {
    format!(
        "{PLACES}
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: cart, namespace: shop}}
spec:
  host: cart
  trafficPolicy:
    outlierDetection: {{consecutive5xxErrors: 2, interval: 1s, baseEjectionTime: 2s, maxEjectionPercent: 100}}
    {setting}
"
    )
}

fn counts(backends: &[Rc<Backend>]) -> Vec<usize> {
    backends.iter().map(|backend| backend.seen.borrow_mut().drain(..).count()).collect()
}

async fn requests(client: &mut Client, count: usize, status: u16) {
    for _ in 0..count {
        assert_eq!(client.get("/").await.status, status);
    }
}

async fn client(world: &World) -> Client {
    Client::http1(world.tunnel("10.96.0.1:80").await.expect("tunnel")).await
}

#[test]
fn the_next_locality_stands_in_as_endpoints_are_ejected_and_the_first_gets_its_requests_back() {
    run_with(&rule("loadBalancer: {localityLbSetting: {enabled: true}}"), async |world: World| {
        let carts = serve_carts().await;
        let mut client = client(&world).await;
        requests(&mut client, 30, 200).await;
        assert_eq!(counts(&carts), [30, 0, 0], "the waypoint's own zone");
        carts[0].status.set(500);
        requests(&mut client, 2, 500).await;
        requests(&mut client, 30, 200).await;
        assert_eq!(counts(&carts), [2, 30, 0], "the other zone of its region");
        carts[1].status.set(500);
        requests(&mut client, 2, 500).await;
        requests(&mut client, 30, 200).await;
        assert_eq!(counts(&carts), [0, 2, 30], "the other region");
        let clusters: List<WaypointCluster> = get(&world, path::WAYPOINT_CLUSTERS).await;
        let cart = clusters.items.iter().find(|it| it.name == "cart.shop.svc.cluster.local:80").expect("the cluster");
        assert_eq!(cart.preferred_by.as_deref(), Some("localityLbSetting.failover"));
        let told: Vec<_> = cart.endpoints.iter().map(|it| (it.locality.as_deref(), it.priority, &*it.health)).collect();
        let expected = [("eu/eu-a", 0, "ejected"), ("eu/eu-b", 1, "ejected"), ("us/us-a", 2, "healthy")];
        assert_eq!(told, expected.map(|(locality, priority, health)| (Some(locality), Some(priority), health)));
        let why: RequestWhy = get(&world, &format!("{}?url=http://cart.shop/", path::REQUEST)).await;
        assert_eq!(why.asked, ["shop/waypoint-1"], "{why:?}");
        let backend = &why.backends[0];
        let seen = backend.preferred.as_ref().map(|it| (&*it.by, &*it.seen_from, it.locality.as_deref()));
        assert_eq!(seen, Some(("localityLbSetting.failover", "shop/waypoint-1", Some("eu/eu-a"))), "{why:?}");
        let ranks: Vec<_> = backend.servers.iter().map(|it| (it.pod.as_deref(), it.priority)).collect();
        let expected = [("shop/cart-1", 0), ("shop/cart-2", 1), ("shop/cart-3", 2)];
        assert_eq!(ranks, expected.map(|(pod, priority)| (Some(pod), Some(priority))));
        let ejected: Vec<_> = backend.ejected.iter().map(|it| (it.pod.as_deref(), &*it.at, &*it.why)).collect();
        let (at, cause) = ("shop/waypoint-1", "too many 5xx in a row");
        assert_eq!(ejected, ["shop/cart-1", "shop/cart-2"].map(|pod| (Some(pod), at, cause)), "{why:?}");
        assert!(backend.ejected.iter().all(|it| (1..=2).contains(&it.returns_in_seconds)), "{why:?}");
        for cart in &carts[..2] {
            cart.status.set(200);
        }
        while carts[0].seen.borrow().is_empty() {
            requests(&mut client, 1, 200).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        counts(&carts);
        requests(&mut client, 30, 200).await;
        assert_eq!(counts(&carts), [30, 0, 0], "the first is back");
    });
}

#[test]
fn a_change_of_the_setting_or_of_nodes_acts_at_once() {
    let off = rule("loadBalancer: {localityLbSetting: {enabled: false}}");
    run_with(&off, async move |world: World| {
        let carts = serve_carts().await;
        let mut client = client(&world).await;
        requests(&mut client, 60, 200).await;
        assert!(counts(&carts).iter().all(|count| *count > 3), "all alike");
        let to_us = "loadBalancer: {localityLbSetting: {failoverPriority: ['topology.kubernetes.io/region=us']}}";
        world.configure(&rule(to_us));
        settle(&mut client, &carts, [0, 0, 1]).await;
        world.configure(&rule(to_us).replace("region: us", "region: eu").replace("zone: eu-b", "zone: us-b").replace(
            "node-b, labels: {topology.kubernetes.io/region: eu",
            "node-b, labels: {topology.kubernetes.io/region: us",
        ));
        settle(&mut client, &carts, [0, 1, 0]).await;
    });
}

/// Waits until only these get requests, however those before are spread.
async fn settle(client: &mut Client, carts: &[Rc<Backend>], only: [usize; 3]) {
    loop {
        counts(carts);
        requests(client, 20, 200).await;
        if counts(carts).iter().zip(only).all(|(count, only)| *count == 20 * only) {
            return;
        }
    }
}

#[test]
fn shares_of_localities_are_kept() {
    let setting = "loadBalancer:
      localityLbSetting:
        distribute: [{from: 'eu/eu-a/*', to: {'eu/*': 25, 'us/us-a': 75}}]";
    run_with(&rule(setting), async |world: World| {
        let carts = serve_carts().await;
        let mut client = client(&world).await;
        requests(&mut client, 1_000, 200).await;
        let seen = counts(&carts);
        // Five standard deviations.
        assert!(seen[2].abs_diff(750) < 70, "{seen:?}");
        assert!(seen[0].abs_diff(125) < 55 && seen[1].abs_diff(125) < 55, "{seen:?}");
    });
}

/// Two more Services with the pods of `cart`.
const NEAR: &str = "
apiVersion: v1
kind: Service
metadata: {name: near, namespace: shop}
spec: {clusterIP: 10.96.0.7, trafficDistribution: PreferClose, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: local, namespace: shop}
spec: {clusterIP: 10.96.0.8, internalTrafficPolicy: Local, ports: [{name: http, port: 80}]}
---
";

fn slice(of: &str) -> String {
    let endpoint = |number: usize| {
        format!("- {{addresses: [10.1.0.1{number}], targetRef: {{kind: Pod, namespace: shop, name: cart-{number}}}}}\n")
    };
    format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {{name: {of}, namespace: shop, labels: {{kubernetes.io/service-name: {of}}}}}\n\
         addressType: IPv4\nports: [{{name: http, port: 8080}}]\nendpoints:\n{}{}{}---\n",
        endpoint(1),
        endpoint(2),
        endpoint(3)
    )
}

#[test]
fn a_services_own_word_on_where_its_clients_are_led_is_kept() {
    let manifests = format!("{NEAR}{}{}{PLACES}", slice("near"), slice("local"));
    run_with(&manifests, async |world: World| {
        let carts = serve_carts().await;
        let mut client = Client::http1(world.tunnel("10.96.0.7:80").await.expect("tunnel")).await;
        requests(&mut client, 20, 200).await;
        assert_eq!(counts(&carts), [20, 0, 0], "the waypoint's zone");
        // The client's own node, not the waypoint's.
        for (pod, account, expected) in [(CLIENT, "client", [20, 0, 0]), (STRANGER, "stranger", [0, 0, 20])] {
            let tunnel = world.tunnel_from(pod, account, "10.96.0.8:80").await.expect("tunnel");
            requests(&mut Client::http1(tunnel).await, 20, 200).await;
            assert_eq!(counts(&carts), expected, "{account}");
        }
    });
}
