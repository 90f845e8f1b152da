//! The mesh on a real cluster: installed by helm, joined by a label, in force, and gone without a trace.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use mesh_kube_cluster::apps::Apps;
use mesh_kube_cluster::mesh::Mesh;
use mesh_kube_cluster::{Cluster, Kubectl};
use mesh_lab::wait_until;

/// How soon what was applied is in force, on a machine that is busy otherwise.
const PATIENCE: Duration = Duration::from_secs(20);

/// Uninstalls when a test ends, however it does.
struct Installed(Mesh);

impl Drop for Installed {
    fn drop(&mut self) {
        let _ = self.0.uninstall();
    }
}

/// Waits until connections from a pod end in `outcome`.
fn ends(apps: &Apps, pod: &str, to: SocketAddr, outcome: &str) -> Result<()> {
    let mut last = String::new();
    wait_until(&format!("{pod} -> {to} to end in {outcome}"), PATIENCE, || {
        last = apps.connect(pod, to)?.outcome;
        Ok((last == outcome).then_some(()))
    })
    .with_context(|| format!("it ended in {last}"))
}

fn policy(kubectl: &Kubectl, kind: &str, spec: &str) -> Result<()> {
    let header = format!("apiVersion: security.istio.io/v1\nkind: {kind}\nmetadata: {{name: test, namespace: shop}}");
    kubectl.apply(&format!("{header}\nspec: {spec}\n")).map(drop)
}

fn identity(account: &str) -> String {
    format!("spiffe://cluster.local/ns/shop/sa/{account}")
}

/// Whether a connection by mTLS from client to server was counted by the server's node.
fn is_counted(metrics: &str) -> bool {
    let labels = [
        "reporter=\"destination\"".to_owned(),
        "connection_security_policy=\"mutual_tls\"".to_owned(),
        format!("source_principal=\"{}\"", identity("client")),
        format!("destination_principal=\"{}\"", identity("server")),
    ];
    let mut opened = metrics.lines().filter(|line| line.starts_with("istio_tcp_connections_opened_total"));
    opened.any(|line| labels.iter().all(|label| line.contains(label)))
}

#[test]
fn one_install_and_one_label_put_the_mesh_in_force_and_an_uninstall_takes_it_away() -> Result<()> {
    let cluster = Cluster::of(0)?;
    let mesh = Mesh::on(&cluster);
    let kubectl = &mesh.kubectl;
    let (shop, outside) = (Apps::new(kubectl, "shop")?, Apps::new(kubectl, "outside")?);
    shop.deploy("server", "node-b")?;
    shop.deploy("client", "node-a")?;
    outside.deploy("stranger", "node-a")?;
    let (pod, service) = (shop.pod("server")?, shop.service("server")?);
    ends(&shop, "client", service, "ok").context("without the mesh")?;

    mesh.install(&[])?;
    let mesh = Installed(mesh);
    joins_by_a_label(&mesh.0, &shop, &outside).with_context(|| mesh.0.logs())?;
    policies_are_in_force(&mesh.0, &shop, &outside).with_context(|| mesh.0.logs())?;

    mesh.0.uninstall()?;
    ends(&shop, "client", service, "ok").context("after the mesh is gone")?;
    ends(&outside, "stranger", pod, "ok").context("after the mesh is gone")?;
    for node in cluster.home().nodes() {
        // The BPF file system has files of its own.
        let left =
            cluster.on_node(node, &["find", "/sys/fs/bpf", "-mindepth", "1", "-not", "-name", "*.debug"])?.output()?;
        ensure!(left.stdout.is_empty(), "{node} has pins left: {}", String::from_utf8_lossy(&left.stdout));
    }
    let kinds = "all,clusterroles,clusterrolebindings,roles,rolebindings,serviceaccounts";
    let left = mesh.0.kubectl.run(&["get", kinds, "-A", "-l", "app.kubernetes.io/part-of=mesh", "-o", "name"])?;
    ensure!(left.is_empty(), "left in the cluster: {left}");
    Ok(())
}

fn joins_by_a_label(mesh: &Mesh, shop: &Apps, outside: &Apps) -> Result<()> {
    shop.label("mesh.dev/join=enabled")?;
    wait_until("both pods to be enrolled", PATIENCE, || {
        let is_in = |node: &str| Ok::<_, anyhow::Error>(mesh.ctl(node, &["status"])?["pods"]["enrolled"] == 1);
        Ok((is_in("node-a")? && is_in("node-b")?).then_some(()))
    })?;
    let client = shop.pod("client")?.ip();
    let answer = shop.connect("client", shop.service("server")?)?;
    let seen = answer.client.map(|seen| seen.ip().to_canonical());
    ensure!(answer.outcome == "ok" && seen == Some(client), "{answer:?}, from {client}");
    wait_until("the connection to be counted", PATIENCE, || Ok(is_counted(&mesh.metrics("node-b")?).then_some(())))?;
    let certificates = mesh.ctl("node-b", &["certificate", "list"])?.to_string();
    ensure!(certificates.contains(&identity("server")), "{certificates}");
    ensure!(!certificates.contains(&identity("client")), "node-b has one of a pod of node-a: {certificates}");
    // Without a policy, plaintext from outside the mesh is served.
    ends(outside, "stranger", shop.pod("server")?, "ok")
}

fn policies_are_in_force(mesh: &Mesh, shop: &Apps, outside: &Apps) -> Result<()> {
    let (kubectl, pod, service) = (&mesh.kubectl, shop.pod("server")?, shop.service("server")?);
    policy(kubectl, "PeerAuthentication", "{mtls: {mode: STRICT}}")?;
    ends(outside, "stranger", pod, "reset").context("plaintext under STRICT")?;
    ends(shop, "client", service, "ok").context("mTLS under STRICT")?;
    let denied = "{action: DENY, rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/client]}}]}]}";
    policy(kubectl, "AuthorizationPolicy", denied)?;
    ends(shop, "client", service, "reset").context("what a policy denies")?;
    kubectl.run(&["-n", "shop", "delete", "authorizationpolicy", "test"])?;
    ends(shop, "client", service, "ok").context("when the policy is gone")?;
    // Kubelet's probes have gone on under STRICT: by now three of them would have failed.
    kubectl.run(&["-n", "shop", "wait", "--for=condition=Ready", "--timeout=5s", "pod/server"]).map(drop)
}

#[test]
fn the_chart_refuses_values_that_mean_nothing() -> Result<()> {
    let mesh = Mesh::on(&Cluster::of(0)?);
    mesh.template(&[])?;
    for value in ["node.sameNode=perhaps", "control.replicas=0", "unheard.of=1"] {
        ensure!(mesh.template(&[value]).is_err(), "{value} was taken");
    }
    Ok(())
}
