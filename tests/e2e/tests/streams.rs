//! Bytes through the mesh: exact, in any amount, however slowly they are read, however many streams there are.

use std::net::SocketAddr;

use anyhow::Result;
use mesh_e2e::{Connect, Mesh, PATIENCE, Verdict, client, over_both_tunnels, port, server, traffic, unread};
use mesh_lab::{Place, Pod, ServiceSpec, wait_until};
use nix::sys::signal::Signal;

const MIB: u64 = 1 << 20;

/// Around the sizes of buffers, frames and records on the way.
const SIZES: [u64; 10] = [1, 2, 1023, 1024, 16_385, 65_535, 65_536, 65_537, 262_147, 1_000_003];

over_both_tunnels! {
    streams_of_every_size_arrive_exactly_both_ways_over_both_families,
    streams_between_pods_of_one_node_arrive_exactly,
    a_reader_that_stands_still_costs_the_daemons_no_memory_and_others_no_progress,
    a_thousand_connections_are_open_at_once,
}

fn exchange(client: &Pod, to: SocketAddr, bytes: u64, more: &[&str]) -> Result<()> {
    let bytes_text = bytes.to_string();
    let arguments = [&["--bytes", &bytes_text, "--both-ways"], more].concat();
    let said = traffic(client, "send", to, &arguments)?;
    assert!(said["received"] == bytes, "{bytes} octets to {to}: {said}");
    Ok(())
}

fn streams_of_every_size_arrive_exactly_both_ways_over_both_families(mesh: &Mesh) -> Result<()> {
    let far = mesh.join(server("server", "node-b"))?;
    let service =
        mesh.lab.service(ServiceSpec::new("app", "stream").select("app", "server").port("tcp", 80, port::STREAM))?;
    let client = mesh.join(client("client", "node-a"))?;
    mesh.settle()?;
    let pod = |ip| SocketAddr::new(ip, port::STREAM);
    for to in [pod(far.ipv4()), pod(far.ipv6()), service.at(80), service.at_v6(80)] {
        for bytes in SIZES {
            exchange(&client, to, bytes, &[])?;
        }
    }
    for to in [pod(far.ipv4()), pod(far.ipv6())] {
        exchange(&client, to, 16 * MIB, &[])?;
        exchange(&client, to, 20_000, &["--chunk", "1"])?;
    }
    Ok(())
}

fn streams_between_pods_of_one_node_arrive_exactly(mesh: &Mesh) -> Result<()> {
    let near = mesh.join(server("server", "node-a"))?;
    let client = mesh.join(client("client", "node-a"))?;
    for ip in near.addresses() {
        for bytes in [1, 65_537, 16 * MIB] {
            exchange(&client, SocketAddr::new(ip, port::STREAM), bytes, &[])?;
        }
    }
    Ok(())
}

#[test]
fn a_gigabyte_arrives_exactly_each_way() -> Verdict {
    let mesh = Mesh::start()?;
    let [client, far] = mesh.client_and_server()?;
    let to = SocketAddr::new(far.ipv4(), port::STREAM);
    exchange(&client, to, 1_000_000_000, &[])?;
    Ok(())
}

fn a_reader_that_stands_still_costs_the_daemons_no_memory_and_others_no_progress(mesh: &Mesh) -> Result<()> {
    let [client, far] = mesh.client_and_server()?;
    let to = SocketAddr::new(far.ipv4(), port::STREAM);
    exchange(&client, to, 16 * MIB, &[])?;
    let memory = || -> Result<u64> { Ok(mesh.daemon("node-a")?.rss()? + mesh.daemon("node-b")?.rss()?) };
    let before = memory()?;

    let (to_text, bytes, seconds) = (to.to_string(), (256 * MIB).to_string(), PATIENCE.as_secs().to_string());
    let argv = ["mesh-traffic", "send", "--to", &to_text, "--bytes", &bytes, "--both-ways", "--timeout", &seconds];
    let mut stalled = client.spawn(&argv)?;
    wait_until("unread octets", PATIENCE, || {
        stalled.signal(Signal::SIGSTOP)?;
        let unread = unread(&client, 15_001)?;
        if unread == 0 {
            stalled.signal(Signal::SIGCONT)?;
        }
        Ok((unread > 0).then_some(()))
    })?;
    // While it stands still, as much goes past it as would fill an unbounded buffer.
    for _ in 0..4 {
        exchange(&client, to, 64 * MIB, &[])?;
    }
    let grown = memory()?.saturating_sub(before);
    assert!(grown < 48 * MIB, "the daemons grew by {} MiB", grown / MIB);
    stalled.signal(Signal::SIGCONT)?;
    stalled.wait(PATIENCE)?.success()?;
    Ok(())
}

fn a_thousand_connections_are_open_at_once(mesh: &Mesh) -> Result<()> {
    let [client, far] = mesh.client_and_server()?;
    for ip in far.addresses() {
        let said = traffic(&client, "many", SocketAddr::new(ip, port::ECHO), &["--connections", "1000"])?;
        assert!(said["outcomes"]["ok"] == 1000, "{said}");
    }
    let opened = mesh
        .metrics("node-b")?
        .sum("istio_tcp_connections_opened_total", &[("connection_security_policy", "mutual_tls")]);
    assert!(opened == 2000.0, "{opened} of them over mTLS");
    Ok(())
}

#[test]
fn a_server_may_have_the_first_word() -> Verdict {
    let mesh = Mesh::start()?;
    let servers = [mesh.join(server("far", "node-b"))?, mesh.join(server("near", "node-a"))?];
    let client = mesh.join(client("client", "node-a"))?;
    let outside = mesh.lab.outside("outside")?;
    for ip in servers.iter().flat_map(Place::addresses) {
        let first_word = Connect::to(SocketAddr::new(ip, port::REPORT_PEER)).silent();
        first_word.answered(&client)?.seen_by_server()?;
        first_word.answered(&outside)?.seen_by_server()?;
    }
    Ok(())
}
