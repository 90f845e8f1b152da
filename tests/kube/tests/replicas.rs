//! What objects say of themselves where several replicas of mesh-control tell nodes: each knows of its own nodes alone.

use anyhow::{Context as _, Result, bail, ensure};
use mesh_kube_cluster::Cluster;
use mesh_kube_cluster::apps::{Apps, PATIENCE};
use mesh_kube_cluster::mesh::{Mesh, NAMESPACE};
use mesh_lab::wait_until;
use serde_json::Value;

const NODES: [&str; 2] = ["node-a", "node-b"];
/// Nodes' streams are begun anew so often, each time at either replica, until both have one.
const ATTEMPTS: usize = 40;

/// A replica: its pod, the node that this runs on, its uid, and the node whose daemon it tells.
#[derive(Debug)]
struct Replica {
    pod: String,
    node: String,
    uid: String,
    tells: &'static str,
}

/// The replica that leads, and the other one, each of which tells one node.
fn apart(cluster: &Cluster, mesh: &Mesh) -> Result<(Replica, Replica)> {
    for _ in 0..ATTEMPTS {
        let mut told = wait_until("both nodes to be told", PATIENCE, || {
            let told = replicas(mesh)?;
            Ok((told.len() == 2).then_some(told))
        })?;
        let lease = mesh.kubectl.get(&["-n", NAMESPACE, "lease", "mesh-control"])?;
        let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
        if told[0].pod != told[1].pod && told.iter().any(|replica| replica.pod == holder) {
            told.sort_by_key(|replica| replica.pod != holder);
            return told.try_into().map(|[leads, other]: [Replica; 2]| (leads, other)).map_err(|_| unreachable!());
        }
        // The daemon begins its stream anew, at either replica.
        let cut =
            cluster.on_node("node-b", &["ss", "--kill", "--no-header", "-tn", "dport", "=", ":15012"])?.output()?;
        ensure!(cut.status.success(), "{}", String::from_utf8_lossy(&cut.stderr));
    }
    bail!("both nodes are at one replica each time\n{}", mesh.logs())
}

/// For each node, the replica that tells it.
fn replicas(mesh: &Mesh) -> Result<Vec<Replica>> {
    let told = mesh.ctl("node-a", &["status", "--generation"])?;
    let pods = mesh.kubectl.get(&["-n", NAMESPACE, "pods", "-l", "app.kubernetes.io/name=mesh-control"])?;
    let mut found = Vec::new();
    for node in NODES {
        let tells = |replica: &&Value| {
            let mut subscribers = replica["subscribers"].as_array().into_iter().flatten();
            subscribers.any(|subscriber| subscriber["caller"] == format!("node {node}"))
        };
        let Some(replica) = told["replicas"].as_array().into_iter().flatten().find(tells) else { continue };
        let address = replica["address"].as_str().and_then(|address| address.rsplit_once(':')).map(|(ip, _)| ip);
        let is_its = |pod: &&Value| pod["status"]["podIP"].as_str() == address;
        let Some(pod) = pods["items"].as_array().into_iter().flatten().find(is_its) else { continue };
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (metadata, on) = (&pod["metadata"], &pod["spec"]["nodeName"]);
        found.push(Replica { pod: text(&metadata["name"]), node: text(on), uid: text(&metadata["uid"]), tells: node });
    }
    Ok(found)
}

/// Waits until the policy says so of its newest generation.
fn wait_said(mesh: &Mesh, status: &str, message: &str) -> Result<()> {
    let mut last = Value::Null;
    wait_until(&format!("the policy to say {status}, {message:?}"), PATIENCE, || {
        let object = mesh.kubectl.get(&["-n", "replicas", "authorizationpolicy", "test"])?;
        let mut conditions = object["status"]["conditions"].as_array().into_iter().flatten();
        last = conditions.find(|condition| condition["type"] == "Reconciled").cloned().unwrap_or_default();
        let is_new = last["observedGeneration"] == object["metadata"]["generation"];
        Ok((is_new && last["status"] == status && last["message"] == message).then_some(()))
    })
    .with_context(|| format!("it is {last}\n{}", mesh.logs()))
}

fn signal_daemon(cluster: &Cluster, node: &str, signal: &str) -> Result<()> {
    run(cluster, node, &format!("kill -{signal} $(pidof mesh-node)"))
}

/// Signals a replica's program, which is known by its pod's cgroup.
fn signal_replica(cluster: &Cluster, replica: &Replica, signal: &str) -> Result<()> {
    let of_pod = replica.uid.replace('-', ".");
    run(
        cluster,
        &replica.node,
        &format!(
            "for pid in $(pidof mesh-control); do grep -q {of_pod} /proc/$pid/cgroup && kill -{signal} $pid && found=1; done; test $found"
        ),
    )
}

fn run(cluster: &Cluster, node: &str, script: &str) -> Result<()> {
    let output = cluster.on_node(node, &["sh", "-c", script])?.output()?;
    ensure!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

#[test]
fn what_is_in_force_is_counted_at_the_nodes_of_every_replica() -> Result<()> {
    let cluster = Cluster::of_tests()?;
    let mesh = Mesh::installed(&cluster, &["control.replicas=2"])?;
    let apps = Apps::new(&cluster.kubectl(), "replicas")?;
    apps.label("mesh.dev/join=enabled")?;
    let (leads, other) = apart(&cluster, &mesh)?;
    let deny = |methods: &str| {
        apps.policy(
            "AuthorizationPolicy",
            &format!("{{action: DENY, rules: [{{to: [{{operation: {{methods: [{methods}]}}}}]}}]}}"),
        )
    };
    deny("GET")?;
    wait_said(&mesh, "True", "in force at 2 of 2 nodes, waypoints and gateways")?;

    // A node that hangs does not have the next one, whichever replica tells it.
    for late in [&other, &leads] {
        signal_daemon(&cluster, late.tells, "STOP")?;
        let said = deny(&late.tells[5..])
            .and_then(|()| wait_said(&mesh, "False", "in force at 1 of 2 nodes, waypoints and gateways"));
        signal_daemon(&cluster, late.tells, "CONT")?;
        said?;
        wait_said(&mesh, "True", "in force at 2 of 2 nodes, waypoints and gateways")?;
    }

    // A replica that hangs says nothing of its nodes, and so nobody says that they had it, until it is gone: they go to the other.
    signal_replica(&cluster, &other, "STOP")?;
    let said = deny("PUT").and_then(|()| {
        let unknown = "in force at 1 of 1 nodes, waypoints and gateways; what is in force at those that 1 of 2 replicas of \
                       mesh-control tell is unknown: see their logs";
        wait_said(&mesh, "Unknown", unknown)
    });
    let gone = ["-n", NAMESPACE, "delete", "pod", &other.pod, "--grace-period=0", "--force", "--wait=false"];
    mesh.kubectl.run(&gone)?;
    signal_replica(&cluster, &other, "KILL")?;
    said?;
    wait_said(&mesh, "True", "in force at 2 of 2 nodes, waypoints and gateways")
}
