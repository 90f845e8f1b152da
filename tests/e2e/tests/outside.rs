//! The mesh's edge: what is outside stays outside and is still served, and nothing inside gets out or in past the daemon.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use mesh_e2e::{Connect, Mesh, PATIENCE, Syn, Verdict, client, inside, port, server};
use mesh_lab::{Place, Pod, PodSpec, ServiceSpec};
use socket2::{Domain, Protocol, Socket, Type};

/// The mesh's own listeners in a pod: outbound, plaintext inbound, HBONE.
const RESERVED: [u16; 3] = [15_001, 15_006, 15_008];

#[test]
fn clients_outside_the_mesh_are_served_by_enrolled_pods() -> Verdict {
    let mesh = Mesh::start()?;
    let enrolled = mesh.join(server("server", "node-b"))?;
    let outside = mesh.lab.outside("outside")?;
    let other = mesh.lab.deploy(PodSpec::new("other", "client").on("node-a"))?;
    let opted_out = mesh.lab.deploy(client("opted-out", "node-a").label("istio.io/dataplane-mode", "none"))?;
    let host = mesh.lab.deploy(client("host", "node-b").host_network())?;
    let spec = ServiceSpec::new("app", "server").select("app", "server").port("tcp", 80, port::ECHO);
    let service = mesh.lab.service(spec)?;
    let direct = enrolled.addresses().into_iter().map(|ip| SocketAddr::new(ip, port::ECHO));
    let to: Vec<_> = direct.chain([service.at(80), service.at_v6(80)]).collect();
    for to in &to {
        let connect = Connect::to(*to);
        connect.answered(&outside)?;
        for pod in [&other, &opted_out, &host] {
            connect.answered(pod)?;
        }
    }
    let lines = mesh.told("node-b", 4 * to.len())?;
    let plaintext = lines.iter().filter(|line| line["security"] == "none" && line["reporter"] == "destination");
    assert_eq!(plaintext.count(), 4 * to.len(), "{lines:?}");
    assert!(mesh.events("node-b", "inbound_plaintext")? >= 4 * to.len() as u64);
    Ok(())
}

#[test]
fn pods_that_are_not_enrolled_are_not_touched() -> Verdict {
    let mesh = Mesh::start()?;
    let host = mesh.lab.deploy(client("host", "node-a").host_network())?;
    let opted_out = mesh.lab.deploy(client("opted-out", "node-a").label("mesh.dev/join", "disabled"))?;
    let other = mesh.lab.deploy(server("apart", "node-b").label("mesh.dev/join", "disabled"))?;
    mesh.join(client("enrolled", "node-a"))?;
    let redirected = mesh.events("node-a", "outbound_connect")?;
    for ip in other.addresses() {
        for pod in [&host, &opted_out] {
            let answer = Connect::to(SocketAddr::new(ip, port::REPORT_PEER)).answered(pod)?;
            assert_eq!(Some(answer.seen_by_server()?.0), answer.local, "{answer:?}");
        }
    }
    assert_eq!(mesh.events("node-a", "outbound_connect")?, redirected);
    assert_eq!(mesh.metrics("node-a")?.sum("mesh_pods", &[("state", "desired")]), 1.0);
    Ok(())
}

#[test]
fn a_pod_that_dials_the_meshs_own_listeners_gets_nowhere() -> Verdict {
    let mesh = Mesh::start()?;
    let pod = mesh.join(client("client", "node-a"))?;
    let loopback: [IpAddr; 2] = [IpAddr::from([127, 0, 0, 1]), "::1".parse().expect("an address")];
    let own = loopback.into_iter().chain(pod.addresses());
    let own: Vec<_> = own.flat_map(|ip| RESERVED.map(|port| SocketAddr::new(ip, port))).collect();
    for to in &own {
        for kind in [Connect::to(*to), Connect::to(*to).mapped(), Connect::to(*to).nonblocking()] {
            let answer = kind.run(&pod)?;
            assert_eq!(answer.connect, "eperm", "{kind:?}");
        }
        // Bound to an interface.
        for device in ["lo", "eth0"] {
            let error = inside(&pod, || Ok(connect_on(device, *to).err()))?;
            let kind = error.map(|error| error.kind());
            assert_eq!(kind, Some(std::io::ErrorKind::PermissionDenied), "{to} on {device}");
        }
    }
    assert_eq!(mesh.events("node-a", "reserved_port")?, 5 * own.len() as u64);
    Ok(())
}

