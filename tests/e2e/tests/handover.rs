//! A daemon that is replaced while it runs: new connections wait and do not fail, established ones go on in the old daemon,
//! and at no moment of an upgrade, a crash or a restart does a byte leave or enter in plaintext that should not.

use std::io::Read as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use mesh_e2e::{
    Connect, Dialled, Dialler, Held, Mesh, NODES, PATIENCE, Syn, Verdict, client, ctl, ctl_json, echo, generations,
    inside, port,
};
use mesh_lab::{DaemonOptions, Outside, Place as _, Pod, wait_until};
use serde_json::{Value, json};
use socket2::{Domain, SockAddr, Socket, Type};

/// What nobody but the two ends may read.
const NEEDLE: &str = "a-needle-in-the-clear";

const STRICT: &str = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: app}
spec: {mtls: {mode: STRICT}}
";

struct Scene {
    mesh: Mesh,
    far: Pod,
    pod: Pod,
    outside: Outside,
}

impl Scene {
    fn start(arguments: &[&str]) -> Result<Self> {
        let mesh = Mesh::with(arguments)?;
        let [pod, far] = mesh.client_and_echo()?;
        let outside = mesh.lab.outside("outside")?;
        Ok(Self { mesh, far, pod, outside })
    }

    fn target(&self) -> SocketAddr {
        SocketAddr::new(self.far.ipv4(), port::ECHO)
    }

    /// Dials the server from the pod and from outside all the while that `work` runs.
    fn under_load<T>(&mut self, work: impl FnOnce(&mut Mesh, &Pod) -> Result<T>) -> Result<(T, [Dialled; 2])> {
        let (inner, outer) = (Dialler::new(self.target(), NEEDLE), Dialler::new(self.target(), "from outside"));
        let Self { mesh, pod, outside, .. } = self;
        thread::scope(|scope| {
            let threads = (scope.spawn(|| inner.run(&*pod)), scope.spawn(|| outer.run(&*outside)));
            let done = work(mesh, pod);
            inner.stop();
            outer.stop();
            let dialled = [threads.0.join(), threads.1.join()].map(|joined| joined.expect("no panic"));
            let [inner, outer] = dialled;
            Ok((done?, [inner?, outer?]))
        })
    }

    fn handover_socket(&self, node: &str) -> PathBuf {
        self.mesh.lab.admin_socket(node).with_extension("handover")
    }
}

fn assert_none_failed(dialled: &[Dialled; 2], least: usize) {
    for dialled in dialled {
        assert!(dialled.failed.is_empty(), "{dialled:?}");
        assert!(dialled.answered >= least, "too few to show anything: {dialled:?}");
    }
}

#[test]
fn an_upgrade_under_load_fails_no_connection_and_cuts_none() -> Verdict {
    let mut scene = Scene::start(&[])?;
    let to = scene.target();
    let mut held = [Held::open(&scene.pod, to)?, Held::open(&scene.outside, to)?];
    let (old, dialled) = scene.under_load(|mesh, _| NODES.into_iter().map(|node| mesh.upgrade(node)).collect())?;
    let mut old: Vec<_> = old;
    assert_none_failed(&dialled, 50);
    for held in &mut held {
        held.says("after both upgrades")?;
    }
    for (node, old) in NODES.into_iter().zip(&old) {
        let status = ctl_json(&scene.mesh, node, &["status"], 0)?;
        assert_eq!(status["handover"]["generation"], 2, "{status}");
        assert_eq!(status["handover"]["draining"][0]["pid"], old.id(), "{status}");
        let people = ctl(&scene.mesh, node, &["status"])?.stdout;
        assert!(people.contains(&format!("number 2 of a chain of daemons; process {} drains", old.id())), "{people}");
        let taken_over = scene.mesh.metrics(node)?.sum("mesh_handovers_total", &[("result", "taken_over")]);
        assert_eq!(taken_over, 1.0);
    }
    // They end when the last of their connections has.
    held.into_iter().try_for_each(Held::close)?;
    for old in &mut old {
        let ended = old.process().wait(PATIENCE)?;
        assert_eq!(ended.code, Some(0), "{ended}");
        assert!(old.logs().contains("every connection has ended"), "{}", old.logs());
    }
    for node in NODES {
        assert_eq!(generations(&scene.mesh.lab, node)?.0.len(), 1, "{node}");
        wait_until("the end to be told", PATIENCE, || {
            let status = ctl_json(&scene.mesh, node, &["status"], 0)?;
            Ok(status["handover"]["draining"].as_array().is_some_and(Vec::is_empty).then_some(()))
        })?;
    }
    Connect::to(to).answered(&scene.pod)?;
    Ok(())
}

