//! Certificates and their authority: short lives, a root that is replaced, certificates that are revoked, workloads that are gone,
//! all on live traffic.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use mesh_e2e::{Connect, Held, Mesh, NODES, PATIENCE, Verdict, client, connections, ctl_json, lines, port, traffic};
use mesh_lab::{Daemon, Place as _, Pod, binary, wait_until};
use nix::sys::signal::Signal;
use serde_json::Value;

/// Runs `mesh-control` here.
fn control(arguments: &[&str]) -> Result<()> {
    let output = Command::new(binary("mesh-control")?).args(arguments).output().context("starting mesh-control")?;
    ensure!(output.status.success(), "mesh-control {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn rotate(step: &str, ca: &Path, more: &[&str]) -> Result<()> {
    control(&[&["ca", "rotate", step, "--dir", &ca.display().to_string()][..], more].concat())
}

/// The certificates that a node's daemon shows to `mesh-ctl`.
fn certificates(mesh: &Mesh, node: &str) -> Result<Vec<Value>> {
    let list = ctl_json(mesh, node, &["certificate", "list"], 0)?;
    Ok(list["items"].as_array().cloned().unwrap_or_default())
}

fn serial(mesh: &Mesh, node: &str, account: &str) -> Result<String> {
    let all = certificates(mesh, node)?;
    let of =
        all.iter().find(|item| item["serviceAccount"] == account).with_context(|| format!("{account}: {all:?}"))?;
    Ok(of["serial"].as_str().unwrap_or_default().to_owned())
}

/// Waits until every daemon trusts so many roots and shows it.
fn wait_for_roots(mesh: &Mesh, count: usize) -> Result<()> {
    for node in NODES {
        wait_until(&format!("{node} to trust {count} roots"), PATIENCE, || {
            let all = certificates(mesh, node)?;
            let trusts = |item: &Value| item["roots"].as_array().is_some_and(|roots| roots.len() == count);
            Ok((!all.is_empty() && all.iter().all(trusts)).then_some(()))
        })?;
    }
    Ok(())
}

fn at(pod: &Pod) -> SocketAddr {
    SocketAddr::new(pod.ipv4(), port::ECHO)
}

/// Connections without a pause while `work` goes on, several at once, each of which must be well to its end. Returns how many
/// rounds there were.
fn under_traffic(mesh: &Mesh, client: &Pod, to: SocketAddr, work: impl FnOnce() -> Result<()>) -> Result<usize> {
    let (done, rounds) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let streams: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| -> Result<()> {
                    while !done.load(Ordering::Relaxed) {
                        traffic(client, "many", to, &["--connections", "16"]).with_context(|| uncommon(mesh))?;
                        rounds.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(())
                })
            })
            .collect();
        let worked = work();
        done.store(true, Ordering::Relaxed);
        for stream in streams {
            stream.join().map_err(|_| anyhow::anyhow!("the traffic panicked"))??;
        }
        worked
    })?;
    Ok(rounds.into_inner())
}

/// What the daemons tell beside connections that went well, for a failure's message.
fn uncommon(mesh: &Mesh) -> String {
    let of = |node| mesh.daemon(node).map(lines).unwrap_or_default();
    let all = NODES.into_iter().flat_map(|node| of(node).into_iter().map(move |line| format!("{node}: {line}\n")));
    all.filter(|line| !line.contains("\"end\":\"closed\"")).collect()
}

#[test]
fn certificates_of_a_few_seconds_are_renewed_under_traffic_and_no_connection_fails() -> Verdict {
    let mesh = Mesh::with(&["--certificate-lifetime", "6s"])?;
    let [client, far] = mesh.client_and_echo()?;
    let renewed = |node: &str| -> Result<f64> {
        Ok(mesh.metrics(node)?.sum("mesh_certificate_renewals_total", &[("result", "success")]))
    };
    let rounds = under_traffic(&mesh, &client, at(&far), || {
        wait_until("five certificates on each node", PATIENCE, || {
            Ok((renewed("node-a")? >= 5.0 && renewed("node-b")? >= 5.0).then_some(()))
        })
    })?;
    assert!(rounds >= 5, "{rounds}");
    for node in NODES {
        let metrics = mesh.metrics(node)?;
        assert_eq!(metrics.sum("mesh_certificate_renewals_total", &[("result", "failure")]), 0.0, "{node}");
        // One for each account with a pod on the node, and no other.
        assert_eq!(metrics.of("mesh_certificate_expiry_seconds", &[]).count(), 1, "{node}");
    }
    Ok(())
}

