//! The mesh on a real cluster: installed by helm, joined by a label, in force, and gone without a trace.

use anyhow::{Context as _, Result, ensure};
use mesh_kube_cluster::Cluster;
use mesh_kube_cluster::apps::{Apps, PATIENCE};
use mesh_kube_cluster::mesh::Mesh;
use mesh_lab::wait_until;

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
    let cluster = Cluster::of_tests()?;
    let kubectl = &cluster.kubectl();
    let (shop, outside) = (Apps::new(kubectl, "shop")?, Apps::new(kubectl, "outside")?);
    shop.deploy("server", "node-b")?;
    shop.deploy("client", "node-a")?;
    outside.deploy("stranger", "node-a")?;
    let (pod, service) = (shop.pod("server")?, shop.service("server")?);
    shop.ends("client", service, "ok").context("without the mesh")?;

    let mesh = Mesh::installed(&cluster, &[])?;
    joins_by_a_label(&mesh, &shop, &outside).with_context(|| mesh.logs())?;
    events_tell_of_it(&cluster, &mesh).with_context(|| mesh.logs())?;
    policies_are_in_force(&mesh, &shop, &outside).with_context(|| mesh.logs())?;

    mesh.uninstall()?;
    shop.ends("client", service, "ok").context("after the mesh is gone")?;
    outside.ends("stranger", pod, "ok").context("after the mesh is gone")?;
    for node in cluster.home().nodes() {
        // The BPF file system has files of its own.
        let left =
            cluster.on_node(node, &["find", "/sys/fs/bpf", "-mindepth", "1", "-not", "-name", "*.debug"])?.output()?;
        ensure!(left.stdout.is_empty(), "{node} has pins left: {}", String::from_utf8_lossy(&left.stdout));
    }
    let kinds = "all,clusterroles,clusterrolebindings,roles,rolebindings,serviceaccounts";
    let left = mesh.kubectl.run(&["get", kinds, "-A", "-l", "app.kubernetes.io/part-of=mesh", "-o", "name"])?;
    ensure!(left.is_empty(), "left in the cluster: {left}");
    Ok(())
}

fn joins_by_a_label(mesh: &Mesh, shop: &Apps, outside: &Apps) -> Result<()> {
    shop.label("mesh.dev/join=enabled")?;
    mesh.wait_enrolled("node-a", 1)?;
    mesh.wait_enrolled("node-b", 1)?;
    let client = shop.pod("client")?.ip();
    let answer = shop.connect("client", shop.service("server")?)?;
    let seen = answer.client.map(|seen| seen.ip().to_canonical());
    ensure!(answer.outcome == "ok" && seen == Some(client), "{answer:?}, from {client}");
    wait_until("the connection to be counted", PATIENCE, || Ok(is_counted(&mesh.metrics("node-b")?).then_some(())))?;
    let certificates = mesh.ctl("node-b", &["certificate", "list"])?.to_string();
    ensure!(certificates.contains(&identity("server")), "{certificates}");
    ensure!(!certificates.contains(&identity("client")), "node-b has one of a pod of node-a: {certificates}");
    // Without a policy, plaintext from outside the mesh is served.
    outside.ends("stranger", shop.pod("server")?, "ok")
}

/// Where a person looks first: that a pod joined, and that what holds it in the mesh had vanished.
fn events_tell_of_it(cluster: &Cluster, mesh: &Mesh) -> Result<()> {
    let described = |what: &[&str], reason: &str| {
        let words = [&["describe"], what].concat();
        wait_until(&format!("{reason} in `kubectl {}`", words.join(" ")), PATIENCE, || {
            Ok(mesh.kubectl.run(&words)?.contains(reason).then_some(()))
        })
    };
    described(&["-n", "shop", "pod", "server"], "MeshJoined")?;
    let removed =
        cluster.on_node("node-b", &["find", "/sys/fs/bpf", "-name", "connect4@*", "-print", "-delete"])?.output()?;
    ensure!(!removed.stdout.is_empty(), "no pin to remove: {}", String::from_utf8_lossy(&removed.stderr));
    described(&["node", "node-b"], "MeshRepaired")
}

fn policies_are_in_force(mesh: &Mesh, shop: &Apps, outside: &Apps) -> Result<()> {
    let (kubectl, pod, service) = (&mesh.kubectl, shop.pod("server")?, shop.service("server")?);
    shop.policy("PeerAuthentication", "{mtls: {mode: STRICT}}")?;
    outside.ends("stranger", pod, "reset").context("plaintext under STRICT")?;
    shop.ends("client", service, "ok").context("mTLS under STRICT")?;
    let denied = "{action: DENY, rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/client]}}]}]}";
    shop.policy("AuthorizationPolicy", denied)?;
    shop.ends("client", service, "reset").context("what a policy denies")?;
    kubectl.run(&["-n", "shop", "delete", "authorizationpolicy", "test"])?;
    shop.ends("client", service, "ok").context("when the policy is gone")?;
    // Kubelet's probes have gone on under STRICT: by now three of them would have failed.
    kubectl.run(&["-n", "shop", "wait", "--for=condition=Ready", "--timeout=5s", "pod/server"]).map(drop)
}

#[test]
fn the_chart_refuses_values_that_mean_nothing() -> Result<()> {
    let mesh = Mesh::on(&Cluster::of_tests()?);
    mesh.template(&[])?;
    for value in ["node.sameNode=perhaps", "control.replicas=0", "unheard.of=1", "dashboard.hosts={a b}"] {
        ensure!(mesh.template(&[value]).is_err(), "{value} was taken");
    }
    Ok(())
}
