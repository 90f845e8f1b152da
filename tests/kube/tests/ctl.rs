//! mesh-ctl from outside the cluster: by a kubeconfig, through the API server, to every node's daemon.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use mesh_kube_cluster::apps::{Apps, PATIENCE};
use mesh_kube_cluster::ctl::Ctl;
use mesh_kube_cluster::mesh::Mesh;
use mesh_kube_cluster::{Cluster, Kubectl};
use mesh_lab::wait_until;
use serde_json::{Value, json};

const NODES: [&str; 2] = ["node-a", "node-b"];

/// The cells of the row that begins with these.
fn row<'a>(table: &'a str, cells: &[&str]) -> Result<Vec<&'a str>> {
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut found = rows.filter(|row| row.starts_with(cells));
    found.next().with_context(|| format!("no {cells:?} in\n{table}"))
}

#[test]
fn a_kubeconfig_is_enough_to_ask_every_node() -> Result<()> {
    let cluster = Cluster::of_tests()?;
    let (kubectl, ctl) = (cluster.kubectl(), Ctl::on(&cluster)?);
    let shop = Apps::new(&kubectl, "asked")?;
    shop.label("mesh.dev/join=enabled")?;
    shop.deploy("server", "node-b")?;
    shop.deploy("client", "node-a")?;
    let said = ctl.run(&["status"])?;
    ensure!(said.code == 2 && said.err.contains("mesh-ctl install"), "before the mesh is there: {said:?}");

    let mesh = Mesh::installed(&cluster, &[])?;
    mesh.wait_enrolled("node-a", 1)?;
    mesh.wait_enrolled("node-b", 1)?;
    shop.ends("client", shop.service("server")?, "ok")?;
    every_node_is_asked(&ctl).with_context(|| mesh.logs())?;
    flows_of_all_nodes_are_one_stream(&ctl, &shop).with_context(|| mesh.logs())?;
    pods_do_not_reach_what_mesh_ctl_does(&kubectl)?;
    rights_that_lack_are_named(&ctl, &kubectl)?;
    a_node_that_hangs_is_told_of(&cluster, &ctl)
}

fn every_node_is_asked(ctl: &Ctl) -> Result<()> {
    let status = ctl.ok(&["status"])?;
    for node in NODES {
        ensure!(row(&status, &[node, "well"])?.contains(&"1/1"), "{status}");
    }
    let nodes = ctl.json(&["status"])?;
    let names: Vec<_> = nodes["nodes"].as_array().into_iter().flatten().map(|node| &node["node"]).collect();
    ensure!(names == NODES, "{nodes}");

    // Each pod once, and what is made of it as its own node's daemon says it.
    let workloads = ctl.ok(&["workload", "list", "-n", "asked"])?;
    ensure!(workloads.lines().count() == 3, "{workloads}");
    ensure!(row(&workloads, &["asked", "client", "node-a"])?.contains(&"enrolled"), "{workloads}");
    ensure!(row(&workloads, &["asked", "server", "node-b"])?.contains(&"enrolled"), "{workloads}");
    let services = ctl.ok(&["service", "list", "-n", "asked"])?;
    row(&services, &["all", "asked", "server"])?;
    let identity = |account: &str| format!("spiffe://cluster.local/ns/asked/sa/{account}");
    let certificates = ctl.ok(&["certificate", "list"])?;
    row(&certificates, &["node-a", &identity("client")])?;
    row(&certificates, &["node-b", &identity("server")])?;
    let of_one = ctl.ok(&["certificate", "list", "--node", "node-b"])?;
    ensure!(!of_one.contains("client") && row(&of_one, &[&identity("server")]).is_ok(), "{of_one}");

    for (source, destination, node) in [("client", "server", "node-a"), ("server", "client", "node-b")] {
        let answer = ctl.json(&["why", source, destination, "-n", "asked"])?;
        ensure!(answer["node"]["node"] == node && answer["allowed"] == true, "{answer}");
    }
    ctl.ok(&["log", "level", "debug"])?;
    let log = ctl.ok(&["log", "level"])?;
    ensure!(NODES.iter().all(|node| row(&log, &[node, "debug"]).is_ok()), "{log}");
    ctl.ok(&["log", "level", "info", "--node", "node-a"])?;
    ensure!(row(&ctl.ok(&["log", "level"])?, &["node-b", "debug"]).is_ok(), "one node alone");
    every_replica_says_who_has_its_generation(ctl)?;
    let said = ctl.run(&["status", "--node", "node-z"])?;
    ensure!(said.code == 2 && said.err.contains("node-a, node-b"), "{said:?}");
    let said = ctl.run(&["status", "--admin-port", "15999"])?;
    ensure!(said.code == 2 && said.err.contains("connection refused"), "{said:?}");
    Ok(())
}

fn every_replica_says_who_has_its_generation(ctl: &Ctl) -> Result<()> {
    // What was applied last may be on its way yet.
    let told = wait_until("the generation to be in force everywhere", PATIENCE, || {
        let said = ctl.run(&["status", "--generation", "-o", "json"])?;
        Ok((said.code == 0).then_some(said.out))
    })?;
    let told: Value = serde_json::from_str(&told)?;
    let replicas = told["replicas"].as_array().context("replicas")?;
    let callers = replicas.iter().flat_map(|replica| replica["subscribers"].as_array().into_iter().flatten());
    let mut callers: Vec<&str> = callers.filter_map(|subscriber| subscriber["caller"].as_str()).collect();
    callers.sort_unstable();
    ensure!(replicas.len() == 1 && callers == ["node node-a", "node node-b"], "{told}");
    ensure!(told["untold"].as_array().is_some_and(Vec::is_empty), "{told}");
    let said = ctl.run(&["status", "--generation", "--mesh-namespace", "elsewhere"])?;
    ensure!(said.code == 2 && said.err.contains("--mesh-namespace"), "{said:?}");
    Ok(())
}

