//! Joining and leaving: by label on running pods, with the pod's life, and with the life of its address.

use std::fs;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use mesh_e2e::{Connect, Dialler, Held, Mesh, NODES, PATIENCE, Verdict, client, echo, port, server};
use mesh_lab::{Addresses, Lab, Place, Pod, Process, wait_until};
use serde_json::Value;

/// Less than a daemon takes to do all that the flip before asked for.
const BETWEEN_FLIPS: Duration = Duration::from_millis(150);

/// The last connection that the node's daemon told of, once it has told of `count`.
fn told(mesh: &Mesh, node: &str, count: usize) -> Result<Value> {
    mesh.told(node, count)?.pop().context("none")
}

#[test]
fn running_pods_join_and_leave_by_their_namespaces_label() -> Verdict {
    let mesh = Mesh::without_labels()?;
    let far = mesh.lab.deploy(server("server", "node-b"))?;
    let pod = mesh.lab.deploy(client("client", "node-a"))?;
    let to = SocketAddr::new(far.ipv4(), port::REPORT_PEER);
    let mut before = Held::open(&pod, SocketAddr::new(far.ipv4(), port::ECHO))?;
    before.says("before")?;

    mesh.label()?;
    mesh.wait_enrolled(&far, 1)?;
    mesh.wait_enrolled(&pod, 1)?;
    let answer = Connect::to(to).answered(&pod)?;
    assert_eq!(Some(answer.seen_by_server()?.0), answer.local);
    let told_of = told(&mesh, "node-a", 1)?;
    assert_eq!(told_of["security"], "mutual_tls", "{told_of}");
    // What was open before goes on, in plaintext as it began.
    before.says("after")?;

    mesh.lab.unlabel_namespace("app", "mesh.dev/join")?;
    mesh.wait_withdrawn(&far, 1)?;
    mesh.wait_withdrawn(&pod, 1)?;
    before.says("long after")?;
    before.close()?;
    // The kernel detaches a moment after it was told to; the daemon carries what comes meanwhile, and shows who it is from.
    let answer = Connect::to(to).answered(&pod)?;
    assert_eq!(Some(answer.seen_by_server()?.0), answer.local);
    wait_until("the hooks to be gone", PATIENCE, || {
        let shown = far.exec(&["bpftool", "net"])?;
        Ok((!shown.success()?.contains("tc_ingress")).then_some(()))
    })?;
    let carried =
        || anyhow::Ok((mesh.events("node-a", "outbound_connect")?, mesh.events("node-b", "inbound_plaintext")?));
    let before = carried()?;
    let answer = Connect::to(to).answered(&pod)?;
    assert_eq!(Some(answer.seen_by_server()?.0), answer.local);
    assert_eq!(carried()?, before, "nothing that is new");
    for node in NODES {
        assert_eq!(mesh.metrics(node)?.sum("mesh_pods", &[("state", "enrolled")]), 0.0);
    }
    Ok(())
}

#[test]
fn a_pods_own_label_outweighs_its_namespaces() -> Verdict {
    let mesh = Mesh::without_labels()?;
    let far = mesh.join(server("server", "node-b").label("istio.io/dataplane-mode", "ambient"))?;
    let pod = mesh.join(client("client", "node-a").label("mesh.dev/join", "enabled"))?;
    let to = SocketAddr::new(far.ipv4(), port::ECHO);
    Connect::to(to).answered(&pod)?;
    assert_eq!(told(&mesh, "node-b", 1)?["security"], "mutual_tls");

    mesh.label()?;
    pod.label("mesh.dev/join", "disabled")?;
    mesh.wait_withdrawn(&pod, 1)?;
    Connect::to(to).answered(&pod)?;
    assert_eq!(told(&mesh, "node-b", 2)?["security"], "none");
    assert_eq!(mesh.events("node-a", "outbound_connect")?, 1);

    pod.unlabel("mesh.dev/join")?;
    mesh.wait_enrolled(&pod, 2)?;
    Connect::to(to).answered(&pod)?;
    assert_eq!(told(&mesh, "node-b", 3)?["security"], "mutual_tls");
    Ok(())
}

