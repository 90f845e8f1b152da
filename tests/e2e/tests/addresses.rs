//! Who is seen by whom: a server sees its client's own address, a client the address that it asked for.

use std::net::{IpAddr, SocketAddr};

use mesh_e2e::{Connect, Mesh, Verdict, client, port, server};
use mesh_lab::{Place, ServiceSpec};

#[test]
fn a_server_sees_the_clients_own_address_and_port() -> Verdict {
    let mesh = Mesh::start()?;
    let servers = [mesh.join(server("far", "node-b"))?, mesh.join(server("near", "node-a"))?];
    let client = mesh.join(client("client", "node-a"))?;
    for ip in servers.iter().flat_map(Place::addresses) {
        let own = if ip.is_ipv4() { client.ipv4() } else { client.ipv6() };
        let to = SocketAddr::new(ip, port::REPORT_PEER);
        let mut kinds = vec![Connect::to(to), Connect::to(to).nonblocking(), Connect::to(to).silent()];
        if ip.is_ipv4() {
            kinds.push(Connect::to(to).mapped());
            kinds.push(Connect::to(SocketAddr::new(ip, port::REPORT_PEER_V4)));
        }
        for kind in kinds {
            let answer = kind.answered(&client)?;
            let (client_seen, server_itself) = answer.seen_by_server()?;
            assert_eq!(client_seen.ip(), own, "{kind:?}: {answer:?}");
            assert_eq!(Some(client_seen), answer.local, "{kind:?}: the client's own view differs");
            assert_eq!(server_itself.ip(), ip, "{kind:?}: {answer:?}");
            assert_eq!(answer.peer.map(|peer| peer.ip()), Some(ip), "{kind:?}: {answer:?}");
        }
    }
    Ok(())
}

#[test]
fn a_client_keeps_the_source_that_it_bound_to() -> Verdict {
    let mesh = Mesh::start()?;
    let far = mesh.join(server("far", "node-b"))?;
    let client = mesh.join(client("client", "node-a"))?;
    let pairs = [(client.ipv4(), far.ipv4()), (client.ipv6(), far.ipv6())];
    for ((own, ip), number) in pairs.into_iter().zip(0..) {
        let to = SocketAddr::new(ip, port::REPORT_PEER);
        let any = if ip.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
        for (bound, source) in [(own, 41_000 + number), (any, 42_000 + number)] {
            let answer = Connect::to(to).from(SocketAddr::new(bound, source)).answered(&client)?;
            let expected = SocketAddr::new(own, source);
            assert_eq!(answer.seen_by_server()?.0, expected, "{answer:?}");
            assert_eq!(answer.local, Some(expected), "{answer:?}");
        }
    }
    Ok(())
}

#[test]
fn a_client_sees_the_service_that_it_asked_for_and_the_server_the_client() -> Verdict {
    let mesh = Mesh::start()?;
    mesh.join(server("server", "node-b"))?;
    let spec = ServiceSpec::new("app", "peer").select("app", "server").port("tcp", 80, port::REPORT_PEER);
    let service = mesh.lab.service(spec)?;
    let client = mesh.join(client("client", "node-a"))?;
    mesh.settle()?;
    let (v4, v6) = (service.at(80), service.at_v6(80));
    for (kind, asked, own) in [
        (Connect::to(v4), v4, client.ipv4()),
        (Connect::to(v4).mapped(), v4, client.ipv4()),
        (Connect::to(v6), v6, client.ipv6()),
    ] {
        let answer = kind.answered(&client)?;
        assert_eq!(answer.peer, Some(asked), "{kind:?}");
        assert_eq!(answer.seen_by_server()?.0.ip(), own, "{kind:?}");
        assert_eq!(answer.local.map(|local| local.ip()), Some(own), "{kind:?}");
    }
    Ok(())
}

#[test]
fn a_client_outside_the_mesh_is_seen_by_its_own_address() -> Verdict {
    let mesh = Mesh::start()?;
    let server = mesh.join(server("server", "node-b"))?;
    let outside = mesh.lab.outside("outside")?;
    let apart = mesh.lab.deploy(mesh_lab::PodSpec::new("apart", "client").on("node-a"))?;
    for ip in server.addresses() {
        for port in [port::REPORT_PEER, port::REPORT_PEER_V4] {
            if port == port::REPORT_PEER_V4 && ip.is_ipv6() {
                continue;
            }
            let connect = Connect::to(SocketAddr::new(ip, port));
            for answer in [connect.answered(&outside)?, connect.answered(&apart)?] {
                assert_eq!(Some(answer.seen_by_server()?.0), answer.local, "{answer:?}");
            }
        }
    }
    Ok(())
}

#[test]
fn connections_over_loopback_are_left_alone() -> Verdict {
    let mesh = Mesh::start()?;
    let pod = mesh.join(server("server", "node-a"))?;
    let before = mesh.events("node-a", "outbound_connect")?;
    for ip in [IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2]), "::1".parse().expect("an address")] {
        let to = SocketAddr::new(ip, port::REPORT_PEER);
        let mut kinds = vec![Connect::to(to)];
        kinds.extend(ip.is_ipv4().then(|| Connect::to(to).mapped()));
        for kind in kinds {
            let answer = kind.answered(&pod)?;
            let (client_seen, server_itself) = answer.seen_by_server()?;
            assert_eq!(server_itself, to, "{kind:?}");
            assert_eq!(Some(client_seen), answer.local, "{kind:?}");
            assert!(client_seen.ip().is_loopback(), "{kind:?}: {answer:?}");
        }
    }
    assert_eq!(mesh.events("node-a", "outbound_connect")?, before);
    Ok(())
}
