//! The annotation by which Kiali and others know pods of the mesh.

use anyhow::{Context as _, Result, ensure};
use mesh_kube_cluster::apps::{Apps, PATIENCE};
use mesh_kube_cluster::mesh::Mesh;
use mesh_kube_cluster::{Cluster, Kubectl};
use mesh_lab::wait_until;

const KEY: &str = "ambient.istio.io/redirection";

fn said(kubectl: &Kubectl, pod: &str) -> Result<Option<String>> {
    let object = kubectl.get(&["-n", "redirection", "pod", pod])?;
    Ok(object["metadata"]["annotations"][KEY].as_str().map(str::to_owned))
}

fn wait_said(mesh: &Mesh, pod: &str, expected: Option<&str>) -> Result<()> {
    let what = format!("{pod} to say {expected:?}");
    wait_until(&what, PATIENCE, || Ok((said(&mesh.kubectl, pod)?.as_deref() == expected).then_some(())))
        .with_context(|| mesh.logs())
}

#[test]
fn pods_say_that_they_are_in_the_mesh_for_as_long_as_they_are() -> Result<()> {
    let cluster = Cluster::of_tests()?;
    let mesh = Mesh::installed(&cluster, &["control.annotatePods=true"])?;
    let apps = Apps::new(&cluster.kubectl(), "redirection")?;
    apps.deploy("before", "node-a")?;
    apps.deploy("foreign", "node-b")?;
    // As Istio's own agent does where it has a namespace.
    let label = ["-n", "redirection", "label", "pod", "foreign", "mesh.dev/join=disabled"];
    mesh.kubectl.run(&label)?;
    mesh.kubectl.run(&["-n", "redirection", "annotate", "pod", "foreign", &format!("{KEY}=enabled")])?;
    ensure!(said(&mesh.kubectl, "before")?.is_none(), "it is not in the mesh");

    apps.label("mesh.dev/join=enabled")?;
    wait_said(&mesh, "before", Some("enabled"))?;
    apps.deploy("after", "node-b")?;
    wait_said(&mesh, "after", Some("enabled"))?;

    apps.label("mesh.dev/join-")?;
    wait_said(&mesh, "before", None)?;
    wait_said(&mesh, "after", None)?;
    ensure!(said(&mesh.kubectl, "foreign")?.as_deref() == Some("enabled"), "another has written it");
    mesh.uninstall()
}
