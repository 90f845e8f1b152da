//! Waypoints and gateways are told their configuration by mesh-control, keep the last one while it is away, and have no right to read
//! the cluster but for the Secrets that their own listeners name.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use mesh_kube_cluster::apps::{Apps, PATIENCE};
use mesh_kube_cluster::ctl::Ctl;
use mesh_kube_cluster::mesh::{Mesh, NAMESPACE as MESH, install_gateway_api};
use mesh_kube_cluster::{Cluster, Kubectl};
use mesh_lab::wait_until;
use serde_json::{Value, json};

const NAMESPACE: &str = "told";
const HOST: &str = "shop.example.org";
const GATEWAY: &str = "apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: entry, namespace: told}
spec:
  gatewayClassName: mesh
  listeners:
  - {name: https, port: 443, protocol: HTTPS, hostname: shop.example.org, tls: {certificateRefs: [{name: shop-cert}]}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: entry, namespace: told}
spec:
  parentRefs: [{name: entry}]
  rules:
  - backendRefs: [{name: cart, port: 80}]
";

#[test]
fn proxies_are_told_by_mesh_control_and_may_read_nothing_else() -> Result<()> {
    let cluster = Cluster::of_tests()?;
    let (kubectl, ctl) = (cluster.kubectl(), Ctl::on(&cluster)?);
    install_gateway_api(&cluster)?;
    let mesh = Mesh::installed(&cluster, &[])?;
    let shop = Apps::cart_and_client(&mesh, &kubectl, NAMESPACE)?;
    ctl.ok(&["waypoint", "apply", "-n", NAMESPACE, "--enrol-namespace", "--wait"]).with_context(|| mesh.logs())?;
    let first = certificate(&kubectl)?;
    kubectl.apply(GATEWAY)?;
    let programmed = ["-n", NAMESPACE, "wait", "--for=condition=Programmed", "--timeout=60s", "gateway/entry"];
    kubectl.run(&programmed).with_context(|| mesh.logs())?;

    answers(&shop, 200).with_context(|| mesh.logs())?;
    is_trusted(&kubectl, &first).with_context(|| mesh.logs())?;
    they_may_read_nothing_else(&kubectl)?;
    they_are_among_those_who_are_told(&mesh)?;
    kubectl.apply(&status_rule(418))?;
    answers(&shop, 418).with_context(|| mesh.logs())?;

    scale_control(&kubectl, 0)?;
    kubectl.apply(&status_rule(451))?;
    // A Secret is the gateway's own to read, whether mesh-control is there or not.
    let second = certificate(&kubectl)?;
    is_trusted(&kubectl, &second).context("a new certificate without mesh-control")?;
    let status = || ctl.json(&["waypoint", "status", "waypoint", "-n", NAMESPACE]);
    let control = |status: &Value| status["pods"][0]["config"]["control"].clone();
    wait_until("the waypoint to say that mesh-control is away", PATIENCE, || {
        let control = control(&status()?);
        Ok((control["connected"].is_null() && control["version"].is_string()).then_some(()))
    })?;
    ensure!(shop.get("client", shop.service("cart")?, "/")?.contains(" 418 "), "the last rule is in force");

    scale_control(&kubectl, 1)?;
    answers(&shop, 451).context("what changed meanwhile").with_context(|| mesh.logs())?;
    wait_until("the waypoint to be told again", PATIENCE, || {
        Ok(control(&status()?)["connected"].is_string().then_some(()))
    })?;
    a_pod_that_is_nobodys_gateway_is_told_nothing(&kubectl, &mesh)
}

/// A VirtualService that answers every request itself.
fn status_rule(status: u16) -> String {
    let rule = json!({
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": {"name": "cart", "namespace": NAMESPACE},
        "spec": {"hosts": ["cart"], "http": [{"directResponse": {"status": status}}]},
    });
    rule.to_string()
}

fn answers(shop: &Apps, status: u16) -> Result<()> {
    let service = shop.service("cart")?;
    let expected = format!("HTTP/1.1 {status} ");
    wait_until(&format!("requests to be answered with {status}"), PATIENCE, || {
        Ok(shop.get("client", service, "/")?.starts_with(&expected).then_some(()))
    })
}

/// Makes a certificate for the gateway, in its Secret; itself, by which it is trusted.
fn certificate(kubectl: &Kubectl) -> Result<String> {
    let made = rcgen::generate_simple_self_signed([HOST.to_owned()]).context("a certificate")?;
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": {"name": "shop-cert", "namespace": NAMESPACE},
        "stringData": {"tls.crt": certificate, "tls.key": key},
    });
    kubectl.apply(&secret.to_string())?;
    Ok(certificate)
}

/// Whether the gateway shows that certificate and answers.
fn is_trusted(kubectl: &Kubectl, certificate: &str) -> Result<()> {
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), certificate)?;
    let mut last = String::new();
    wait_until("the gateway to be trusted", PATIENCE, || {
        let gateway = kubectl.get(&["-n", NAMESPACE, "gateway", "entry"])?;
        let Some(address) = gateway["status"]["addresses"][0]["value"].as_str() else { return Ok(None) };
        let place = format!("{HOST}:443:{address}");
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--max-time", "5", "--resolve", &place, "--cacert"]).arg(file.path());
        let output = curl.args(["--include", &format!("https://{HOST}/")]).output().context("starting curl")?;
        last = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        Ok((output.status.success() && last.contains("x-served-by: cart")).then_some(()))
    })
    .with_context(|| last)
}

