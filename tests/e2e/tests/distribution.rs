//! The configuration by mesh-control: nodes that watch nothing themselves, and what happens while it is away, at one of its
//! replicas or at all of them.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use mesh_e2e::{Connect, NODES, PATIENCE, Remote, Verdict, client, ctl, ctl_json, echo, port};
use mesh_lab::{DaemonOptions, Place as _, Pod, wait_until};

const NOBODY: &str = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
                      metadata: {name: nobody, namespace: app}\nspec: {action: DENY, rules: [{}]}\n";
const BROKEN: &str = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
                      metadata: {name: nobody, namespace: app}\nspec: {action: PERHAPS, rules: [{}]}\n";

/// A server on one node and a client on the other, which get their configuration from mesh-control.
struct Scene {
    remote: Remote,
    server: Pod,
    client: Pod,
}

impl Scene {
    fn start(replicas: &[&str]) -> Result<Self> {
        let remote = Remote::feeding(replicas)?;
        let server = remote.mesh.join(echo("server", "node-b"))?;
        let client = remote.mesh.join(client("client", "node-a"))?;
        let scene = Self { remote, server, client };
        scene.comes_to("ok")?;
        Ok(scene)
    }

    fn connect(&self) -> Result<String> {
        let to = SocketAddr::new(self.server.ipv4(), port::ECHO);
        Ok(Connect::to(to).run(&self.client)?.outcome)
    }

    fn comes_to(&self, outcome: &str) -> Result<()> {
        wait_until(&format!("the connection to be {outcome}"), PATIENCE, || {
            Ok((self.connect()? == outcome).then_some(()))
        })
    }

    /// Waits until every node is told by a replica at this address, or by none.
    fn connected(&self, at: Option<&str>) -> Result<()> {
        for node in NODES {
            wait_until(&format!("{node} to be told by {at:?}"), PATIENCE, || {
                let status = ctl_json(&self.remote.mesh, node, &["status"], 0)?;
                let connected = status["config"]["control"]["connected"].as_str();
                Ok((connected == at).then_some(()))
            })?;
            let gauge = self.remote.metric(node, "mesh_config_control_connected", &[])?;
            assert!(gauge == f64::from(u8::from(at.is_some())), "{node}: {gauge}");
        }
        Ok(())
    }
}

#[test]
fn what_changes_acts_at_nodes_that_watch_nothing_and_what_was_told_last_outlives_mesh_control() -> Verdict {
    let mut scene = Scene::start(&["node-a"])?;
    let lab = |scene: &Scene, text: &str| scene.remote.mesh.lab.apply("policy.yaml", text);
    lab(&scene, NOBODY)?;
    scene.comes_to("reset")?;

    // Away: what was told stays in force, what changes meanwhile acts when it is back.
    scene.remote.authority.take().context("running")?.kill()?;
    scene.connected(None)?;
    assert!(scene.connect()? == "reset");
    scene.remote.mesh.lab.apply("policy.yaml", "# nothing\n")?;
    assert!(scene.connect()? == "reset", "nobody can have told of the change");
    let before = scene.remote.metric("node-b", "mesh_config_control_generation", &[])?;
    assert!(before > 1.0, "{before}");
    scene.remote.start_authority()?;
    scene.comes_to("ok")?;
    scene.connected(Some(&scene.remote.address("node-a")?))?;

    // A policy that breaks stays in force as it last was, also at a daemon that starts after it broke.
    lab(&scene, NOBODY)?;
    scene.comes_to("reset")?;
    lab(&scene, BROKEN)?;
    wait_until("the finding at node-b", PATIENCE, || {
        let status = ctl_json(&scene.remote.mesh, "node-b", &["status"], 1);
        Ok(status.is_ok_and(|status| status["config"]["errors"] == 1).then_some(()))
    })?;
    scene.remote.mesh.kill9("node-b")?;
    scene.remote.start_fed_daemon("node-b", "node-b")?;
    scene.remote.mesh.wait_enrolled(&scene.server, 1)?;
    assert!(scene.connect()? == "reset");
    let status = ctl_json(&scene.remote.mesh, "node-b", &["status"], 1)?;
    assert!(status["config"]["errors"] == 1, "{status}");
    Ok(())
}

#[test]
fn nodes_move_to_another_replica_and_it_can_be_seen_where_a_generation_is_in_force() -> Verdict {
    let mut scene = Scene::start(&["node-a", "node-b"])?;
    scene.connected(Some(&scene.remote.address("node-a")?))?;
    let metrics =
        |scene: &Scene, node: &str| Ok::<_, anyhow::Error>(scene.remote.address(node)?.replace("15012", "15014"));
    let both = format!("{},{}", metrics(&scene, "node-a")?, metrics(&scene, "node-b")?);
    let arguments = ["status", "--generation", "--control", &both];
    let told = wait_until("the generation to be everywhere", PATIENCE, || {
        Ok(ctl_json(&scene.remote.mesh, "node-a", &arguments, 0).ok())
    })?;
    let replicas = told["replicas"].as_array().context("replicas")?;
    let digests: Vec<_> = replicas.iter().filter_map(|it| it["version"].as_str()?.split('-').nth(1)).collect();
    assert!(digests.len() == 2 && digests[0] == digests[1], "{told}");
    let callers: Vec<_> = replicas.iter().flat_map(|it| it["subscribers"].as_array().into_iter().flatten()).collect();
    assert!(callers.iter().all(|it| it["current"] == true) && callers.len() == 2, "{told}");

    // One replica goes: the other tells what changes from then on.
    scene.remote.authority.take().context("running")?.kill()?;
    scene.remote.mesh.lab.apply("policy.yaml", NOBODY)?;
    scene.comes_to("reset")?;
    scene.connected(Some(&scene.remote.address("node-b")?))?;
    let left = metrics(&scene, "node-b")?;
    wait_until("the generation to be everywhere", PATIENCE, || {
        Ok(ctl_json(&scene.remote.mesh, "node-a", &["status", "--generation", "--control", &left], 0).ok())
    })?;
    // Nothing was told twice: what the nodes had, the other replica took them to have.
    let table = ctl(&scene.remote.mesh, "node-a", &["status", "--generation", "--control", &left])?;
    assert!(table.stdout.contains("node node-a") && table.stdout.contains("current"), "{table}");
    Ok(())
}

#[test]
fn who_shows_no_token_of_a_node_is_told_nothing() -> Verdict {
    let mut remote = Remote::feeding(&["node-a"])?;
    remote.mesh.kill9("node-a")?;
    let token = remote.tokens.join(".stranger");
    std::fs::write(&token, "f".repeat(64)).context("writing a token")?;
    let mut args = remote.fed_flags("node-a")?;
    for argument in &mut args {
        if argument.ends_with("/node-a") {
            *argument = token.display().to_string();
        }
    }
    args.extend(["--admin-socket".to_owned(), remote.mesh.lab.home().join("stranger.sock").display().to_string()]);
    let options = DaemonOptions { args, ready_within: None, ..DaemonOptions::default() };
    let mut stranger = remote.mesh.lab.start_daemon("node-a", options)?;
    stranger.wait_for_line("the bearer token is of nobody who may ask here", PATIENCE)?;
    assert!(!stranger.is_ready() && !stranger.logs().contains("configuration followed"), "{}", stranger.logs());
    assert!(remote.authority()?.log().contains("configuration refused"));
    Ok(())
}
