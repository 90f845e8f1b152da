//! What the eBPF programs do to real connections, in few steps: this is run on every kernel that we support, inside an
//! emulator as well, with no tools but those that the lab itself needs.

use std::net::{IpAddr, SocketAddr};

use anyhow::Result;
use mesh_e2e::{
    Answer, Connect, Held, Mesh, NODES, PATIENCE, Syn, Verdict, client, echo, generations, inside, kubelet, port,
    server, traffic,
};
use mesh_lab::{Outside, Place, Pod, ServiceSpec, wait_until};

/// A pod that serves, one that does not, on different nodes; and a machine outside.
struct Parts {
    mesh: Mesh,
    far: Pod,
    client: Pod,
    outside: Outside,
}

impl Parts {
    fn start() -> Result<Self> {
        let mesh = Mesh::start()?;
        let [client, far] = mesh.client_and_server()?;
        let outside = mesh.lab.outside("outside")?;
        Ok(Self { mesh, far, client, outside })
    }

    fn at(&self, port: u16) -> Vec<SocketAddr> {
        self.far.addresses().into_iter().map(|ip| SocketAddr::new(ip, port)).collect()
    }
}

#[test]
fn kernel_connections_are_carried_and_nothing_goes_round_the_daemon() -> Verdict {
    let parts = Parts::start()?;
    both_ends_see_each_other(&parts)?;
    bytes_and_endings_are_kept(&parts)?;
    plaintext_from_outside_is_steered_and_keeps_its_source(&parts)?;
    what_stays_in_the_pod_is_left_alone(&parts)?;
    no_connection_leaves_by_a_raw_socket_and_datagrams_do(&parts)?;
    Ok(())
}

fn both_ends_see_each_other(parts: &Parts) -> Result<()> {
    let Parts { mesh, far, client, .. } = parts;
    let spec = ServiceSpec::new("app", "peer").select("app", "server").port("tcp", 80, port::REPORT_PEER);
    let service = mesh.lab.service(spec)?;
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
        let answer = kind.answered(client)?;
        redirected += 1;
        assert_eq!(answer.peer, Some(asked), "{kind:?}");
        assert_eq!(answer.local.map(|local| local.ip()), Some(own), "{kind:?}");
        assert_eq!(Some(answer.seen_by_server()?.0), answer.local, "{kind:?}");
    }
    // A listener of one family sees as much.
    let to = SocketAddr::new(far.ipv4(), port::REPORT_PEER_V4);
    assert_eq!(Connect::to(to).answered(client)?.seen_by_server()?.0.ip(), client.ipv4());
    assert_eq!(mesh.events("node-a", "outbound_connect")?, redirected + 1);
    let over_mtls = [("connection_security_policy", "mutual_tls")];
    let opened = mesh.metrics("node-b")?.sum("istio_tcp_connections_opened_total", &over_mtls);
    assert_eq!(opened as u64, redirected + 1);
    Ok(())
}

fn bytes_and_endings_are_kept(parts: &Parts) -> Result<()> {
    let client = &parts.client;
    for to in parts.at(port::STREAM) {
        traffic(client, "send", to, &["--both-ways", "--bytes", "1"])?;
        traffic(client, "send", to, &["--both-ways", "--bytes", "1000003"])?;
        traffic(client, "half-close", to, &["--first", "client"])?;
        traffic(client, "half-close", to, &["--first", "server"])?;
        traffic(client, "reset", to, &["--by", "server"])?;
    }
    for to in parts.at(port::CLOSED) {
        let closed = Connect::to(to).run(client)?;
        assert!(closed.was_refused(), "{closed:?}");
    }
    Ok(())
}

fn plaintext_from_outside_is_steered_and_keeps_its_source(parts: &Parts) -> Result<()> {
    for to in parts.at(port::REPORT_PEER) {
        let answer = Connect::to(to).answered(&parts.outside)?;
        assert_eq!(Some(answer.seen_by_server()?.0), answer.local, "{answer:?}");
    }
    for to in parts.at(port::STREAM) {
        traffic(&parts.outside, "send", to, &["--both-ways", "--bytes", "1000003"])?;
    }
    assert_eq!(parts.mesh.events("node-b", "inbound_plaintext")?, 4);
    Ok(())
}

fn what_stays_in_the_pod_is_left_alone(parts: &Parts) -> Result<()> {
    let Parts { mesh, far: pod, .. } = parts;
    let loopback: [IpAddr; 2] = [IpAddr::from([127, 0, 0, 1]), "::1".parse().expect("an address")];
    let mut refused = 0;
    for ip in loopback.into_iter().chain(pod.addresses()) {
        let answer = Connect::to(SocketAddr::new(ip, port::REPORT_PEER)).answered(pod)?;
        assert_eq!(answer.seen_by_server()?.1.ip(), ip);
        for port in [15_001, 15_006, 15_008] {
            assert_eq!(Connect::to(SocketAddr::new(ip, port)).run(pod)?.connect, "eperm", "{ip} {port}");
            refused += 1;
        }
    }
    assert_eq!(mesh.events("node-b", "reserved_port")?, refused);
    assert_eq!(mesh.events("node-b", "outbound_connect")?, 0);
    Ok(())
}

fn no_connection_leaves_by_a_raw_socket_and_datagrams_do(parts: &Parts) -> Result<()> {
    let Parts { mesh, far, client, .. } = parts;
    for (own, ip) in [(client.ipv4(), far.ipv4()), (client.ipv6(), far.ipv6())] {
        let before = mesh.events("node-a", "unattested_syn")?;
        let syn = Syn { source: SocketAddr::new(own, 40_001), destination: SocketAddr::new(ip, port::ECHO) };
        // The sender is told by ENOBUFS, or not at all.
        inside(client, || Ok(syn.send().is_ok()))?;
        assert_eq!(mesh.events("node-a", "unattested_syn")?, before + 1, "{ip}");
        let before = mesh.events("node-a", "udp")?;
        traffic(client, "udp", SocketAddr::new(ip, port::UDP_ECHO), &["--count", "3"])?;
        assert!(mesh.events("node-a", "udp")? >= before + 3, "{ip}");
    }
    Ok(())
}

