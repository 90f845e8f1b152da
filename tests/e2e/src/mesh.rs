//! A mesh: the lab, its daemons, and the pods that they have enrolled.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result};
use mesh_lab::{Addresses, Daemon, DaemonOptions, Lab, Metrics, Pod, PodSpec, ServiceSpec, wait_until};
use serde_json::Value;

use crate::{PATIENCE, client, echo, journal, server};

/// The nodes of every mesh here.
pub const NODES: [&str; 2] = ["node-a", "node-b"];
/// The namespace that is enrolled as a whole.
pub const NAMESPACE: &str = "app";

/// Two nodes with a daemon each, and an enrolled namespace.
pub struct Mesh {
    // Before the lab, so that the daemons end first.
    daemons: BTreeMap<String, Daemon>,
    /// The machines.
    pub lab: Lab,
    /// The daemons', after the lab's own.
    arguments: Vec<String>,
    barriers: AtomicUsize,
}

impl AsRef<Lab> for Mesh {
    fn as_ref(&self) -> &Lab {
        &self.lab
    }
}

impl Mesh {
    /// Builds the lab, labels [`NAMESPACE`] and starts a daemon on each node.
    pub fn start() -> Result<Self> {
        let mesh = Self::without_labels()?;
        mesh.label()?;
        Ok(mesh)
    }

    /// The same, with tunnels of HTTP/2 alone, as between this mesh and others.
    pub fn over_http2() -> Result<Self> {
        Self::with(&["--tunnels", "h2"])
    }

    /// The same, with more arguments for the daemons.
    pub fn with(arguments: &[&str]) -> Result<Self> {
        let mesh = Self::without_labels_with(arguments)?;
        mesh.label()?;
        Ok(mesh)
    }

    /// As [`Mesh::start`], with no namespace labelled.
    pub fn without_labels() -> Result<Self> {
        Self::without_labels_with(&[])
    }

    /// The same, with more arguments for the daemons.
    pub fn without_labels_with(arguments: &[&str]) -> Result<Self> {
        let mut mesh = Self::without_daemons()?;
        mesh.arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        for node in NODES {
            mesh.start_daemon(node)?;
        }
        Ok(mesh)
    }

    /// The lab alone, with no namespace labelled.
    pub fn without_daemons() -> Result<Self> {
        let lab = NODES.into_iter().fold(Lab::builder(), |lab, node| lab.node(node)).build()?;
        lab.namespace(NAMESPACE)?;
        Ok(Self { daemons: BTreeMap::new(), lab, arguments: Vec::new(), barriers: AtomicUsize::new(0) })
    }

    /// Labels [`NAMESPACE`]: its pods join.
    pub fn label(&self) -> Result<()> {
        self.lab.label_namespace(NAMESPACE, "mesh.dev/join", "enabled")
    }

    /// Starts a node's daemon and waits until it is ready.
    pub fn start_daemon(&mut self, node: &str) -> Result<()> {
        self.start_daemon_with(node, &[])
    }

    /// As [`Mesh::start_daemon`], with more arguments.
    pub fn start_daemon_with(&mut self, node: &str, more: &[&str]) -> Result<()> {
        self.start_daemon_in(node, more, Vec::new())
    }

    /// The same, in an environment with more variables.
    pub fn start_daemon_in(&mut self, node: &str, more: &[&str], env: Vec<(String, String)>) -> Result<()> {
        let args = self.arguments.iter().map(String::as_str).chain(more.iter().copied()).map(str::to_owned).collect();
        let options = DaemonOptions { args, env, ready_within: Some(PATIENCE), ..DaemonOptions::default() };
        let daemon = self.lab.start_daemon(node, options)?;
        self.daemons.insert(node.to_owned(), daemon);
        Ok(())
    }

    /// Starts a node's next daemon while this one runs, and waits until it has taken over; the one before, which drains.
    pub fn upgrade(&mut self, node: &str) -> Result<Daemon> {
        let before = self.take_daemon(node)?;
        self.start_daemon(node)?;
        let next = self.daemons.get_mut(node).with_context(|| format!("{node} has no daemon"))?;
        next.wait_for_line("taken over: the daemon before drains", PATIENCE)?;
        next.wait_for_line("mesh-node started", PATIENCE)?;
        Ok(before)
    }

    /// Takes a node's daemon out, to be ended; it goes on until it is.
    pub fn take_daemon(&mut self, node: &str) -> Result<Daemon> {
        self.daemons.remove(node).with_context(|| format!("{node} has no daemon"))
    }

    /// Puts a daemon back that [`Mesh::take_daemon`] has taken out.
    pub fn return_daemon(&mut self, daemon: Daemon) {
        self.daemons.insert(daemon.node().name().to_owned(), daemon);
    }

    /// Kills a node's daemon with SIGKILL. What it pinned stays.
    pub fn kill9(&mut self, node: &str) -> Result<()> {
        self.take_daemon(node)?.kill9()?;
        Ok(())
    }

    /// A node's daemon.
    pub fn daemon(&self, node: &str) -> Result<&Daemon> {
        self.daemons.get(node).with_context(|| format!("{node} has no daemon"))
    }

    /// Deploys a pod that is to be enrolled, and waits until it is.
    pub fn join(&self, spec: PodSpec) -> Result<Pod> {
        let pod = self.lab.deploy(spec)?;
        self.wait_enrolled(&pod, 1)?;
        Ok(pod)
    }

