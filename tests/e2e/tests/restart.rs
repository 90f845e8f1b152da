//! A daemon that dies, stops and comes back: while it is away its pods' connections are refused, never let out or in as
//! plaintext; afterwards all goes on without a pod's restart.

use std::net::SocketAddr;
use std::thread;

use anyhow::Result;
use mesh_e2e::{Connect, Held, Mesh, NODES, PATIENCE, Verdict, client, echo, generations, port, server};
use mesh_lab::{Place, Pod, wait_until};

/// Links at the root of cgroup v2, and those on a pod's one interface.
const CGROUP_LINKS: usize = 8;
const POD_LINKS: usize = 2;

/// What nobody but the two ends may read.
const NEEDLE: &str = "a-needle-in-the-clear";

/// A connection's ports at [`port::ECHO`] of both of a pod's addresses.
fn echoes(pod: &Pod) -> Vec<SocketAddr> {
    pod.addresses().into_iter().map(|ip| SocketAddr::new(ip, port::ECHO)).collect()
}

fn all_goes_on(client: &Pod, server: &Pod) -> Result<()> {
    echoes(server).into_iter().try_for_each(|to| Connect::to(to).answered(client).map(drop))
}

#[test]
fn while_the_clients_daemon_is_away_its_pods_are_refused_and_nothing_leaves() -> Verdict {
    let mut mesh = Mesh::start()?;
    let far = mesh.join(server("server", "node-b"))?;
    let near = mesh.join(server("neighbour", "node-a"))?;
    let pod = mesh.join(client("client", "node-a"))?;
    all_goes_on(&pod, &far)?;
    mesh.kill9("node-a")?;
    let capture = mesh.lab.capture("node-a")?;
    for to in [echoes(&far), echoes(&near)].concat() {
        for kind in [Connect::to(to), Connect::to(to).mapped(), Connect::to(to).nonblocking()] {
            let answer = kind.saying(NEEDLE).run(&pod)?;
            assert_eq!(answer.connect, "refused", "{to}: {answer:?}");
        }
    }
    let packets = capture.stop()?;
    assert_eq!(packets.lost(), 0);
    assert!(!packets.contains_plaintext(NEEDLE));
    assert!(packets.at_port(port::ECHO).next().is_none(), "a packet for the server left the node");
    // Its own addresses and loopback are still its own.
    Connect::to(SocketAddr::new(near.ipv4(), port::ECHO)).answered(&near)?;

    mesh.start_daemon("node-a")?;
    mesh.wait_enrolled(&pod, 1)?;
    all_goes_on(&pod, &far)?;
    all_goes_on(&pod, &near)?;
    Ok(())
}

#[test]
fn while_the_servers_daemon_is_away_nothing_reaches_its_pods() -> Verdict {
    let mut mesh = Mesh::start()?;
    let [pod, far] = mesh.client_and_server()?;
    let apart = mesh.lab.deploy(client("apart", "node-a").label("mesh.dev/join", "disabled"))?;
    let outside = mesh.lab.outside("outside")?;
    all_goes_on(&pod, &far)?;
    let told = || far.log().lines().filter(|line| line.contains("\"serve\"")).count();
    // The server tells of a connection when it has ended, which may be after its client has.
    let served = echoes(&far).len();
    wait_until("the server to tell of all connections", PATIENCE, || Ok((told() == served).then_some(())))?;
    mesh.kill9("node-b")?;
    let capture = mesh.lab.capture("node-b")?;
    let (pod, apart, outside) = (&pod, &apart, &outside);
    let attempt = |to| Connect::to(to).saying(NEEDLE);
    thread::scope(|scope| {
        let attempts = echoes(&far).into_iter().map(|to| {
            let inside = scope.spawn(move || attempt(to).run(pod));
            // Dropped: there is nobody who could answer.
            let beyond =
                scope.spawn(move || [attempt(to).for_seconds(2).run(outside), attempt(to).for_seconds(2).run(apart)]);
            (to, inside, beyond)
        });
        for (to, inside, beyond) in attempts.collect::<Vec<_>>() {
            let answer = inside.join().expect("no panic")?;
            assert!(answer.was_refused(), "{to}: {answer:?}");
            for answer in beyond.join().expect("no panic") {
                assert_eq!(answer?.connect, "timeout", "{to}");
            }
        }
        Ok::<_, anyhow::Error>(())
    })?;
    let packets = capture.stop()?;
    assert_eq!(packets.lost(), 0);
    assert!(!packets.contains_plaintext(NEEDLE));
    assert_eq!(told(), served);

    mesh.start_daemon("node-b")?;
    mesh.wait_enrolled(&far, 1)?;
    all_goes_on(pod, &far)?;
    assert!(mesh.events("node-b", "no_listener")? >= 4, "counters live on");
    for to in echoes(&far) {
        Connect::to(to).answered(outside)?;
    }
    Ok(())
}

