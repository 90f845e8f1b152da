//! mesh-ctl analyze on a live cluster: what it finds is what it would find in a directory of the same objects.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use mesh_kube_cluster::Cluster;
use mesh_kube_cluster::apps::{Apps, PATIENCE};
use mesh_kube_cluster::ctl::{Ctl, Said};
use mesh_kube_cluster::mesh::install_gateway_api;
use mesh_lab::wait_until;
use serde_json::Value;

const KINDS: &str = "namespaces,nodes,serviceaccounts,pods,services,endpointslices,gateways,httproutes";
const WAYPOINT: &str = "apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: missing, namespace: looked}
spec: {gatewayClassName: mesh-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
";
const BROKEN: &str = "apiVersion: v1
kind: Service
metadata: {name: cart, namespace: looked}
spec: seven
";

/// Codes, objects and messages.
fn findings(said: &Said) -> Result<BTreeSet<String>> {
    let report: Value = serde_json::from_str(&said.out).with_context(|| format!("{said:?}"))?;
    let findings = report["findings"].as_array().context("findings")?;
    Ok(findings.iter().map(|it| format!("{} {} {}", it["code"], it["origin"]["object"], it["message"])).collect())
}

fn write(place: &Path, name: &str, text: &str) -> Result<String> {
    fs::write(place.join(name), text)?;
    Ok(place.join(name).display().to_string())
}

#[test]
fn a_cluster_is_analyzed_as_a_directory_and_with_files_as_if_they_were_applied() -> Result<()> {
    let cluster = Cluster::of_tests()?;
    let (kubectl, ctl) = (cluster.kubectl(), Ctl::on(&cluster)?);
    install_gateway_api(&cluster)?;
    let shop = Apps::new(&kubectl, "looked")?;
    shop.label("mesh.dev/join=enabled")?;
    shop.deploy_http("cart", "node-b")?;
    kubectl.run(&["-n", "looked", "label", "service", "cart", "istio.io/use-waypoint=missing"])?;
    let analyze = |more: &[&str]| ctl.run(&[&["analyze", "-o", "json"], more].concat());

    let place = tempfile::tempdir()?;
    wait_until("the live cluster and its objects in a directory to say the same", PATIENCE, || {
        let live = analyze(&[])?;
        let dump = kubectl.run(&["get", KINDS, "-A", "-o", "yaml"])?;
        let directory = analyze(&[&write(place.path(), "dump.yaml", &dump)?])?;
        let (of_live, of_directory) = (findings(&live)?, findings(&directory)?);
        ensure!(of_live.iter().any(|finding| finding.contains("missing")), "{of_live:?}");
        Ok((of_live == of_directory && live.code == directory.code).then_some(()))
    })?;

    let warned = analyze(&["-n", "looked", "--fail-on", "warning"])?;
    ensure!(warned.code == 1 && warned.out.contains("missing"), "{warned:?}");
    let elsewhere = analyze(&["-n", "default", "--fail-on", "warning"])?;
    ensure!(elsewhere.code == 0 && !elsewhere.out.contains("missing"), "{elsewhere:?}");
    let mended = write(place.path(), "waypoint.yaml", WAYPOINT)?;
    let said = analyze(&["--live", &mended, "-n", "looked", "--fail-on", "warning"])?;
    ensure!(said.code == 0 && !said.out.contains("missing"), "the waypoint would be there: {said:?}");
    let broken = write(place.path(), "broken.yaml", BROKEN)?;
    let said = analyze(&["--live", &broken, "-n", "looked"])?;
    ensure!(said.code == 1 && said.out.contains("broken.yaml"), "{said:?}");
    ensure!(analyze(&["-n", "looked"])?.code == 0, "nothing was applied");
    Ok(())
}
