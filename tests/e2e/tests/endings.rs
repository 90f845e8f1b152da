//! Ends of connections keep their shape: a FIN stays a FIN, a half-close a half-close, a reset a reset.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use mesh_e2e::{Connect, Held, Mesh, PATIENCE, client, over_both_tunnels, port, server, traffic, unread};
use mesh_lab::{Addresses, Place, Pod, wait_until};

over_both_tunnels! {
    either_side_may_end_its_direction_first,
    a_reset_by_the_server_reaches_the_client_as_a_reset,
    a_reset_by_the_client_reaches_the_server_as_a_reset,
    a_server_that_dies_with_unread_bytes_resets_its_client,
    a_connection_ends_with_the_pod_at_its_other_end,
    how_a_connection_ended_is_told_by_both_daemons,
}

/// A client and where it connects to: the other node, its own node, and both from outside the mesh.
fn paths(mesh: &Mesh) -> Result<(Vec<Pod>, Pod, mesh_lab::Outside)> {
    let servers = vec![mesh.join(server("far", "node-b"))?, mesh.join(server("near", "node-a"))?];
    Ok((servers, mesh.join(client("client", "node-a"))?, mesh.lab.outside("outside")?))
}

fn either_side_may_end_its_direction_first(mesh: &Mesh) -> Result<()> {
    let (servers, client, outside) = paths(mesh)?;
    for ip in servers.iter().flat_map(Place::addresses) {
        let to = SocketAddr::new(ip, port::STREAM);
        for first in ["client", "server"] {
            traffic(&client, "half-close", to, &["--first", first])?;
            traffic(&outside, "half-close", to, &["--first", first])?;
            // An end that no octet precedes.
            traffic(&client, "half-close", to, &["--first", first, "--bytes", "0"])?;
        }
    }
    Ok(())
}

fn a_reset_by_the_server_reaches_the_client_as_a_reset(mesh: &Mesh) -> Result<()> {
    let (servers, client, outside) = paths(mesh)?;
    for ip in servers.iter().flat_map(Place::addresses) {
        let to = SocketAddr::new(ip, port::STREAM);
        traffic(&client, "reset", to, &["--by", "server"])?;
        traffic(&outside, "reset", to, &["--by", "server"])?;
        let refused = Connect::to(SocketAddr::new(ip, port::REFUSE)).silent().run(&client)?;
        assert!(refused.outcome == "reset", "{refused:?}");
    }
    Ok(())
}

fn a_reset_by_the_client_reaches_the_server_as_a_reset(mesh: &Mesh) -> Result<()> {
    let (servers, client, outside) = paths(mesh)?;
    for server in &servers {
        let mut resets = 0;
        for ip in server.addresses() {
            let to = SocketAddr::new(ip, port::STREAM);
            traffic(&client, "reset", to, &["--by", "client"])?;
            traffic(&outside, "reset", to, &["--by", "client"])?;
            resets += 2;
            wait_until("the server to see the reset", PATIENCE, || {
                let log = server.log();
                let seen = log.lines().filter(|line| line.contains("\"outcome\":\"reset\"")).count();
                Ok((seen >= resets).then_some(()))
            })?;
        }
        assert!(!server.log().contains("\"outcome\":\"eof\""), "{}", server.log());
    }
    Ok(())
}

fn a_server_that_dies_with_unread_bytes_resets_its_client(mesh: &Mesh) -> Result<()> {
    let far = mesh.join(
        client("server", "node-b")
            .command(["mesh-traffic", "slow-reader", "--listen", "[::]:7002", "--pause", "100000"])
            .port("slow", 7002),
    )?;
    let client = mesh.join(client("client", "node-a"))?;
    let to = SocketAddr::new(far.ipv4(), 7002).to_string();
    let seconds = PATIENCE.as_secs().to_string();
    let argv = ["mesh-traffic", "send", "--to", &to, "--bytes", "1000000000", "--timeout", &seconds];
    let mut sender = client.spawn(&argv)?;
    wait_until("unread octets", PATIENCE, || Ok((unread(&far, 7002)? > 0).then_some(())))?;
    far.kill()?;
    let outcome = sender.wait(PATIENCE)?;
    assert!(outcome.json()?["outcome"] == "reset", "{outcome}");
    Ok(())
}

fn a_connection_ends_with_the_pod_at_its_other_end(mesh: &Mesh) -> Result<()> {
    let [pod, far] = mesh.client_and_echo()?;
    let mut held = Held::open(&pod, SocketAddr::new(far.ipv4(), port::ECHO))?;
    held.says("one")?;
    mesh.restart(&far, Addresses::New)?;
    let how = held.ends()?;
    assert!(how == "reset" || how == "eof", "{how}");

    let mut held = Held::open(&pod, SocketAddr::new(far.ipv4(), port::ECHO))?;
    held.says("two")?;
    pod.delete()?;
    far.wait_for_line("\"operation\":\"serve\"", Duration::from_secs(60))?;
    Ok(())
}

fn how_a_connection_ended_is_told_by_both_daemons(mesh: &Mesh) -> Result<()> {
    let (servers, client, _) = paths(mesh)?;
    let to = SocketAddr::new(servers[0].ipv4(), port::STREAM);
    traffic(&client, "half-close", to, &["--first", "server"])?;
    traffic(&client, "reset", to, &["--by", "server"])?;
    traffic(&client, "reset", to, &["--by", "client"])?;
    let expected = [
        ("node-a", ["closed", "reset_by_far", "reset_by_app"]),
        ("node-b", ["closed", "reset_by_app", "reset_by_far"]),
    ];
    for (node, ends) in expected {
        let lines = mesh.told(node, 3)?;
        let told: Vec<_> = lines.iter().filter_map(|line| line["end"].as_str()).collect();
        assert!(told == ends, "{node}: {told:?}");
    }
    Ok(())
}
