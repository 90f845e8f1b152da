//! The bank: eight services on two nodes, and policies by which each is called by its callers alone.

mod explained;
mod open;
mod pairs;
mod strangers;

use anyhow::{Context as _, Result};
use mesh_bank::{CUSTOMER, NAMESPACE, PORT, Service};
use mesh_lab::{Daemon, DaemonOptions, Lab, Outside, Pod, PodSpec, ServiceSpec, wait_until};

use crate::kept;
use crate::scene::{Scene, Step};
use crate::screen::Screen;
use crate::stage::{LAPTOP, NODES, PATIENCE, enrolled};

/// The policies, as a user would apply them.
const POLICIES: &str = include_str!("../../../bank/manifests/policies.yaml");

/// Everything that the steps act on.
pub struct Bank {
    daemons: Vec<Daemon>,
    pods: Vec<Pod>,
    outside: Outside,
    lab: Lab,
}

impl Bank {
    fn furnish(lab: Lab) -> Result<Self> {
        lab.namespace(NAMESPACE)?;
        let outside = lab.outside(LAPTOP)?;
        Ok(Self { daemons: Vec::new(), pods: Vec::new(), outside, lab })
    }

    /// Deploys the services and the customer.
    fn deploy(&mut self, screen: &Screen) -> Result<()> {
        for service in Service::ALL {
            screen.progress(format!("deploying {service}"));
            let spec = PodSpec::new(NAMESPACE, service.name()).on(NODES[service.node()]).port("http", PORT);
            self.deploy_as(spec.command(["mesh-bank", "serve", service.name()]), service.name())?;
            let spec = ServiceSpec::new(NAMESPACE, service.name()).select("app", service.name());
            self.lab.service(spec.port("http", PORT, PORT))?;
        }
        self.deploy_as(PodSpec::new(NAMESPACE, CUSTOMER).on(NODES[1]), CUSTOMER)
    }

    fn deploy_as(&mut self, spec: PodSpec, name: &str) -> Result<()> {
        let pod = self.lab.deploy(spec.service_account(name).label("app", name))?;
        self.pods.push(pod);
        Ok(())
    }

    /// Starts the daemons, takes the namespace into the mesh and applies the policies.
    fn protect(&mut self, screen: &Screen) -> Result<()> {
        self.lab.apply("policies.bank.yaml", POLICIES)?;
        for node in NODES {
            screen.progress(format!("starting mesh-node on {node}"));
            self.daemons.push(self.lab.start_daemon(node, DaemonOptions::default())?);
        }
        self.lab.label_namespace(NAMESPACE, "mesh.dev/join", "enabled")?;
        for (daemon, node) in self.daemons.iter().zip(NODES) {
            let pods = self.pods.iter().filter(|pod| pod.node().is_ok_and(|its| its == node)).count();
            let what = format!("{node} to take its {pods} pods into the mesh");
            wait_until(&what, PATIENCE, || Ok((enrolled(daemon)? == pods).then_some(())))?;
        }
        Ok(())
    }

    fn pod(&self, name: &str) -> Result<&Pod> {
        self.pods.iter().find(|pod| pod.name() == name).with_context(|| format!("there is no pod {name}"))
    }
}

impl Scene for Bank {
    const TITLE: &'static str = "A bank of eight services: who may talk to whom, each pair tried";
    const STEPS: &'static [Step<Self>] = &[
        Step { title: "Without a mesh: everybody may call everybody", show: open::show },
        Step { title: "With policies: each service is called by its callers alone", show: pairs::show },
        Step { title: "A refused call, explained", show: explained::show },
        Step { title: "Strangers: without an identity nobody gets in", show: strangers::show },
    ];

    fn build(keep: bool) -> Result<Self> {
        kept::build(&NODES, keep, Self::furnish)
    }

    fn daemons(&self) -> Vec<&Daemon> {
        self.daemons.iter().collect()
    }

    fn say_kept(&self, screen: &Screen) -> Result<()> {
        let socket = self.lab.admin_socket(NODES[Service::Risk.node()]);
        let ctl = mesh_lab::binary("mesh-ctl")?;
        let ask = |what: &str| format!("sudo {} {what} --socket {}", ctl.display(), socket.display());
        screen.write("Everything is left up. To try:");
        for (what, command) in [
            ("why a call would be refused", ask(&format!("why {NAMESPACE}/{CUSTOMER} {}", Service::Risk.address()))),
            ("the policies in force", ask("policy list")),
            ("connections as they open, end and are refused", ask("flows --follow")),
            ("the manifests, which the daemons watch", format!("ls {}", self.lab.config_dir().display())),
            ("everything removed", "cargo xtask demo --down".to_owned()),
        ] {
            screen.write("");
            screen.say(format!("# {what}"));
            screen.say(command);
        }
        Ok(())
    }

    fn take_down(self) -> Result<()> {
        drop(self.daemons);
        kept::take_down(self.lab)
    }
}