#[test]
fn an_upgrade_under_load_over_http2_fails_no_connection() -> Verdict {
    let mut scene = Scene::start(&["--tunnels", "h2"])?;
    let (_old, dialled) =
        scene.under_load(|mesh, _| NODES.into_iter().map(|node| mesh.upgrade(node)).collect::<Result<Vec<_>>>())?;
    assert_none_failed(&dialled, 50);
    Ok(())
}

#[test]
fn in_a_chain_of_upgrades_each_daemon_drains_to_its_limit() -> Verdict {
    let mut scene = Scene::start(&["--drain-timeout", "8s"])?;
    let to = scene.target();
    let mut first = Held::open(&scene.pod, to)?;
    let ((mut one, mut two, mut second), dialled) = scene.under_load(|mesh, pod| {
        let one = mesh.upgrade("node-a")?;
        let second = Held::open(pod, to);
        Ok((one, mesh.upgrade("node-a")?, second?))
    })?;
    assert_none_failed(&dialled, 20);
    first.says("in the first daemon")?;
    second.says("in the second")?;
    let status = ctl_json(&scene.mesh, "node-a", &["status"], 0)?;
    assert_eq!(status["handover"]["generation"], 3, "{status}");
    let draining: Vec<_> = status["handover"]["draining"].as_array().context("a list")?.iter().collect();
    assert_eq!(draining.len(), 2, "{status}");
    for held in [first, second] {
        assert_eq!(held.ends()?, "reset");
    }
    for old in [&mut one, &mut two] {
        let ended = old.process().wait(PATIENCE)?;
        assert_eq!(ended.code, Some(0), "{ended}");
        let line =
            |line: &str| line.contains("established connections are cut") && line.contains("the limit is reached");
        assert!(old.logs().lines().any(line), "{}", old.logs());
    }
    Connect::to(to).answered(&scene.pod)?;
    Ok(())
}

#[test]
fn a_second_signal_cuts_what_drains_and_a_first_one_does_not() -> Verdict {
    let mut scene = Scene::start(&[])?;
    let mut held = Held::open(&scene.pod, scene.target())?;
    let mut old = scene.mesh.upgrade("node-a")?;
    old.process().signal(nix::sys::signal::Signal::SIGTERM)?;
    held.says("after the first")?;
    let status = old.process().status()?;
    assert_eq!(status, None, "it drains");
    old.process().signal(nix::sys::signal::Signal::SIGTERM)?;
    assert_eq!(held.ends()?, "reset");
    assert_eq!(old.process().wait(PATIENCE)?.code, Some(0));
    Ok(())
}

#[test]
fn a_successor_that_dies_before_it_has_taken_over_changes_nothing() -> Verdict {
    let mut scene = Scene::start(&[])?;
    let before = generations(&scene.mesh.lab, "node-a")?;
    let mut held = Held::open(&scene.pod, scene.target())?;
    let socket = scene.handover_socket("node-a");
    let (token, root) = (scene.mesh.lab.home().join("token"), scene.mesh.lab.ca_dir()?.join("root-cert.pem"));
    std::fs::write(&token, "no token").context("writing a token")?;
    // Nobody answers there: it has borrowed the listeners, and waits for certificates.
    let argument = |path: &Path| path.display().to_string();
    let args = ["--ca-address", "127.0.0.1:9", "--ca-root", &argument(&root), "--ca-token", &argument(&token)];
    let args: Vec<_> = args.into_iter().map(str::to_owned).collect();
    let ((), dialled) = scene.under_load(|mesh, _| {
        // One that is no daemon at all.
        let mut one = Peer::connect(&socket)?;
        ensure!(one.ask(&hello(mesh_abi_version(mesh)?))?["type"] == "welcome");
        ensure!(one.ask(&json!({"type": "lend"}))?["type"] == "lent");
        drop(one);
        for kill in [true, false] {
            let options = DaemonOptions { args: args.clone(), ready_within: None, ..DaemonOptions::default() };
            let mut successor = mesh.lab.start_daemon("node-a", options)?;
            successor.wait_for_line("listeners of the daemon before are here", PATIENCE)?;
            if kill {
                successor.kill9()?;
            } else {
                let ended = successor.process().wait(PATIENCE)?;
                ensure!(ended.code == Some(1) && ended.stderr.contains("the daemon that runs goes on"), "{ended}");
            }
        }
        Ok(())
    })?;
    assert_none_failed(&dialled, 50);
    wait_until("the last successor's end to be told", PATIENCE, || {
        let abandoned = scene.mesh.metrics("node-a")?.sum("mesh_handovers_total", &[("result", "abandoned")]);
        Ok((abandoned == 3.0).then_some(()))
    })?;
    assert_eq!(generations(&scene.mesh.lab, "node-a")?, before);
    held.says("still there")?;
    // It can be taken over from afterwards.
    drop(scene.mesh.upgrade("node-a")?);
    Connect::to(scene.target()).answered(&scene.pod)?;
    Ok(())
}

