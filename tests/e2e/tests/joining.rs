//! What becomes of connections that are open when a pod joins, and when it leaves.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;

use anyhow::{Context as _, Result};
use mesh_e2e::{Connect, Held, Mesh, PATIENCE, Verdict, client, ctl, ctl_json, echo, inside, lines, port};
use mesh_lab::{Place, Pod, ServiceSpec, wait_until};
use socket2::{Domain, Socket, Type};

const STRICT: &str = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: app}
spec: {mtls: {mode: STRICT}}
";

const NOBODY_FROM_APART: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: apart, namespace: app}
spec: {action: DENY, rules: [{from: [{source: {ipBlocks: [ADDRESS]}}]}]}
";

/// A pod that has yet to join.
struct Parts {
    mesh: Mesh,
    pod: Pod,
    apart: Pod,
}

/// Connections of that pod.
struct Open {
    within: Held,
    inward: Held,
    outward: Held,
}

impl Parts {
    fn start(arguments: &[&str]) -> Result<(Self, Open)> {
        let mesh = Mesh::without_labels_with(arguments)?;
        let pod = mesh.lab.deploy(echo("pod", "node-a"))?;
        let apart = mesh.lab.deploy(echo("apart", "node-b").label("mesh.dev/join", "disabled"))?;
        let mut open = Open {
            within: Held::open(&pod, SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port::ECHO))?,
            // IPv6, and IPv4 at a socket of both families.
            inward: Held::open(&apart, at(pod.ipv4()))?,
            outward: Held::open(&pod, at(apart.ipv6()))?,
        };
        for held in [&mut open.within, &mut open.inward, &mut open.outward] {
            held.says("before")?;
        }
        Ok((Self { mesh, pod, apart }, open))
    }

    fn join(&self) -> Result<()> {
        self.mesh.label()?;
        self.mesh.wait_enrolled(&self.pod, 1)
    }

    /// How many became what, and how many live on.
    fn counted(&self) -> Result<[f64; 3]> {
        let metrics = self.mesh.metrics("node-a")?;
        let total = |result: &str| metrics.sum("mesh_existing_connections_total", &[("result", result)]);
        Ok([total("reset"), total("kept"), metrics.sum("mesh_existing_connections", &[])])
    }

    fn wait_counted(&self, expected: [f64; 3]) -> Result<()> {
        let what = format!("{expected:?} connections (reset, kept, open)");
        wait_until(&what, PATIENCE, || Ok((self.counted()? == expected).then_some(())))
    }
}

fn at(ip: IpAddr) -> SocketAddr {
    SocketAddr::new(ip, port::ECHO)
}

#[test]
fn kernel_plaintext_from_before_is_reset_in_both_directions_when_a_pod_joins_under_strict() -> Verdict {
    let (parts, mut open) = Parts::start(&[])?;
    parts.mesh.lab.apply("strict.yaml", STRICT)?;
    parts.mesh.settle()?;
    parts.join()?;
    assert_eq!(open.inward.ends()?, "reset");
    assert_ne!(open.outward.ends()?, "ok");
    open.within.says("within the pod nothing has changed")?;
    parts.wait_counted([2.0, 0.0, 0.0])?;
    let log = lines(parts.mesh.daemon("node-a")?);
    let told: Vec<_> = log.iter().filter(|line| line["message"] == "connection from before reset").collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(
        told.iter().any(|line| line["inbound"] == true && line["why"].to_string().contains("app/default")),
        "{told:?}"
    );
    let status = ctl_json(&parts.mesh, "node-a", &["status"], 0)?;
    let events = status["events"].as_array().into_iter().flatten();
    let event = events.into_iter().find(|event| event["event"] == "existing_connections");
    assert!(event.is_some_and(|event| event["detail"] == "2 reset, 0 kept"), "{status}");
    // What is opened now is judged as anything else.
    Connect::to(at(parts.apart.ipv4())).answered(&parts.pod)?;
    assert!(Connect::to(at(parts.pod.ipv4())).run(&parts.apart)?.was_refused());
    Ok(())
}

