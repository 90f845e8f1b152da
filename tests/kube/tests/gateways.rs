//! Gateways: mesh-control runs a proxy for each, routes act on what is sent by it, and all of it goes with the Gateway.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use mesh_kube_cluster::Cluster;
use mesh_kube_cluster::apps::{Apps, PATIENCE};
use mesh_kube_cluster::ctl::Ctl;
use mesh_kube_cluster::mesh::{Mesh, install_gateway_api};
use mesh_lab::wait_until;

const NAMESPACE: &str = "waypoints";
const GATEWAY: &str = "apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: waypoint, namespace: waypoints}
spec: {gatewayClassName: mesh-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
";
const ROUTE: &str = "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: cart, namespace: waypoints}
spec:
  parentRefs: [{group: \"\", kind: Service, name: cart-v1, port: 80}]
  rules:
  - matches: [{path: {value: /new}}]
    backendRefs: [{name: cart-v2, port: 80}]
  - backendRefs: [{name: cart-v1, port: 80}]
";

#[test]
fn a_gateway_is_run_as_a_waypoint_whose_routes_act_and_goes_with_all_of_it() -> Result<()> {
    let cluster = Cluster::of_tests()?;
    let kubectl = cluster.kubectl();
    install_gateway_api(&cluster)?;
    let mesh = Mesh::installed(&cluster, &["control.replicas=2"])?;
    let shop = Apps::new(&kubectl, NAMESPACE)?;
    shop.label("mesh.dev/join=enabled")?;
    shop.deploy_http("cart-v1", "node-b")?;
    shop.deploy_http("cart-v2", "node-a")?;
    shop.deploy("client", "node-a")?;
    mesh.wait_enrolled("node-a", 2)?;
    mesh.wait_enrolled("node-b", 1)?;
    kubectl.apply(GATEWAY)?;
    let programmed = ["-n", NAMESPACE, "wait", "--for=condition=Programmed", "--timeout=60s", "gateway/waypoint"];
    kubectl.run(&programmed).with_context(|| mesh.logs())?;
    shop.label("istio.io/use-waypoint=waypoint")?;
    kubectl.apply(ROUTE)?;
    let service = shop.service("cart-v1")?;
    let served = |path: &str, by: &str| {
        wait_until(&format!("{path} to be answered by {by}"), PATIENCE, || {
            Ok(shop.get("client", service, path)?.contains(&format!("x-served-by: {by}\r\n")).then_some(()))
        })
        .with_context(|| mesh.logs())
    };
    served("/new/1", "cart-v2")?;
    served("/old", "cart-v1")?;
    how_far_it_is_is_told(&cluster).with_context(|| mesh.logs())?;
    let class = kubectl.get(&["gatewayclass", "mesh-waypoint"])?;
    ensure!(class["status"]["conditions"][0]["status"] == "True", "{class}");
    kubectl.run(&["-n", NAMESPACE, "delete", "gateway", "waypoint"])?;
    let gone = ["-n", NAMESPACE, "wait", "--for=delete", "--timeout=60s", "deployment/waypoint", "service/waypoint"];
    kubectl.run(&gone).map(drop)
}

/// By the waypoint's own metrics, and by mesh-control.
fn how_far_it_is_is_told(cluster: &Cluster) -> Result<()> {
    let kubectl = cluster.kubectl();
    let label = "gateway.networking.k8s.io/gateway-name=waypoint";
    let pods = kubectl.get(&["-n", NAMESPACE, "pods", "-l", label])?;
    let pod = pods["items"][0]["metadata"]["name"].as_str().context("the waypoint's pod")?;
    let told = wait_until("what was applied last to be in force everywhere", PATIENCE, || {
        let said = Ctl::on(cluster)?.run(&["status", "--generation", "-o", "json"])?;
        Ok((said.code == 0).then_some(said.out))
    })?;
    let told: serde_json::Value = serde_json::from_str(&told)?;
    let replicas = told["replicas"].as_array().into_iter().flatten();
    let mut of_waypoint = replicas.filter(|replica| {
        let mut subscribers = replica["subscribers"].as_array().into_iter().flatten();
        subscribers.any(|subscriber| subscriber["caller"].as_str().is_some_and(|caller| caller.contains("waypoint")))
    });
    let generation = &of_waypoint.next().with_context(|| format!("nobody tells the waypoint: {told}"))?["generation"];
    let metrics =
        kubectl.run(&["get", "--raw", &format!("/api/v1/namespaces/{NAMESPACE}/pods/{pod}:15020/proxy/metrics")])?;
    for line in ["mesh_config_control_connected 1".to_owned(), format!("mesh_config_control_generation {generation}")] {
        ensure!(metrics.lines().any(|told| told == line), "no {line} in {metrics}");
    }
    Ok(())
}

/// An ingress Gateway at port 8080, whose namespace's ListenerSets add listeners, and such a set with a port of its own.
const WITH_SET: &str = "apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge, namespace: listener-sets}
spec:
  gatewayClassName: mesh
  allowedListeners: {namespaces: {from: Same}}
  listeners: [{name: http, port: 8080, protocol: HTTP}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: ListenerSet
metadata: {name: more, namespace: listener-sets}
spec: {parentRef: {name: edge}, listeners: [{name: http, port: 8081, protocol: HTTP}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: cart, namespace: listener-sets}
spec:
  parentRefs: [{kind: ListenerSet, name: more}]
  rules: [{backendRefs: [{name: cart, port: 80}]}]
";

#[test]
fn a_gateway_opens_a_listener_sets_port_and_says_so_until_it_may_not() -> Result<()> {
    let cluster = Cluster::of_tests()?;
    let kubectl = cluster.kubectl();
    install_gateway_api(&cluster)?;
    let mesh = Mesh::installed(&cluster, &["control.replicas=2"])?;
    let apps = Apps::new(&kubectl, "listener-sets")?;
    apps.deploy_http("cart", "node-b")?;
    apps.deploy("client", "node-a")?;
    kubectl.apply(WITH_SET)?;
    let in_namespace = |words: &[&str]| kubectl.run(&[&["-n", "listener-sets"], words].concat());
    for condition in ["Accepted", "Programmed"] {
        let wait = ["wait", &format!("--for=condition={condition}"), "--timeout=60s", "listenerset/more"];
        in_namespace(&wait).with_context(|| mesh.logs())?;
    }
    let status = |object: &[&str]| {
        Ok::<_, anyhow::Error>(kubectl.get(&[&["-n", "listener-sets"], object].concat())?["status"].clone())
    };
    let set = status(&["listenerset", "more"])?;
    ensure!(set["listeners"][0]["attachedRoutes"] == 1, "{set}");
    ensure!(status(&["gateway", "edge"])?["attachedListenerSets"] == 1);
    let route = status(&["httproute", "cart"])?;
    ensure!(route["parents"][0]["conditions"][0]["reason"] == "Accepted", "{route}");
    let at = SocketAddr::new(apps.service("edge-mesh")?.ip(), 8081);
    wait_until("the set's listener to lead to cart", PATIENCE, || {
        Ok(apps.get("client", at, "/")?.contains("x-served-by: cart\r\n").then_some(()))
    })
    .with_context(|| mesh.logs())?;
    // Uninvited, it is closed, and its port is no port of the Service any more.
    in_namespace(&["patch", "gateway", "edge", "--type=merge", "--patch", r#"{"spec":{"allowedListeners":null}}"#])?;
    let refused = ["wait", "--for=condition=Accepted=False", "--timeout=60s", "listenerset/more"];
    in_namespace(&refused).with_context(|| mesh.logs())?;
    let set = status(&["listenerset", "more"])?;
    ensure!(set["conditions"][0]["reason"] == "NotAllowed", "{set}");
    wait_until("the Service to lose the port", PATIENCE, || {
        let service = kubectl.get(&["-n", "listener-sets", "service", "edge-mesh"])?;
        let ports = service["spec"]["ports"].as_array().context("no ports")?;
        Ok(ports.iter().all(|port| port["port"] != 8081).then_some(()))
    })
    .with_context(|| mesh.logs())
}