#[test]
fn kernel_hooks_outlive_their_daemon_and_refuse_until_the_next_one_takes_over() -> Verdict {
    let mut parts = Parts::start()?;
    for node in NODES {
        parts.mesh.kill9(node)?;
    }
    for to in parts.at(port::ECHO) {
        assert_eq!(Connect::to(to).run(&parts.client)?.connect, "refused");
        assert_eq!(Connect::to(to).for_seconds(3).run(&parts.outside)?.connect, "timeout");
    }
    for node in NODES {
        parts.mesh.start_daemon(node)?;
    }
    parts.mesh.wait_enrolled(&parts.client, 1)?;
    parts.mesh.wait_enrolled(&parts.far, 1)?;
    for to in parts.at(port::ECHO) {
        Connect::to(to).answered(&parts.client)?;
        Connect::to(to).answered(&parts.outside)?;
    }
    for node in NODES {
        let (generations, _) = generations(&parts.mesh.lab, node)?;
        assert_eq!(generations.len(), 1, "{node}");
    }
    Ok(())
}

/// Traffic goes both ways, and no hook has a part in it.
fn is_free(parts: &Parts, pod: &Pod) -> Result<()> {
    let free = |what: &str, place: &dyn Fn() -> Result<Answer>| {
        wait_until(what, PATIENCE, || Ok((place()?.outcome == "ok").then_some(())))
    };
    for (own, to) in pod.addresses().into_iter().zip(parts.at(port::ECHO)) {
        let from = SocketAddr::new(own, port::ECHO);
        free("the pod to be let out", &|| Connect::to(to).for_seconds(3).run(pod))?;
        free("the pod to be let in", &|| Connect::to(from).for_seconds(3).run(&parts.outside))?;
    }
    let redirected = parts.mesh.events("node-a", "outbound_connect")?;
    Connect::to(SocketAddr::new(parts.far.ipv4(), port::ECHO)).answered(pod)?;
    assert_eq!(parts.mesh.events("node-a", "outbound_connect")?, redirected);
    Ok(())
}

#[test]
fn kernel_a_pod_that_leaves_is_free_whether_a_daemon_runs_or_not() -> Verdict {
    let mut parts = Parts::start()?;
    let leaving = parts.mesh.join(echo("leaving", "node-a"))?;
    leaving.label("mesh.dev/join", "disabled")?;
    parts.mesh.wait_withdrawn(&leaving, 1)?;
    is_free(&parts, &leaving)?;

    leaving.unlabel("mesh.dev/join")?;
    parts.mesh.wait_enrolled(&leaving, 2)?;
    parts.mesh.kill9("node-a")?;
    leaving.label("mesh.dev/join", "disabled")?;
    parts.mesh.start_daemon("node-a")?;
    is_free(&parts, &leaving)?;
    Ok(())
}

#[test]
fn kernel_pods_of_one_node_and_kubelet_are_attested() -> Verdict {
    const NODE: &str = "node-a";
    let mut mesh = Mesh::without_daemons()?;
    let (kubelet, _process) = kubelet(&mesh.lab, NODE)?;
    mesh.start_daemon(NODE)?;
    mesh.label()?;
    let near = mesh.join(server("server", NODE))?;
    let pod = mesh.join(client("client", NODE))?;
    let spec = ServiceSpec::new("app", "peer").select("app", "server").port("tcp", 80, port::REPORT_PEER);
    let service = mesh.lab.service(spec)?;
    mesh.settle()?;
    let (v4, v6) = (SocketAddr::new(near.ipv4(), port::REPORT_PEER), SocketAddr::new(near.ipv6(), port::REPORT_PEER));
    let (vip, vip6) = (service.at(80), service.at_v6(80));
    let kinds = [v4, v6, vip, vip6].map(|to| (Connect::to(to), to));
    let kinds = kinds.into_iter().chain([(Connect::to(v4).mapped(), v4), (Connect::to(vip).mapped(), vip)]);
    let mut connections = 0;
    for (kind, asked) in kinds {
        let answer = kind.answered(&pod)?;
        assert_eq!((answer.peer, Some(answer.seen_by_server()?.0)), (Some(asked), answer.local), "{kind:?}");
        connections += 1;
    }
    assert_eq!(mesh.events(NODE, "direct_inbound")?, connections);
    assert_eq!(mesh.events(NODE, "outbound_connect")?, 0);
    let lines = mesh.told(NODE, 2 * connections as usize)?;
    assert!(lines.iter().all(|line| line["security"] == "kernel_attested" && line["end"] == "closed"), "{lines:?}");
    let mut held = Held::open(&pod, SocketAddr::new(near.ipv4(), port::ECHO))?;
    held.says("before")?;
    mesh.lab.apply("deny.yaml", DENY)?;
    assert_eq!(held.ends()?, "reset");

    let daemon = mesh.daemon(NODE)?;
    wait_until("kubelet to be found", PATIENCE, || {
        Ok(daemon.logs().contains("kubelet's probes are known").then_some(()))
    })?;
    for to in [v4, v6] {
        Connect::to(to).answered(&kubelet)?;
    }
    assert_eq!(mesh.events(NODE, "kubelet_probe")?, 2);
    Ok(())
}

const DENY: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: deny, namespace: app}
spec: {action: DENY, rules: [{}]}
";