#[test]
fn plaintext_from_before_is_kept_and_counted_until_policy_denies_it() -> Verdict {
    let (parts, mut open) = Parts::start(&[])?;
    parts.join()?;
    parts.wait_counted([0.0, 2.0, 2.0])?;
    open.inward.says("after")?;
    open.outward.says("after")?;
    let shown = ctl(&parts.mesh, "node-a", &["status"])?.stdout;
    assert!(shown.contains("2 plaintext connections from before"), "{shown}");
    let list = ctl_json(&parts.mesh, "node-a", &["workload", "list", "-n", "app"], 0)?;
    let items = list["items"].as_array().into_iter().flatten();
    let pod = items.into_iter().find(|item| item["name"] == "pod");
    assert!(pod.is_some_and(|pod| pod["existingConnections"] == 2), "{list}");

    // An AuthorizationPolicy has a word on those into the pod alone.
    let policy = NOBODY_FROM_APART.replace("ADDRESS", &parts.apart.ipv4().to_string());
    parts.mesh.lab.apply("apart.yaml", &policy)?;
    assert_eq!(open.inward.ends()?, "reset");
    open.outward.says("still")?;
    // STRICT, much later.
    parts.mesh.lab.apply("strict.yaml", STRICT)?;
    assert_ne!(open.outward.ends()?, "ok");
    open.within.says("within the pod nothing has changed")?;
    let metrics = parts.mesh.metrics("node-a")?;
    assert_eq!(metrics.sum("mesh_existing_connections_total", &[("result", "reset")]), 2.0);
    Ok(())
}

#[test]
fn a_connection_that_nobody_has_answered_yet_when_its_pod_joins_comes_about() -> Verdict {
    let mesh = Mesh::without_labels()?;
    let pod = mesh.lab.deploy(client("pod", "node-a"))?;
    let apart = mesh.lab.deploy(echo("apart", "node-b").label("mesh.dev/join", "disabled"))?;
    // A listener with room for one that waits answers no other SYN.
    let (listener, _first) = inside(&apart, || {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        listener.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)).into())?;
        listener.listen(0)?;
        let listener = TcpListener::from(listener);
        let first = TcpStream::connect((Ipv4Addr::LOCALHOST, listener.local_addr()?.port()))?;
        Ok((listener, first))
    })?;
    let to = SocketAddr::new(apart.ipv4(), listener.local_addr().expect("an address").port());
    thread::scope(|scope| -> Result<()> {
        let dialling = scope.spawn(|| inside(&pod, || Ok(TcpStream::connect_timeout(&to, PATIENCE)?.peer_addr()?)));
        wait_until("a SYN that nobody answers", PATIENCE, || {
            // Field 4 of /proc/net/tcp is the state, and 02 is SYN_SENT (proc(5), include/net/tcp_states.h).
            let sockets = pod.exec(&["cat", "/proc/net/tcp"])?.stdout;
            let states = sockets.lines().filter_map(|line| line.split_whitespace().nth(3));
            Ok(states.into_iter().any(|state| state == "02").then_some(()))
        })?;
        mesh.label()?;
        mesh.wait_enrolled(&pod, 1)?;
        // The next SYN finds room.
        listener.accept().context("accepting the first")?;
        assert_eq!(dialling.join().expect("no panic")?, to);
        Ok(())
    })?;
    Ok(())
}

#[test]
fn the_next_daemon_knows_the_connections_from_before_from_those_that_the_last_one_permitted() -> Verdict {
    let (mut parts, open) = Parts::start(&[])?;
    parts.join()?;
    let near = parts.mesh.join(client("near", "node-a"))?;
    let mut direct = Held::open(&near, at(parts.pod.ipv4()))?;
    direct.says("by the kernel")?;
    assert_eq!(parts.mesh.events("node-a", "direct_connect")?, 1);
    parts.mesh.kill9("node-a")?;
    parts.mesh.start_daemon("node-a")?;
    parts.mesh.wait_enrolled(&parts.pod, 1)?;
    parts.wait_counted([0.0, 2.0, 2.0])?;
    parts.mesh.lab.apply("strict.yaml", STRICT)?;
    assert_eq!(open.inward.ends()?, "reset");
    assert_ne!(open.outward.ends()?, "ok");
    parts.mesh.settle()?;
    direct.says("an identity is proven here")?;
    direct.close()?;
    Ok(())
}

