//! Two pods of one node: the kernel connects them with nothing between them, and answers for who they are.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result};
use mesh_e2e::{Connect, Held, Mesh, PATIENCE, Syn, Verdict, client, echo, inside, port, server, traffic};
use mesh_lab::{Place, Pod, ServiceSpec, wait_until};
use serde_json::Value;

const CLIENT: &str = "spiffe://cluster.local/ns/app/sa/client";
const SERVER: &str = "spiffe://cluster.local/ns/app/sa/server";
const NODE: &str = "node-a";

/// A client and a server on one node, which the kernel connects.
struct Pair {
    mesh: Mesh,
    server: Pod,
    client: Pod,
}

impl Pair {
    fn start() -> Result<Self> {
        Self::of(Mesh::start()?)
    }

    fn of(mesh: Mesh) -> Result<Self> {
        let server = mesh.join(server("server", NODE).label("version", "v2"))?;
        let client = mesh.join(client("client", NODE).label("app", "client"))?;
        Ok(Self { mesh, server, client })
    }

    fn at(&self, port: u16) -> Vec<SocketAddr> {
        self.server.addresses().into_iter().map(|ip| SocketAddr::new(ip, port)).collect()
    }

    fn event(&self, reason: &str) -> Result<u64> {
        self.mesh.events(NODE, reason)
    }

    /// What both ends told of the connections so far, once it is of so many.
    fn told(&self, connections: usize) -> Result<Vec<Value>> {
        self.mesh.told(NODE, 2 * connections)
    }
}

#[test]
fn nothing_is_between_two_pods_of_one_node() -> Verdict {
    let pair = Pair::start()?;
    let capture = pair.mesh.lab.capture(&pair.server)?;
    let mut connections = 0;
    for to in pair.at(port::REPORT_PEER) {
        let own = if to.is_ipv4() { pair.client.ipv4() } else { pair.client.ipv6() };
        let mut kinds = vec![Connect::to(to), Connect::to(to).nonblocking(), Connect::to(to).silent()];
        kinds.push(Connect::to(to).from(SocketAddr::new(own, 41_000)));
        kinds.extend(to.is_ipv4().then(|| Connect::to(to).mapped()));
        for kind in kinds {
            let answer = kind.answered(&pair.client)?;
            let (client_seen, server_itself) = answer.seen_by_server()?;
            assert_eq!(client_seen.ip(), own, "{kind:?}");
            assert_eq!(Some(client_seen), answer.local, "{kind:?}");
            assert_eq!((Some(server_itself), answer.peer), (Some(to), Some(to)), "{kind:?}");
            connections += 1;
        }
    }
    // By the kernel alone: neither end's daemon was asked, and the packets are the pods' own.
    assert_eq!(pair.event("direct_connect")?, connections);
    assert_eq!(pair.event("direct_inbound")?, connections);
    assert_eq!(pair.event("outbound_connect")?, 0);
    assert_eq!(pair.event("inbound_plaintext")?, 0);
    let packets = capture.stop()?;
    assert!(packets.tls_sessions().is_empty() && packets.at_port(15_008).next().is_none());
    assert!(packets.at_port(port::REPORT_PEER).next().is_some());
    for line in pair.told(connections as usize)? {
        assert_eq!(line["security"], "kernel_attested", "{line}");
    }
    Ok(())
}

#[test]
fn streams_and_endings_are_the_kernels_own() -> Verdict {
    let pair = Pair::start()?;
    for to in pair.at(port::STREAM) {
        traffic(&pair.client, "send", to, &["--bytes", "20000000", "--both-ways"])?;
        traffic(&pair.client, "half-close", to, &["--first", "client"])?;
        traffic(&pair.client, "half-close", to, &["--first", "server"])?;
        traffic(&pair.client, "reset", to, &["--by", "client"])?;
        traffic(&pair.client, "reset", to, &["--by", "server"])?;
    }
    let closed = Connect::to(pair.at(port::CLOSED)[0]).run(&pair.client)?;
    assert_eq!(closed.connect, "refused", "the refusal is connect()'s own: {closed:?}");
    let ends = pair.told(11)?;
    let count = |reporter: &str, end: &str| {
        ends.iter().filter(|line| line["reporter"] == reporter && line["end"] == end).count()
    };
    for (reporter, by_client, by_server) in
        [("source", "reset_by_app", "reset_by_far"), ("destination", "reset_by_far", "reset_by_app")]
    {
        let told = ["closed", by_client, by_server, "unreachable"].map(|end| count(reporter, end));
        assert_eq!(told, [6, 2, 2, 1], "{reporter}: {ends:?}");
    }
    Ok(())
}

