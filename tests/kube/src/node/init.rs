//! A node's first process: makes its view of the machine, starts its programs, restarts what ends and reaps what is orphaned.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, sethostname};

use super::runtime::Runtime;
use super::{config, mounts};
use crate::home::{Home, NODES};
use crate::programs::Programs;

/// Before a program that ended is started again.
const PAUSE: Duration = Duration::from_millis(500);

/// One of the node's programs.
struct Service {
    name: &'static str,
    command: Box<dyn Fn() -> Command>,
}

/// Is the node's first process; returns only by an error.
///
/// # Errors
/// When the node cannot be set up or a program cannot be started.
pub fn init(home: &Home, node: &str) -> Result<()> {
    let index = NODES.iter().position(|known| *known == node).with_context(|| format!("there is no node {node}"))?;
    let programs = Programs::find()?;
    sethostname(node).context("naming the node")?;
    config::write(home, node, u8::try_from(index)?, &programs)?;
    mounts::set_up(&home.node(node), &format!("{}/{node}", home.name()))?;
    let mut running = HashMap::new();
    for service in services(home, node, index, &programs) {
        running.insert(start(home, node, &service)?, service);
    }
    loop {
        match waitpid(None::<Pid>, None) {
            Ok(status) => {
                let Some(service) = status.pid().and_then(|pid| running.remove(&pid.as_raw())) else { continue };
                eprintln!("{} ended ({status:?}); it is started again", service.name);
                std::thread::sleep(PAUSE);
                running.insert(start(home, node, &service)?, service);
            }
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("waiting for the node's processes"),
        }
    }
}

fn services(home: &Home, node: &str, index: usize, programs: &Programs) -> Vec<Service> {
    let directory = home.node(node);
    let file = |name: &str| directory.join(name).display().to_string();
    let containerd =
        (Runtime::of(index).program(programs, "containerd"), format!("--config={}", file("containerd.toml")));
    let address = home.addresses().node(u8::try_from(index).unwrap_or_default());
    let kubelet = (
        programs.path("kubelet"),
        [
            format!("--config={}", file("kubelet.yaml")),
            format!("--kubeconfig={}", home.file(&format!("{node}.kubeconfig")).display()),
            format!("--hostname-override={node}"),
            format!("--node-ip={address}"),
        ],
    );
    let proxy = (programs.path("kube-proxy"), format!("--config={}", file("proxy.yaml")));
    vec![
        Service {
            name: "containerd",
            command: Box::new(move || in_cgroup("containerd", &containerd.0, std::slice::from_ref(&containerd.1))),
        },
        Service { name: "kubelet", command: Box::new(move || in_cgroup("kubelet", &kubelet.0, &kubelet.1)) },
        Service {
            name: "kube-proxy",
            command: Box::new(move || in_cgroup("kube-proxy", &proxy.0, std::slice::from_ref(&proxy.1))),
        },
    ]
}

/// A program in a cgroup of its own, as systemd would start it: the mesh knows kubelet by that.
fn in_cgroup(cgroup: &str, program: &Path, arguments: &[String]) -> Command {
    let script = r#"
        directory=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/self/mounts)/system.slice/$0.service
        mkdir -p "$directory" && echo 0 > "$directory/cgroup.procs" && exec "$@""#;
    let mut command = Command::new("sh");
    command.args(["-c", script, cgroup]).arg(program).args(arguments);
    command
}

fn start(home: &Home, node: &str, service: &Service) -> Result<i32> {
    let log = home.log(&format!("{node}.{}", service.name));
    let output = File::options().create(true).append(true).open(&log);
    let output = output.with_context(|| format!("opening {}", log.display()))?;
    let mut command = (service.command)();
    command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
    let child = command.spawn().with_context(|| format!("starting {}", service.name))?;
    fs::write(format!("/run/{}.pid", service.name), child.id().to_string())?;
    i32::try_from(child.id()).context("a process id")
}
