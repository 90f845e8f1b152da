//! Gateways: mesh-control runs a waypoint for each, routes act on what is sent by it, and all of it goes with the Gateway.

use anyhow::{Context as _, Result, ensure};
use mesh_kube_cluster::Cluster;
use mesh_kube_cluster::apps::{Apps, PATIENCE};
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
    let class = kubectl.get(&["gatewayclass", "mesh-waypoint"])?;
    ensure!(class["status"]["conditions"][0]["status"] == "True", "{class}");
    kubectl.run(&["-n", NAMESPACE, "delete", "gateway", "waypoint"])?;
    let gone = ["-n", NAMESPACE, "wait", "--for=delete", "--timeout=60s", "deployment/waypoint", "service/waypoint"];
    kubectl.run(&gone).map(drop)
}
