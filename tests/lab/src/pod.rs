//! Pods.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;

use crate::place::{Context, Place};
use crate::pod_spec::{PodSpec, Readiness};
use crate::process::{Output, Process};
use crate::sandbox::{Sandbox, SandboxSpec, new_uid};
use crate::state::{PodState, Shared, State, hosts, pod_file};
use crate::wait::{PATIENCE, wait_until};

/// Which addresses a pod has after a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addresses {
    /// Those it had.
    Same,
    /// New ones; the old ones stay unused until the node's range is exhausted.
    New,
}

/// A pod of the lab, by name: it stays the same through restarts.
#[derive(Clone, Debug)]
pub struct Pod {
    shared: Arc<Shared>,
    namespace: String,
    name: String,
}

impl Pod {
    /// Makes the sandbox, starts the command and waits until the pod is ready.
    pub(crate) fn deploy(shared: &Arc<Shared>, spec: PodSpec) -> Result<Self> {
        let pod = Self { shared: Arc::clone(shared), namespace: spec.namespace.clone(), name: spec.name.clone() };
        let node = spec.node.as_deref().map_or(Ok(0), |name| shared.node_index(name))?;
        {
            let mut state = shared.lock();
            let taken = state.pods.contains_key(&pod.key());
            ensure!(!taken, "there is a pod {}/{} already", spec.namespace, spec.name);
            let own = if spec.host_network { None } else { Some(shared.allocate(&mut state, node, spec.address)?) };
            let made = make(shared, &state, spec, node, own)?;
            shared.write_pod(&made)?;
            state.pods.insert(pod.key(), made);
        }
        pod.start()?;
        Ok(pod)
    }

    fn key(&self) -> (String, String) {
        (self.namespace.clone(), self.name.clone())
    }

    fn with<T>(&self, look: impl FnOnce(&mut PodState) -> Result<T>) -> Result<T> {
        let mut state = self.shared.lock();
        look(self.of(&mut state)?)
    }

