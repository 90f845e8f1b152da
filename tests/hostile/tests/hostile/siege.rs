//! A mesh of two nodes with a stranger outside that attacks the tunnel port of a pod.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use mesh_lab::{Daemon, DaemonOptions, Lab, Outside, Place as _, Pod, PodSpec, Process, wait_until};
use serde_json::Value;

/// How long anything may take that is awaited by its event.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);

/// Port of the attacked pod's application.
pub(crate) const PORT: u16 = 8080;

/// Series of a metric by the value of one label.
pub(crate) type Counts = BTreeMap<String, u64>;

/// A command line.
struct Argv(Vec<String>);

impl Argv {
    fn each(&self) -> Vec<&str> {
        self.0.iter().map(String::as_str).collect()
    }
}

/// The attacked mesh.
pub(crate) struct Siege {
    /// A connection through the mesh that was there before the attack.
    held: Process,
    echoes: u32,
    /// Pods that have not connected to anything yet.
    newcomers: Vec<Pod>,
    pub(crate) outside: Outside,
    pub(crate) server: Pod,
    _near: Daemon,
    /// The daemon of the attacked pod.
    pub(crate) daemon: Daemon,
    /// Last, so that the daemons end first.
    pub(crate) lab: Lab,
}

impl Siege {
    /// Builds it, with so many pods that can show that newcomers are served.
    pub(crate) fn lay(newcomers: usize) -> Result<Self> {
        let lab = Lab::builder().node("node-a").node("node-b").build()?;
        lab.label_namespace("app", "mesh.dev/join", "enabled")?;
        let near = lab.start_daemon("node-a", DaemonOptions::default())?;
        let daemon = lab.start_daemon("node-b", DaemonOptions::default())?;
        let listen = format!("[::]:{PORT}");
        let server = PodSpec::new("app", "server").on("node-b").service_account("server").port("tcp", PORT);
        let server = lab.deploy(server.command(["mesh-traffic", "echo", "--listen", &listen]))?;
        let client = |name: String| lab.deploy(PodSpec::new("app", &name).on("node-a").service_account("client"));
        let holder = client("holder".to_owned())?;
        let newcomers =
            (0..newcomers).map(|number| client(format!("newcomer-{number}"))).collect::<Result<Vec<_>>>()?;
        let outside = lab.outside("stranger")?;
        wait_enrolled(&near, 1 + newcomers.len())?;
        wait_enrolled(&daemon, 1)?;
        let to = format!("{}:{PORT}", server.ipv4());
        let mut held = holder.spawn(&["mesh-traffic", "hold", "--to", &to])?;
        held.wait_for_line("connected", PATIENCE)?;
        let mut siege = Self { held, echoes: 0, newcomers, outside, server, _near: near, daemon, lab };
        siege.old_tunnels_are_unhurt()?;
        Ok(siege)
    }

    /// Runs one attack on the server's tunnel port to its end and returns what it met.
    pub(crate) fn run(&self, name: &str, rest: &[&str]) -> Result<Value> {
        let output = self.outside.exec(&self.attack(name, &self.server, rest)?.each())?;
        output.success()?;
        output.json()
    }

    /// Starts an attack on a pod's tunnel port that goes on.
    pub(crate) fn start(&self, name: &str, victim: &Pod, rest: &[&str]) -> Result<Process> {
        self.start_from(&self.outside, name, victim, rest)
    }

    /// The same from another machine.
    pub(crate) fn start_from(&self, from: &Outside, name: &str, victim: &Pod, rest: &[&str]) -> Result<Process> {
        from.spawn(&self.attack(name, victim, rest)?.each())
    }

    /// Opens idle connections to any port.
    pub(crate) fn start_idle(&self, to: &str, count: &str) -> Result<Process> {
        self.outside.spawn(&self.argv("crowd", to, &["idle", "--count", count])?.each())
    }

    fn attack(&self, name: &str, victim: &Pod, rest: &[&str]) -> Result<Argv> {
        self.argv(name, &format!("{}:15008", victim.ipv4()), rest)
    }

    fn argv(&self, name: &str, to: &str, rest: &[&str]) -> Result<Argv> {
        let ca = self.lab.ca_dir()?.display().to_string();
        let first = ["mesh-hostile", name, "--ca", &ca, "--to", to];
        Ok(Argv(first.iter().chain(rest).map(|argument| (*argument).to_owned()).collect()))
    }