#[test]
fn daemons_of_different_versions_do_not_hand_over() -> Verdict {
    let mut scene = Scene::start(&[])?;
    let socket = scene.handover_socket("node-a");
    let abi = mesh_abi_version(&scene.mesh)?;
    for (stranger, why) in [
        (hello(abi + 1), "maps"),
        (
            json!({"type": "hello", "protocol": 99, "abi": abi, "version": "9", "node": "node-a", "pid": 1}),
            "handover 99",
        ),
        (json!({"type": "hello", "protocol": 1, "abi": abi, "version": "9", "node": "node-b", "pid": 1}), "node-b"),
    ] {
        let answer = Peer::connect(&socket)?.ask(&stranger)?;
        assert_eq!(answer["type"], "declined", "{answer}");
        assert!(answer["reason"].as_str().is_some_and(|reason| reason.contains(why)), "{answer}");
    }
    wait_until("them to be counted", PATIENCE, || {
        let declined = scene.mesh.metrics("node-a")?.sum("mesh_handovers_total", &[("result", "declined")]);
        Ok((declined == 3.0).then_some(()))
    })?;
    Connect::to(scene.target()).answered(&scene.pod)?;

    // The other way round: what runs is of another version, and so this one waits until it has ended.
    scene.mesh.kill9("node-a")?;
    std::fs::remove_file(&socket).context("removing the socket that the daemon left")?;
    let other = packet_socket()?;
    let address = SockAddr::unix(&socket).context("naming the handover's socket")?;
    other.bind(&address).context("binding the handover's socket")?;
    other.listen(1).context("listening")?;
    let declining = thread::spawn(move || -> Result<Value> {
        let mut peer = Peer(other.accept()?.0);
        let hello = peer.hear()?;
        peer.say(&json!({"type": "declined", "reason": "of another version"}))?;
        Ok(hello)
    });
    scene.mesh.start_daemon("node-a")?;
    let hello = declining.join().expect("no panic")?;
    assert_eq!((&hello["type"], &hello["node"]), (&json!("hello"), &json!("node-a")), "{hello}");
    let logs = scene.mesh.daemon("node-a")?.logs();
    assert!(
        logs.contains("of another version") && logs.contains("this daemon waits until that one has ended"),
        "{logs}"
    );
    scene.mesh.wait_enrolled(&scene.pod, 1)?;
    Connect::to(scene.target()).answered(&scene.pod)?;
    Ok(())
}

#[test]
fn a_daemon_that_stops_keeps_its_listeners_for_one_that_comes() -> Verdict {
    let mut scene = Scene::start(&["--stop-timeout", "60s"])?;
    let mut held = Held::open(&scene.pod, scene.target())?;
    let mut old = scene.mesh.take_daemon("node-a")?;
    old.process().signal(nix::sys::signal::Signal::SIGTERM)?;
    old.wait_for_line("stopping: ", PATIENCE)?;
    let (to, pod) = (scene.target(), &scene.pod);
    thread::scope(|scope| {
        // Nobody accepts it until there is a successor.
        let waiting = scope.spawn(move || Connect::to(to).answered(pod));
        let options = DaemonOptions { ready_within: None, ..DaemonOptions::default() };
        let mut next = scene.mesh.lab.start_daemon("node-a", options)?;
        next.wait_for_line("mesh-node started", PATIENCE)?;
        waiting.join().expect("no panic")?;
        held.says("in the one that stops")?;
        held.close()?;
        let ended = old.process().wait(PATIENCE)?;
        ensure!(ended.code == Some(0), "{ended}");
        Ok(())
    })?;
    Ok(())
}