fn connect_on(device: &str, to: SocketAddr) -> std::io::Result<()> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
    socket.bind_device(Some(device.as_bytes()))?;
    socket.connect_timeout(&to.into(), Duration::from_secs(1))
}

#[test]
fn others_that_dial_a_pods_own_listeners_get_nowhere() -> Verdict {
    let mesh = Mesh::start()?;
    let enrolled = mesh.join(server("server", "node-b"))?;
    let pods = [mesh.join(client("far", "node-a"))?, mesh.join(client("near", "node-b"))?];
    let outside = mesh.lab.outside("outside")?;
    for to in enrolled.addresses().into_iter().flat_map(|ip| RESERVED.map(|port| SocketAddr::new(ip, port))) {
        for pod in &pods {
            let answer = Connect::to(to).run(pod)?;
            assert!(answer.was_refused(), "{to}: {answer:?}");
        }
        // At the tunnel's port an outsider is answered, and cut for what it says.
        let answer = Connect::to(to).run(&outside)?;
        assert!(answer.outcome != "ok" && answer.outcome != "timeout", "{to}: {answer:?}");
    }
    let told = enrolled.log();
    assert!(!told.contains("\"operation\":\"serve\""), "{told}");
    Ok(())
}

/// A SYN to `server` from `client`, of either family.
fn syns(client: &Pod, server: &Pod, source: u16) -> [Syn; 2] {
    let syn = |own, ip| Syn { source: SocketAddr::new(own, source), destination: SocketAddr::new(ip, port::ECHO) };
    [syn(client.ipv4(), server.ipv4()), syn(client.ipv6(), server.ipv6())]
}

#[test]
fn raw_sockets_let_no_connection_out() -> Verdict {
    let mesh = Mesh::start()?;
    let [enrolled, far] = mesh.client_and_server()?;
    let apart = mesh.lab.deploy(client("apart", "node-a").label("mesh.dev/join", "disabled"))?;
    let before = mesh.events("node-a", "unattested_syn")?;
    let capture = mesh.lab.capture("node-a")?;
    let (kept, passed) = (syns(&enrolled, &far, 40_001), syns(&apart, &far, 40_002));
    // The sender is told by ENOBUFS, or not at all.
    inside(&enrolled, || Ok(kept.map(|syn| syn.send().is_ok())))?;
    inside(&apart, || passed.into_iter().try_for_each(Syn::send))?;
    let packets = capture.stop()?;
    let on_the_wire = |syn: Syn| packets.packets().iter().any(|packet| packet.source == syn.source);
    assert!(passed.into_iter().all(on_the_wire), "a pod outside the mesh sends what it likes");
    assert!(!kept.into_iter().any(on_the_wire), "an enrolled pod's SYN left by a raw socket");
    assert_eq!(mesh.events("node-a", "unattested_syn")?, before + 2);
    Ok(())
}

#[test]
fn sockets_bound_to_an_interface_let_no_plaintext_out() -> Verdict {
    let mesh = Mesh::start()?;
    let [enrolled, far] = mesh.client_and_server()?;
    let capture = mesh.lab.capture("node-a")?;
    for ip in far.addresses() {
        let to = SocketAddr::new(ip, port::ECHO);
        // Whether it is carried or refused is not promised; that it does not go round the daemon is.
        let _ = inside(&enrolled, || connect_on("eth0", to).context("connecting"));
    }
    let packets = capture.stop()?;
    assert!(packets.at_port(port::ECHO).next().is_none());
    Ok(())
}

