//! mesh-ctl makes a waypoint, sends a namespace through it, looks into it, and takes it away.

use anyhow::{Context as _, Result, ensure};
use mesh_kube_cluster::apps::{Apps, PATIENCE};
use mesh_kube_cluster::ctl::Ctl;
use mesh_kube_cluster::mesh::{Mesh, install_gateway_api};
use mesh_kube_cluster::{Cluster, Kubectl};
use mesh_lab::wait_until;

const NAMESPACE: &str = "proxied";

#[test]
fn a_waypoint_is_made_used_looked_into_and_taken_away_by_mesh_ctl() -> Result<()> {
    let cluster = Cluster::of_tests()?;
    let (kubectl, ctl) = (cluster.kubectl(), Ctl::on(&cluster)?);
    install_gateway_api(&cluster)?;
    let mesh = Mesh::installed(&cluster, &[])?;
    let shop = Apps::cart_and_client(&mesh, &kubectl, NAMESPACE)?;

    let generated = ctl.ok(&["waypoint", "generate", "-n", NAMESPACE, "--for", "all"])?;
    ensure!(generated.contains("istio.io/waypoint-for: all"), "{generated}");
    kubectl.apply(&generated).context("what is generated can be applied")?;
    ctl.ok(&["waypoint", "delete", "waypoint", "-n", NAMESPACE])?;

    let apply = ["waypoint", "apply", "-n", NAMESPACE, "--enrol-namespace", "--wait"];
    let said = ctl.ok(&apply).with_context(|| mesh.logs())?;
    ensure!(said.contains("is programmed") && said.contains("istio.io/use-waypoint=waypoint"), "{said}");
    let list = ctl.ok(&["waypoint", "list", "-n", NAMESPACE])?;
    ensure!(list.contains("True") && list.contains("service"), "{list}");
    requests_pass_it(&ctl, &shop).with_context(|| mesh.logs())?;
    it_is_known_as_a_waypoint_and_not_as_istios(&kubectl)?;

    // Another name does not take the namespace away from the first unasked.
    let other = ctl.run(&["waypoint", "apply", "-n", NAMESPACE, "--name", "other", "--enrol-namespace"])?;
    ensure!(other.code == 2 && other.err.contains("--overwrite"), "{other:?}");
    ensure!(ctl.json(&["waypoint", "list", "-n", NAMESPACE])?.as_array().map(Vec::len) == Some(1), "nothing was made");
    let unknown = ctl.run(&["waypoint", "delete", "waypiont", "-n", NAMESPACE])?;
    ensure!(unknown.code == 2 && unknown.err.contains("waypiont"), "{unknown:?}");

    let said = ctl.run(&["waypoint", "delete", "--all", "-n", NAMESPACE])?;
    ensure!(said.code == 0 && said.err.contains("use-waypoint-"), "the label that is left is told of: {said:?}");
    let gone = ["-n", NAMESPACE, "wait", "--for=delete", "--timeout=60s", "deployment/waypoint", "gateway/waypoint"];
    kubectl.run(&gone).map(drop)
}

/// Kiali goes by these labels of pods, of what they are made of, and of Services; istiod by the second one's value.
fn it_is_known_as_a_waypoint_and_not_as_istios(kubectl: &Kubectl) -> Result<()> {
    let of_gateway = "gateway.networking.k8s.io/gateway-name=waypoint";
    let objects = kubectl.get(&["-n", NAMESPACE, "deployments,pods,services", "-l", of_gateway])?;
    let objects = objects["items"].as_array().context("a list")?;
    ensure!(objects.len() == 3, "a Deployment, a Pod and a Service: {objects:?}");
    for object in objects {
        let made = object.pointer("/spec/template/metadata/labels");
        for labels in made.into_iter().chain(object.pointer("/metadata/labels")) {
            let name = labels["gateway.networking.k8s.io/gateway-name"].as_str().unwrap_or_default();
            ensure!(name.to_lowercase().contains("waypoint"), "{object}");
            ensure!(labels["gateway.istio.io/managed"] == "mesh.dev-gateway-controller", "{object}");
        }
    }
    Ok(())
}

fn requests_pass_it(ctl: &Ctl, shop: &Apps) -> Result<()> {
    let service = shop.service("cart")?;
    let counted = || -> Result<bool> {
        ensure!(shop.get("client", service, "/")?.contains("x-served-by: cart"), "no answer");
        let clusters = ctl.ok(&["waypoint", "clusters", "waypoint", "-n", NAMESPACE])?;
        ensure!(clusters.starts_with("POD") && clusters.contains("cart.proxied.svc.cluster.local"), "{clusters}");
        let status = ctl.json(&["waypoint", "status", "waypoint", "-n", NAMESPACE])?;
        let pod = &status["pods"][0];
        ensure!(status["gateways"][0]["programmed"] == true && pod["gateway"] == "proxied/waypoint", "{status}");
        let served = pod["threads"].as_array().into_iter().flatten().filter_map(|thread| thread["served"].as_u64());
        Ok(served.sum::<u64>() > 0)
    };
    wait_until("requests to pass the waypoint", PATIENCE, || Ok(counted()?.then_some(())))?;
    let route = ctl.json(&["route", "--from", &format!("{NAMESPACE}/client"), &format!("http://cart.{NAMESPACE}/")])?;
    ensure!(route["waypoint"] == format!("{NAMESPACE}/waypoint") && route["served"] == true, "{route}");
    let server = &route["backends"][0]["servers"][0];
    ensure!(server["pod"] == format!("{NAMESPACE}/cart") && server["by"] == "mtls", "{route}");
    let status = ctl.ok(&["waypoint", "status", "-n", NAMESPACE])?;
    ensure!(status.contains("spiffe://cluster.local/ns/proxied/sa/waypoint"), "{status}");
    let log = ctl.ok(&["waypoint", "log", "debug", "--name", "waypoint", "-n", NAMESPACE])?;
    ensure!(log.starts_with("POD") && log.contains("debug"), "{log}");
    ctl.ok(&["waypoint", "routes", "waypoint", "-n", NAMESPACE]).map(drop)
}