fn flows_of_all_nodes_are_one_stream(ctl: &Ctl, shop: &Apps) -> Result<()> {
    let arguments = ["flows", "-f", "-n", "asked", "--event", "closed"];
    let mut child = ctl.command(&arguments).stdout(Stdio::piped()).spawn().context("starting mesh-ctl")?;
    let mut lines = BufReader::new(child.stdout.take().context("its output")?).lines();
    let first = lines.next().context("a heading")??;
    ensure!(first.starts_with("NODE"), "{first}");
    // The heading comes with the first stream that has begun; the other's may begin later.
    let server = shop.service("server")?;
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let told = std::thread::scope(|scope| {
        scope.spawn(move || {
            while stopped.try_recv().is_err() {
                // How it ends is told by the flows.
                let _ = shop.connect("client", server);
            }
        });
        let mut missing = NODES.to_vec();
        for line in lines {
            let line = line?;
            missing.retain(|node| !line.starts_with(node));
            ensure!(line.contains("asked/client"), "{line}");
            if missing.is_empty() {
                break;
            }
        }
        stop.send(()).context("the client has ended")?;
        ensure!(missing.is_empty(), "nothing was heard of {missing:?}");
        Ok(())
    });
    child.kill().context("ending mesh-ctl")?;
    child.wait()?;
    told
}

/// A pod on the node's own network, whose root is the node's root, is at the same loopback as the daemon.
fn pods_do_not_reach_what_mesh_ctl_does(kubectl: &Kubectl) -> Result<()> {
    let image = concat!("mesh.dev/mesh-traffic:", env!("CARGO_PKG_VERSION"));
    for (name, user) in [("root", 0), ("other", 65_534)] {
        let request = "GET /v1/status HTTP/1.1\r\nhost: localhost\r\n\r\n";
        let arguments = ["connect", "--to", "127.0.0.1:15000", "--timeout", "10", "--whole", "--message", request];
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "asked"},
            "spec": {
                "hostNetwork": true, "nodeName": "node-a", "restartPolicy": "Never",
                "containers": [{
                    "name": "main", "image": image, "imagePullPolicy": "Never", "args": arguments,
                    "securityContext": {"runAsUser": user},
                }],
            },
        });
        kubectl.apply(&pod.to_string())?;
        let said = wait_until(&format!("{name} to have asked"), PATIENCE, || {
            let log = kubectl.run(&["-n", "asked", "logs", name]).unwrap_or_default();
            Ok(serde_json::from_str::<Value>(&log).ok())
        })?;
        let text = said["text"].as_str().unwrap_or_default();
        ensure!(text.starts_with("HTTP/1.1 403") && !text.contains("uptime"), "{name}: {said}");
    }
    Ok(())
}

fn rights_that_lack_are_named(ctl: &Ctl, kubectl: &Kubectl) -> Result<()> {
    let rules = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "guest", "namespace": "asked"}},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
         "metadata": {"name": "guest", "namespace": "mesh-system"},
         "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
         "subjects": [{"kind": "ServiceAccount", "name": "guest", "namespace": "asked"}]},
    ]});
    kubectl.apply(&rules.to_string())?;
    let token = kubectl.run(&["-n", "asked", "create", "token", "guest"])?;
    let place = tempfile::tempdir()?;
    let file = place.path().join("guest.kubeconfig");
    let user = |config: &Value| json!([{"name": config["users"][0]["name"], "user": {"token": token.trim()}}]);
    let mut config: Value = serde_json::from_str(&kubectl.run(&["config", "view", "--raw", "-o", "json"])?)?;
    config["users"] = user(&config);
    fs::write(&file, config.to_string())?;
    let said = ctl.by(file).run(&["status"])?;
    let told = said.code == 2 && said.err.contains("pods/portforward") && said.err.contains("mesh-system");
    ensure!(told, "{said:?}");
    kubectl.run(&["-n", "mesh-system", "delete", "rolebinding", "guest"]).map(drop)
}

fn a_node_that_hangs_is_told_of(cluster: &Cluster, ctl: &Ctl) -> Result<()> {
    let signal = |signal: &str| -> Result<()> {
        let script = format!("kill -{signal} $(pidof mesh-node)");
        let output = cluster.on_node("node-b", &["sh", "-c", &script])?.output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    };
    signal("STOP")?;
    let said = ["status", "certificate list"].map(|command| ctl.run(&command.split(' ').collect::<Vec<_>>()));
    signal("CONT")?;
    let [status, certificates] = said;
    for said in [status?, certificates?] {
        ensure!(said.code == 1 && said.out.contains("node-a"), "{said:?}");
        ensure!(said.err.lines().any(|line| line.starts_with("node-b: no answer: ")), "{said:?}");
    }
    wait_until("node-b to answer again", PATIENCE, || Ok((ctl.run(&["status"])?.code == 0).then_some(())))
}
