//! A namespace joins by mesh-ctl, which says before what that means; and what the mesh makes of a pod and a service is told.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Child, Stdio};

use anyhow::{Context as _, Result, ensure};
use mesh_kube_cluster::Cluster;
use mesh_kube_cluster::apps::{Apps, PATIENCE};
use mesh_kube_cluster::ctl::Ctl;
use mesh_kube_cluster::mesh::Mesh;
use mesh_lab::wait_until;
use serde_json::Value;

const NAMESPACE: &str = "joins";

#[test]
fn a_namespace_joins_after_what_it_means_is_told_and_its_pods_are_described() -> Result<()> {
    let cluster = Cluster::of_tests()?;
    let (kubectl, ctl) = (cluster.kubectl(), Ctl::on(&cluster)?);
    let mesh = Mesh::installed(&cluster, &[])?;
    let (shop, outside) = (Apps::new(&kubectl, NAMESPACE)?, Apps::new(&kubectl, "joins-not")?);
    shop.deploy_http("server", "node-b")?;
    outside.deploy("stranger", "node-a")?;

    let report = ctl.json(&["join", NAMESPACE, "--dry-run"])?;
    ensure!(report["joining"][0] == "server" && report["joined"] == false, "{report}");
    let pod = ctl.ok(&["describe", "pod", "server", "-n", NAMESPACE])?;
    ensure!(pod.contains("outside: ") && pod.contains("no label of the pod or its namespace"), "{pod}");
    strict_holds_it_back(&ctl, &shop, &cluster).with_context(|| mesh.logs())?;
    ctl.ok(&["join", NAMESPACE])?;
    mesh.wait_enrolled("node-b", 1)?;

    described(&ctl).with_context(|| mesh.logs())?;
    plaintext_is_told(&ctl, &shop, &cluster).with_context(|| mesh.logs())?;
    it_is_a_plugin_of_kubectl(&ctl, &cluster)
}

fn described(ctl: &Ctl) -> Result<()> {
    let policy = |kind: &str, spec: &str| {
        format!(
            "apiVersion: security.istio.io/v1\nkind: {kind}\nmetadata: {{name: told, namespace: {NAMESPACE}}}\nspec: {spec}\n"
        )
    };
    let kubectl = Cluster::of_tests()?.kubectl();
    kubectl.apply(&policy("PeerAuthentication", "{mtls: {mode: STRICT}}"))?;
    kubectl
        .apply(&policy("AuthorizationPolicy", "{selector: {matchLabels: {app: server}}, action: DENY, rules: [{}]}"))?;
    let pod = ctl.ok(&["describe", "pod", "server.joins"])?;
    for part in [
        "enrolled by the label mesh.dev/join=enabled of namespace joins",
        "spiffe://cluster.local/ns/joins/sa/server",
        "STRICT by PeerAuthentication joins/told (namespace)",
        "AuthorizationPolicy joins/told: DENY (of the workload by",
        "server.joins.svc.cluster.local:80",
    ] {
        ensure!(pod.contains(part), "{part} in\n{pod}");
    }
    let service = ctl.json(&["describe", "service", "server", "-n", NAMESPACE])?;
    ensure!(service["enrolled"][0] == "joins/server" && service["modes"][0]["mode"] == "STRICT", "{service}");
    ensure!(service["policies"].as_array().map(Vec::len) == Some(2), "{service}");
    let unknown = ctl.run(&["describe", "pod", "nobody", "-n", NAMESPACE])?;
    ensure!(unknown.code == 2 && unknown.err.contains("joins/nobody"), "{unknown:?}");
    for kind in ["peerauthentication", "authorizationpolicy"] {
        kubectl.run(&["-n", NAMESPACE, "delete", kind, "told"])?;
    }
    Ok(())
}

