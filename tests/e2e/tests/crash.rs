//! A daemon that crashes below the process that keeps its listeners (`--keep-listeners`): it is started again at once, and new
//! connections wait for it and are not refused.

use std::fs;
use std::net::SocketAddr;
use std::thread;

use anyhow::{Context as _, Result, ensure};
use mesh_e2e::{Connect, Dialler, Mesh, NODES, PATIENCE, Verdict, ctl, ctl_json, port};
use mesh_lab::{Daemon, Place as _, Pod, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

struct Scene {
    mesh: Mesh,
    far: Pod,
    pod: Pod,
    to: SocketAddr,
}

impl Scene {
    fn start() -> Result<Self> {
        let mesh = Mesh::with(&["--keep-listeners"])?;
        let [pod, far] = mesh.client_and_echo()?;
        let to = SocketAddr::new(far.ipv4(), port::ECHO);
        Connect::to(to).answered(&pod)?;
        Ok(Self { mesh, far, pod, to })
    }

    fn restarts(&self, node: &str) -> Result<u64> {
        let status = ctl_json(&self.mesh, node, &["status"], 0)?;
        status["handover"]["restarts"].as_u64().with_context(|| format!("{status}"))
    }

    /// Waits until the node's daemon has come up again so often.
    fn wait_restarted(&self, node: &str, times: u64) -> Result<()> {
        wait_until("the daemon to be started again", PATIENCE, || {
            Ok(self.restarts(node).is_ok_and(|restarts| restarts == times).then_some(()))
        })
    }
}

fn keeper(daemon: &Daemon) -> Pid {
    Pid::from_raw(daemon.id().cast_signed())
}

/// The process below the keeper: field 4 of /proc/PID/stat is its parent (proc(5)), the second behind the name.
fn below(daemon: &Daemon) -> Result<Pid> {
    let parent = daemon.id().to_string();
    let children = fs::read_dir("/proc")?.filter_map(|entry| {
        let stat = fs::read_to_string(entry.ok()?.path().join("stat")).ok()?;
        let is_child = stat.rsplit_once(')')?.1.split_whitespace().nth(1)? == parent;
        is_child.then(|| stat.split_whitespace().next()?.parse().ok()).flatten()
    });
    let children: Vec<i32> = children.collect();
    ensure!(children.len() == 1, "one process below the keeper, not {children:?}: {}", daemon.logs());
    Ok(Pid::from_raw(children[0]))
}

fn crash(mesh: &Mesh, node: &str) -> Result<()> {
    kill(below(mesh.daemon(node)?)?, Signal::SIGKILL).context("killing the daemon")
}

#[test]
fn a_connection_that_comes_while_no_daemon_runs_waits_for_the_next() -> Verdict {
    let scene = Scene::start()?;
    for (crashes, node) in NODES.into_iter().enumerate() {
        let daemon = scene.mesh.daemon(node)?;
        let (keeper, before) = (keeper(daemon), below(daemon)?);
        // It starts none while it is stopped.
        kill(keeper, Signal::SIGSTOP).context("stopping the keeper")?;
        kill(before, Signal::SIGKILL).context("killing the daemon")?;
        wait_until("the daemon to be dead", PATIENCE, || Ok((!daemon.is_ready()).then_some(())))?;
        let (to, pod) = (scene.to, &scene.pod);
        thread::scope(|scope| -> Result<()> {
            let waiting = scope.spawn(move || Connect::to(to).answered(pod));
            // This one ends by its own limit.
            let impatient = Connect::to(to).for_seconds(1).run(pod)?;
            kill(keeper, Signal::SIGCONT).context("letting the keeper go on")?;
            ensure!(!impatient.was_refused(), "{impatient:?} (crash {crashes})");
            waiting.join().expect("no panic")?;
            Ok(())
        })?;
        assert_ne!(before, below(daemon)?);
        scene.wait_restarted(node, 1)?;
        let people = ctl(&scene.mesh, node, &["status"])?.stdout;
        assert!(people.contains("started again after a crash 1 times"), "{people}");
        assert_eq!(scene.mesh.metrics(node)?.sum("mesh_daemon_restarts_total", &[]), 1.0);
    }
    Ok(())
}

#[test]
fn crashes_under_load_break_what_is_open_and_refuse_nothing() -> Verdict {
    let scene = Scene::start()?;
    let dialler = Dialler::new(scene.to, "a line");
    let dialled = thread::scope(|scope| {
        let thread = scope.spawn(|| dialler.run(&scene.pod));
        let crashed = NODES.into_iter().try_for_each(|node| {
            crash(&scene.mesh, node)?;
            scene.wait_restarted(node, 1)?;
            Connect::to(scene.to).answered(&scene.pod).map(drop)
        });
        dialler.stop();
        let dialled = thread.join().expect("no panic");
        crashed.and(dialled)
    })?;
    // One connection at a time: each crash breaks one at most.
    assert!(dialled.answered > 10 && dialled.failed.len() <= NODES.len(), "{dialled:?}");
    assert!(!dialled.failed.iter().any(|error| error.contains("refused")), "{dialled:?}");
    Ok(())
}

#[test]
fn a_daemon_that_crashes_again_and_again_is_given_up_and_connections_are_refused() -> Verdict {
    let mut scene = Scene::start()?;
    for times in 1..=3 {
        crash(&scene.mesh, "node-a")?;
        scene.wait_restarted("node-a", times)?;
    }
    crash(&scene.mesh, "node-a")?;
    let mut daemon = scene.mesh.take_daemon("node-a")?;
    let ended = daemon.process().wait(PATIENCE)?;
    assert_eq!(ended.code, Some(1), "{ended}");
    assert!(daemon.logs().contains("again and again: its listeners close"), "{}", daemon.logs());
    assert!(Connect::to(scene.to).run(&scene.pod)?.was_refused());
    // Whoever starts it next, as kubelet does, has it back.
    scene.mesh.start_daemon("node-a")?;
    scene.mesh.wait_enrolled(&scene.pod, 1)?;
    Connect::to(scene.to).answered(&scene.pod)?;
    Ok(())
}

#[test]
fn what_left_or_was_handed_over_is_kept_no_more() -> Verdict {
    let mut scene = Scene::start()?;
    let mut old = scene.mesh.upgrade("node-a")?;
    // Who saw it end would start it again, and it would take the node back.
    old.wait_for_line("the daemon has handed over and ended", PATIENCE)?;
    let ended = old.terminate(PATIENCE)?;
    assert_eq!(ended.code, Some(0), "{ended}");
    crash(&scene.mesh, "node-a")?;
    scene.wait_restarted("node-a", 1)?;
    Connect::to(scene.to).answered(&scene.pod)?;

    let tunnels = SocketAddr::new(scene.pod.ipv4(), 15008);
    scene.mesh.lab.label_namespace("app", "mesh.dev/join", "disabled")?;
    wait_until("the pod's listeners to be closed", PATIENCE, || {
        Ok(Connect::to(tunnels).run(&scene.pod)?.was_refused().then_some(()))
    })?;
    scene.mesh.label()?;
    // By the successor, by it again after the crash, and now.
    scene.mesh.wait_enrolled(&scene.pod, 3)?;
    scene.mesh.wait_enrolled(&scene.far, 2)?;
    Connect::to(scene.to).answered(&scene.pod)?;

    let stopped = scene.mesh.take_daemon("node-a")?.terminate(PATIENCE)?;
    assert_eq!(stopped.code, Some(0), "{stopped}");
    Ok(())
}

#[test]
fn a_daemon_that_has_handed_over_is_back_where_the_next_one_goes() -> Verdict {
    let mut scene = Scene::start()?;
    let mut first = scene.mesh.upgrade("node-a")?;
    first.wait_for_line("the daemon has handed over and ended", PATIENCE)?;
    // The next one crashes and comes back: that is no vacancy.
    crash(&scene.mesh, "node-a")?;
    scene.wait_restarted("node-a", 1)?;
    Connect::to(scene.to).answered(&scene.pod)?;
    assert!(!first.logs().contains("no daemon is in charge"), "{}", first.logs());

    let ended = scene.mesh.take_daemon("node-a")?.terminate(PATIENCE)?;
    assert_eq!(ended.code, Some(0), "{ended}");
    scene.mesh.return_daemon(first);
    scene.mesh.wait_enrolled(&scene.pod, 2)?;
    Connect::to(scene.to).answered(&scene.pod)?;
    let ended = scene.mesh.take_daemon("node-a")?.terminate(PATIENCE)?;
    assert_eq!(ended.code, Some(0), "{ended}");
    Ok(())
}
