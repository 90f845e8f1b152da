//! The shop behind a waypoint: what Istio's YAML asks for is what requests get, each time by numbers.

mod behind;
mod canary;
mod circuit;
mod egress;
mod faults;
mod ingress;
mod retries;
mod rule;
mod verbs;
mod visits;

use anyhow::{Context as _, Result};
use mesh_lab::{Daemon, Pod, PodSpec, Waypoint};
use mesh_shop::catalogue::NAMESPACE;

use crate::kept;
use crate::scene::{Scene, Step};
use crate::screen::Screen;
use crate::stage::{NODES, SHOPPER, Stage};

/// The waypoint's name.
const WAYPOINT: &str = "waypoint";
/// A release of product that fails every request.
const BAD: &str = "product-v3";

/// The shop, and what stands before it.
pub struct Shop {
    stage: Stage,
    waypoint: Option<(Waypoint, Pod)>,
    gateway: Option<Pod>,
}

impl Shop {
    /// Who visits the shop.
    fn shopper(&self) -> Result<&Pod> {
        self.stage.pod(SHOPPER)
    }

    /// Puts the waypoint before all of the shop's Services.
    fn stand_before(&mut self) -> Result<()> {
        let waypoint = Waypoint::declare_in(&self.stage.lab, NAMESPACE, WAYPOINT)?;
        let replica = waypoint.replica(&self.stage.lab, "waypoint-1", NODES[1])?;
        waypoint.serve_namespace(&self.stage.lab)?;
        self.waypoint = Some((waypoint, replica));
        Ok(())
    }

    /// Releases a version of product that answers every request with 503.
    fn release_bad(&mut self) -> Result<()> {
        let command = ["mesh-traffic", "http", "--listen", "[::]:8080", "--name", BAD, "--status", "503"];
        let spec = PodSpec::new(NAMESPACE, BAD).on(NODES[0]).service_account("product").port("http", 8080);
        let pod = self.stage.lab.deploy(spec.label("app", "product").label("version", "v3").command(command))?;
        self.stage.pods.push(pod);
        self.stage.wait_enrolled(0)?;
        Ok(())
    }

    /// Takes that version back.
    fn withdraw_bad(&mut self) -> Result<()> {
        let index = self.stage.pods.iter().position(|pod| pod.name() == BAD).context("the bad release is not there")?;
        self.stage.pods.remove(index).delete()
    }
}

impl Scene for Shop {
    const TITLE: &'static str =
        "The shop behind a waypoint: canary, retries, circuit breaking, faults, who may do what, ingress, egress";
    const STEPS: &'static [Step<Self>] = &[
        Step { title: "A waypoint for the namespace: every request passes it, under identities", show: behind::show },
        Step { title: "Canary: a tenth of the requests for the new version, then all", show: canary::show },
        Step { title: "Retries: a bad release that no customer sees", show: retries::show },
        Step { title: "Circuit breaking: the bad release is asked no more", show: circuit::show },
        Step { title: "Faults on purpose: delays for some, refusals for who asks for them", show: faults::show },
        Step { title: "Who may do what: by identity, method and path", show: verbs::show },
        Step { title: "Ingress: a machine outside buys by the gateway", show: ingress::show },
        Step { title: "Egress: a host outside by its name alone, and who may do what there", show: egress::show },
    ];

    fn build(keep: bool) -> Result<Self> {
        let stage = kept::build(&NODES, keep, Stage::furnish)?;
        Ok(Self { stage, waypoint: None, gateway: None })
    }

    fn daemons(&self) -> Vec<&Daemon> {
        self.stage.daemons()
    }

    fn say_kept(&self, screen: &Screen) -> Result<()> {
        kept::say(screen, &self.stage)?;
        screen.write("");
        screen.say("# the rules in force, which the waypoint watches: change one and ask again");
        screen.say(format!("ls {}", self.stage.lab.config_dir().display()));
        Ok(())
    }

    fn take_down(self) -> Result<()> {
        drop((self.waypoint, self.gateway));
        self.stage.take_down()
    }
}
