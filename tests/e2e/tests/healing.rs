//! What holds pods in the mesh and vanishes while the daemon runs, by whatever hand: it is put back, by the evidence
//! of traffic, and told.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use mesh_e2e::{Connect, Mesh, PATIENCE, Syn, Verdict, echo, inside, port};
use mesh_lab::{Outside, Place, Pod, wait_until};

struct Parts {
    mesh: Mesh,
    far: Pod,
    pod: Pod,
    outside: Outside,
}

impl Parts {
    fn start() -> Result<Self> {
        let mesh = Mesh::start()?;
        let [pod, far] = mesh.client_and_server()?;
        let outside = mesh.lab.outside("outside")?;
        Ok(Self { mesh, far, pod, outside })
    }

    fn repairs(&self, node: &str, what: &str) -> Result<f64> {
        Ok(self.mesh.metrics(node)?.sum("mesh_enrolment_repairs_total", &[("what", what)]))
    }

    /// Does harm, and waits until the daemon has put right what was harmed.
    fn harm(&self, node: &str, what: &str, harm: impl FnOnce() -> Result<()>) -> Result<()> {
        let before = self.repairs(node, what)?;
        harm()?;
        wait_until(&format!("the repair of {what}"), PATIENCE, || {
            Ok((self.repairs(node, what)? > before).then_some(()))
        })?;
        let line = |line: &str| line.contains("had vanished") && line.contains(&format!("\"what\":\"{what}\""));
        ensure!(self.mesh.daemon(node)?.logs().lines().any(line), "{what} is not in the log");
        Ok(())
    }

    /// A file of the node's BPF file system, by the beginning of its name.
    fn pin(&self, node: &str, folder: &str, name: impl Fn(&str) -> bool) -> Result<PathBuf> {
        let base = self.mesh.lab.home().join(format!("bpf.{node}/mesh"));
        let version = fs::read_dir(&base)?.next().context("no version")??.path();
        for file in fs::read_dir(version.join(folder))? {
            let file = file?;
            if name(&file.file_name().to_string_lossy()) {
                return Ok(file.path());
            }
        }
        anyhow::bail!("no such file in {}/{folder}", version.display())
    }

    /// Takes a link off what it is attached to. Its file stays.
    fn detach(&self, node: &str, name: impl Fn(&str) -> bool) -> Result<()> {
        let link = self.pin(node, "links", name)?.display().to_string();
        let detached = self.mesh.lab.node(node)?.exec(&["bpftool", "link", "detach", "pinned", &link])?;
        detached.success().map(drop)
    }

    /// A connection between the pods goes over the mesh.
    fn is_carried(&self) -> Result<()> {
        let before = self.mesh.told("node-a", 0)?.len();
        Connect::to(SocketAddr::new(self.far.ipv4(), port::ECHO)).answered(&self.pod)?;
        let told = self.mesh.told("node-a", before + 1)?;
        ensure!(told[before]["security"] == "mutual_tls", "{:?}", told[before]);
        Ok(())
    }

    /// A connection from outside passes the daemon.
    fn is_steered(&self) -> Result<()> {
        let before = self.mesh.events("node-b", "inbound_plaintext")?;
        Connect::to(SocketAddr::new(self.far.ipv4(), port::ECHO)).answered(&self.outside)?;
        ensure!(self.mesh.events("node-b", "inbound_plaintext")? > before, "it went past the daemon");
        Ok(())
    }
}

#[test]
fn a_hook_that_is_detached_is_attached_again() -> Verdict {
    let parts = Parts::start()?;
    let hooks = [
        "connect4",
        "connect6",
        "sock_create",
        "sock_ops",
        "getpeername4",
        "getpeername6",
        "getsockname4",
        "getsockname6",
    ];
    for hook in hooks {
        parts.harm("node-a", "cgroup_hook", || parts.detach("node-a", |name| name.starts_with(&format!("{hook}@"))))?;
        parts.is_carried()?;
    }
    // All that they show applications is as it was, in both families.
    for ip in parts.far.addresses() {
        let asked = SocketAddr::new(ip, port::REPORT_PEER);
        let answer = Connect::to(asked).answered(&parts.pod)?;
        let (seen, _) = answer.seen_by_server()?;
        assert_eq!((answer.peer, answer.local), (Some(asked), Some(seen)));
    }
    for direction in ["-ingress@", "-egress@"] {
        parts.harm("node-b", "interface_hook", || parts.detach("node-b", |name| name.contains(direction)))?;
        parts.is_steered()?;
    }
    Ok(())
}