#[test]
fn bytes_and_identities_are_told_for_both_ends_while_it_lives_and_at_its_end() -> Verdict {
    let pair = Pair::start()?;
    let spec = ServiceSpec::new("app", "stream").select("app", "server").port("tcp", 80, port::STREAM);
    let service = pair.mesh.lab.service(spec)?;
    pair.mesh.settle()?;
    for to in [service.at(80), service.at_v6(80)] {
        traffic(&pair.client, "half-close", to, &["--first", "client", "--bytes", "70000"])?;
        traffic(&pair.client, "half-close", to, &["--first", "server", "--bytes", "70000"])?;
    }
    let lines = pair.told(4)?;
    // The header of a stream is the client's.
    for line in &lines {
        assert_eq!((&line["bytes_from_client"], &line["bytes_to_client"]), (&70_040.into(), &70_000.into()), "{line}");
        assert_eq!((&line["source_principal"], &line["destination_principal"]), (&CLIENT.into(), &SERVER.into()));
        assert!(line["duration_us"].as_u64().is_some_and(|it| it > 0 && it < 100_000_000), "{line}");
    }
    let asked = service.at(80).to_string();
    assert!(lines.iter().any(|line| line["original_destination"] == asked), "{lines:?}");
    let common = [
        ("source_principal", CLIENT),
        ("destination_principal", SERVER),
        ("connection_security_policy", "none"),
        ("destination_version", "v2"),
        ("response_flags", "-"),
    ];
    let metrics = pair.mesh.metrics(NODE)?;
    for reporter in ["source", "destination"] {
        let labels = [&common[..], &[("reporter", reporter)]].concat();
        for (name, expected) in [
            ("istio_tcp_connections_opened_total", 4.0),
            ("istio_tcp_connections_closed_total", 4.0),
            ("istio_tcp_received_bytes_total", 4.0 * 70_040.0),
            ("istio_tcp_sent_bytes_total", 4.0 * 70_000.0),
        ] {
            assert_eq!(metrics.sum(name, &labels), expected, "{name} {reporter}");
        }
    }
    let mut held = Held::open(&pair.client, pair.at(port::ECHO)[0])?;
    held.says("a line")?;
    let sent = [("reporter", "source"), ("destination_workload", "server")];
    wait_until("bytes of a connection that lives", PATIENCE, || {
        let now = pair.mesh.metrics(NODE)?.sum("istio_tcp_received_bytes_total", &sent);
        Ok((now > 4.0 * 70_040.0).then_some(()))
    })?;
    held.close()?;
    Ok(())
}