#[test]
fn a_root_is_replaced_under_traffic_and_afterwards_the_old_one_is_refused() -> Verdict {
    let mesh = Mesh::with(&["--certificate-lifetime", "8s"])?;
    let [near, far] = mesh.client_and_echo()?;
    let (ca, old) = (mesh.lab.ca_dir()?, mesh.lab.home().join("old-ca"));
    let mut held = Held::open(&near, at(&far))?;
    under_traffic(&mesh, &near, at(&far), || {
        rotate("add", &ca, &[])?;
        wait_for_roots(&mesh, 2)?;
        // Somebody who kept the old key and has heard of the new root.
        let copied = Command::new("cp").arg("-r").arg(&ca).arg(&old).status().context("cp")?;
        ensure!(copied.success(), "the old authority was not copied");
        let before = (serial(&mesh, "node-a", "client")?, serial(&mesh, "node-b", "server")?);
        rotate("switch", &ca, &[])?;
        wait_until("certificates of the new root", PATIENCE, || {
            let after = (serial(&mesh, "node-a", "client")?, serial(&mesh, "node-b", "server")?);
            Ok((after.0 != before.0 && after.1 != before.1).then_some(()))
        })?;
        held.says("still here")?;
        // As a person waits for the end of what the old root vouched for: from then on no pool uses it for new tunnels.
        thread::sleep(Duration::from_secs(9));
        rotate("retire", &ca, &["--now"])?;
        wait_for_roots(&mesh, 1)
    })?;
    // A connection that is older than the switch goes by the old root, and ends with it.
    assert_eq!(held.ends()?, "reset");
    refuses_the_old_root(&mesh, &far, &old)?;
    Connect::to(at(&far)).answered(&near)?;
    Ok(())
}

/// A gateway with a certificate of the old authority reaches nothing.
fn refuses_the_old_root(mesh: &Mesh, far: &Pod, old: &Path) -> Result<()> {
    let service = mesh_lab::ServiceSpec::new("app", "server").select("app", "server").port("tcp", 80, port::ECHO);
    mesh.lab.service(service)?;
    let gateway = mesh_lab::Ingress::new("edge", "gateway").port(8000);
    gateway.lead_tcp(&mesh.lab, "server", 80)?;
    let pod = gateway.start(&mesh.lab, "node-a", &["--ca".to_owned(), old.display().to_string()])?;
    let outside = mesh.lab.outside("outside")?;
    let answer = Connect::to(SocketAddr::new(pod.ipv4(), 8000)).run(&outside)?;
    ensure!(answer.outcome != "ok", "{answer:?}");
    let node = far.node()?;
    wait_until("the refusal of the old root", PATIENCE, || {
        let refused = mesh.metrics(&node)?.sum("mesh_tunnels_rejected_total", &[("reason", "certificate_untrusted")]);
        Ok((refused >= 1.0).then_some(()))
    })
}

#[test]
fn a_revoked_certificates_connections_end_and_its_workload_gets_another() -> Verdict {
    let mesh = Mesh::start()?;
    let [near, far] = mesh.client_and_echo()?;
    let mut held = Held::open(&near, at(&far))?;
    held.says("hello")?;
    let old = serial(&mesh, "node-a", "client")?;
    let ca = mesh.lab.ca_dir()?.display().to_string();
    control(&["ca", "revoke", "--dir", &ca, &old])?;
    assert_eq!(held.ends()?, "reset");
    let cut = wait_until("the connection's line on node-b", PATIENCE, || {
        let told = connections(mesh.daemon("node-b")?);
        Ok(told
            .into_iter()
            .find(|line| line["ending"] == "certificate_untrusted" || line["end"] == "certificate_untrusted"))
    })?;
    assert!(cut.to_string().contains("Revoked"), "{cut}");
    assert_eq!(mesh.metrics("node-b")?.sum("mesh_tunnels_ended_total", &[("reason", "certificate_untrusted")]), 1.0);
    // Until its own node has heard of it, the workload still shows what others refuse.
    wait_until("another certificate", PATIENCE, || Ok((serial(&mesh, "node-a", "client")? != old).then_some(())))?;
    Connect::to(at(&far)).answered(&near)?;
    Ok(())
}

#[test]
fn tunnels_of_a_pod_that_is_gone_end_where_they_arrive_though_its_node_is_silent() -> Verdict {
    let mut mesh = Mesh::start()?;
    let [near, far] = mesh.client_and_echo()?;
    let bystander = mesh.join(client("bystander", "node-b"))?;
    let mut held = Held::open(&near, at(&far))?;
    held.says("hello")?;
    let mut frozen = mesh.take_daemon("node-a")?;
    frozen.process().signal(Signal::SIGSTOP)?;
    near.delete()?;
    let gone = |daemon: &Daemon| lines(daemon).into_iter().find(|line| line["reason"] == "workload_gone");
    let line = wait_until("node-b to end the tunnel", PATIENCE, || Ok(gone(mesh.daemon("node-b")?)))?;
    assert_eq!(line["message"], "tunnel ended", "{line}");
    assert_eq!(mesh.metrics("node-b")?.sum("mesh_tunnels_ended_total", &[("reason", "workload_gone")]), 1.0);
    Connect::to(at(&far)).answered(&bystander)?;
    frozen.process().signal(Signal::SIGCONT)?;
    Ok(())
}
