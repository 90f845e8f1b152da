//! The mesh when parts of the cluster fail: what is in force stays, and what changed meanwhile comes into force after.

use anyhow::{Context as _, Result, ensure};
use mesh_kube_cluster::Cluster;
use mesh_kube_cluster::apps::{self, Answer, Apps};
use mesh_kube_cluster::mesh::{Mesh, NAMESPACE};
use mesh_lab::wait_until;

const NODES: [&str; 2] = ["node-a", "node-b"];
const STRICT: &str = "{mtls: {mode: STRICT}}";
const NOBODY: &str = "{action: DENY, rules: [{}]}";

/// A meshed server on node-b and a meshed client on node-a, which talk.
fn shop(cluster: &Cluster, mesh: &Mesh, namespace: &str) -> Result<Apps> {
    let shop = Apps::new(&cluster.kubectl(), namespace)?;
    shop.label("mesh.dev/join=enabled")?;
    shop.deploy("server", "node-b")?;
    shop.deploy("client", "node-a")?;
    mesh.wait_enrolled("node-a", 1)?;
    mesh.wait_enrolled("node-b", 1)?;
    shop.policy("PeerAuthentication", STRICT)?;
    shop.ends("client", shop.service("server")?, "ok")?;
    Ok(shop)
}

/// How often the containers of the mesh's pods were started again.
fn restarts(mesh: &Mesh) -> Result<u64> {
    let pods = mesh.kubectl.get(&["-n", NAMESPACE, "pods"])?;
    let items = pods["items"].as_array().into_iter().flatten();
    let containers = items.flat_map(|pod| pod["status"]["containerStatuses"].as_array().into_iter().flatten());
    Ok(containers.filter_map(|container| container["restartCount"].as_u64()).sum())
}

#[test]
fn without_the_api_server_all_goes_on_and_with_it_changes_come_into_force_again() -> Result<()> {
    let cluster = Cluster::of_tests()?;
    let mesh = Mesh::installed(&cluster, &[])?;
    let shop = shop(&cluster, &mesh, "faults-api")?;
    let (service, container) = (shop.service("server")?, shop.container("client")?);
    cluster.kill_api_server()?;
    let connect = || {
        let output = cluster.in_container("node-a", &container, &apps::client(&service.to_string()))?.output()?;
        Answer::read(&output)
    };
    let without = connect();
    cluster.start_api_server()?;
    let without = without.context("a new connection while the API server was away")?;
    ensure!(without.outcome == "ok", "{without:?}");
    shop.policy("AuthorizationPolicy", NOBODY)?;
    shop.ends("client", service, "reset").with_context(|| mesh.logs())?;
    ensure!(restarts(&mesh)? == 0, "{}", mesh.logs());
    Ok(())
}

#[test]
fn the_authority_is_kept_by_its_secret_and_served_by_every_replica() -> Result<()> {
    let cluster = Cluster::of_tests()?;
    let mesh = Mesh::installed(&cluster, &["control.replicas=2"])?;
    let shop = shop(&cluster, &mesh, "faults-ca")?;
    let kubectl = cluster.kubectl();
    let secret = |kubectl: &mesh_kube_cluster::Kubectl| kubectl.get(&["-n", NAMESPACE, "secret", "mesh-ca"]);
    let before = secret(&kubectl)?["data"].clone();
    // One replica goes: an account that is new gets its certificate from the other.
    let pods = kubectl.get(&["-n", NAMESPACE, "pods", "-l", "app.kubernetes.io/name=mesh-control"])?;
    let names: Vec<&str> =
        pods["items"].as_array().into_iter().flatten().filter_map(|pod| pod["metadata"]["name"].as_str()).collect();
    ensure!(names.len() == 2, "{names:?}");
    kubectl.run(&["-n", NAMESPACE, "delete", "pod", names[0], "--grace-period=0", "--force"])?;
    shop.deploy("second", "node-a")?;
    shop.ends("second", shop.service("server")?, "ok").with_context(|| mesh.logs())?;
    // All of them go: the next ones sign by the same root.
    kubectl.run(&["-n", NAMESPACE, "rollout", "restart", "deployment/mesh-control"])?;
    kubectl.run(&["-n", NAMESPACE, "rollout", "status", "deployment/mesh-control", "--timeout=60s"])?;
    ensure!(secret(&kubectl)?["data"] == before, "the authority was made anew");
    shop.deploy("third", "node-a")?;
    shop.ends("third", shop.service("server")?, "ok").with_context(|| mesh.logs())
}