#[test]
fn connections_that_begin_with_their_first_bytes_are_carried() -> Verdict {
    // TCP Fast Open: sendto() in place of connect().
    const MSG_FASTOPEN: i32 = 0x2000_0000;
    let mesh = Mesh::start()?;
    let [enrolled, far] = mesh.client_and_server()?;
    let capture = mesh.lab.capture("node-a")?;
    for ip in far.addresses() {
        let to = SocketAddr::new(ip, port::ECHO);
        let answer = inside(&enrolled, || {
            let mut socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
            socket.set_read_timeout(Some(PATIENCE))?;
            socket.send_to_with_flags(b"first bytes", &to.into(), MSG_FASTOPEN)?;
            let mut answer = [0; 11];
            socket.read_exact(&mut answer)?;
            Ok(answer)
        })?;
        assert_eq!(&answer, b"first bytes");
    }
    let packets = capture.stop()?;
    assert!(packets.at_port(port::ECHO).next().is_none());
    assert!(!packets.contains_plaintext("first bytes"));
    Ok(())
}

#[test]
fn multipath_clients_are_carried_and_not_let_round_the_daemon() -> Verdict {
    let mesh = Mesh::start()?;
    let [enrolled, far] = mesh.client_and_server()?;
    let capture = mesh.lab.capture("node-a")?;
    for ip in far.addresses() {
        let to = SocketAddr::new(ip, port::ECHO);
        let answer = inside(&enrolled, || {
            let mut socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::MPTCP))?;
            socket.set_read_timeout(Some(PATIENCE))?;
            socket.connect_timeout(&to.into(), PATIENCE)?;
            socket.write_all(b"over many paths")?;
            let mut answer = [0; 15];
            socket.read_exact(&mut answer)?;
            Ok(answer)
        })?;
        assert_eq!(&answer, b"over many paths");
    }
    let packets = capture.stop()?;
    assert!(packets.at_port(port::ECHO).next().is_none());
    assert!(!packets.contains_plaintext("over many paths"));
    Ok(())
}

#[test]
fn multipath_servers_see_their_clients() -> Verdict {
    // What Go programs listen with since 1.24.
    let mesh = Mesh::start()?;
    let far = mesh.join(client("server", "node-b"))?;
    let listener = inside(&far, || {
        let listener = Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::MPTCP))?;
        listener.set_only_v6(false)?;
        listener.set_read_timeout(Some(PATIENCE))?;
        listener.bind(&SocketAddr::from(([0; 8], port::ECHO)).into())?;
        listener.listen(8)?;
        Ok(TcpListener::from(listener))
    })?;
    let enrolled = mesh.join(client("client", "node-a"))?;
    let outside = mesh.lab.outside("outside")?;
    for (own, ip) in [(enrolled.ipv4(), far.ipv4()), (enrolled.ipv6(), far.ipv6()), (outside.ipv4(), far.ipv4())] {
        let connect = Connect::to(SocketAddr::new(ip, port::ECHO)).silent();
        let (answer, seen) = thread::scope(|scope| {
            let server = scope.spawn(|| -> std::io::Result<SocketAddr> {
                let (mut stream, seen) = listener.accept()?;
                stream.write_all(b"welcome\n")?;
                Ok(seen)
            });
            let from_outside = own == outside.ipv4();
            let answer = if from_outside { connect.answered(&outside) } else { connect.answered(&enrolled) };
            (answer, server.join())
        });
        let answer = answer?;
        let seen = seen.expect("no panic").context("accepting")?;
        assert_eq!(seen.ip().to_canonical(), own, "{answer:?}");
        assert_eq!(Some(seen.port()), answer.local.map(|local| local.port()));
    }
    Ok(())
}
