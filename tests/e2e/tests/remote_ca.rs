//! The authority over the network: nodes that hold no key of it, and what happens while it is away.

use std::net::SocketAddr;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use mesh_e2e::{Connect, PATIENCE, Remote, Verdict, client, ctl_json, echo, port};
use mesh_lab::{Ingress, Place as _, Pod, ServiceSpec, binary, wait_until};

fn at(pod: &Pod) -> SocketAddr {
    SocketAddr::new(pod.ipv4(), port::ECHO)
}

#[test]
fn nodes_get_their_certificates_over_the_network_and_outlive_an_authority_that_is_away() -> Verdict {
    let mut remote = Remote::start("20s")?;
    let far = remote.mesh.join(echo("server", "node-b"))?;
    let near = remote.mesh.join(client("client", "node-a"))?;
    Connect::to(at(&far)).answered(&near)?;
    let signed = remote.authority()?.log();
    assert!(signed.contains("certificate signed") && signed.contains("sa/server"), "{signed}");

    // Away for longer than it takes to notice: certificates that are held serve on.
    remote.authority.take().context("running")?.kill()?;
    wait_until("node-b to find the CA away", PATIENCE, || {
        Ok((remote.metric("node-b", "mesh_ca_reachable", &[])? == 0.0).then_some(()))
    })?;
    Connect::to(at(&far)).answered(&near)?;
    let status = ctl_json(&remote.mesh, "node-b", &["certificate", "list"], 0)?;
    let error = status["items"][0]["error"].as_str().unwrap_or_default();
    assert!(error.contains("cannot be reached"), "{status}");
    // A pod that is new has none: its connections wait for a bounded time and are refused.
    let late = remote.mesh.join(client("late", "node-a"))?;
    assert!(Connect::to(at(&far)).run(&late)?.was_refused());
    assert!(remote.mesh.refused("node-a", "no_certificate")? >= 1);

    remote.start_authority()?;
    wait_until("node-b to find the CA back", PATIENCE, || {
        Ok((remote.metric("node-b", "mesh_ca_reachable", &[])? == 1.0).then_some(()))
    })?;
    wait_until("the late pod to be served", PATIENCE, || {
        Ok((Connect::to(at(&far)).run(&late)?.outcome == "ok").then_some(()))
    })?;
    Ok(())
}

#[test]
fn a_node_with_another_nodes_token_gets_nothing_for_its_own_pods() -> Verdict {
    let mut remote = Remote::start("1h")?;
    let far = remote.mesh.join(echo("server", "node-b"))?;
    let near = remote.mesh.join(client("client", "node-a"))?;
    Connect::to(at(&far)).answered(&near)?;
    remote.mesh.kill9("node-b")?;
    remote.start_daemon("node-b", "node-a", "1h")?;
    let denied = wait_until("the refusal", PATIENCE, || {
        let log = remote.authority()?.log();
        Ok(log.lines().find(|line| line.contains("certificate refused") && line.contains("denied")).map(str::to_owned))
    })?;
    assert!(denied.contains("no pod of") && denied.contains("placed on node node-a"), "{denied}");
    assert_ne!(Connect::to(at(&far)).for_seconds(20).run(&near)?.outcome, "ok");
    Ok(())
}

#[test]
fn the_gateway_gets_its_certificate_over_the_network() -> Verdict {
    let remote = Remote::start("1h")?;
    let mesh = &remote.mesh;
    let far = mesh.join(echo("server", "node-b"))?;
    mesh.lab.service(ServiceSpec::new("app", "server").select("app", "server").port("tcp", 80, port::ECHO))?;
    let gateway = Ingress::new("edge", "gateway").port(8000);
    gateway.lead_tcp(&mesh.lab, "server", 80)?;
    let flags: Vec<String> = remote.flags("node-a", "1h")?.into_iter().collect();
    let pod = gateway.start(&mesh.lab, "node-a", &flags)?;
    let outside = mesh.lab.outside("outside")?;
    Connect::to(SocketAddr::new(pod.ipv4(), 8000)).answered(&outside)?;
    let told = mesh.told(&far.node()?, 1)?;
    assert_eq!(told[0]["source_principal"], "spiffe://cluster.local/ns/edge/sa/gateway", "{told:?}");
    assert!(remote.authority()?.log().contains("sa/gateway"));
    Ok(())
}

#[test]
fn a_revocation_reaches_nodes_that_hold_no_file_of_the_authority() -> Verdict {
    let remote = Remote::start("1h")?;
    let far = remote.mesh.join(echo("server", "node-b"))?;
    let near = remote.mesh.join(client("client", "node-a"))?;
    let mut held = mesh_e2e::Held::open(&near, at(&far))?;
    held.says("hello")?;
    let list = ctl_json(&remote.mesh, "node-a", &["certificate", "list"], 0)?;
    let serial = list["items"][0]["serial"].as_str().context("a serial number")?.to_owned();
    let ca = remote.mesh.lab.ca_dir()?.display().to_string();
    let argv = ["ca", "revoke", "--dir", &ca, &serial];
    let revoked = Command::new(binary("mesh-control")?).args(argv).output().context("starting mesh-control")?;
    ensure_ok(&revoked)?;
    assert_eq!(held.ends()?, "reset");
    // Until its own node has heard of it, the workload still shows what others refuse.
    wait_until("another certificate", PATIENCE, || {
        let list = ctl_json(&remote.mesh, "node-a", &["certificate", "list"], 0)?;
        Ok((list["items"][0]["serial"] != *serial).then_some(()))
    })?;
    Connect::to(at(&far)).answered(&near)?;
    Ok(())
}

fn ensure_ok(output: &std::process::Output) -> Result<()> {
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