#[test]
fn a_services_endpoints_have_their_shares_wherever_they_are() -> Verdict {
    let mesh = Mesh::start()?;
    let pods = [("near", NODE), ("nearer", NODE), ("far", "node-b"), ("farther", "node-b")];
    let pods = pods.map(|(name, node)| mesh.join(server(name, node).label("tier", "all")));
    let client = mesh.join(client("client", NODE))?;
    let spec = ServiceSpec::new("app", "peer").select("tier", "all").port("tcp", 80, port::REPORT_PEER);
    let service = mesh.lab.service(spec)?;
    mesh.settle()?;
    const EACH_FAMILY: usize = 100;
    let mut hits = std::collections::BTreeMap::<IpAddr, usize>::new();
    for to in [service.at(80), service.at_v6(80)] {
        for _ in 0..EACH_FAMILY {
            let answer = Connect::to(to).answered(&client)?;
            assert_eq!(answer.peer, Some(to), "the client sees the Service");
            let (client_seen, server_itself) = answer.seen_by_server()?;
            assert!(client.addresses().contains(&client_seen.ip()), "{answer:?}");
            *hits.entry(server_itself.ip()).or_default() += 1;
        }
    }
    let directly = mesh.events(NODE, "direct_connect")? as usize;
    let mut of_near = 0;
    for (index, pod) in pods.into_iter().enumerate() {
        for ip in pod?.addresses() {
            let share = hits.get(&ip).copied().unwrap_or(0);
            // A quarter of 100 has a deviation of 4.3: five of them either way.
            assert!((4..=46).contains(&share), "{ip}: {hits:?}");
            of_near += if index < 2 { share } else { 0 };
        }
    }
    assert_eq!(of_near, directly, "those of this node, and no others, are the kernel's: {hits:?}");
    assert_eq!(mesh.events(NODE, "outbound_connect")? as usize, 2 * EACH_FAMILY - directly);
    Ok(())
}

#[test]
fn packets_with_a_clients_addresses_and_not_its_sequence_numbers_get_nowhere() -> Verdict {
    let pair = Pair::start()?;
    let apart = pair.mesh.lab.deploy(client("apart", NODE).label("mesh.dev/join", "disabled"))?;
    // A handshake that stays open: the server's node drops what its kernel would answer.
    let mut held = Held::open(&pair.client, pair.at(port::ECHO)[0])?;
    held.says("before")?;
    let served = |pair: &Pair| pair.server.log().lines().filter(|line| line.contains("\"serve\"")).count();
    let before = served(&pair);
    for to in pair.at(port::ECHO) {
        let own = if to.is_ipv4() { pair.client.ipv4() } else { pair.client.ipv6() };
        let spoofed = Syn { source: SocketAddr::new(own, 45_000), destination: to };
        inside(&apart, || spoofed.send())?;
    }
    held.says("after")?;
    held.close()?;
    assert_eq!(pair.event("direct_inbound")?, 1, "the client's own, and no other");
    wait_until("the held connection to be served", PATIENCE, || Ok((served(&pair) == before + 1).then_some(())))?;
    Ok(())
}

#[test]
fn a_port_is_used_again_by_one_connection_after_another() -> Verdict {
    let pair = Pair::start()?;
    let to = pair.at(port::REPORT_PEER)[0];
    let from = SocketAddr::new(pair.client.ipv4(), 42_000);
    for _ in 0..3 {
        // The server ends first, so that the port is free for the client at once.
        let answer = Connect::to(to).from(from).answered(&pair.client)?;
        assert_eq!(answer.seen_by_server()?.0, from);
    }
    assert_eq!(pair.event("direct_inbound")?, 3);
    Ok(())
}

#[test]
fn the_record_of_a_dead_connection_admits_nobody() -> Verdict {
    let pair = Pair::start()?;
    let apart = pair.mesh.lab.deploy(client("apart", NODE).label("mesh.dev/join", "disabled"))?;
    let to = pair.at(port::REPORT_PEER)[0];
    let from = SocketAddr::new(pair.client.ipv4(), 43_000);
    Connect::to(to).from(from).answered(&pair.client)?;
    pair.told(1)?;
    let admitted = pair.event("direct_inbound")?;
    inside(&apart, || Syn { source: from, destination: to }.send())?;
    wait_until("the forged SYN to be seen", PATIENCE, || {
        let seen = pair.event("inbound_plaintext")? + pair.event("forged_flow")?;
        Ok((seen > 0).then_some(()))
    })?;
    assert_eq!(pair.event("direct_inbound")?, admitted);
    Ok(())
}