    /// Adds a pod to the attacked node whose application listens at [`PORT`] and never accepts.
    pub(crate) fn deaf_pod(&self, backlog: &str) -> Result<Pod> {
        let listen = format!("[::]:{PORT}");
        let spec = PodSpec::new("app", "deaf").on("node-b").service_account("server").port("tcp", PORT);
        let pod = self.lab.deploy(spec.command(["mesh-hostile", "deaf", "--listen", &listen, "--backlog", backlog]))?;
        wait_enrolled(&self.daemon, 2)?;
        Ok(pod)
    }

    /// The application's own address, as CONNECT names it.
    pub(crate) fn application(&self) -> String {
        format!("{}:{PORT}", self.server.ipv4())
    }

    /// Tunnels turned away so far, by reason; reasons that have not occurred are left out.
    pub(crate) fn rejected(&self) -> Result<Counts> {
        self.counts("mesh_tunnels_rejected_total", &[])
    }

    /// Connections refused so far at the attacked end, by reason.
    pub(crate) fn refused(&self) -> Result<Counts> {
        self.counts("mesh_connections_refused_total", &[("reporter", "destination")])
    }

    fn counts(&self, metric: &str, labels: &[(&str, &str)]) -> Result<Counts> {
        let metrics = self.daemon.metrics()?;
        let series = metrics.of(metric, labels).filter(|sample| sample.value > 0.0);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counters are whole and small")]
        Ok(series.map(|sample| (sample.labels["reason"].clone(), sample.value as u64)).collect())
    }

    /// Waits until exactly this has been added to the counts.
    pub(crate) fn wait_counted(
        &self,
        before: &Counts,
        added: &[(&str, u64)],
        now: impl Fn(&Self) -> Result<Counts>,
    ) -> Result<()> {
        let mut expected = before.clone();
        for (reason, count) in added {
            *expected.entry((*reason).to_owned()).or_default() += count;
        }
        let mut last = Counts::new();
        let waited = wait_until("the refusals to be counted", PATIENCE, || {
            last = now(self)?;
            Ok((last == expected).then_some(()))
        });
        waited.with_context(|| format!("counted {last:?}, expected {expected:?}"))
    }

    /// The connection that was there before still carries bytes.
    pub(crate) fn old_tunnels_are_unhurt(&mut self) -> Result<()> {
        self.echoes += 1;
        let text = format!("echo-{}", self.echoes);
        self.held.write_line(&text)?;
        self.held.wait_for_line(&format!("\"text\":\"{text}\""), PATIENCE)?;
        Ok(())
    }

    /// A pod that has no tunnel yet gets one.
    pub(crate) fn newcomers_are_served(&mut self) -> Result<()> {
        let newcomer = self.newcomers.pop().context("no newcomer is left: lay the siege with more")?;
        let to = self.application();
        let output = newcomer.exec(&["mesh-traffic", "many", "--connections", "4", "--to", &to])?;
        output.success()?;
        Ok(())
    }

    /// Both.
    pub(crate) fn others_are_unhurt(&mut self) -> Result<()> {
        self.old_tunnels_are_unhurt().context("a tunnel from before the attack")?;
        self.newcomers_are_served().context("a pod's first connection during the attack")
    }

    /// Open files of the attacked daemon.
    pub(crate) fn open_files(&self) -> Result<usize> {
        Ok(std::fs::read_dir(format!("/proc/{}/fd", self.daemon.id()))?.count())
    }

    /// Resident memory of the attacked daemon in MiB, once it has not changed for a while.
    pub(crate) fn settled_memory(&self) -> Result<u64> {
        let (mut last, mut same) = (0, 0);
        wait_until("the daemon's memory to settle", PATIENCE, || {
            let now = self.memory()?;
            same = if now == last { same + 1 } else { 0 };
            last = now;
            Ok((same == 50).then_some(now))
        })
    }

    /// Resident memory of the attacked daemon in MiB.
    pub(crate) fn memory(&self) -> Result<u64> {
        Ok(self.daemon.rss()? >> 20)
    }
}

fn wait_enrolled(daemon: &Daemon, count: usize) -> Result<()> {
    wait_until("pods to be enrolled", PATIENCE, || {
        let enrolled = daemon.metrics()?.sum("mesh_pods", &[("state", "enrolled")]);
        Ok((enrolled as usize == count).then_some(()))
    })
}

/// Fails unless the report says this.
pub(crate) fn expect(report: &Value, field: &str, expected: impl Into<Value>) -> Result<()> {
    let expected = expected.into();
    ensure!(report[field] == expected, "{field} should be {expected}: {report}");
    Ok(())
}