#[test]
fn a_restarted_pod_is_reached_at_its_old_or_new_address() -> Verdict {
    let mesh = Mesh::start()?;
    let [pod, far] = mesh.client_and_echo()?;
    for (times, addresses) in [(1, Addresses::Same), (2, Addresses::New), (3, Addresses::Same)] {
        let mut held = Held::open(&pod, SocketAddr::new(far.ipv4(), port::ECHO))?;
        held.says("to the old one")?;
        let uid = far.uid()?;
        mesh.restart(&far, addresses)?;
        assert_ne!(far.uid()?, uid);
        assert_ne!(held.ends()?, "ok");
        mesh.settle()?;
        for ip in far.addresses() {
            Connect::to(SocketAddr::new(ip, port::ECHO)).answered(&pod).with_context(|| format!("restart {times}"))?;
        }
        mesh.restart(&pod, addresses)?;
    }
    let lines = mesh.told("node-a", 6)?;
    assert!(lines.iter().all(|line| line["security"] == "mutual_tls"), "{lines:?}");
    Ok(())
}

#[test]
fn an_address_that_another_pod_takes_over_leads_to_that_pod_alone() -> Verdict {
    let mesh = Mesh::start()?;
    let old = mesh.join(echo("old", "node-b"))?;
    let pod = mesh.join(client("client", "node-a"))?;
    let to = SocketAddr::new(old.ipv4(), port::ECHO);
    let mut held = Held::open(&pod, to)?;
    held.says("to the old one")?;
    let address = old.ipv4();
    old.delete()?;
    let new = mesh.join(echo("new", "node-b").address(address))?;
    assert_eq!(new.ipv4(), address);
    assert_ne!(held.ends()?, "ok");
    mesh.settle()?;
    Connect::to(to).answered(&pod)?;
    let told_of = told(&mesh, "node-a", 2)?;
    assert_eq!(told_of["destination_principal"], "spiffe://cluster.local/ns/app/sa/new", "{told_of}");
    assert_eq!(told_of["security"], "mutual_tls", "{told_of}");

    Ok(())
}

/// A daemon on `node` that reads its own copy of the manifests, as they are now: one that has lost touch.
fn daemon_out_of_touch(lab: &Lab, node: &str) -> Result<Process> {
    let config = lab.home().join("stale");
    fs::create_dir(&config)?;
    for file in fs::read_dir(lab.config_dir())? {
        let file = file?;
        fs::copy(file.path(), config.join(file.file_name()))?;
    }
    let bpf = lab.home().join(format!("bpf.{node}/mesh"));
    let socket = lab.admin_socket(node);
    let paths = [config, lab.ca_dir()?, bpf, socket].map(|path| path.display().to_string());
    let flags = ["--config", "--ca", "--bpf-dir", "--admin-socket"];
    let mut argv = vec!["mesh-node", "--node", node];
    argv.extend(flags.into_iter().zip(&paths).flat_map(|(flag, path)| [flag, path.as_str()]));
    lab.node(node)?.spawn(&argv)
}

#[test]
fn a_client_whose_node_has_lost_touch_never_talks_to_an_addresss_new_owner() -> Verdict {
    let mut mesh = Mesh::start()?;
    let old = mesh.join(echo("old", "node-b"))?;
    let pod = mesh.join(client("client", "node-a"))?;
    let to = SocketAddr::new(old.ipv4(), port::ECHO);
    Connect::to(to).answered(&pod)?;
    mesh.kill9("node-a")?;
    let mut stale = daemon_out_of_touch(&mesh.lab, "node-a")?;
    stale.wait_for_line("pod enrolled", PATIENCE)?;
    Connect::to(to).answered(&pod)?;

    let address = old.ipv4();
    old.delete()?;
    let new: Pod = mesh.join(echo("new", "node-b").address(address))?;
    let answer = Connect::to(to).run(&pod)?;
    assert!(answer.was_refused(), "{answer:?}");
    stale.wait_for_line("tunnel_failed", PATIENCE)?;
    assert!(!new.log().contains("\"operation\":\"serve\""), "{}", new.log());

    stale.kill()?;
    mesh.start_daemon("node-a")?;
    mesh.wait_enrolled(&pod, 1)?;
    Connect::to(to).answered(&pod)?;
    Ok(())
}