fn they_may_read_nothing_else(kubectl: &Kubectl) -> Result<()> {
    let may = |account: &str, what: &[&str]| -> Result<bool> {
        let account = format!("--as=system:serviceaccount:{NAMESPACE}:{account}");
        let words = [&["auth", "can-i", "list"], what, &[&account]].concat();
        let output = kubectl.command(&words).output().context("starting kubectl")?;
        Ok(output.status.success())
    };
    for account in ["waypoint", "entry-mesh"] {
        kubectl.run(&["-n", NAMESPACE, "get", "serviceaccount", account])?;
        for kind in
            ["pods", "services", "secrets", "virtualservices.networking.istio.io", "gateways.gateway.networking.k8s.io"]
        {
            ensure!(
                !may(account, &[kind, "-A"])? && !may(account, &[kind, "-n", NAMESPACE])?,
                "{account} may list {kind}"
            );
        }
    }
    ensure!(may("entry-mesh", &["secrets/shop-cert", "-n", NAMESPACE])?, "its own certificate");
    ensure!(!may("waypoint", &["secrets/shop-cert", "-n", NAMESPACE])?, "a waypoint has no certificates to read");
    let roles = kubectl.run(&["get", "clusterroles,clusterrolebindings", "-o", "name"])?;
    ensure!(!roles.contains("mesh-waypoint"), "{roles}");
    Ok(())
}

fn they_are_among_those_who_are_told(mesh: &Mesh) -> Result<()> {
    wait_until("all to have the newest generation", PATIENCE, || {
        let told = mesh.ctl("node-a", &["status", "--generation"])?;
        let subscribers = told["replicas"][0]["subscribers"].as_array().cloned().unwrap_or_default();
        let is_current = |caller: &str, program: &str| {
            subscribers.iter().any(|it| {
                let says = it["program"].as_str().unwrap_or_default();
                it["caller"] == caller && says.starts_with(program) && it["current"] == true
            })
        };
        let all = is_current("node node-a", "mesh-node")
            && is_current("proxy spiffe://cluster.local/ns/told/sa/waypoint", "mesh-waypoint")
            && is_current("proxy spiffe://cluster.local/ns/told/sa/entry-mesh", "mesh-waypoint");
        Ok(all.then_some(()))
    })
}

/// The label alone makes no gateway: what it would be told is the whole cluster's configuration.
fn a_pod_that_is_nobodys_gateway_is_told_nothing(kubectl: &Kubectl, mesh: &Mesh) -> Result<()> {
    let deployment = kubectl.get(&["-n", NAMESPACE, "deployment", "waypoint"])?;
    let mut spec = deployment["spec"]["template"]["spec"].clone();
    spec["serviceAccountName"] = "client".into();
    spec["containers"][0]["args"] = json!([
        "serve",
        "--name=told/nobody",
        "--identity=told/client",
        "--ca-root=/etc/mesh/ca-root/root-cert.pem",
        "--ca-token=/etc/mesh/token/token",
    ]);
    let given = deployment["spec"]["template"]["spec"]["containers"][0]["args"].as_array().cloned().unwrap_or_default();
    let wanted = ["--ca-address", "--control-address", "--ca-name"];
    let addresses =
        given.into_iter().filter(|it| it.as_str().is_some_and(|it| wanted.iter().any(|flag| it.starts_with(flag))));
    spec["containers"][0]["args"].as_array_mut().into_iter().for_each(|all| all.extend(addresses.clone()));
    let labels = json!({"gateway.networking.k8s.io/gateway-name": "nobody", "mesh.dev/join": "disabled"});
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "nobody", "namespace": NAMESPACE, "labels": labels}, "spec": spec});
    kubectl.apply(&pod.to_string())?;
    wait_until("it to be refused", PATIENCE, || {
        let log = kubectl.run(&["-n", MESH, "logs", "-l", "app.kubernetes.io/name=mesh-control", "--tail=-1"])?;
        Ok(log.contains("configuration refused").then_some(()))
    })
    .with_context(|| mesh.logs())?;
    let ready = kubectl.get(&["-n", NAMESPACE, "pod", "nobody"])?["status"]["containerStatuses"][0]["ready"].clone();
    ensure!(ready == false, "it has a configuration");
    Ok(())
}

fn scale_control(kubectl: &Kubectl, replicas: u8) -> Result<()> {
    kubectl.run(&["-n", MESH, "scale", "deployment/mesh-control", &format!("--replicas={replicas}")])?;
    let pods = ["pod", "-l", "app.kubernetes.io/name=mesh-control"];
    let until: &[&str] = match replicas {
        0 => &["-n", MESH, "wait", "--for=delete", "--timeout=60s"],
        _ => {
            return kubectl
                .run(&["-n", MESH, "rollout", "status", "deployment/mesh-control", "--timeout=60s"])
                .map(drop);
        }
    };
    kubectl.run(&[until, &pods].concat()).map(drop)
}
