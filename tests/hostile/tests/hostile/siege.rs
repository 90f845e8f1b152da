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

    /// The arguments of an attack on the pod's tunnel port, to be given to `mesh-hostile`.
    pub(crate) fn attack<'a>(&self, name: &'a str, ca: &'a str, to: &'a str, rest: &[&'a str]) -> Vec<&'a str> {
        [&["mesh-hostile", name, "--ca", ca, "--to", to], rest].concat()
    }

    /// Runs one attack to its end and returns what it met.
    pub(crate) fn run(&self, name: &str, rest: &[&str]) -> Result<Value> {
        let (ca, to) = (self.ca()?, self.tunnel_port());
        let argv = self.attack(name, &ca, &to, rest);
        let output = self.outside.exec(&argv)?;
        output.success()?;
        output.json()
    }

    /// Starts an attack that goes on.
    pub(crate) fn start(&self, name: &str, rest: &[&str]) -> Result<Process> {
        let (ca, to) = (self.ca()?, self.tunnel_port());
        let argv = self.attack(name, &ca, &to, rest);
        self.outside.spawn(&argv)
    }

    /// The CA whose key every attack has.
    fn ca(&self) -> Result<String> {
        Ok(self.lab.ca_dir()?.display().to_string())
    }

    /// The attacked port.
    pub(crate) fn tunnel_port(&self) -> String {
        format!("{}:15008", self.server.ipv4())
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