#[test]
fn no_byte_is_in_the_clear_while_daemons_are_killed_stopped_and_replaced() -> Verdict {
    let mut scene = Scene::start(&["--stop-timeout", "1s"])?;
    let apart = scene.mesh.lab.deploy(client("apart", "node-a").label("mesh.dev/join", "disabled"))?;
    let plain = scene.mesh.lab.deploy(echo("plain", "node-b").label("mesh.dev/join", "disabled"))?;
    scene.mesh.lab.apply("strict.yaml", STRICT)?;
    scene.mesh.settle()?;
    let to = scene.target();
    wait_until("STRICT to be in force", PATIENCE, || {
        Ok(Connect::to(to).run(&scene.outside)?.was_refused().then_some(()))
    })?;
    let captures = [scene.mesh.lab.capture("node-a")?, scene.mesh.lab.capture("node-b")?];
    // The captures would see it: these two are in no mesh.
    let control = "a-needle-that-is-seen";
    Connect::to(SocketAddr::new(plain.ipv4(), port::ECHO)).saying(control).answered(&apart)?;
    let (source, far) = (SocketAddr::new(scene.pod.ipv4(), 40_000), to);
    let raw = Syn { source, destination: far };
    let pod = scene.pod.clone();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let (_, [inner, outer]) = thread::scope(|scope| {
        let stop = &stop;
        let forger = scope.spawn(move || {
            inside(&pod, || {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    raw.send()?;
                    thread::sleep(Duration::from_millis(5));
                }
                Ok(())
            })
        });
        let done = scene.under_load(|mesh, _| replace_in_every_way(mesh));
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        forger.join().expect("no panic")?;
        done
    })?;
    assert!(
        inner.answered > 50 && !outer.failed.is_empty(),
        "{} answered, {} turned away",
        inner.answered,
        outer.failed.len()
    );
    assert_eq!(outer.answered, 0, "plaintext came in past STRICT");
    for capture in captures {
        let packets = capture.stop()?;
        assert_eq!(packets.lost(), 0);
        assert!(packets.contains_plaintext(control), "the capture sees nothing");
        assert!(!packets.contains_plaintext(NEEDLE));
        let own = |address: SocketAddr| address.ip() == source.ip();
        let leaked = packets.at_port(port::ECHO).filter(|packet| own(packet.source) || own(packet.destination)).count();
        assert_eq!(leaked, 0, "packets between the pod and the server's own port");
    }
    Ok(())
}

fn replace_in_every_way(mesh: &mut Mesh) -> Result<()> {
    for node in NODES {
        drop(mesh.upgrade(node)?);
        mesh.kill9(node)?;
        mesh.start_daemon(node)?;
        mesh.take_daemon(node)?.terminate(PATIENCE)?.success()?;
        mesh.start_daemon(node)?;
    }
    Ok(())
}

/// The other end of a handover, made of packets.
struct Peer(Socket);

impl Peer {
    fn connect(path: &Path) -> Result<Self> {
        let socket = packet_socket()?;
        socket.connect(&SockAddr::unix(path)?).with_context(|| format!("connecting to {}", path.display()))?;
        Ok(Self(socket))
    }

    fn ask(&mut self, message: &Value) -> Result<Value> {
        self.say(message)?;
        self.hear()
    }

    fn say(&mut self, message: &Value) -> Result<()> {
        self.0.send(message.to_string().as_bytes()).context("sending")?;
        Ok(())
    }

    /// The next message; descriptors beside it close.
    fn hear(&mut self) -> Result<Value> {
        let mut packet = vec![0; 16_384];
        let count = (&self.0).read(&mut packet).context("receiving")?;
        serde_json::from_slice(&packet[..count]).context("no JSON")
    }
}

fn packet_socket() -> Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None).context("opening a socket of packets")?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

fn hello(abi: u64) -> Value {
    json!({"type": "hello", "protocol": 1, "abi": abi, "version": "test", "node": "node-a", "pid": 1})
}

/// The version of the maps, by the directory that the daemon has pinned them in.
fn mesh_abi_version(mesh: &Mesh) -> Result<u64> {
    let base = mesh.lab.home().join("bpf.node-a/mesh");
    let entry = std::fs::read_dir(&base)?.next().context("nothing is pinned")??;
    let name = entry.file_name().to_string_lossy().into_owned();
    name.trim_start_matches('v').parse().with_context(|| format!("{name} is no version"))
}
