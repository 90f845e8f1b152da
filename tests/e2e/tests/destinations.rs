//! Where connections may go: Services, pods, oneself, nowhere.

use std::net::{IpAddr, SocketAddr};

use mesh_e2e::{Connect, Mesh, Verdict, client, port, server, traffic};
use mesh_lab::{Place, PodSpec, ServiceSpec};

#[test]
fn a_service_is_reached_by_its_name_and_its_addresses_on_every_node() -> Verdict {
    let mesh = Mesh::start()?;
    for (name, node) in [("one", "node-a"), ("two", "node-b")] {
        mesh.join(server(name, node).label("tier", "back"))?;
    }
    let spec = ServiceSpec::new("app", "back").select("tier", "back").port("tcp", 80, port::REPORT_PEER);
    let service = mesh.lab.service(spec)?;
    let clients = [mesh.join(client("client-a", "node-a"))?, mesh.join(client("client-b", "node-b"))?];
    mesh.settle()?;
    for client in &clients {
        for to in [service.at(80), service.at_v6(80)] {
            // Either endpoint may be chosen; both are within a few connections, but for once in 2^40.
            let mut chosen = std::collections::BTreeSet::new();
            for _ in 0..40 {
                chosen.insert(Connect::to(to).answered(client)?.seen_by_server()?.1.ip());
                if chosen.len() == 2 {
                    break;
                }
            }
            assert_eq!(chosen.len(), 2, "{to}: only {chosen:?}");
        }
        let names = ["back", "back.app", "back.app.svc", "back.app.svc.cluster.local"];
        for name in names {
            let script = format!("exec 3<>/dev/tcp/{name}/80 && head -n 1 <&3");
            client.exec(&["bash", "-c", &script])?.success()?;
        }
    }
    let lines = mesh.told("node-a", 1)?;
    let nodes_own =
        |line: &serde_json::Value| line["source_pod"] == "app/client-a" && line["destination_pod"] == "app/one";
    let (near, far): (Vec<_>, Vec<_>) = lines.into_iter().partition(nodes_own);
    assert!(near.iter().all(|line| line["security"] == "kernel_attested"), "{near:?}");
    assert!(far.iter().all(|line| line["security"] == "mutual_tls"), "{far:?}");
    Ok(())
}

#[test]
fn the_pods_of_a_headless_service_are_reached_by_their_own_addresses() -> Verdict {
    let mesh = Mesh::start()?;
    let far = mesh.join(server("server", "node-b"))?;
    mesh.lab.apply("headless.yaml", &HEADLESS.replace("ADDRESS", &far.ipv4().to_string()))?;
    let client = mesh.join(client("client", "node-a"))?;
    mesh.settle()?;
    let to = SocketAddr::new(far.ipv4(), port::ECHO);
    assert_eq!(Connect::to(to).answered(&client)?.peer, Some(to));
    assert_eq!(mesh.told("node-a", 1)?[0]["security"], "mutual_tls");
    Ok(())
}