#[test]
fn a_pod_that_takes_an_address_or_a_source_of_another_is_not_attested() -> Verdict {
    let pair = Pair::start()?;
    let other = pair.mesh.join(client("other", NODE))?;
    // With NET_ADMIN a pod can give itself any address.
    let stolen = pair.client.ipv4();
    other.exec(&["ip", "address", "add", &format!("{stolen}/32"), "dev", "eth0"])?.success()?;
    let to = pair.at(port::REPORT_PEER)[0];
    let answer = Connect::to(to).from(SocketAddr::new(stolen, 0)).for_seconds(3).run(&other)?;
    if answer.outcome == "ok" {
        let seen = answer.seen_by_server()?.0.ip();
        assert_eq!(seen, other.ipv4(), "shown by the daemon, which knows whose socket it was: {answer:?}");
    }
    assert_eq!(pair.event("direct_inbound")?, 0);
    Ok(())
}

#[test]
fn mesh_wide_mtls_holds_on_one_node_too() -> Verdict {
    let pair = Pair::of(Mesh::with(&["--same-node", "mtls"])?)?;
    for to in pair.at(port::ECHO) {
        Connect::to(to).answered(&pair.client)?;
    }
    assert_eq!(pair.event("direct_connect")?, 0);
    for line in pair.told(2)? {
        assert_eq!(line["security"], "mutual_tls", "{line}");
    }
    Ok(())
}

#[test]
fn open_connections_outlive_the_daemon_and_new_ones_wait_for_the_next() -> Verdict {
    let mut pair = Pair::start()?;
    let to = pair.at(port::ECHO)[0];
    let mut held = Held::open(&pair.client, to)?;
    held.says("before")?;
    pair.mesh.kill9(NODE)?;
    held.says("with no daemon")?;
    let refused = Connect::to(to).run(&pair.client)?;
    assert_eq!(refused.connect, "refused", "nothing new begins without a daemon: {refused:?}");
    pair.mesh.start_daemon(NODE)?;
    pair.mesh.wait_enrolled(&pair.client, 1)?;
    pair.mesh.wait_enrolled(&pair.server, 1)?;
    held.says("with the next one")?;
    Connect::to(to).answered(&pair.client)?;
    held.close()?;
    let lines = pair.told(2)?;
    let adopted = lines.iter().filter(|line| line["bytes_from_client"].as_u64() > Some(20)).count();
    assert_eq!(adopted, 2, "both ends of the connection that was open before: {lines:?}");
    Ok(())
}

#[test]
fn pods_join_and_leave_while_their_connections_go_on() -> Verdict {
    let mesh = Mesh::without_labels()?;
    let far = mesh.lab.deploy(server("server", NODE))?;
    let pod = mesh.lab.deploy(client("client", NODE))?;
    let to = SocketAddr::new(far.ipv4(), port::ECHO);
    let mut before = Held::open(&pod, to)?;
    before.says("before")?;
    mesh.label()?;
    mesh.wait_enrolled(&far, 1)?;
    mesh.wait_enrolled(&pod, 1)?;
    let mut inside = Held::open(&pod, to)?;
    inside.says("in the mesh")?;
    before.says("still")?;
    assert_eq!(mesh.events(NODE, "direct_connect")?, 1);
    mesh.lab.unlabel_namespace("app", "mesh.dev/join")?;
    mesh.wait_withdrawn(&far, 1)?;
    mesh.wait_withdrawn(&pod, 1)?;
    inside.says("out of the mesh")?;
    before.says("to the end")?;
    inside.close()?;
    before.close()?;
    mesh.told(NODE, 2)?;
    Ok(())
}

#[test]
fn an_address_that_another_pod_takes_over_leads_to_that_pod() -> Verdict {
    let mesh = Mesh::start()?;
    let old = mesh.join(echo("old", NODE))?;
    let pod = mesh.join(client("client", NODE))?;
    let to = SocketAddr::new(old.ipv4(), port::ECHO);
    Connect::to(to).answered(&pod)?;
    let address = old.ipv4();
    old.delete()?;
    mesh.join(echo("new", NODE).address(address))?;
    mesh.settle()?;
    Connect::to(to).answered(&pod)?;
    let lines = mesh.told(NODE, 4)?;
    let last = lines.last().context("none")?;
    assert_eq!(last["destination_principal"], "spiffe://cluster.local/ns/app/sa/new", "{last}");
    assert_eq!(last["security"], "kernel_attested", "{last}");
    Ok(())
}