/// The names of mesh-control's pods.
fn replicas(mesh: &Mesh) -> Result<Vec<String>> {
    let pods = mesh.kubectl.get(&["-n", NAMESPACE, "pods", "-l", "app.kubernetes.io/name=mesh-control"])?;
    let items = pods["items"].as_array().into_iter().flatten();
    Ok(items.filter_map(|pod| pod["metadata"]["name"].as_str().map(str::to_owned)).collect())
}

#[test]
fn a_replica_that_is_killed_during_a_push_takes_nothing_with_it() -> Result<()> {
    let cluster = Cluster::of_tests()?;
    let mesh = Mesh::installed(&cluster, &["control.replicas=2"])?;
    let shop = shop(&cluster, &mesh, "faults-push")?;
    let (service, all) = (shop.service("server")?, replicas(&mesh)?);
    ensure!(all.len() == 2, "{all:?}");
    // Nodes watch nothing themselves.
    let account = format!("--as=system:serviceaccount:{NAMESPACE}:mesh-node");
    let may = mesh.kubectl.run(&["auth", "can-i", "list", "pods", "-A", &account]);
    ensure!(may.is_err(), "a node's account may list pods: {may:?}");
    for replica in &all {
        shop.policy("AuthorizationPolicy", NOBODY)?;
        mesh.kubectl.run(&[
            "-n",
            NAMESPACE,
            "delete",
            "pod",
            replica,
            "--grace-period=0",
            "--force",
            "--wait=false",
        ])?;
        shop.ends("client", service, "reset").with_context(|| mesh.logs())?;
        shop.policy("AuthorizationPolicy", "{action: ALLOW, rules: [{}]}")?;
        shop.ends("client", service, "ok").with_context(|| mesh.logs())?;
    }
    let rollout = ["-n", NAMESPACE, "rollout", "status", "deployment/mesh-control", "--timeout=60s"];
    mesh.kubectl.run(&rollout)?;
    // What is served now comes to be in force at both nodes, whichever replica tells them.
    wait_until("the generation to be everywhere", apps::PATIENCE, || {
        let Ok(told) = mesh.ctl("node-a", &["status", "--generation"]) else { return Ok(None) };
        let replicas = told["replicas"].as_array().into_iter().flatten();
        let told: Vec<_> = replicas.flat_map(|it| it["subscribers"].as_array().into_iter().flatten()).collect();
        Ok((told.len() == 2 && told.iter().all(|it| it["current"] == true)).then_some(()))
    })
    .with_context(|| mesh.logs())?;
    ensure!(restarts(&mesh)? == 0, "{}", mesh.logs());
    Ok(())
}

#[test]
fn new_daemons_take_their_nodes_over_and_nothing_is_refused_or_let_through_meanwhile() -> Result<()> {
    let cluster = Cluster::of_tests()?;
    let mesh = Mesh::installed(&cluster, &[])?;
    let shop = shop(&cluster, &mesh, "faults-upgrade")?;
    let outside = Apps::new(&cluster.kubectl(), "faults-outside")?;
    outside.deploy("stranger", "node-a")?;
    let (service, server) = (shop.service("server")?, shop.pod("server")?);
    // Again and again: a daemon that has handed over must not be started again beside the next one, and take the node back.
    for (level, generation) in [("debug", 2), ("info", 3), ("debug", 4)] {
        let before = NODES.map(|node| mesh.daemon(node));
        let replace = || mesh.install(&[&format!("node.log={level}")]);
        let plaintext = || outside.connect_during("stranger", server, replace);
        let (meshed, (plain, ())) = shop.connect_during("client", service, plaintext)?;
        ensure!(meshed.contains_key("ok") && meshed.len() == 1, "{meshed:?}\n{}", mesh.logs());
        ensure!(!plain.is_empty() && !plain.contains_key("ok"), "plaintext passed under STRICT: {plain:?}");
        for (node, before) in NODES.into_iter().zip(before) {
            ensure!(mesh.daemon(node)? != before?, "the daemon of {node} was not replaced");
            let status = mesh.ctl(node, &["status"])?;
            ensure!(status["handover"]["generation"] == generation, "{status}\n{}", mesh.logs());
        }
        ensure!(restarts(&mesh)? == 0, "{}", mesh.logs());
    }
    mesh.wait_enrolled("node-b", 1)?;
    shop.ends("client", service, "ok").with_context(|| mesh.logs())
}
