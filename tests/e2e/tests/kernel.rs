//! What the eBPF programs do to real connections, in few steps: this is run on every kernel that we support, inside an
//! emulator as well, with no tools but those that the lab itself needs.

use std::net::{IpAddr, SocketAddr};

use mesh_e2e::{Connect, Mesh, NODES, PATIENCE, Syn, Verdict, client, generations, inside, port, server, traffic};
use mesh_lab::{Place, ServiceSpec, wait_until};

#[test]
fn kernel_connections_are_redirected_and_both_ends_see_each_other() -> Verdict {
    let mesh = Mesh::start()?;
    let far = mesh.join(server("server", "node-b"))?;
    let spec = ServiceSpec::new("app", "peer").select("app", "server").port("tcp", 80, port::REPORT_PEER);
    let service = mesh.lab.service(spec)?;
    let client = mesh.join(client("client", "node-a"))?;
    mesh.settle()?;
    let mut redirected = 0;
    let (v4, v6) = (SocketAddr::new(far.ipv4(), port::REPORT_PEER), SocketAddr::new(far.ipv6(), port::REPORT_PEER));
    for (kind, asked) in [
        (Connect::to(v4), v4),
        (Connect::to(v6), v6),
        (Connect::to(v4).mapped(), v4),
        (Connect::to(v6).nonblocking(), v6),
        (Connect::to(v4).from(SocketAddr::new(client.ipv4(), 41_000)), v4),
        (Connect::to(service.at(80)), service.at(80)),
        (Connect::to(service.at_v6(80)), service.at_v6(80)),
        (Connect::to(service.at(80)).mapped(), service.at(80)),
    ] {
        let own = if asked.is_ipv4() { client.ipv4() } else { client.ipv6() };
        let answer = kind.answered(&client)?;
        redirected += 1;
        assert_eq!(answer.peer, Some(asked), "{kind:?}");
        assert_eq!(answer.local.map(|local| local.ip()), Some(own), "{kind:?}");
        assert_eq!(Some(answer.seen_by_server()?.0), answer.local, "{kind:?}");
    }
    // A listener of one family sees as much.
    let to = SocketAddr::new(far.ipv4(), port::REPORT_PEER_V4);
    assert_eq!(Connect::to(to).answered(&client)?.seen_by_server()?.0.ip(), client.ipv4());
    assert_eq!(mesh.events("node-a", "outbound_connect")?, redirected + 1);
    let over_mtls = [("connection_security_policy", "mutual_tls")];
    let opened = mesh.metrics("node-b")?.sum("istio_tcp_connections_opened_total", &over_mtls);
    assert_eq!(opened as u64, redirected + 1);
    Ok(())
}

#[test]
fn kernel_bytes_and_endings_are_kept() -> Verdict {
    let mesh = Mesh::start()?;
    let far = mesh.join(server("server", "node-b"))?;
    let client = mesh.join(client("client", "node-a"))?;
    for ip in far.addresses() {
        let to = SocketAddr::new(ip, port::STREAM);
        traffic(&client, "send", to, &["--both-ways", "--bytes", "1"])?;
        traffic(&client, "send", to, &["--both-ways", "--bytes", "1000003"])?;
        traffic(&client, "half-close", to, &["--first", "client"])?;
        traffic(&client, "half-close", to, &["--first", "server"])?;
        traffic(&client, "reset", to, &["--by", "server"])?;
    }
    let closed = Connect::to(SocketAddr::new(far.ipv4(), port::CLOSED)).run(&client)?;
    assert!(closed.was_refused(), "{closed:?}");
    Ok(())
}

#[test]
fn kernel_plaintext_from_outside_is_steered_to_the_daemon_and_keeps_its_source() -> Verdict {
    let mesh = Mesh::start()?;
    let far = mesh.join(server("server", "node-b"))?;
    let outside = mesh.lab.outside("outside")?;
    for ip in far.addresses() {
        let answer = Connect::to(SocketAddr::new(ip, port::REPORT_PEER)).answered(&outside)?;
        assert_eq!(Some(answer.seen_by_server()?.0), answer.local, "{answer:?}");
        traffic(&outside, "send", SocketAddr::new(ip, port::STREAM), &["--both-ways", "--bytes", "1000003"])?;
    }
    assert_eq!(mesh.events("node-b", "inbound_plaintext")?, 4);
    Ok(())
}