#[test]
fn a_connection_that_is_lost_with_its_daemon_is_reset_and_not_ended() -> Verdict {
    let mut mesh = Mesh::start()?;
    let [pod, far] = mesh.client_and_echo()?;
    let outside = mesh.lab.outside("outside")?;
    let mut lost = 0;
    for (node, kill) in [("node-a", true), ("node-b", true), ("node-a", false), ("node-b", false)] {
        let mut held = vec![Held::open(&pod, echoes(&far)[0])?];
        if node == "node-b" {
            held.push(Held::open(&outside, echoes(&far)[0])?);
        }
        for held in &mut held {
            held.says("before")?;
        }
        let daemon = mesh.take_daemon(node)?;
        if kill {
            daemon.kill9()?;
        } else {
            daemon.terminate(PATIENCE)?.success()?;
        }
        // An orderly end would make a part of a file pass for the whole.
        for held in held {
            assert_eq!(held.ends()?, "reset", "{node}, killed: {kill}");
            lost += 1;
        }
        wait_until("the server to see the resets", PATIENCE, || {
            let seen = far.log().lines().filter(|line| line.contains("\"outcome\":\"reset\"")).count();
            Ok((seen == lost).then_some(()))
        })?;
        mesh.start_daemon(node)?;
        mesh.wait_enrolled(if node == "node-a" { &pod } else { &far }, 1)?;
    }
    Ok(())
}

#[test]
fn a_daemon_that_is_asked_to_stop_leaves_its_hooks_in_force() -> Verdict {
    let mut mesh = Mesh::start()?;
    let [pod, far] = mesh.client_and_echo()?;
    all_goes_on(&pod, &far)?;
    let stopped = mesh.take_daemon("node-a")?.terminate(PATIENCE)?;
    assert_eq!(stopped.code, Some(0), "{stopped}");
    for to in echoes(&far) {
        assert_eq!(Connect::to(to).run(&pod)?.connect, "refused");
    }
    mesh.start_daemon("node-a")?;
    mesh.wait_enrolled(&pod, 1)?;
    all_goes_on(&pod, &far)?;
    Ok(())
}

#[test]
fn restarts_leave_one_generation_of_links() -> Verdict {
    let mut mesh = Mesh::start()?;
    let [pod, far] = mesh.client_and_echo()?;
    let first = NODES.map(|node| generations(&mesh.lab, node));
    for round in 0..2 {
        for node in NODES {
            if round == 0 {
                mesh.kill9(node)?;
            } else {
                mesh.take_daemon(node)?.terminate(PATIENCE)?.success()?;
            }
            mesh.start_daemon(node)?;
        }
    }
    mesh.wait_enrolled(&pod, 1)?;
    mesh.wait_enrolled(&far, 1)?;
    for (node, first) in NODES.into_iter().zip(first) {
        let (generations, links) = generations(&mesh.lab, node)?;
        assert_eq!(generations.len(), 1, "{node}: {generations:?}");
        assert!(generations.is_disjoint(&first?.0), "{node}: the first daemon's links are still there");
        assert_eq!(links, CGROUP_LINKS + POD_LINKS, "{node}");
    }
    all_goes_on(&pod, &far)?;
    // A pod that goes takes its links with it.
    pod.delete()?;
    wait_until("the pod's links to go", PATIENCE, || {
        Ok((generations(&mesh.lab, "node-a")?.1 == CGROUP_LINKS).then_some(()))
    })?;
    Ok(())
}

#[test]
fn what_changed_while_the_daemon_was_away_is_in_force_when_it_is_back() -> Verdict {
    let mut mesh = Mesh::start()?;
    let far = mesh.join(echo("server", "node-b"))?;
    let leaving = mesh.join(echo("leaving", "node-a"))?;
    let dying = mesh.join(client("dying", "node-a"))?;
    let outside = mesh.lab.outside("outside")?;
    mesh.kill9("node-a")?;
    leaving.label("mesh.dev/join", "disabled")?;
    dying.delete()?;
    mesh.lab.apply("phantom.yaml", PHANTOM)?;
    mesh.start_daemon("node-a")?;
    // Still refused until the daemon has compared; then free, both ways, although another pod is waited for.
    wait_until("the pod that left to be free", PATIENCE, || {
        Ok((Connect::to(echoes(&far)[0]).run(&leaving)?.outcome == "ok").then_some(()))
    })?;
    assert_eq!(mesh.metrics("node-a")?.sum("mesh_pods", &[("state", "enrolled")]), 0.0);
    for to in echoes(&leaving) {
        Connect::to(to).answered(&outside)?;
    }
    assert_eq!(generations(&mesh.lab, "node-a")?.1, CGROUP_LINKS);
    let newcomer = mesh.join(client("newcomer", "node-a"))?;
    all_goes_on(&newcomer, &far)?;
    Ok(())
}

/// On node-a by its manifest, and nowhere by its processes.
const PHANTOM: &str = "
apiVersion: v1
kind: Pod
metadata: {name: phantom, namespace: app, uid: 00000000-0000-4000-8000-000000000000}
spec: {nodeName: node-a, serviceAccountName: default, containers: [{name: main, image: none}]}
status: {phase: Running, podIPs: [{ip: 10.244.1.250}]}
";
