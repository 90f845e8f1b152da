//! What is on the wire between nodes: plaintext before the label, TLS 1.3 and nothing else after.

use std::net::SocketAddr;

use anyhow::Result;
use mesh_e2e::{Connect, Mesh, Verdict, client, port, server};
use mesh_lab::{Packets, Place, Pod, PodSpec, ServiceSpec};

const NEEDLE: &str = "GET /secret-of-the-shop HTTP/1.1";
/// The version number of TLS 1.3 (RFC 8446, section 4.2.1).
const TLS_1_3: u16 = 0x0304;

/// What passes node-a's link while the client talks to each destination.
fn wire(mesh: &Mesh, client: &Pod, to: &[SocketAddr]) -> Result<Packets> {
    let capture = mesh.lab.capture("node-a")?;
    for to in to {
        Connect::to(*to).saying(NEEDLE).answered(client)?;
    }
    let packets = capture.stop()?;
    assert_eq!(packets.lost(), 0, "a capture with gaps proves nothing");
    Ok(packets)
}

#[test]
fn what_was_readable_before_the_label_is_tls_1_3_after_it() -> Verdict {
    let mesh = Mesh::without_labels()?;
    let far = mesh.lab.deploy(server("server", "node-b"))?;
    let pod = mesh.lab.deploy(client("client", "node-a"))?;
    let spec = ServiceSpec::new("app", "server").select("app", "server").port("tcp", 80, port::ECHO);
    let service = mesh.lab.service(spec)?;
    mesh.settle()?;
    let mut to = vec![service.at(80), service.at_v6(80)];
    to.extend(far.addresses().into_iter().map(|ip| SocketAddr::new(ip, port::ECHO)));

    let before = wire(&mesh, &pod, &to)?;
    assert!(before.contains_plaintext(NEEDLE));
    assert!(before.tls_sessions().is_empty());

    mesh.label()?;
    mesh.wait_enrolled(&far, 1)?;
    mesh.wait_enrolled(&pod, 1)?;
    let after = wire(&mesh, &pod, &to)?;
    assert!(!after.contains_plaintext(NEEDLE));
    // Not in part either, as it would be across records.
    assert!(!after.contains_plaintext(&NEEDLE[..12]));
    assert!(after.at_port(port::ECHO).next().is_none());
    let pods = [pod.addresses(), far.addresses()].concat();
    let between_pods =
        after.packets().iter().filter(|packet| packet.tcp().is_some() && pods.contains(&packet.source.ip()));
    let elsewhere: Vec<_> =
        between_pods.filter(|packet| packet.source.port() != 15_008 && packet.destination.port() != 15_008).collect();
    assert!(elsewhere.is_empty(), "{elsewhere:?}");
    let sessions = after.tls_sessions();
    assert!(sessions.len() >= 2, "one of each family at least");
    for session in sessions {
        assert_eq!(session.version, Some(TLS_1_3), "{session:?}");
        assert!(!session.has_server_name, "{session:?}");
        assert!(pods.contains(&session.client.ip()), "{session:?}");
    }
    Ok(())
}

#[test]
fn pods_of_one_node_are_under_tls_as_well_where_the_mesh_says_so() -> Verdict {
    let mesh = Mesh::with(&["--same-node", "mtls"])?;
    let near = mesh.join(server("server", "node-a"))?;
    let pod = mesh.join(client("client", "node-a"))?;
    let capture = mesh.lab.capture(&near)?;
    for ip in near.addresses() {
        Connect::to(SocketAddr::new(ip, port::ECHO)).saying(NEEDLE).answered(&pod)?;
    }
    let packets = capture.stop()?;
    assert!(!packets.contains_plaintext(NEEDLE));
    assert!(packets.tls_sessions().iter().all(|session| session.version == Some(TLS_1_3)));
    assert!(!packets.tls_sessions().is_empty());
    Ok(())
}

#[test]
fn a_pod_outside_the_mesh_is_talked_to_in_plaintext_and_its_neighbour_is_not() -> Verdict {
    let mesh = Mesh::start()?;
    let enrolled = mesh.join(server("enrolled", "node-b"))?;
    let apart = PodSpec::new("apart", "server").on("node-b").port("echo", port::ECHO);
    let apart = mesh.lab.deploy(apart.command(["mesh-traffic", "echo", "--listen", "[::]:7001"]))?;
    let pod = mesh.join(client("client", "node-a"))?;
    let to = |pod: &Pod| vec![SocketAddr::new(pod.ipv4(), port::ECHO), SocketAddr::new(pod.ipv6(), port::ECHO)];
    assert!(wire(&mesh, &pod, &to(&apart))?.contains_plaintext(NEEDLE));
    assert!(!wire(&mesh, &pod, &to(&enrolled))?.contains_plaintext(NEEDLE));
    Ok(())
}
