//! Pods that start, on a node whose container runtime asks the daemon first (NRI): node-b's does, node-a's is too old.

use anyhow::{Context as _, Result, ensure};
use mesh_kube_cluster::Cluster;
use mesh_kube_cluster::apps::{Apps, PATIENCE};
use mesh_kube_cluster::mesh::{Mesh, NAMESPACE};
use mesh_lab::wait_until;

/// Pods that are started one after the other; each would be a chance to be too late.
const PODS: usize = 8;
/// The daemon is required of whoever does not say that he can do without.
const REQUIRED: &str = r#"version = 3
[plugins."io.containerd.nri.v1.nri".default_validator]
enable = true
required_plugins = ["mesh-node"]
tolerate_missing_plugins_annotation = "tolerate-missing-plugins.mesh.dev"
"#;

/// A namespace in the mesh, with a server that takes mTLS alone.
fn strict(cluster: &Cluster, mesh: &Mesh, namespace: &str) -> Result<Apps> {
    let apps = Apps::new(&cluster.kubectl(), namespace)?;
    apps.label("mesh.dev/join=enabled")?;
    apps.policy("PeerAuthentication", "{mtls: {mode: STRICT}}")?;
    cluster.kubectl().run(&["-n", namespace, "create", "serviceaccount", "client"])?;
    apps.deploy("server", "node-a")?;
    mesh.wait_enrolled("node-a", 1)?;
    Ok(apps)
}

/// Waits until something of a pod's Events says that.
fn wait_told(apps: &Apps, pod: &str, what: &str) -> Result<()> {
    let mut last = String::new();
    wait_until(&format!("{pod}'s Events to say {what:?}"), PATIENCE, || {
        last = apps.events(pod)?;
        Ok(last.contains(what).then_some(()))
    })
    .with_context(|| format!("they say {last}"))
}

/// The value of a metric of node-b's daemon.
fn metric(mesh: &Mesh, name: &str) -> Result<f64> {
    let metrics = mesh.metrics("node-b")?;
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.with_context(|| format!("no {name}"))?.parse().context("a number")
}

#[test]
fn a_pod_is_enrolled_before_its_first_container_runs() -> Result<()> {
    let cluster = Cluster::of_tests()?;
    let mesh = Mesh::installed(&cluster, &[])?;
    for (node, by) in [("node-a", "cgroups"), ("node-b", "nri")] {
        let found = mesh.ctl(node, &["status"])?["pods"]["found"].clone();
        ensure!(found["by"] == by, "{node}: {found}");
    }
    let apps = strict(&cluster, &mesh, "nri-first")?;
    let server = apps.pod("server")?;
    for index in 0..PODS {
        let name = format!("client-{index}");
        apps.start_client(&name, "node-b", server)?;
        let answer = apps.client_ended(&name)?;
        // Plaintext of a pod that is not in the mesh yet would be reset.
        ensure!(answer.outcome == "ok", "{name}: {answer:?}\n{}", mesh.logs());
    }
    let enrolled = metric(&mesh, "mesh_nri_enrolment_seconds_count")?;
    let seconds = metric(&mesh, "mesh_nri_enrolment_seconds_sum")?;
    eprintln!("{enrolled} pods were held back {:.1} ms each", seconds / enrolled * 1000.0);
    ensure!(enrolled >= 8.0, "{enrolled} pods were asked about");
    ensure!(metric(&mesh, "mesh_nri_connected")? >= 1.0, "not connected");
    Ok(())
}

#[test]
fn a_pod_of_which_nothing_is_known_does_not_start_until_it_is_unless_nothing_asks_for_it_to_be_in() -> Result<()> {
    let cluster = Cluster::of_tests()?;
    let outside = Apps::new(&cluster.kubectl(), "nri-outside")?;
    let mesh = Mesh::installed(&cluster, &[])?;
    let apps = strict(&cluster, &mesh, "nri-unknown")?;
    let scale = |replicas: &str| {
        let replicas = format!("--replicas={replicas}");
        mesh.kubectl.run(&["-n", NAMESPACE, "scale", "deployment/mesh-control", &replicas])
    };
    scale("0")?;
    let gone =
        ["-n", NAMESPACE, "wait", "--for=delete", "--timeout=60s", "pod", "-l", "app.kubernetes.io/name=mesh-control"];
    mesh.kubectl.run(&gone)?;
    apps.start_client("early", "node-b", apps.pod("server")?)?;
    wait_told(&apps, "early", "does not know the pod yet")?;
    outside.deploy("stranger", "node-b").with_context(|| mesh.logs())?;
    // Of the control plane nothing is known either: it starts nevertheless, wherever it is put.
    scale("1")?;
    let answer = apps.client_ended("early").with_context(|| mesh.logs())?;
    ensure!(answer.outcome == "ok", "{answer:?}\n{}", mesh.logs());
    Ok(())
}

#[test]
fn where_containerd_requires_the_daemon_no_pod_starts_without_it_and_the_daemon_does() -> Result<()> {
    let cluster = Cluster::of_tests()?;
    let mesh = Mesh::installed(&cluster, &[])?;
    let apps = strict(&cluster, &mesh, "nri-required")?;
    let select = |node: Option<&str>| {
        let selector =
            serde_json::json!({"spec": {"template": {"spec": {"nodeSelector": {"kubernetes.io/hostname": node}}}}});
        mesh.kubectl.run(&[
            "-n",
            NAMESPACE,
            "patch",
            "daemonset",
            "mesh-node",
            "--type=merge",
            "-p",
            &selector.to_string(),
        ])
    };
    cluster.configure_containerd("node-b", REQUIRED)?;
    let outcome = (|| {
        // As on a node that has just started: kubelet starts pods, and no daemon is there.
        let daemon = mesh.daemon("node-b")?;
        select(Some("node-a"))?;
        // One that is ending still answers the runtime.
        mesh.kubectl.run(&["-n", NAMESPACE, "wait", "--for=delete", "--timeout=60s", "pod", &daemon])?;
        apps.start_client("early", "node-b", apps.pod("server")?)?;
        wait_told(&apps, "early", "required plugin \"mesh-node\" not present")?;
        select(None)?;
        let answer = apps.client_ended("early").with_context(|| mesh.logs())?;
        ensure!(answer.outcome == "ok", "{answer:?}\n{}", mesh.logs());
        Ok(())
    })();
    cluster.configure_containerd("node-b", "version = 3\n")?;
    outcome
}
