//! A daemon dies: its pods' connections are refused and nothing leaves them in plaintext. It comes back, all goes on.

use std::net::SocketAddr;
use std::time::Instant;

use anyhow::{Context as _, Result};
use mesh_lab::{Packet, Packets, Place as _};

use crate::checkout::Outcome;
use crate::claim::claim;
use crate::processes;
use crate::screen::Screen;
use crate::stage::{LAPTOP, NODES, SHOPPER, Stage};
use crate::wire::{self, HBONE};

/// Whose daemon dies: the node of the shopper and of cart.
const DEAD: usize = 1;
/// What the eBPF programs did, by why; it outlives the daemon.
const EVENTS: &str = "mesh_ebpf_events_total";
const NO_LISTENER: [(&str, &str); 2] = [("action", "drop"), ("reason", "no_listener")];

pub fn show(stage: &mut Stage, screen: &Screen) -> Result<String> {
    let node = NODES[DEAD];
    let daemon = stage.daemons[DEAD].take().context("the daemon runs")?;
    let dropped_before = daemon.metrics()?.sum(EVENTS, &NO_LISTENER);
    screen.command(node, &format!("kill -9 {}   # mesh-node", daemon.id()));
    let capture = stage.lab.capture(NODES[0])?;
    let status = daemon.kill9()?;
    screen.say(format!("mesh-node on {node}: {status}"));
    let out = refused(stage, screen)?;
    let into = dropped(stage, screen)?;
    let packets = capture.stop()?;
    claim(packets.lost() == 0, "a capture without gaps", format!("{} packets lost", packets.lost()))?;
    for secret in wire::secrets(&stage.purchase) {
        let found = wire::occurrences(&packets, &secret.text);
        claim(found == 0, format!("{} not on the wire without its daemon", secret.name), format!("{found} times"))?;
    }
    let (begun, leaked) = sent_by_pods(stage, &packets)?;
    claim(begun == 0, format!("no connection begun by the pods of {node} on the wire"), begun)?;
    claim(leaked == 0, format!("no octet from the pods of {node} on the wire"), leaked)?;
    screen.say(format!("from the pods of {node} on the wire: {begun} connections begun, {leaked} octets"));
    let back = come_back(stage, screen)?;
    let drops = stage.daemon(DEAD)?.metrics()?.sum(EVENTS, &NO_LISTENER) - dropped_before;
    claim(drops > 0.0, "the kernel to have counted what it dropped", drops)?;
    screen.say(format!("the kernel's own count: {EVENTS}{{action=\"drop\",reason=\"no_listener\"}} +{drops}"));
    Ok(format!("{out} out, {into} in, {leaked} octets leaked; back after {back} ms"))
}

/// Connections that the node's pods began, and octets that they sent, seen on the wire; what is left of tunnels apart.
fn sent_by_pods(stage: &Stage, packets: &Packets) -> Result<(usize, usize)> {
    let own: Vec<_> = stage.pods_on(NODES[DEAD])?.iter().flat_map(|pod| pod.addresses()).collect();
    let of_tunnels = |packet: &Packet| [packet.source.port(), packet.destination.port()].contains(&HBONE);
    let sent = packets.packets().iter().filter(|packet| own.contains(&packet.source.ip()) && !of_tunnels(packet));
    let begins = |packet: &&Packet| packet.tcp().is_some_and(|segment| segment.syn());
    Ok((sent.clone().filter(begins).count(), sent.map(|packet| packet.payload.len()).sum()))
}

/// Out of the node: the hooks still hand connections to a daemon that is not there.
fn refused(stage: &Stage, screen: &Screen) -> Result<&'static str> {
    screen.command(SHOPPER, &format!("curl '{}'", stage.purchase.cluster_url()));
    match stage.purchase.buy_at(stage.pod(SHOPPER)?, "frontend.shop:8080")? {
        Outcome::Failed(why) => screen.say(why),
        Outcome::Served(answer) => claim(false, "no checkout without the daemon", answer.summary())?,
    }
    Ok("refused")
}

/// Into the node: what would go to the daemon's plaintext listener finds nobody.
fn dropped(stage: &Stage, screen: &Screen) -> Result<&'static str> {
    let url = format!("http://{}/carts?user=ada", SocketAddr::new(stage.pod("cart-v1")?.ipv4(), 8080));
    screen.command(LAPTOP, &format!("curl --max-time 1 '{url}'"));
    let output = stage.outside.exec(&["curl", "--silent", "--show-error", "--max-time", "1", &url])?;
    claim(output.code != Some(0), "no answer from cart without its daemon", &output.stdout)?;
    screen.say(output.stderr.trim());
    Ok("dropped")
}

/// Starts the daemon anew. Returns the milliseconds until its pods were in the mesh again.
fn come_back(stage: &mut Stage, screen: &Screen) -> Result<u128> {
    screen.progress("starting mesh-node again");
    let started = Instant::now();
    stage.start_daemon(DEAD)?;
    let pods = stage.wait_enrolled(DEAD)?;
    let took = started.elapsed().as_millis();
    let id = stage.daemon(DEAD)?.id();
    screen.say(format!("mesh-node on {} again: pid {id}, its {pods} pods in the mesh after {took} ms", NODES[DEAD]));
    let answer = stage.purchase.buy(stage.pod(SHOPPER)?)?;
    screen.say(answer.summary());
    let same = processes::of(&stage.pods)? == stage.before;
    claim(same, "the pods to run on through all of it", "their processes are others")?;
    Ok(took)
}