const HEADLESS: &str = "
apiVersion: v1
kind: Service
metadata: {name: headless, namespace: app}
spec: {clusterIP: None, clusterIPs: [None], selector: {app: server}, ports: [{name: tcp, port: 7001}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: headless-1, namespace: app, labels: {kubernetes.io/service-name: headless}}
addressType: IPv4
ports: [{name: tcp, port: 7001}]
endpoints: [{addresses: [ADDRESS], conditions: {ready: true}}]
";

#[test]
fn destinations_that_cannot_be_served_refuse_at_once() -> Verdict {
    let mesh = Mesh::start()?;
    let servers = [mesh.join(server("far", "node-b"))?, mesh.join(server("near", "node-a"))?];
    let empty = mesh.lab.service(ServiceSpec::new("app", "empty").select("app", "nobody").port("tcp", 80, 80))?;
    let full = mesh.lab.service(ServiceSpec::new("app", "full").select("app", "far").port("tcp", 80, port::ECHO))?;
    let client = mesh.join(client("client", "node-a"))?;
    mesh.settle()?;
    let unserved = [empty.at(80), empty.at_v6(80), full.at(81), full.at_v6(81)];
    for to in unserved {
        let answer = Connect::to(to).run(&client)?;
        assert!(answer.was_refused(), "{to}: {answer:?}");
    }
    let closed: Vec<_> =
        servers.iter().flat_map(Place::addresses).map(|ip| SocketAddr::new(ip, port::CLOSED)).collect();
    for to in &closed {
        for kind in [Connect::to(*to), Connect::to(*to).nonblocking()] {
            let answer = kind.run(&client)?;
            assert!(answer.was_refused(), "{kind:?}: {answer:?}");
        }
    }
    // Those to the near one are told of as its daemon's as well.
    mesh.told("node-a", unserved.len() + 3 * closed.len())?;
    assert_eq!(mesh.refused("node-a", "no_endpoint")?, unserved.len() as u64);
    assert_eq!(mesh.refused("node-a", "unreachable")?, 2 * closed.len() as u64);
    // Not by the mesh, but at a port of one's own where nothing listens.
    for ip in client.addresses().into_iter().chain([IpAddr::from([127, 0, 0, 1])]) {
        let answer = Connect::to(SocketAddr::new(ip, port::CLOSED)).run(&client)?;
        assert_eq!(answer.connect, "refused", "{ip}: {answer:?}");
    }
    Ok(())
}

#[test]
fn a_pod_reaches_itself_by_its_own_address_and_through_a_service() -> Verdict {
    let mesh = Mesh::start()?;
    let pod = mesh.join(server("server", "node-a"))?;
    let spec = ServiceSpec::new("app", "self").select("app", "server").port("tcp", 80, port::REPORT_PEER);
    let service = mesh.lab.service(spec)?;
    mesh.settle()?;
    for ip in pod.addresses() {
        let answer = Connect::to(SocketAddr::new(ip, port::REPORT_PEER)).answered(&pod)?;
        assert_eq!(Some(answer.seen_by_server()?.0), answer.local, "{answer:?}");
        assert_eq!(answer.peer.map(|peer| peer.ip()), Some(ip), "{answer:?}");
    }
    for (to, own) in [(service.at(80), pod.ipv4()), (service.at_v6(80), pod.ipv6())] {
        let answer = Connect::to(to).answered(&pod)?;
        assert_eq!(answer.peer, Some(to));
        let (client_seen, server_itself) = answer.seen_by_server()?;
        assert_eq!((client_seen.ip(), server_itself.ip()), (own, own), "{answer:?}");
    }
    Ok(())
}

#[test]
fn a_destination_outside_the_mesh_is_reached_in_plaintext() -> Verdict {
    let mesh = Mesh::start()?;
    let apart = mesh.lab.deploy(server("apart", "node-b").label("mesh.dev/join", "disabled"))?;
    let other =
        PodSpec::new("other", "server").on("node-b").command(["mesh-traffic", "report-peer", "--listen", "[::]:7003"]);
    let other = mesh.lab.deploy(other.port("tcp", 7003))?;
    let outside = mesh.lab.outside("outside")?;
    let mut listening = outside.spawn(&["mesh-traffic", "report-peer", "--listen", "[::]:7003"])?;
    listening.wait_for_line("listening", mesh_e2e::PATIENCE)?;
    let client = mesh.join(client("client", "node-a"))?;
    let addresses = [apart.addresses(), other.addresses(), outside.addresses()].concat();
    for ip in &addresses {
        let answer = Connect::to(SocketAddr::new(*ip, port::REPORT_PEER)).answered(&client)?;
        // The port is the daemon's: outside the mesh nothing could tell of another.
        let own = if ip.is_ipv4() { client.ipv4() } else { client.ipv6() };
        assert_eq!(answer.seen_by_server()?.0.ip(), own, "{answer:?}");
    }
    let lines = mesh.told("node-a", addresses.len())?;
    let plaintext = lines.iter().filter(|line| line["security"] == "none");
    assert_eq!(plaintext.count(), addresses.len(), "{lines:?}");
    Ok(())
}

#[test]
fn datagrams_pass_untouched_and_are_counted() -> Verdict {
    let mesh = Mesh::start()?;
    let far = mesh.join(server("server", "node-b"))?;
    far.wait_for_line(&format!("listening [::]:{}", port::UDP_ECHO), mesh_e2e::PATIENCE)?;
    let spec = ServiceSpec::new("app", "datagrams").select("app", "server").udp_port("udp", 53, port::UDP_ECHO);
    let service = mesh.lab.service(spec)?;
    let client = mesh.join(client("client", "node-a"))?;
    let before = mesh.events("node-a", "udp")?;
    let pod = |ip| SocketAddr::new(ip, port::UDP_ECHO);
    for to in [pod(far.ipv4()), pod(far.ipv6()), service.at(53), service.at_v6(53)] {
        let said = traffic(&client, "udp", to, &["--count", "10", "--bytes", "1200"])?;
        assert_eq!(said["peer"], to.to_string(), "{said}");
    }
    let counted = mesh.events("node-a", "udp")? - before;
    assert!(counted >= 40, "{counted} datagrams counted");
    // Larger than the path: in fragments.
    for ip in far.addresses() {
        traffic(&client, "udp", pod(ip), &["--bytes", "9000"])?;
    }
    Ok(())
}
