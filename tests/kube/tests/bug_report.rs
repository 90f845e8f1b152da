//! A bug report has what somebody needs who was not there, and no secret of anybody's.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use mesh_kube_cluster::apps::{Apps, PATIENCE};
use mesh_kube_cluster::ctl::Ctl;
use mesh_kube_cluster::mesh::{Mesh, NAMESPACE, install_gateway_api};
use mesh_kube_cluster::{Cluster, Kubectl};
use mesh_lab::wait_until;
use serde_json::{Value, json};

const SHOP: &str = "reported";
/// What is put where people put secrets; none of it may be in the archive.
const PASSWORD: &str = "hunter2-of-the-shop";
const BEARER: &str = "0123456789abcdef-of-the-shop";
const TOKEN: &str = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJyZXBvcnRlZCJ9.c2lnbmF0dXJlLW9mLW5vYm9keQ";

#[test]
fn a_bug_report_is_whole_bounded_and_without_secrets() -> Result<()> {
    let cluster = Cluster::of_tests()?;
    let (kubectl, ctl) = (cluster.kubectl(), Ctl::on(&cluster)?);
    install_gateway_api(&cluster)?;
    let mesh = Mesh::installed(&cluster, &[])?;
    let shop = Apps::cart_and_client(&mesh, &kubectl, SHOP)?;
    ctl.ok(&["waypoint", "apply", "-n", SHOP, "--enrol-namespace", "--wait"]).with_context(|| mesh.logs())?;
    plant(&kubectl)?;
    let service = shop.service("cart")?;
    // The waypoint logs the path, and with it the token.
    let logged = || kubectl.run(&["-n", SHOP, "logs", "deployment/waypoint"]);
    wait_until("the waypoint to log a request", PATIENCE, || {
        shop.get("client", service, &format!("/cart?access_token={TOKEN}"))?;
        Ok(logged()?.contains("/cart").then_some(()))
    })?;

    let place = tempfile::tempdir()?;
    let file = place.path().join("report.tar.gz").display().to_string();
    let said = ctl.run(&["bug-report", "--file", &file, "--flows", "1"])?;
    ensure!(said.code == 0 && said.err.is_empty(), "{said:?}");
    ensure!(fs::metadata(&file)?.len() < 8 << 20, "it is larger than a person would send");
    let files = unpack(&file, place.path())?;
    is_whole(&files, &kubectl)?;
    has_no_secret(&files, &kubectl)?;

    let again = ctl.run(&["bug-report", "--file", &file])?;
    ensure!(again.code == 2 && again.err.contains("--file"), "a report is not written over: {again:?}");
    let small = place.path().join("small.tar.gz").display().to_string();
    let said = ctl.run(&["bug-report", "--file", &small, "--size", "1", "--flows", "0", "--timeout", "1"])?;
    ensure!(said.code <= 1, "{said:?}");
    let about = unpack(&small, place.path())?.into_iter().find(|(name, _)| name.ends_with("about.json"));
    let about: Value = serde_json::from_str(&about.context("about.json")?.1)?;
    let named = about["notInIt"].as_array().map_or(0, Vec::len);
    ensure!((said.code == 1) == (named > 0), "what is not in it is named, {named}: {said:?}");
    Ok(())
}

/// Secrets in the places where people have them in spite of better advice.
fn plant(kubectl: &Kubectl) -> Result<()> {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "careless", "namespace": SHOP, "annotations": {"note": PASSWORD}},
        "spec": {"nodeSelector": {"no": "node"}, "containers": [{
            "name": "x", "image": "mesh.dev/pause:1", "env": [{"name": "DB_PASSWORD", "value": PASSWORD}], "args": ["--password", PASSWORD],
        }]},
    });
    kubectl.apply(&pod.to_string())?;
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "careless", "namespace": SHOP}, "stringData": {"password": PASSWORD},
    });
    kubectl.apply(&secret.to_string())?;
    let rule = json!({
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": {"name": "careless", "namespace": SHOP},
        "spec": {"hosts": ["cart"], "http": [{
            "headers": {"request": {"set": {"authorization": format!("Bearer {BEARER}"), "x-kept": "kept"}}},
            "route": [{"destination": {"host": "cart"}}],
        }]},
    });
    kubectl.apply(&rule.to_string()).map(drop)
}

/// The files of an archive by their names.
fn unpack(archive: &str, place: &Path) -> Result<Vec<(String, String)>> {
    let into = tempfile::Builder::new().tempdir_in(place)?;
    let output = Command::new("tar").args(["-xzf", archive, "-C"]).arg(into.path()).output().context("starting tar")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut files = Vec::new();
    let mut folders: Vec<PathBuf> = vec![into.path().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.push((path.strip_prefix(into.path())?.display().to_string(), fs::read_to_string(&path)?));
            }
        }
    }
    Ok(files)
}

fn is_whole(files: &[(String, String)], kubectl: &Kubectl) -> Result<()> {
    let has = |end: &str, words: &str| files.iter().any(|(name, text)| name.contains(end) && text.contains(words));
    let control =
        kubectl.run(&["-n", NAMESPACE, "get", "pods", "-l", "app.kubernetes.io/name=mesh-control", "-o", "name"])?;
    let control = control.trim().trim_start_matches("pod/").to_owned();
    for (end, words) in [
        ("nodes/node-a/status.json", "\"generation\""),
        ("nodes/node-b/workloads.json", "\"cart\""),
        ("nodes/node-b/certificates.json", "spiffe://cluster.local/ns/reported/sa/cart"),
        ("proxies/reported/waypoint-", "cart.reported.svc.cluster.local"),
        (&format!("control/{control}/distribution.json"), "\"subscribers\""),
        (&format!("logs/{NAMESPACE}/{control}.log"), "certificate authority"),
        (&format!("logs/{SHOP}/waypoint-"), "/cart"),
        ("cluster/events.txt", "MeshJoined"),
        ("cluster/precheck.json", "Gateway API"),
        ("configuration/VirtualService.json", "x-kept"),
        ("configuration/findings.json", "["),
        (&format!("objects/{NAMESPACE}/DaemonSet-mesh-node.json"), "--trust-domain=cluster.local"),
        ("about.json", "mesh-ctl"),
    ] {
        let names: Vec<&String> = files.iter().map(|(name, _)| name).collect();
        ensure!(has(end, words), "{words} in {end}: {names:?}");
    }
    Ok(())
}

fn has_no_secret(files: &[(String, String)], kubectl: &Kubectl) -> Result<()> {
    let mut secrets: Vec<String> = [PASSWORD, BEARER, TOKEN, "PRIVATE KEY"].map(str::to_owned).to_vec();
    let all = kubectl.get(&["secrets", "-A"])?;
    for (key, value) in all["items"].as_array().into_iter().flatten().filter_map(|it| it["data"].as_object()).flatten()
    {
        // A certificate is for everybody to see.
        if !["ca-cert.pem", "root-cert.pem", "cert-chain.pem", "tls.crt"].contains(&key.as_str()) {
            secrets.extend(value.as_str().filter(|value| value.len() > 16).map(str::to_owned));
        }
    }
    ensure!(secrets.len() > 4, "the authority's key is looked for");
    for (name, text) in files {
        for secret in &secrets {
            ensure!(!text.contains(secret.as_str()), "{name} has {secret:.20}");
        }
    }
    Ok(())
}