#[test]
fn an_operator_may_keep_connections_from_before_under_strict() -> Verdict {
    let (parts, mut open) = Parts::start(&["--existing-connections", "keep"])?;
    parts.mesh.lab.apply("strict.yaml", STRICT)?;
    parts.mesh.settle()?;
    parts.join()?;
    parts.wait_counted([0.0, 2.0, 2.0])?;
    open.inward.says("after")?;
    open.outward.says("after")?;
    open.inward.close()?;
    let mesh = &parts.mesh;
    wait_until("one that has ended to be forgotten", PATIENCE, || {
        Ok((mesh.metrics("node-a")?.sum("mesh_existing_connections", &[]) == 1.0).then_some(()))
    })?;
    Ok(())
}

#[test]
fn an_operator_may_reset_connections_from_before_whatever_the_mode_is() -> Verdict {
    let (parts, open) = Parts::start(&["--existing-connections", "reset"])?;
    parts.join()?;
    parts.wait_counted([2.0, 0.0, 0.0])?;
    assert_eq!(open.inward.ends()?, "reset");
    assert_ne!(open.outward.ends()?, "ok");
    Ok(())
}

/// Connections of a pod that leaves by label go on to their ends, in both directions; new ones are plaintext.
fn a_pod_that_leaves_keeps_what_is_open(mesh: &Mesh) -> Result<()> {
    let far = mesh.join(echo("far", "node-b"))?;
    let pod = mesh.join(echo("pod", "node-a"))?;
    let near = mesh.join(client("near", "node-a"))?;
    let mut held =
        [Held::open(&pod, at(far.ipv4()))?, Held::open(&far, at(pod.ipv4()))?, Held::open(&near, at(pod.ipv4()))?];
    for held in &mut held {
        held.says("in the mesh")?;
    }
    pod.label("mesh.dev/join", "disabled")?;
    mesh.wait_withdrawn(&pod, 1)?;
    mesh.settle()?;
    for held in &mut held {
        held.says("out of it")?;
    }
    Connect::to(at(far.ipv4())).answered(&pod)?;
    Connect::to(at(pod.ipv4())).answered(&far)?;
    for held in held {
        held.close()?;
    }
    let told = mesh.told("node-b", 3)?;
    let of = |security: &str| told.iter().filter(|line| line["security"] == security).count();
    assert!(of("mutual_tls") >= 2 && of("none") >= 1, "{told:?}");
    Ok(())
}

mesh_e2e::over_both_tunnels!(a_pod_that_leaves_keeps_what_is_open);

#[test]
fn plaintext_of_a_client_is_cut_when_a_destination_rule_asks_for_mutual_tls() -> Verdict {
    let mesh = Mesh::start()?;
    let apart = mesh.lab.deploy(echo("apart", "node-b").label("mesh.dev/join", "disabled"))?;
    let spec = ServiceSpec::new("app", "apart").select("app", "apart").port("tcp", 80, port::ECHO);
    let service = mesh.lab.service(spec)?;
    let pod = mesh.join(client("pod", "node-a"))?;
    mesh.settle()?;
    let (mut named, mut bare) = (Held::open(&pod, service.at(80))?, Held::open(&pod, at(apart.ipv4()))?);
    named.says("in plaintext")?;
    bare.says("in plaintext")?;
    mesh.lab.apply("rule.yaml", RULE)?;
    assert_eq!(named.ends()?, "reset");
    let told = mesh.told("node-a", 1)?;
    assert_eq!(
        (&told[0]["end"], &told[0]["destination_service"]),
        (&"rule_not_met".into(), &"apart.app.svc.cluster.local".into()),
        "{told:?}"
    );
    // The rule is about the Service; who asks for the pod itself has nothing to do with it.
    bare.says("still")?;
    bare.close()?;
    assert!(Connect::to(service.at(80)).run(&pod)?.was_refused());
    Ok(())
}

const RULE: &str = "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: apart, namespace: app}
spec: {host: apart.app.svc.cluster.local, trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}}
";