#[test]
fn a_hooks_file_that_is_removed_is_made_again() -> Verdict {
    let mut parts = Parts::start()?;
    let files: [fn(&str) -> bool; 2] = [|name| name.starts_with("connect4@"), |name| name.contains("-egress@")];
    for chosen in files {
        let file = parts.pin("node-a", "links", chosen)?;
        parts.harm("node-a", "pin", || Ok(fs::remove_file(&file)?))?;
        assert!(file.exists());
    }
    // So they are in force without the daemon as well.
    parts.mesh.kill9("node-a")?;
    let answer = Connect::to(SocketAddr::new(parts.far.ipv4(), port::ECHO)).run(&parts.pod)?;
    assert_eq!(answer.connect, "refused", "{answer:?}");
    Ok(())
}

#[test]
fn a_pods_entry_that_is_deleted_or_wrong_is_set_right() -> Verdict {
    let parts = Parts::start()?;
    let map = parts.pin("node-a", "maps", |name| name == "PODS")?.display().to_string();
    let node = parts.mesh.lab.node("node-a")?;
    let dump = node.exec(&["bpftool", "-j", "map", "dump", "pinned", &map])?.json()?;
    let key = dump[0]["key"].as_array().context("one pod is enrolled here")?.clone();
    let key: Vec<&str> = key.iter().filter_map(|octet| octet.as_str()).collect();
    assert_eq!(key.len(), 8, "{dump}");
    let delete = [&["bpftool", "map", "delete", "pinned", &map, "key"], &key[..]].concat();
    parts.harm("node-a", "pod_entry", || node.exec(&delete)?.success().map(drop))?;
    parts.is_carried()?;
    // Another pod's addresses would be taken for its own.
    let nonsense = ["1"; 32];
    let update = [&["bpftool", "map", "update", "pinned", &map, "key"], &key[..], &["value"], &nonsense[..]].concat();
    parts.harm("node-a", "pod_entry", || node.exec(&update)?.success().map(drop))?;
    parts.is_carried()?;
    Ok(())
}

#[test]
fn a_listener_that_is_shut_is_opened_again() -> Verdict {
    let parts = Parts::start()?;
    let shut = |pod: &Pod, at: &str| {
        let killed = pod.exec(&["ss", "--kill", "--no-header", "-tln", "sport", "=", at])?;
        ensure!(!killed.success()?.is_empty(), "nothing listens at {at}");
        Ok(())
    };
    // All at once: the client's side and the server's.
    parts.harm("node-a", "listener", || shut(&parts.pod, ":15001"))?;
    parts.is_carried()?;
    parts.harm("node-b", "listener", || shut(&parts.far, ":15008"))?;
    parts.is_carried()?;
    parts.harm("node-b", "listener", || shut(&parts.far, ":15006"))?;
    parts.is_steered()?;
    // A client that comes in between waits, and is served.
    shut(&parts.far, ":15008")?;
    parts.is_carried()?;
    Ok(())
}

#[test]
fn a_listener_from_which_nobody_takes_connections_is_served_again() -> Verdict {
    let parts = Parts::start()?;
    parts.harm("node-a", "acceptor", || {
        wait_until("a listener that listens and is not served", PATIENCE, || {
            relisten(&parts.mesh, &parts.pod)?;
            // Where the audit came in between, it has found the listener shut and opened another.
            let repaired =
                || -> Result<f64> { Ok(parts.repairs("node-a", "acceptor")? + parts.repairs("node-a", "listener")?) };
            let before = repaired()?;
            let _ = wait_until("a repair", Duration::from_secs(2), || Ok((repaired()? > before).then_some(())));
            Ok((parts.repairs("node-a", "acceptor")? > 0.0).then_some(()))
        })
    })?;
    parts.is_carried()?;
    Ok(())
}