fn authorization(action: &str, rules: &str) -> String {
    format!(
        "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: policy, namespace: app}}
spec:
  selector: {{matchLabels: {{app: server}}}}
  action: {action}
  rules: {rules}
"
    )
}

/// The time that a line of a daemon's log bears, in microseconds of its day.
fn microseconds(line: &Value) -> Option<u64> {
    let time = line["timestamp"].as_str()?.split_once('T')?.1.trim_end_matches('Z');
    let mut parts = time.split([':', '.']).map(str::parse::<u64>);
    let mut next = || parts.next()?.ok();
    Some(((next()? * 60 + next()?) * 60 + next()?) * 1_000_000 + next()?)
}

#[test]
fn a_policy_that_changes_ends_what_it_denies_within_a_tenth_of_a_second_and_nothing_else() -> Verdict {
    let pair = Pair::start()?;
    let mut denied =
        pair.at(port::ECHO).into_iter().map(|to| Held::open(&pair.client, to)).collect::<Result<Vec<_>>>()?;
    denied.iter_mut().try_for_each(|held| held.says("before"))?;
    let other = pair.mesh.join(client("other", NODE))?;
    let mut allowed = Held::open(&other, pair.at(port::ECHO)[0])?;
    allowed.says("before")?;
    assert_eq!(pair.event("direct_connect")?, 3);
    let rules = "[{from: [{source: {principals: [cluster.local/ns/app/sa/client]}}]}]";
    pair.mesh.lab.apply("policy.yaml", &authorization("DENY", rules))?;
    for held in denied {
        assert_eq!(held.ends()?, "reset");
    }
    allowed.says("after")?;
    let lines = pair.told(2)?;
    assert!(lines.iter().all(|line| line["end"] == "policy_denied"), "{lines:?}");
    assert!(lines.iter().all(|line| line["error"].as_str().is_some_and(|it| it.contains("app/policy"))), "{lines:?}");
    let log = mesh_e2e::lines(pair.mesh.daemon(NODE)?);
    let in_force = log.iter().rfind(|line| line["message"] == "configuration in force").and_then(microseconds);
    let cut = lines.iter().filter_map(microseconds).max();
    let took = cut.zip(in_force).map(|(cut, in_force)| cut.saturating_sub(in_force)).context("no times")?;
    assert!(took < 100_000, "{took} us");
    let cuts = pair.mesh.metrics(NODE)?.sum("mesh_connections_cut_total", &[("reason", "policy_denied")]);
    assert_eq!(cuts, 4.0, "two connections, both ends of each");

    // Whatever the daemon makes of it, the kernel connects them no more.
    let _ = Connect::to(pair.at(port::ECHO)[0]).run(&pair.client)?;
    assert_eq!(pair.event("direct_connect")?, 3);
    Connect::to(pair.at(port::ECHO)[0]).answered(&other)?;
    assert_eq!(pair.event("direct_connect")?, 4);
    pair.mesh.lab.apply("policy.yaml", &authorization("DENY", "[]"))?;
    pair.mesh.settle()?;
    // The daemon carries them until the kernel has been told.
    wait_until("the kernel to connect them again", PATIENCE, || {
        Connect::to(pair.at(port::ECHO)[0]).answered(&pair.client)?;
        Ok((pair.event("direct_connect")? == 5).then_some(()))
    })?;
    allowed.close()?;
    Ok(())
}

#[test]
fn the_kernel_connects_by_identity_and_port_and_under_strict() -> Verdict {
    let pair = Pair::start()?;
    let other = pair.mesh.join(client("other", NODE))?;
    let strict = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: app}