/// A connection from outside the mesh that stays open: mesh-ctl names it before STRICT would cut it.
fn plaintext_is_told(ctl: &Ctl, shop: &Apps, cluster: &Cluster) -> Result<()> {
    let _held = Held::by_stranger(shop, cluster)?;
    let peer = told_of_stranger(ctl)?;
    ensure!(peer["refused"] == false, "PERMISSIVE takes it: {peer}");
    Ok(())
}

/// Nobody carries what two pods outside the mesh say to each other. Still mesh-ctl knows of it, and does not join a pod that would refuse
/// it from then on.
fn strict_holds_it_back(ctl: &Ctl, shop: &Apps, cluster: &Cluster) -> Result<()> {
    let held = Held::by_stranger(shop, cluster)?;
    let peer = told_of_stranger(ctl)?;
    ensure!(peer["refused"] == false && peer["connections"] == 1, "PERMISSIVE would take it: {peer}");
    shop.policy("PeerAuthentication", "{mtls: {mode: STRICT}}")?;
    let refused = ctl.run(&["join", NAMESPACE])?;
    ensure!(refused.code == 1 && refused.err.contains("not joined"), "{refused:?}");
    ensure!(
        refused.out.contains("joins-not/stranger") && refused.out.contains("refused once it has joined"),
        "{refused:?}"
    );
    let namespace = cluster.kubectl().get(&["namespace", NAMESPACE])?;
    ensure!(namespace["metadata"]["labels"]["mesh.dev/join"].is_null(), "{namespace}");
    drop(held);
    wait_until("the peer to be gone", PATIENCE, || {
        let report = ctl.json(&["join", NAMESPACE, "--dry-run"])?;
        ensure!(report["strict"][0].as_str().is_some_and(|pod| pod.starts_with("server by ")), "{report}");
        Ok(report["plaintext"].as_array().is_some_and(Vec::is_empty).then_some(()))
    })?;
    cluster.kubectl().run(&["-n", NAMESPACE, "delete", "peerauthentication", "test"]).map(drop)
}

/// What is said of the stranger's connection, once it is.
fn told_of_stranger(ctl: &Ctl) -> Result<Value> {
    wait_until("the peer in plaintext to be told of", PATIENCE, || {
        let report = ctl.json(&["join", NAMESPACE, "--dry-run"])?;
        let peers = report["plaintext"].as_array().cloned().unwrap_or_default();
        Ok(peers.into_iter().find(|peer| peer["from"] == "joins-not/stranger"))
    })
}

/// A connection of the stranger's to the server, which is open for as long as the input of who holds it; it ends with this.
struct Held(Child);

impl Held {
    fn by_stranger(shop: &Apps, cluster: &Cluster) -> Result<Self> {
        let server = shop.pod("server")?.to_string();
        let words = ["-n", "joins-not", "exec", "-i", "stranger", "--", "mesh-traffic", "hold", "--to", &server];
        let mut command = cluster.kubectl().command(&words);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().context("starting kubectl").map(Self)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn it_is_a_plugin_of_kubectl(ctl: &Ctl, cluster: &Cluster) -> Result<()> {
    let place = tempfile::tempdir()?;
    fs::create_dir(place.path().join("bin"))?;
    symlink(mesh_lab::binary("mesh-ctl")?, place.path().join("bin/kubectl-mesh"))?;
    let path =
        ctl.command(&[]).get_envs().find_map(|(name, value)| value.filter(|_| name == "PATH")).map(ToOwned::to_owned);
    let path = format!("{}:{}", place.path().join("bin").display(), path.context("a PATH")?.to_string_lossy());
    let run = |words: &[&str]| cluster.kubectl().command(words).env("PATH", &path).output().context("starting kubectl");
    let status = run(&["mesh", "status"])?;
    let text = String::from_utf8_lossy(&status.stdout);
    ensure!(status.status.success() && text.contains("node-a") && text.contains("node-b"), "{status:?}");
    let help = String::from_utf8_lossy(&run(&["mesh", "--help"])?.stdout).into_owned();
    ensure!(help.contains("Usage: kubectl mesh"), "{help}");
    Ok(())
}
