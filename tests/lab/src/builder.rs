//! Building a lab.

use std::fs;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, Result, ensure};

use crate::config_dir::ConfigDir;
use crate::lab::Lab;
use crate::netns::{Netns, Role};
use crate::node::{CgroupDriver, NodeState};
use crate::owner::LabId;
use crate::state::{Shared, State};
use crate::{addresses, cgroup, leftovers, manifests, network, requirements};

/// What a lab is to be made of.
#[derive(Clone, Debug, Default)]
pub struct LabBuilder {
    nodes: Vec<(String, Option<CgroupDriver>)>,
    keep: bool,
}

impl LabBuilder {
    /// Adds a node. The first, third, ... have kubelet's cgroupfs driver, the others the systemd driver.
    #[must_use]
    pub fn node(mut self, name: &str) -> Self {
        self.nodes.push((name.into(), None));
        self
    }

    /// Adds a node whose kubelet has this cgroup driver.
    #[must_use]
    pub fn node_with(mut self, name: &str, driver: CgroupDriver) -> Self {
        self.nodes.push((name.into(), Some(driver)));
        self
    }

    /// Leaves everything up after this process's end, until [`crate::remove`]. A panic still takes the lab down.
    #[must_use]
    pub fn keep(mut self) -> Self {
        self.keep = true;
        self
    }

    /// Makes the nodes and what joins them. Sweeps the leftovers of dead owners first.
    ///
    /// # Errors
    /// Says what is missing when this machine or user cannot have a lab. Nothing is left then.
    pub fn build(self) -> Result<Lab> {
        requirements::check()?;
        ensure!(!self.nodes.is_empty() && self.nodes.len() < 100, "a lab has 1 to 99 nodes");
        leftovers::sweep()?;
        let id = LabId::next()?;
        leftovers::register(id);
        match self.make(id) {
            Ok(shared) => Ok(Lab { shared: Arc::new(shared) }),
            Err(error) => {
                let cleaned = leftovers::take_down(id);
                leftovers::forget(id);
                Err(match cleaned {
                    Ok(()) => error,
                    Err(second) => error.context(format!("and cleaning up failed too: {second:#}")),
                })
            }
        }
    }

    fn make(self, id: LabId) -> Result<Shared> {
        let home = leftovers::home(id);
        let logs = home.join("logs");
        fs::create_dir_all(&logs).with_context(|| format!("making {}", logs.display()))?;
        if self.keep {
            fs::write(home.join(leftovers::KEEP), "").context("noting that the lab is to be kept")?;
        }
        let cgroup = cgroup::mount_point()?.join(id.to_string());
        cgroup::create(&cgroup)?;
        let wire = Netns::create(format!("{id}.wire"), Role::Host)?;
        network::set_up_wire(&wire)?;
        let config = ConfigDir::create(&home)?;
        let count = u8::try_from(self.nodes.len()).context("too many nodes")?;
        let mut nodes = Vec::new();
        for ((name, driver), number) in self.nodes.into_iter().zip(1..) {
            let default = if number % 2 == 1 { CgroupDriver::Cgroupfs } else { CgroupDriver::Systemd };
            let node = NodeState {
                netns: Netns::create(format!("{id}.{name}"), Role::Router)?,
                cgroup: cgroup.join(&name),
                driver: driver.unwrap_or(default),
                port: format!("node{number}"),
                name,
                number,
            };
            network::set_up_node(&node.netns, &wire, number, count, &node.port)?;
            cgroup::create(&node.cgroup)?;
            config.write(
                &format!("node.{}", node.name),
                &manifests::node(&node.name, &node.addresses(), &addresses::pod_ranges(number)),
            )?;
            nodes.push(node);
        }
        Ok(Shared {
            id,
            home,
            config,
            cgroup,
            wire,
            nodes,
            keep: self.keep,
            numbers: AtomicUsize::new(1),
            state: Mutex::new(State::default()),
        })
    }
}