spec: {mtls: {mode: STRICT}}
";
    pair.mesh.lab.apply("strict.yaml", strict)?;
    let rules = format!(
        "[{{from: [{{source: {{principals: [cluster.local/ns/app/sa/client]}}}}], \
         to: [{{operation: {{ports: ['{}']}}}}]}}]",
        port::ECHO
    );
    pair.mesh.lab.apply("policy.yaml", &authorization("ALLOW", &rules))?;
    pair.mesh.settle()?;
    for to in pair.at(port::ECHO) {
        Connect::to(to).answered(&pair.client)?;
    }
    assert_eq!(pair.event("direct_connect")?, 2, "the kernel's word is identity enough for STRICT");
    for (pod, to) in [(&pair.client, pair.at(port::REPORT_PEER)[0]), (&other, pair.at(port::ECHO)[0])] {
        let _ = Connect::to(to).run(pod)?;
    }
    assert_eq!(pair.event("direct_connect")?, 2, "another port, another client");
    Ok(())
}

#[test]
fn what_a_destination_rule_asks_for_the_daemon_does() -> Verdict {
    let pair = Pair::start()?;
    let spec = ServiceSpec::new("app", "echo").select("app", "server").port("tcp", 80, port::ECHO);
    let service = pair.mesh.lab.service(spec)?;
    pair.mesh.settle()?;
    Connect::to(service.at(80)).answered(&pair.client)?;
    assert_eq!(pair.event("direct_connect")?, 1);
    let rule = "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: echo, namespace: app}
spec: {host: echo, trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}}
";
    pair.mesh.lab.apply("rule.yaml", rule)?;
    pair.mesh.settle()?;
    Connect::to(service.at(80)).answered(&pair.client)?;
    assert_eq!(pair.event("direct_connect")?, 1);
    assert!(pair.told(2)?.iter().any(|line| line["security"] == "mutual_tls"));
    Ok(())
}

#[test]
fn handshakes_by_syn_cookies_are_attested_too() -> Verdict {
    let pair = Pair::start()?;
    // Always, as else in a flood of SYNs: no socket waits for the handshake's last segment.
    pair.server.exec(&["sysctl", "-q", "-w", "net.ipv4.tcp_syncookies=2"])?.success()?;
    for to in pair.at(port::REPORT_PEER) {
        let answer = Connect::to(to).answered(&pair.client)?;
        assert_eq!(Some(answer.seen_by_server()?.0), answer.local);
    }
    assert_eq!(pair.event("inbound_plaintext")?, 0);
    for line in pair.told(2)? {
        assert_eq!((&line["security"], &line["end"]), (&"kernel_attested".into(), &"closed".into()), "{line}");
    }
    // One that nobody attested gets as far as ever: to the daemon.
    let apart = pair.mesh.lab.deploy(client("apart", NODE).label("mesh.dev/join", "disabled"))?;
    Connect::to(pair.at(port::ECHO)[0]).answered(&apart)?;
    assert_eq!(pair.event("direct_connect")?, 2);
    assert!(pair.event("inbound_plaintext")? > 0);
    Ok(())
}

#[test]
fn a_pod_that_connects_while_it_joins_is_served_all_the_while() -> Verdict {
    let mesh = Mesh::without_labels()?;
    let far = mesh.lab.deploy(server("server", NODE))?;
    let pod = mesh.lab.deploy(client("client", NODE))?;
    let to = SocketAddr::new(far.ipv4(), port::REPORT_PEER);
    let connect = || Connect::to(to).for_seconds(10).run(&pod);
    let outcomes = std::thread::scope(|scope| {
        let labelling = scope.spawn(|| mesh.label());
        let mut outcomes = Vec::new();
        while !labelling.is_finished() || mesh.events(NODE, "direct_connect")? == 0 {
            outcomes.push(connect()?);
        }
        labelling.join().expect("no panic")?;
        Ok::<_, anyhow::Error>(outcomes)
    })?;
    for answer in &outcomes {
        // Plain, then by the daemon, then by the kernel; a moment at which one of the two pods has joined may reset.
        assert!(answer.outcome == "ok" || answer.was_refused(), "{answer:?}");
    }
    assert!(outcomes.last().is_some_and(|answer| answer.outcome == "ok"), "{outcomes:?}");
    assert_eq!(mesh.events(NODE, "unattested_syn")?, 0);
    Ok(())
}
