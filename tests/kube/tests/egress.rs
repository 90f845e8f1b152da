//! Hosts of ServiceEntries by their names, where CoreDNS is the pods' resolver, in and out of the mesh.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use mesh_kube_cluster::apps::{Apps, PATIENCE};
use mesh_kube_cluster::ctl::Ctl;
use mesh_kube_cluster::mesh::{Mesh, install_gateway_api};
use mesh_kube_cluster::{Cluster, Kubectl};
use mesh_lab::wait_until;
use serde_json::Value;

const NAMESPACE: &str = "egress";
const HOST: &str = "rates.example.com";
/// The host has another name, as the clusters' own hosts have; it is not in the mesh.
const ENTRY: &str = "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: rates, namespace: egress}
spec:
  hosts: [rates.example.com]
  resolution: DNS
  ports: [{number: 80, name: http, protocol: HTTP}]
  endpoints: [{address: rates.elsewhere.svc.cluster.local}]
";
/// CoreDNS's word for a name that is not the cluster's: "server failure" (RFC 1035, section 4.1.1).
const FAILURE: u64 = 2;

/// What a pod is told of the host by the cluster's DNS: an address, or the code in place of one.
fn ask(kubectl: &Kubectl, namespace: &str, resolver: SocketAddr) -> Result<Result<IpAddr, u64>> {
    let to = resolver.to_string();
    let exec = ["-n", namespace, "exec", "client", "--", "mesh-traffic", "ask", "--name", HOST, "--to", &to];
    let answer: Value = serde_json::from_str(&kubectl.run(&exec)?)?;
    ensure!(answer["from"] == to, "{answer}");
    match answer["addresses"][0].as_str() {
        Some(address) => Ok(Ok(address.parse()?)),
        None => Ok(Err(answer["code"].as_u64().with_context(|| answer.to_string())?)),
    }
}

#[test]
fn a_host_is_found_by_its_name_and_reached_by_its_waypoint() -> Result<()> {
    let cluster = Cluster::of_tests()?;
    let (kubectl, ctl) = (cluster.kubectl(), Ctl::on(&cluster)?);
    install_gateway_api(&cluster)?;
    let mesh = Mesh::installed(&cluster, &[])?;
    let elsewhere = Apps::new(&kubectl, "elsewhere")?;
    elsewhere.deploy_http("rates", "node-b")?;
    elsewhere.deploy("client", "node-a")?;
    let apps = Apps::new(&kubectl, NAMESPACE)?;
    apps.label("mesh.dev/join=enabled")?;
    apps.deploy("client", "node-a")?;
    mesh.wait_enrolled("node-a", 1)?;
    let of_dns = kubectl.get(&["-n", "kube-system", "service", "kube-dns"])?;
    let resolver = SocketAddr::new(of_dns["spec"]["clusterIP"].as_str().context("an address")?.parse()?, 53);
    let before = ask(&kubectl, NAMESPACE, resolver)?;
    ensure!(before == Err(FAILURE), "it is nobody's yet: {before:?}");

    kubectl.apply(ENTRY)?;
    ctl.ok(&["waypoint", "apply", "-n", NAMESPACE, "--enrol-namespace", "--wait"]).with_context(|| mesh.logs())?;
    let found = || Ok(ask(&kubectl, NAMESPACE, resolver)?.ok());
    let address = wait_until("the host to be the mesh's", PATIENCE, found).with_context(|| mesh.logs())?;
    let answer = apps.get("client", SocketAddr::new(address, 80), "/")?;
    ensure!(answer.contains("x-served-by: rates"), "{answer}");
    let status = || {
        let entry = kubectl.get(&["-n", NAMESPACE, "serviceentry", "rates"])?;
        let given = entry["status"]["addresses"].as_array().cloned().unwrap_or_default();
        Ok(given.iter().any(|it| it["host"] == HOST && it["value"] == address.to_string()).then_some(()))
    };
    wait_until("the ServiceEntry to say the address", PATIENCE, status).with_context(|| mesh.logs())?;
    let clusters = ctl.ok(&["waypoint", "clusters", "waypoint", "-n", NAMESPACE])?;
    ensure!(clusters.contains(HOST), "{clusters}");

    // The cluster's DNS answers those outside the mesh as well: in the mesh it is told no more than they are.
    kubectl.run(&["label", "namespace", "kube-system", "mesh.dev/join=enabled"])?;
    let enrolled = || {
        let pods = ctl.ok(&["workload", "list", "-n", "kube-system"])?;
        Ok(pods.lines().any(|line| line.contains("coredns") && line.contains("enrolled")).then_some(()))
    };
    let joined = wait_until("CoreDNS to be in the mesh", PATIENCE, enrolled);
    let told = joined.and_then(|()| Ok((ask(&kubectl, "elsewhere", resolver)?, ask(&kubectl, NAMESPACE, resolver)?)));
    kubectl.run(&["label", "namespace", "kube-system", "mesh.dev/join-"])?;
    let (outside, inside) = told.with_context(|| mesh.logs())?;
    ensure!(outside == Err(FAILURE), "outside the mesh: {outside:?}");
    ensure!(inside == Ok(address), "in the mesh: {inside:?}");
    Ok(())
}
