//! What the kernel drops is told with its reason, and a flood of it costs nobody much.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use mesh_e2e::{Connect, Held, Mesh, PATIENCE, Syn, Verdict, client, ctl_json, echo, inside, port, traffic};
use mesh_lab::{Place as _, Pod, Process, wait_until};
use nix::sys::signal::Signal;
use serde_json::Value;

const NODE: &str = "node-a";

/// `mesh-ctl flows`, listening to drops.
fn drops(mesh: &Mesh) -> Result<Process> {
    let requests = || Ok::<_, anyhow::Error>(mesh.metrics(NODE)?.sum("mesh_admin_requests_total", &[("code", "200")]));
    let before = requests()?;
    let argv = ["mesh-ctl", "flows", "-f", "--event", "dropped", "-o", "json"];
    let process = mesh.lab.node(NODE)?.spawn(&argv)?;
    wait_until("mesh-ctl to listen", PATIENCE, || Ok((requests()? > before).then_some(())))?;
    Ok(process)
}

/// The next event whose line contains this.
fn next(process: &mut Process, needle: &str) -> Result<Value> {
    let line = process.wait_for_line(needle, PATIENCE)?;
    serde_json::from_str(&line).context(line)
}

fn shown(process: &Process) -> Vec<Value> {
    process.stdout().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Sends SYNs that no hook on connect() has seen.
fn flood(pod: &Pod, destination: SocketAddr, count: u32, limit: Duration) -> Result<u32> {
    let source = SocketAddr::new(pod.ipv4(), 4000);
    inside(pod, || {
        let started = Instant::now();
        let mut sent = 0;
        while sent < count && started.elapsed() < limit {
            // The hook's verdict is an error to a raw socket, by the kernel's own word for a drop.
            let _ = Syn { source, destination }.send();
            sent += 1;
        }
        Ok(sent)
    })
}

#[test]
fn kernel_drops_are_told_with_their_reasons() -> Verdict {
    let mesh = Mesh::start()?;
    let [pod, far] = mesh.client_and_echo()?;
    let mut listening = drops(&mesh)?;
    let to = SocketAddr::new(far.ipv4(), port::ECHO);
    flood(&pod, to, 1, PATIENCE)?;
    let line = next(&mut listening, "unattested_syn")?;
    let own = SocketAddr::new(pod.ipv4(), 4000).to_string();
    assert_eq!((&line["event"], &line["reporter"]), (&"dropped".into(), &"source".into()), "{line}");
    assert_eq!((&line["source"]["pod"], &line["source"]["address"]), (&"client".into(), &own.into()), "{line}");
    assert_eq!((&line["destination"]["pod"], &line["end"]), (&"server".into(), &"unattested_syn".into()), "{line}");
    assert!(line["detail"].as_str().is_some_and(|detail| detail.contains("raw socket")), "{line}");
    // A connect() that is refused.
    for ip in [IpAddr::V4(Ipv4Addr::LOCALHOST), pod.ipv6()] {
        let to = SocketAddr::new(ip, 15_006);
        assert_ne!(Connect::to(to).run(&pod)?.connect, "ok");
        let line = next(&mut listening, &to.to_string())?;
        assert_eq!((&line["source"]["pod"], &line["end"]), (&"client".into(), &"reserved_port".into()), "{line}");
    }
    Ok(())
}

#[test]
fn a_flood_of_drops_is_told_in_part_counted_whole_and_costs_the_daemon_little() -> Verdict {
    let mesh = Mesh::start()?;
    let [pod, far] = mesh.client_and_echo()?;
    let mut listening = drops(&mesh)?;
    let to = SocketAddr::new(far.ipv4(), port::ECHO);
    let cpu = mesh.daemon(NODE)?.cpu_seconds()?;
    let started = Instant::now();
    let sent = flood(&pod, to, 200_000, Duration::from_secs(5))?;
    let (elapsed, cpu) = (started.elapsed().as_secs_f64(), mesh.daemon(NODE)?.cpu_seconds()? - cpu);
    assert!(sent > 10_000, "{sent} in {elapsed} s are no flood");
    assert!(cpu < 0.2 * elapsed, "{cpu} s of {elapsed} s");
    let (dropped, untold) = (mesh.events(NODE, "unattested_syn")?, mesh.events(NODE, "drop_event_limit")?);
    assert_eq!(dropped, u64::from(sent));
    // Another reason is told in the midst of it.
    assert_ne!(Connect::to(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 15_006)).run(&pod)?.connect, "ok");
    listening.wait_for_line("reserved_port", PATIENCE)?;
    let told = shown(&listening).iter().filter(|event| event["end"] == "unattested_syn").count() as u64;
    assert_eq!(
        (told + untold, mesh.events(NODE, "drop_event")?),
        (dropped, 0),
        "every drop is told or counted as untold"
    );
    assert!(told < dropped / 10, "{told} of {dropped}");
    Connect::to(to).answered(&pod)?;
    Ok(())
}

