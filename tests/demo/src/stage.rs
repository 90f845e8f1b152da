//! Two nodes, the shop on them, a shopper, a machine outside, and the mesh's daemons once they run.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use mesh_lab::{Daemon, DaemonOptions, Lab, Outside, Place as _, Pod, PodSpec, ServiceSpec, wait_until};
use mesh_shop::catalogue::{NAMESPACE, Workload, catalogue};

use crate::checkout::Purchase;
use crate::kept;
use crate::processes::Running;
use crate::scene::{Scene, Step};
use crate::screen::Screen;
use crate::steps::STEPS;

/// The nodes' names, in the order of the catalogue's numbers.
pub const NODES: [&str; 2] = ["node-a", "node-b"];
/// The pod that buys.
pub const SHOPPER: &str = "shopper";
/// The machine outside.
pub const LAPTOP: &str = "laptop";
/// The trust domain, and the DNS suffix, of a cluster that nobody configured.
pub const TRUST_DOMAIN: &str = "cluster.local";
/// The longest that anything may take that is awaited by its event.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Everything that the steps act on.
pub struct Stage {
    /// The daemons, in the order of [`NODES`]; none before they are started or while one is away.
    pub daemons: [Option<Daemon>; 2],
    /// The processes of all pods when no mesh was there yet.
    pub before: Vec<Running>,
    /// How often each of the purchase's secrets was read off the wire before the mesh.
    pub readable: Vec<usize>,
    /// What was bought before there was a mesh, and is bought again.
    pub purchase: Purchase,
    /// The shop's pods and the shopper.
    pub pods: Vec<Pod>,
    /// A machine on the wire that is no node.
    pub outside: Outside,
    /// The machines; last, so that the daemons end first.
    pub lab: Lab,
}

impl Stage {
    /// Makes what is there before anything is deployed.
    pub fn furnish(lab: Lab) -> Result<Self> {
        lab.namespace(NAMESPACE)?;
        let outside = lab.outside(LAPTOP)?;
        let (purchase, daemons) = (Purchase::new()?, [None, None]);
        Ok(Self { daemons, before: Vec::new(), readable: Vec::new(), purchase, pods: Vec::new(), outside, lab })
    }

    /// Deploys the shop and the shopper.
    pub fn deploy(&mut self, screen: &Screen) -> Result<()> {
        let all = catalogue();
        for (number, workload) in all.iter().enumerate() {
            screen.progress(format!("deploying {} ({} of {})", workload.name, number + 1, all.len() + 1));
            self.pods.push(self.lab.deploy(pod(workload))?);
        }
        for (number, workload) in all.iter().enumerate() {
            let first = all[..number].iter().all(|other| other.service != workload.service);
            if first {
                let port = workload.protocol.port_name();
                let service = ServiceSpec::new(NAMESPACE, workload.service).select("app", workload.service);
                self.lab.service(service.port(port, workload.port, workload.port))?;
            }
        }
        screen.progress(format!("deploying {SHOPPER}"));
        let shopper = PodSpec::new(NAMESPACE, SHOPPER).on(NODES[1]).service_account(SHOPPER).label("app", SHOPPER);
        self.pods.push(self.lab.deploy(shopper)?);
        Ok(())
    }

    /// The pod of this name.
    pub fn pod(&self, name: &str) -> Result<&Pod> {
        self.pods.iter().find(|pod| pod.name() == name).with_context(|| format!("there is no pod {name}"))
    }

    /// The pods on a node.
    pub fn pods_on(&self, node: &str) -> Result<Vec<&Pod>> {
        let mut found = Vec::new();
        for pod in &self.pods {
            if pod.node()? == node {
                found.push(pod);
            }
        }
        Ok(found)
    }

    /// The daemon of the `index`th node.
    pub fn daemon(&self, index: usize) -> Result<&Daemon> {
        self.daemons[index].as_ref().with_context(|| format!("no daemon runs on {}", NODES[index]))
    }

    /// Both daemons.
    pub fn both_daemons(&self) -> Result<[&Daemon; 2]> {
        Ok([self.daemon(0)?, self.daemon(1)?])
    }

    /// Starts the daemon of the `index`th node and waits until it is ready.
    pub fn start_daemon(&mut self, index: usize) -> Result<()> {
        self.daemons[index] = Some(self.lab.start_daemon(NODES[index], DaemonOptions::default())?);
        Ok(())
    }

    /// Waits until the `index`th node's daemon has all its pods in the mesh. Returns how many.
    pub fn wait_enrolled(&self, index: usize) -> Result<usize> {
        let (daemon, pods) = (self.daemon(index)?, self.pods_on(NODES[index])?.len());
        wait_until(&format!("{} to take its {pods} pods into the mesh", NODES[index]), PATIENCE, || {
            Ok((enrolled(daemon)? == pods).then_some(pods))
        })
    }

    /// Who has an address: a pod's or a node's name, or the address itself.
    pub fn name_of(&self, address: IpAddr) -> String {
        let pods = self.pods.iter().find(|pod| pod.addresses().contains(&address)).map(|pod| pod.name().to_owned());
        let outside = || self.outside.addresses().contains(&address).then(|| LAPTOP.to_owned());
        pods.or_else(outside).unwrap_or_else(|| address.to_string())
    }
}

impl Scene for Stage {
    const TITLE: &'static str = "A mesh without sidecars: two nodes, a shop, mTLS by workload identity";
    const STEPS: &'static [Step<Self>] = STEPS;

    /// Makes the nodes and the machine outside, and nothing on them yet.
    fn build(keep: bool) -> Result<Self> {
        kept::build(&NODES, keep, Self::furnish)
    }

    fn daemons(&self) -> Vec<&Daemon> {
        self.daemons.iter().flatten().collect()
    }

    fn say_kept(&self, screen: &Screen) -> Result<()> {
        kept::say(screen, self)
    }

    fn take_down(self) -> Result<()> {
        drop(self.daemons);
        kept::take_down(self.lab)
    }
}

/// How many pods a daemon has in the mesh now.
pub fn enrolled(daemon: &Daemon) -> Result<usize> {
    Ok(daemon.metrics()?.sum("mesh_pods", &[("state", "enrolled")]) as usize)
}

/// The labels and arguments come from the catalogue, as a Deployment would have them.
fn pod(workload: &Workload) -> PodSpec {
    let mut command = vec!["mesh-shop".to_owned()];
    command.extend(workload.arguments());
    let spec = PodSpec::new(NAMESPACE, workload.name)
        .on(NODES[workload.node])
        .service_account(workload.service_account)
        .port(workload.protocol.port_name(), workload.port)
        // Each request has a connection of its own, so that none from before the mesh is used later.
        .env("CONNECTION_MAX_AGE_MS", "0")
        .command(command);
    workload.labels().iter().fold(spec, |spec, (key, value)| spec.label(key, value))
}