/// Shuts the daemon's listener, which ends the task that takes its connections, and lets it listen again: only the task is
/// missing then.
fn relisten(mesh: &Mesh, pod: &Pod) -> Result<()> {
    const SCRIPT: &str = "
import ctypes, os, socket, sys, time
pid, inode = int(sys.argv[1]), sys.argv[2]
fds = f'/proc/{pid}/fd'
fd = next(int(n) for n in os.listdir(fds) if os.readlink(f'{fds}/{n}') == f'socket:[{inode}]')
pidfd_getfd = 438
listener = socket.socket(fileno=ctypes.CDLL(None).syscall(pidfd_getfd, os.pidfd_open(pid), fd, 0))
listener.shutdown(socket.SHUT_RDWR)
time.sleep(0.02)  # The task must see it shut.
listener.listen(4096)
";
    let listed = pod.exec(&["ss", "--extended", "--no-header", "-tln4", "sport", "=", ":15001"])?;
    let inode = listed.success()?.split_once("ino:").and_then(|(_, rest)| rest.split(' ').next());
    let (inode, pid) = (inode.context("an inode")?, mesh.daemon("node-a")?.id().to_string());
    mesh.lab.node("node-a")?.exec(&["python3", "-c", SCRIPT, &pid, inode])?.success().map(drop)
}

#[test]
fn an_interface_that_comes_later_is_under_the_hooks() -> Verdict {
    let parts = Parts::start()?;
    let address = |last| SocketAddr::new(IpAddr::from(Ipv4Addr::new(10, 99, 0, last)), 7000);
    let script = "ip link add eth1 type veth peer name eth2 && ip addr add 10.99.0.1/24 dev eth1 \
                  && ip link set eth2 up && ip link set eth1 up && ip neigh add 10.99.0.2 lladdr 02:00:00:00:00:02 dev eth1";
    parts.harm("node-a", "interface_hook", || parts.pod.exec(&["sh", "-c", script])?.success().map(drop))?;
    let links = || Ok::<_, anyhow::Error>(mesh_e2e::generations(&parts.mesh.lab, "node-a")?.1);
    wait_until("four more hooks", PATIENCE, || Ok((links()? == 8 + 2 + 4).then_some(())))?;
    let dropped = parts.mesh.events("node-a", "unattested_syn")?;
    inside(&parts.pod, || Syn { source: address(1), destination: address(2) }.send())?;
    wait_until("the SYN to be dropped", PATIENCE, || {
        Ok((parts.mesh.events("node-a", "unattested_syn")? > dropped).then_some(()))
    })?;
    parts.is_carried()?;
    // What is gone is let go of, and is no repair.
    let before = parts.repairs("node-a", "interface_hook")?;
    parts.pod.exec(&["ip", "link", "del", "eth1"])?.success()?;
    wait_until("the hooks of what is gone to go", PATIENCE, || Ok((links()? == 8 + 2).then_some(())))?;
    assert_eq!(parts.repairs("node-a", "interface_hook")?, before);
    Ok(())
}

#[test]
fn what_is_whole_is_left_alone() -> Verdict {
    let parts = Parts::start()?;
    let more = parts.mesh.join(echo("more", "node-a"))?;
    parts.is_carried()?;
    more.restart(mesh_lab::Addresses::New)?;
    parts.mesh.wait_enrolled(&more, 2)?;
    parts.mesh.wait_withdrawn(&more, 1)?;
    more.delete()?;
    parts.mesh.settle()?;
    for node in mesh_e2e::NODES {
        assert_eq!(parts.mesh.metrics(node)?.sum("mesh_enrolment_repairs_total", &[]), 0.0, "{node}");
        assert!(!parts.mesh.daemon(node)?.logs().contains("vanished"), "{node}");
    }
    Ok(())
}