#[test]
fn a_daemon_that_hangs_loses_events_of_drops_and_nothing_waits_for_it() -> Verdict {
    let mut mesh = Mesh::start()?;
    let [pod, far] = mesh.client_and_echo()?;
    let to = SocketAddr::new(far.ipv4(), port::ECHO);
    let mut daemon = mesh.take_daemon(NODE)?;
    daemon.process().signal(Signal::SIGSTOP)?;
    // Two reasons, each with its own budget, until the ring is full.
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(8) {
        flood(&pod, to, u32::MAX, Duration::from_millis(400))?;
        sleep(Duration::from_millis(1));
    }
    daemon.process().signal(Signal::SIGCONT)?;
    let lost = daemon.metrics()?.sum("mesh_ebpf_events_total", &[("reason", "drop_event")]);
    assert!(lost > 0.0, "the ring was never full");
    mesh.return_daemon(daemon);
    let listening = drops(&mesh)?;
    // The flood's last window may not be over yet, in which nothing more is told.
    wait_until("a drop to be shown", PATIENCE, || {
        flood(&pod, to, 1, PATIENCE)?;
        Ok((!shown(&listening).is_empty()).then_some(()))
    })?;
    Connect::to(to).answered(&pod)?;
    Ok(())
}

#[test]
fn a_daemon_that_hangs_loses_events_of_direct_connections_and_finds_what_became_of_them() -> Verdict {
    const MANY: usize = 3500;
    let mut mesh = Mesh::start()?;
    let near = mesh.join(echo("server", NODE))?;
    let pod = mesh.join(client("client", NODE))?;
    let to = SocketAddr::new(near.ipv4(), port::ECHO);
    let mut held = Held::open(&pod, to)?;
    held.says("before")?;
    let mut daemon = mesh.take_daemon(NODE)?;
    daemon.process().signal(Signal::SIGSTOP)?;
    // Three events each: more than the ring holds, within the lease of ten seconds.
    let done = traffic(&pod, "many", to, &["--connections", &MANY.to_string()]);
    let mut late = Held::open(&pod, to)?;
    late.says("while it hangs")?;
    daemon.process().signal(Signal::SIGCONT)?;
    done?;
    let metrics = daemon.metrics()?;
    assert!(metrics.sum("mesh_ebpf_events_total", &[("reason", "direct_event")]) > 0.0, "the ring was never full");
    let direct = metrics.sum("mesh_ebpf_events_total", &[("reason", "direct_connect")]);
    assert!(direct >= (MANY + 2) as f64, "{direct} were direct");
    mesh.return_daemon(daemon);
    // Each connection that lives at both of its ends, and none that has ended.
    wait_until("the two that live to be listed, and no other", PATIENCE, || {
        let list = ctl_json(&mesh, NODE, &["connection", "list"], 0)?;
        Ok((list["total"].as_u64().context("a total")? <= 4).then_some(()))
    })?;
    held.says("after")?;
    late.says("after")?;
    held.close()?;
    late.close()?;
    wait_until("none to be left", PATIENCE, || {
        Ok((ctl_json(&mesh, NODE, &["connection", "list"], 0)?["total"] == 0).then_some(()))
    })?;
    let metrics = mesh.metrics(NODE)?;
    let total = |name: &str| metrics.sum(name, &[("reporter", "source")]);
    let (opened, closed) = (total("istio_tcp_connections_opened_total"), total("istio_tcp_connections_closed_total"));
    assert_eq!(opened, closed, "what is told to have begun has ended");
    Ok(())
}