    /// Replaces a pod by a new one of its name and waits until that is enrolled.
    pub fn restart(&self, pod: &Pod, addresses: Addresses) -> Result<()> {
        let before = self.enrolments(pod)?;
        pod.restart(addresses)?;
        self.wait_enrolled(pod, before + 1)
    }

    /// Waits until the node's present daemon has enrolled a pod of this name so many times.
    pub fn wait_enrolled(&self, pod: &Pod, times: usize) -> Result<()> {
        let what = format!("{} to be enrolled {times} times", pod.name());
        wait_until(&what, PATIENCE, || Ok((self.enrolments(pod)? >= times).then_some(()))).with_context(|| self.logs())
    }

    /// Waits until the node's present daemon has let a pod of this name go so many times.
    pub fn wait_withdrawn(&self, pod: &Pod, times: usize) -> Result<()> {
        let what = format!("{} to be withdrawn {times} times", pod.name());
        wait_until(&what, PATIENCE, || Ok((self.count(pod, "pod withdrawn")? >= times).then_some(())))
            .with_context(|| self.logs())
    }

    /// How many times the node's present daemon has enrolled a pod of this name.
    pub fn enrolments(&self, pod: &Pod) -> Result<usize> {
        self.count(pod, "pod enrolled")
    }

    fn count(&self, pod: &Pod, message: &str) -> Result<usize> {
        let name = format!("{}/{}", pod.namespace(), pod.name());
        let lines = journal::lines(self.daemon(&pod.node()?)?);
        Ok(lines.iter().filter(|line| line["message"] == message && line["pod"] == *name).count())
    }

    /// A client on the first node, and on the second an [`echo`] server for it.
    pub fn client_and_echo(&self) -> Result<[Pod; 2]> {
        let server = self.join(echo("server", NODES[1]))?;
        Ok([self.join(client("client", NODES[0]))?, server])
    }

    /// A client on the first node, and on the second a [`server`] for it.
    pub fn client_and_server(&self) -> Result<[Pod; 2]> {
        let server = self.join(server("server", NODES[1]))?;
        Ok([self.join(client("client", NODES[0]))?, server])
    }

    /// Makes these the `extensionProviders` of the mesh configuration: a list in YAML.
    pub fn provide(&self, providers: &str) -> Result<()> {
        let indented: String = providers.lines().map(|line| format!("    {line}\n")).collect();
        let map =
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata:\n  mesh: |\n";
        self.lab.apply("mesh-configuration.yaml", &format!("{map}    extensionProviders:\n{indented}"))
    }

    /// Waits until every daemon has read whatever was written for it before: a Service without endpoints is found, by name.
    pub fn settle(&self) -> Result<()> {
        let name = format!("barrier-{}", self.barriers.fetch_add(1, Ordering::Relaxed));
        let barrier = self.lab.service(ServiceSpec::new("barriers", &name).port("none", 1, 1))?;
        for daemon in self.daemons.values() {
            let what = format!("the finding about {name} on {}", daemon.node().name());
            wait_until(&what, PATIENCE, || Ok(daemon.logs().contains(&name).then_some(())))?;
        }
        self.lab.remove_service(&barrier)
    }

    /// The connections that a node's daemon has told of, once they are so many: by then they are counted as well.
    pub fn told(&self, node: &str, count: usize) -> Result<Vec<Value>> {
        let what = format!("{node} to tell of {count} connections");
        let told = wait_until(&what, PATIENCE, || {
            let told = journal::connections(self.daemon(node)?);
            Ok((told.len() >= count).then_some(told))
        });
        told.with_context(|| self.logs())
    }

    /// Scrapes a node's daemon.
    pub fn metrics(&self, node: &str) -> Result<Metrics> {
        self.daemon(node)?.metrics()
    }

    /// The kernel's count of what the eBPF programs of a node did for this reason.
    pub fn events(&self, node: &str, reason: &str) -> Result<u64> {
        Ok(self.metrics(node)?.sum("mesh_ebpf_events_total", &[("reason", reason)]) as u64)
    }

    /// Connections that a node's daemon accepted and then refused for this reason, as the client's side.
    pub fn refused(&self, node: &str, reason: &str) -> Result<u64> {
        let labels = [("reporter", "source"), ("reason", reason)];
        Ok(self.metrics(node)?.sum("mesh_connections_refused_total", &labels) as u64)
    }

    /// The ends of every daemon's log, for a failure's message.
    fn logs(&self) -> String {
        let tail = |log: String| log.lines().rev().take(20).map(|line| format!("{line}\n")).collect::<String>();
        self.daemons.iter().map(|(node, daemon)| format!("{node}, newest first:\n{}", tail(daemon.logs()))).collect()
    }
}

/// Makes of each `fn name(mesh: &Mesh) -> Result<()>` two tests: over direct tunnels, and over those of HTTP/2.
#[macro_export]
macro_rules! over_both_tunnels {
    ($($name:ident),* $(,)?) => {
        mod direct {
            $(#[test]
            fn $name() -> $crate::Verdict {
                super::$name(&$crate::Mesh::start()?)?;
                Ok(())
            })*
        }
        mod http2 {
            $(#[test]
            fn $name() -> $crate::Verdict {
                super::$name(&$crate::Mesh::over_http2()?)?;
                Ok(())
            })*
        }
    };
}
