//! The node daemon in a node.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::mount::{MsFlags, mount};
use nix::sys::signal::Signal;

use crate::binaries::binary;
use crate::http;
use crate::lab::Lab;
use crate::metrics::Metrics;
use crate::node::Node;
use crate::process::{Output, Process};
use crate::wait::wait_until;

const METRICS_PORT: u16 = 15020;
const READINESS_PORT: u16 = 15021;

/// How a daemon is started.
#[derive(Clone, Debug)]
pub struct DaemonOptions {
    /// Arguments after the lab's own; a later one of a name is for the program to judge.
    pub args: Vec<String>,
    /// Its environment, beside `PATH` and `HOME`.
    pub env: Vec<(String, String)>,
    /// How long it may take to be ready; none to return at once after the start.
    pub ready_within: Option<Duration>,
    /// The CA's directory; the lab's own without one. None is passed where the arguments have a --ca-address.
    pub ca: Option<PathBuf>,
    /// The directory of its configuration; the lab's own without one. None is passed where the arguments have a --control-address.
    pub config: Option<PathBuf>,
    /// The program; the `mesh-node` of [`crate::binary`] without one.
    pub program: Option<PathBuf>,
}

impl Default for DaemonOptions {
    fn default() -> Self {
        Self {
            args: Vec::new(),
            env: Vec::new(),
            ready_within: Some(Duration::from_secs(20)),
            ca: None,
            config: None,
            program: None,
        }
    }
}

/// A node daemon that runs in a node's network namespace, in a cgroup of its own. Dropping it kills it.
#[derive(Debug)]
#[must_use = "dropping a daemon kills it"]
pub struct Daemon {
    process: Process,
    node: Node,
}

impl Lab {
    /// Starts `mesh-node` on a node, with the lab's config directory and CA and the node's own BPF file system, and waits
    /// until it is ready. What it pinned stays for the node's next daemon.
    pub fn start_daemon(&self, node: &str, options: DaemonOptions) -> Result<Daemon> {
        let node = self.node(node)?;
        let program = options.program.map_or_else(|| binary("mesh-node"), Ok)?.display().to_string();
        let ca = options.ca.map_or_else(|| self.ca_dir(), Ok)?.display().to_string();
        let bpf = self.bpf_dir(node.name())?;
        let config = options.config.unwrap_or_else(|| self.config_dir().to_owned()).display().to_string();
        let socket = self.admin_socket(node.name()).display().to_string();
        let mut argv = vec![&*program, "--node", node.name()];
        if !options.args.iter().any(|argument| argument == "--control-address") {
            argv.extend(["--config", &config]);
        }
        if !options.args.iter().any(|argument| argument == "--ca-address") {
            argv.extend(["--ca", &ca]);
        }
        argv.extend(["--bpf-dir", &bpf]);
        if !options.args.iter().any(|argument| argument == "--admin-socket") {
            argv.extend(["--admin-socket", &socket]);
        }
        argv.extend(options.args.iter().map(String::as_str));
        let number = self.shared.next_number();
        let mut context = node.state().context(&self.shared, &format!("mesh-system/mesh-node-{number}"))?;
        context.env.extend(options.env);
        let process = context.start(&argv)?;
        self.shared.lock().daemon_logs.extend(process.log_files().map(Into::into));
        let mut daemon = Daemon { process, node };
        if let Some(limit) = options.ready_within {
            daemon.wait_until_ready(limit)?;
        }
        Ok(daemon)
    }

    /// Where a node's daemon has its admin API; `mesh-ctl` that is run on the node asks there.
    pub fn admin_socket(&self, node: &str) -> PathBuf {
        self.shared.admin_socket(node)
    }

    /// Where a waypoint or gateway that runs in a pod has its admin API.
    pub fn waypoint_socket(&self, namespace: &str, pod: &str) -> PathBuf {
        self.shared.waypoint_socket(namespace, pod)
    }

    /// A directory on the node's own BPF file system, mounted on the first call.
    fn bpf_dir(&self, node: &str) -> Result<String> {
        let place = self.shared.directory(&format!("bpf.{node}"))?;
        let dir = place.join("mesh");
        if !dir.exists() {
            mount(Some("bpffs"), &place, Some("bpf"), MsFlags::empty(), None::<&str>)
                .with_context(|| format!("mounting a BPF file system at {}", place.display()))?;
            fs::create_dir(&dir).with_context(|| format!("making {}", dir.display()))?;
        }
        Ok(dir.display().to_string())
    }
}

impl Daemon {
    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// The node it runs on.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Whether the readiness port answers with 200 now.
    pub fn is_ready(&self) -> bool {
        self.get(READINESS_PORT, "/healthz/ready").is_ok_and(|(status, _)| status == 200)
    }

    /// Waits until it is ready; fails with its log when it ends before, or after `limit`.
    pub fn wait_until_ready(&mut self, limit: Duration) -> Result<()> {
        let name = self.node.name().to_owned();
        let ready = wait_until(&format!("the daemon on {name} to be ready"), limit, || {
            if let Some(status) = self.process.status()? {
                bail!("the daemon on {name} ended with {status}");
            }
            Ok(self.is_ready().then_some(()))
        });
        ready.with_context(|| format!("the daemon's log: {}", self.logs()))
    }

    /// GETs a path at a port of the daemon, from the node's namespace over loopback: the status code and the body.
    pub fn get(&self, port: u16, path: &str) -> Result<(u16, String)> {
        self.node.inside(|| http::get(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port), path))
    }

    /// Scrapes its metrics.
    pub fn metrics(&self) -> Result<Metrics> {
        let (status, body) = self.get(METRICS_PORT, "/metrics")?;
        if status != 200 {
            bail!("/metrics answered with {status}: {body}");
        }
        Ok(Metrics::parse(&body))
    }

    /// What it printed so far.
    pub fn logs(&self) -> String {
        self.process.log()
    }

    /// Waits for a line of its log that contains `needle`.
    pub fn wait_for_line(&mut self, needle: &str, limit: Duration) -> Result<String> {
        self.process.wait_for_line(needle, limit)
    }

    /// Resident memory in bytes (`VmRSS`).
    pub fn rss(&self) -> Result<u64> {
        let path = format!("/proc/{}/status", self.id());
        let status = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        let kib = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
        Ok(kib.with_context(|| format!("{path} has no VmRSS: has the daemon ended?"))? * 1024)
    }

    /// Time that its threads have had a processor, in seconds.
    pub fn cpu_seconds(&self) -> Result<f64> {
        let path = format!("/proc/{}/stat", self.id());
        let stat = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        // Fields 14 and 15 of proc(5), counted behind the name, which may hold anything; 100 ticks a second on Linux.
        let behind = stat.rsplit_once(')').map_or("", |(_, behind)| behind);
        let ticks = behind.split_whitespace().skip(11).take(2).map(str::parse::<f64>);
        Ok(ticks.sum::<Result<f64, _>>().with_context(|| format!("{path}: {stat}"))? / 100.0)
    }

    /// Kills it with SIGKILL and waits for its end. What it pinned stays.
    pub fn kill9(mut self) -> Result<ExitStatus> {
        self.process.kill()
    }

    /// Asks it to end (SIGTERM) and waits, at most for `limit`.
    pub fn terminate(mut self, limit: Duration) -> Result<Output> {
        self.process.signal(Signal::SIGTERM)?;
        self.process.wait(limit)
    }

    /// The process, for other signals and for its end.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}