#[test]
fn a_pod_that_does_not_run_is_told_and_stops_no_other_from_joining() -> Verdict {
    let mesh = Mesh::start()?;
    // On this node by its manifest, and nowhere by its processes.
    mesh.lab.apply("phantom.yaml", PHANTOM)?;
    mesh.settle()?;
    let [pod, far] = mesh.client_and_echo()?;
    Connect::to(SocketAddr::new(far.ipv4(), port::ECHO)).answered(&pod)?;
    let pending = mesh.metrics("node-a")?.sum("mesh_pods", &[("state", "pending")]);
    assert_eq!(pending, 1.0, "a pod that should be in and is not is told");
    Ok(())
}

const PHANTOM: &str = "
apiVersion: v1
kind: Pod
metadata: {name: phantom, namespace: app, uid: 00000000-0000-4000-8000-000000000000}
spec: {nodeName: node-a, serviceAccountName: client, containers: [{name: main, image: none}]}
status: {phase: Running, podIPs: [{ip: 10.244.1.250}]}
";

#[test]
fn a_pod_that_listens_at_a_port_of_the_meshs_is_refused_until_it_lets_go() -> Verdict {
    // Apart until it listens: else the daemon, which comes first to a pod's namespace, would have the port.
    let mesh = Mesh::start()?;
    let squatter = client("squatter", "node-a").label("mesh.dev/join", "disabled");
    let squatter = squatter.command(["mesh-traffic", "echo", "--listen", "[::]:15008"]).port("own", 15_008);
    let squatter = mesh.lab.deploy(squatter)?;
    let far = mesh.join(echo("server", "node-b"))?;
    squatter.unlabel("mesh.dev/join")?;
    let what = "the squatter to be told of";
    wait_until(what, PATIENCE, || Ok(mesh.daemon("node-a")?.logs().contains("pod not enrolled").then_some(())))?;
    // Refused rather than let out.
    let answer = Connect::to(SocketAddr::new(far.ipv4(), port::ECHO)).run(&squatter)?;
    assert!(answer.was_refused(), "{answer:?}");
    assert_eq!(mesh.metrics("node-a")?.sum("mesh_pods", &[("state", "failed")]), 1.0);
    // The try that succeeds comes after tries that got half way.
    squatter.kill()?;
    mesh.wait_enrolled(&squatter, 1)?;
    Connect::to(SocketAddr::new(far.ipv4(), port::ECHO)).answered(&squatter)?;
    Ok(())
}

/// Closed with its pod's leaving, a listener would reset what waited in it, and refuse the tunnels of nodes that hear of it a moment later.
#[test]
fn pods_that_leave_and_join_again_and_again_under_load_lose_no_connection() -> Verdict {
    let mesh = Mesh::start()?;
    let [pod, server] = mesh.client_and_echo()?;
    let to = SocketAddr::new(server.ipv4(), port::ECHO);
    Connect::to(to).answered(&pod)?;
    let dialler = Dialler::new(to, "a line");
    let dialled = thread::scope(|scope| {
        let threads = [(); 4].map(|()| scope.spawn(|| dialler.run(&pod)));
        let flipped = (0..40).try_for_each(|flip| {
            let label = if flip % 2 == 0 { "disabled" } else { "enabled" };
            mesh.lab.label_namespace("app", "mesh.dev/join", label)?;
            thread::sleep(BETWEEN_FLIPS);
            anyhow::Ok(())
        });
        dialler.stop();
        let dialled: Result<Vec<_>> = threads.into_iter().map(|thread| thread.join().expect("no panic")).collect();
        flipped.and(dialled)
    })?;
    let answered: usize = dialled.iter().map(|dialled| dialled.answered).sum();
    let failed: Vec<_> = dialled.iter().flat_map(|dialled| &dialled.failed).collect();
    assert!(answered > 200, "{answered} are too few to show anything");
    assert!(failed.is_empty(), "{} of {}: {failed:?}", failed.len(), failed.len() + answered);
    // Each of them was joined and left indeed.
    assert!(mesh.enrolments(&pod)? > 5 && mesh.enrolments(&server)? > 5);
    // Where a pod stays out, its listeners close.
    let tunnels = SocketAddr::new(server.ipv4(), 15008);
    mesh.lab.label_namespace("app", "mesh.dev/join", "disabled")?;
    wait_until("the pod's listeners to be closed", PATIENCE, || {
        Ok(Connect::to(tunnels).run(&pod)?.was_refused().then_some(()))
    })?;
    Ok(())
}