    fn of<'a>(&self, state: &'a mut State) -> Result<&'a mut PodState> {
        let gone = || format!("there is no pod {}/{} any more", self.namespace, self.name);
        state.pods.get_mut(&self.key()).with_context(gone)
    }

    /// Starts the command, unless it runs, and waits until the pod is ready.
    pub fn start(&self) -> Result<()> {
        let readiness = self.with(|pod| {
            let running = pod.main.as_mut().map(Process::status).transpose()?.is_some_and(|status| status.is_none());
            if let (Some(argv), false) = (&pod.spec.command, running) {
                let argv: Vec<_> = argv.iter().map(String::as_str).collect();
                pod.main = Some(pod.sandbox.context.start(&argv)?);
            }
            Ok(pod.spec.readiness.clone())
        })?;
        match readiness {
            Readiness::Manual => return Ok(()),
            Readiness::Line(line) => self.wait_for_line(&line, PATIENCE).map(drop)?,
            Readiness::Listening => self.wait_until_listening()?,
        }
        self.set_ready(true)
    }

    fn wait_until_listening(&self) -> Result<()> {
        let what = format!("{}/{} to listen at its ports", self.namespace, self.name);
        let listening = wait_until(&what, PATIENCE, || {
            self.with(|pod| {
                let Some(main) = &mut pod.main else { return Ok(Some(())) };
                if let (Some(status), false) = (main.status()?, pod.spec.ports.is_empty()) {
                    anyhow::bail!("the command of {}/{} ended with {status}", self.namespace, self.name);
                }
                Ok(pod.spec.ports.iter().all(|(_, port)| pod.sandbox.listens(*port)).then_some(()))
            })
        });
        listening.with_context(|| format!("the pod's log: {}", self.log()))
    }

    /// The process of the pod's command, as the machine numbers it.
    pub fn main_process(&self) -> Result<u32> {
        self.with(|pod| pod.main.as_ref().map(Process::id).context("the pod has no command that runs"))
    }

    /// Marks the pod ready or not, in its manifest, in EndpointSlices and in the nodes' rules.
    pub fn set_ready(&self, ready: bool) -> Result<()> {
        self.change(|pod| pod.ready = ready)
    }

    /// Sets a label.
    pub fn label(&self, key: &str, value: &str) -> Result<()> {
        self.change(|pod| drop(pod.spec.labels.insert(key.into(), value.into())))
    }

    /// Takes a label away.
    pub fn unlabel(&self, key: &str) -> Result<()> {
        self.change(|pod| drop(pod.spec.labels.remove(key)))
    }

    fn change(&self, change: impl FnOnce(&mut PodState)) -> Result<()> {
        let mut state = self.shared.lock();
        let pod = self.of(&mut state)?;
        change(pod);
        self.shared.write_pod(pod)?;
        self.shared.refresh_endpoints(&mut state)
    }

    /// Kills what runs in the pod, as an out-of-memory kill would; the sandbox and the addresses stay. Not ready after.
    pub fn kill(&self) -> Result<()> {
        self.with(|pod| {
            pod.sandbox.kill_container()?;
            pod.main = None;
            Ok(())
        })?;
        self.set_ready(false)
    }

    /// Asks the pod's command to end (SIGTERM), as kubelet does when a pod is deleted: it is not ready any more. Waits for the end,
    /// at most for `limit`.
    pub fn terminate(&self, limit: Duration) -> Result<Output> {
        self.set_ready(false)?;
        let mut main = self.with(|pod| pod.main.take().context("the pod has no command that runs"))?;
        main.signal(Signal::SIGTERM)?;
        main.wait(limit)
    }

    /// Replaces the pod by a new one of the same name: new uid, new sandbox, and starts its command.
    pub fn restart(&self, addresses: Addresses) -> Result<()> {
        let old = self.remove()?;
        {
            let mut state = self.shared.lock();
            let own = match (addresses, old.own) {
                (Addresses::New, Some(_)) => Some(self.shared.allocate(&mut state, old.node, None)?),
                (_, own) => own,
            };
            let made = make(&self.shared, &state, old.spec, old.node, own)?;
            self.shared.write_pod(&made)?;
            state.pods.insert(self.key(), made);
        }
        self.start()
    }

    /// Removes the pod: its processes, sandbox, manifest and endpoints.
    pub fn delete(&self) -> Result<()> {
        self.remove().map(drop)
    }

    fn remove(&self) -> Result<Removed> {
        let mut state = self.shared.lock();
        self.of(&mut state)?;
        let pod = state.pods.remove(&self.key()).context("the pod was just there")?;
        self.shared.config.remove(&pod_file(&self.namespace, &self.name))?;
        self.shared.refresh_endpoints(&mut state)?;
        let PodState { spec, node, own, sandbox, main, .. } = pod;
        sandbox.remove(&self.shared.nodes[node])?;
        drop(main);
        Ok(Removed { spec, node, own })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Has the pod's programs ask this DNS server; before, they ask one that is not there.
    pub fn set_resolver(&self, server: IpAddr) -> Result<()> {
        self.with(|pod| pod.sandbox.set_resolver(server))
    }

    /// Its uid, new after every restart.
    pub fn uid(&self) -> Result<String> {
        self.with(|pod| Ok(pod.uid.clone()))
    }

    /// The name of its node.
    pub fn node(&self) -> Result<String> {
        let index = self.with(|pod| Ok(pod.node))?;
        Ok(self.shared.nodes[index].name.clone())
    }

    /// What its command printed so far; empty when it has none.
    pub fn log(&self) -> String {
        self.with(|pod| Ok(pod.main.as_ref().map(Process::log).unwrap_or_default())).unwrap_or_default()
    }

    /// Waits for a line of the command's output that contains `needle`.
    pub fn wait_for_line(&self, needle: &str, limit: Duration) -> Result<String> {
        let what = format!("{}/{} to print {needle:?}", self.namespace, self.name);
        let found =
            wait_until(&what, limit, || Ok(self.log().lines().find(|line| line.contains(needle)).map(String::from)));
        found.with_context(|| format!("the pod's log: {}", self.log()))
    }

    /// Waits for the end of the pod's command.
    pub fn wait(&self, limit: Duration) -> Result<Output> {
        let main = self.with(|pod| pod.main.take().context("the pod has no command that runs"))?;
        let mut main = main;
        main.wait(limit)
    }
}

impl Place for Pod {
    fn context(&self) -> Result<Context> {
        self.with(|pod| Ok(pod.sandbox.context.clone()))
    }

    fn addresses(&self) -> Vec<IpAddr> {
        self.with(|pod| Ok(pod.addresses(&self.shared.nodes))).unwrap_or_default()
    }
}

/// What stays of a pod that was removed.
struct Removed {
    spec: PodSpec,
    node: usize,
    own: Option<crate::addresses::Pair>,
}

/// A new sandbox for a pod, with a new uid.
fn make(
    shared: &Shared,
    state: &State,
    spec: PodSpec,
    node: usize,
    own: Option<crate::addresses::Pair>,
) -> Result<PodState> {
    let uid = new_uid()?;
    let place = &shared.nodes[node];
    let addresses: Vec<IpAddr> = own.map_or(place.addresses().into(), |own| vec![own.v4.into(), own.v6.into()]);
    let mut env = spec.env.clone();
    for (name, value) in [
        ("HOSTNAME", &spec.name),
        ("POD_NAME", &spec.name),
        ("POD_NAMESPACE", &spec.namespace),
        ("NODE_NAME", &place.name),
        ("SERVICE_ACCOUNT", &spec.service_account),
        ("POD_IP", &addresses.first().map(ToString::to_string).unwrap_or_default()),
    ] {
        env.push((name.into(), value.clone()));
    }
    let hosts = hosts(state, &spec.namespace, &spec.name, &addresses);
    let name = format!("{}.{}", spec.namespace, spec.name);
    let sandbox = Sandbox::create(shared, place, &SandboxSpec { name: &name, uid: &uid, own, env, hosts: &hosts })
        .with_context(|| format!("making a sandbox for {}/{}", spec.namespace, spec.name))?;
    Ok(PodState { spec, uid, node, own, sandbox, main: None, ready: false })
}
