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

/// A DNS server's Service.
fn resolver(kubectl: &Kubectl, namespace: &str, name: &str) -> Result<SocketAddr> {
    let service = kubectl.get(&["-n", namespace, "service", name])?;
    Ok(SocketAddr::new(service["spec"]["clusterIP"].as_str().context("an address")?.parse()?, 53))
}

/// A CoreDNS in the mesh that asks another server for whoever asks it: that has the same address for every name.
const FORWARDER: &str = "
apiVersion: v1
kind: Pod
metadata: {name: everything, namespace: elsewhere, labels: {app: everything}}
spec:
  containers:
  - name: dns
    image: mesh.dev/mesh-traffic:VERSION
    imagePullPolicy: Never
    args: [dns, --listen, '[::]:53', --v4, 192.0.2.1, --v6, '2001:db8::1']
---
apiVersion: v1
kind: Service
metadata: {name: everything, namespace: elsewhere}
spec: {selector: {app: everything}, ports: [{port: 53, protocol: UDP}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: forwarder, namespace: egress}
data:
  Corefile: |
    .:53 {
      forward . UPSTREAM
    }
---
apiVersion: v1
kind: Pod
metadata: {name: forwarder, namespace: egress, labels: {app: forwarder}}
spec:
  nodeName: node-a
  containers:
  - name: coredns
    image: mesh.dev/coredns:1
    imagePullPolicy: Never
    args: [-conf, /etc/coredns/Corefile]
    volumeMounts: [{name: config, mountPath: /etc/coredns}]
  volumes: [{name: config, configMap: {name: forwarder}}]
---
apiVersion: v1
kind: Service
metadata: {name: forwarder, namespace: egress}
spec: {selector: {app: forwarder}, ports: [{port: 53, protocol: UDP}]}
";

/// A DNS server in the mesh answers those outside as well: it is told no more than they are.
fn who_asks_for_others_is_told_nothing(mesh: &Mesh, kubectl: &Kubectl, address: IpAddr) -> Result<()> {
    let (first, second) = FORWARDER.split_once("---\napiVersion: v1\nkind: ConfigMap").context("two parts")?;
    kubectl.apply(&first.replace("VERSION", env!("CARGO_PKG_VERSION")))?;
    let upstream = resolver(kubectl, "elsewhere", "everything")?.ip().to_string();
    kubectl.apply(&format!("apiVersion: v1\nkind: ConfigMap{}", second.replace("UPSTREAM", &upstream)))?;
    for (namespace, pod) in [("elsewhere", "pod/everything"), (NAMESPACE, "pod/forwarder")] {
        kubectl.run(&["-n", namespace, "wait", "--for=condition=Ready", "--timeout=60s", pod])?;
    }
    // The client, and the forwarder.
    mesh.wait_enrolled("node-a", 2)?;
    let forwarder = resolver(kubectl, NAMESPACE, "forwarder")?;
    let real: IpAddr = "192.0.2.1".parse()?;
    // A question from before the Service leads anywhere is lost.
    let outside = || Ok(ask(kubectl, "elsewhere", forwarder).is_ok_and(|told| told == Ok(real)).then_some(()));
    wait_until("the forwarder to ask its upstream for the host", PATIENCE, outside).with_context(|| mesh.logs())?;
    let inside = ask(kubectl, NAMESPACE, forwarder)?;
    ensure!(inside == Ok(address), "in the mesh: {inside:?}");
    Ok(())
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
    let resolver = resolver(&kubectl, "kube-system", "kube-dns")?;
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

    who_asks_for_others_is_told_nothing(&mesh, &kubectl, address)
}
