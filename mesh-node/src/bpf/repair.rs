//! The data path compared with the kernel's truth: what is gone is put back.

use std::{collections::BTreeSet, net::IpAddr};

use super::{
    interfaces::{self, Direction},
    link_state::LinkState,
    loader::{Datapath, EnrolError, LoadError, cgroup_programs, interface_link, interface_prefix},
};
use crate::{
    netns::NetNamespace,
    repairs::{Part, Repair},
};

impl Datapath {
    /// Looks at the hooks that all pods share, and attaches anew what is detached.
    ///
    /// # Errors
    /// What could not be put back.
    pub fn repair_shared(&mut self) -> Result<Vec<Repair>, LoadError> {
        let mut repairs = Vec::new();
        for name in cgroup_programs() {
            match self.links.state(name)? {
                Some(LinkState::Attached) => {}
                Some(LinkState::Unpinned) => {
                    self.links.pin_again(name)?;
                    repairs.push(Repair::new(Part::Pin, name));
                }
                Some(LinkState::Detached) | None => {
                    self.attach_shared(name)?;
                    repairs.push(Repair::new(Part::CgroupHook, name));
                }
            }
        }
        Ok(repairs)
    }

    /// Looks at what holds one pod. `links_changed`: the namespace's interfaces may be others than at the last time.
    ///
    /// # Errors
    /// What could not be put back.
    pub fn repair_pod(
        &mut self,
        netns: &NetNamespace,
        addresses: &[IpAddr],
        links_changed: bool,
    ) -> Result<Vec<Repair>, EnrolError> {
        let cookie = netns.cookie();
        let mut repairs = Vec::new();
        if !self.pods.holds(cookie, addresses)? {
            self.pods.insert(cookie, addresses)?;
            repairs.push(Repair::new(Part::PodEntry, cookie));
        }
        let mut look = links_changed;
        for name in self.links.names(&interface_prefix(cookie)) {
            match self.links.state(&name)? {
                Some(LinkState::Unpinned) => {
                    self.links.pin_again(&name)?;
                    repairs.push(Repair::new(Part::Pin, name));
                }
                state => look |= state != Some(LinkState::Attached),
            }
        }
        if look {
            repairs.append(&mut self.hook_again(netns)?);
        }
        Ok(repairs)
    }

    /// Hooks the interfaces that lack it, and lets go of those that are gone.
    fn hook_again(&mut self, netns: &NetNamespace) -> Result<Vec<Repair>, EnrolError> {
        let mut repairs = Vec::new();
        let mut gone: BTreeSet<String> = self.links.names(&interface_prefix(netns.cookie())).into_iter().collect();
        for interface in netns.enter(interfaces::interfaces)?? {
            for direction in Direction::BOTH {
                let name = interface_link(netns.cookie(), &interface, direction);
                gone.remove(&name);
                let in_force = match self.links.state(&name)? {
                    Some(state) => state == LinkState::Attached,
                    // Never hooked, or by a filter that needs no link.
                    None => netns.enter(|| interfaces::has_filter(&interface, direction))??,
                };
                if !in_force {
                    self.hook(netns, &interface, direction)?;
                    let detail = format!("{} {}", interface.name, direction.name());
                    repairs.push(Repair::new(Part::InterfaceHook, detail));
                }
            }
        }
        for name in gone {
            self.links.remove(&name)?;
        }
        Ok(repairs)
    }
}