#[test]
fn kernel_what_stays_in_the_pod_is_left_alone_and_the_meshs_own_ports_are_closed_to_it() -> Verdict {
    let mesh = Mesh::start()?;
    let pod = mesh.join(server("server", "node-a"))?;
    let loopback: [IpAddr; 2] = [IpAddr::from([127, 0, 0, 1]), "::1".parse().expect("an address")];
    let mut refused = 0;
    for ip in loopback.into_iter().chain(pod.addresses()) {
        let answer = Connect::to(SocketAddr::new(ip, port::REPORT_PEER)).answered(&pod)?;
        assert_eq!(answer.seen_by_server()?.1.ip(), ip);
        for port in [15_001, 15_006, 15_008] {
            assert_eq!(Connect::to(SocketAddr::new(ip, port)).run(&pod)?.connect, "eperm", "{ip} {port}");
            refused += 1;
        }
    }
    assert_eq!(mesh.events("node-a", "reserved_port")?, refused);
    assert_eq!(mesh.events("node-a", "outbound_connect")?, 0);
    Ok(())
}

#[test]
fn kernel_no_connection_leaves_by_a_raw_socket_and_datagrams_do() -> Verdict {
    let mesh = Mesh::start()?;
    let far = mesh.join(server("server", "node-b"))?;
    let client = mesh.join(client("client", "node-a"))?;
    for (own, ip) in [(client.ipv4(), far.ipv4()), (client.ipv6(), far.ipv6())] {
        let before = mesh.events("node-a", "unattested_syn")?;
        let syn = Syn { source: SocketAddr::new(own, 40_001), destination: SocketAddr::new(ip, port::ECHO) };
        // The sender is told by ENOBUFS, or not at all.
        inside(&client, || Ok(syn.send().is_ok()))?;
        assert_eq!(mesh.events("node-a", "unattested_syn")?, before + 1, "{ip}");
        let before = mesh.events("node-a", "udp")?;
        traffic(&client, "udp", SocketAddr::new(ip, port::UDP_ECHO), &["--count", "3"])?;
        assert!(mesh.events("node-a", "udp")? >= before + 3, "{ip}");
    }
    Ok(())
}

#[test]
fn kernel_hooks_outlive_their_daemon_and_refuse_until_the_next_one_takes_over() -> Verdict {
    let mut mesh = Mesh::start()?;
    let far = mesh.join(server("server", "node-b"))?;
    let client = mesh.join(client("client", "node-a"))?;
    let outside = mesh.lab.outside("outside")?;
    let echoes: Vec<_> = far.addresses().into_iter().map(|ip| SocketAddr::new(ip, port::ECHO)).collect();
    for round in 0..2 {
        for node in NODES {
            mesh.kill9(node)?;
        }
        for to in &echoes {
            assert_eq!(Connect::to(*to).run(&client)?.connect, "refused", "round {round}");
            assert_eq!(Connect::to(*to).for_seconds(3).run(&outside)?.connect, "timeout", "round {round}");
        }
        for node in NODES {
            mesh.start_daemon(node)?;
        }
        mesh.wait_enrolled(&client, 1)?;
        mesh.wait_enrolled(&far, 1)?;
        for to in &echoes {
            Connect::to(*to).answered(&client)?;
            Connect::to(*to).answered(&outside)?;
        }
        for node in NODES {
            let (generations, _) = generations(&mesh.lab, node)?;
            assert_eq!(generations.len(), 1, "{node}, round {round}");
        }
    }
    Ok(())
}

#[test]
fn kernel_a_pod_that_leaves_is_free_whether_a_daemon_runs_or_not() -> Verdict {
    let mut mesh = Mesh::start()?;
    let far = mesh.join(server("server", "node-b"))?;
    let near = mesh.join(server("leaving", "node-a"))?;
    let outside = mesh.lab.outside("outside")?;
    let both_ways = |mesh: &Mesh| {
        let free = |what: &str, ask: &dyn Fn() -> anyhow::Result<mesh_e2e::Answer>| {
            wait_until(what, PATIENCE, || Ok((ask()?.outcome == "ok").then_some(())))
        };
        for (own, ip) in near.addresses().into_iter().zip(far.addresses()) {
            free("the pod to be let out", &|| Connect::to(SocketAddr::new(ip, port::ECHO)).for_seconds(3).run(&near))?;
            free("the pod to be let in", &|| {
                Connect::to(SocketAddr::new(own, port::ECHO)).for_seconds(3).run(&outside)
            })?;
        }
        let redirected = mesh.events("node-a", "outbound_connect")?;
        Connect::to(SocketAddr::new(far.ipv4(), port::ECHO)).answered(&near)?;
        assert_eq!(mesh.events("node-a", "outbound_connect")?, redirected);
        Ok::<_, anyhow::Error>(())
    };
    near.label("mesh.dev/join", "disabled")?;
    mesh.wait_withdrawn(&near, 1)?;
    both_ways(&mesh)?;

    near.unlabel("mesh.dev/join")?;
    mesh.wait_enrolled(&near, 2)?;
    mesh.kill9("node-a")?;
    near.label("mesh.dev/join", "disabled")?;
    mesh.start_daemon("node-a")?;
    both_ways(&mesh)?;
    Ok(())
}
