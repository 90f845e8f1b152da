//! The cluster's network: a bridge on the machine, and a namespace for the control plane and for each node.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::addresses::pods;
use crate::home::{Home, NODES};

/// Where `ip netns` keeps namespaces.
const NAMESPACES: &str = "/run/netns";

/// The namespace's file.
pub(crate) fn netns(home: &Home, part: &str) -> PathBuf {
    PathBuf::from(NAMESPACES).join(home.netns(part))
}

/// Makes bridge, namespaces, addresses and routes.
pub(crate) fn build(home: &Home) -> Result<()> {
    let (bridge, addresses) = (home.bridge(), home.addresses());
    ip(&["link", "add", &bridge, "type", "bridge"])?;
    ip(&["address", "add", &format!("{}/24", addresses.machine()), "dev", &bridge])?;
    ip(&["link", "set", &bridge, "up"])?;
    attach(home, "control", 0, &addresses.control().to_string())?;
    for (index, node) in (0..).zip(NODES) {
        attach(home, node, index + 1, &addresses.node(index).to_string())?;
    }
    // What comes for a balanced address goes to a node, where kube-proxy knows its Service. It goes with the bridge.
    ip(&["route", "add", &addresses.balanced_range(), "via", &addresses.node(0).to_string()])?;
    for part in ["control"].into_iter().chain(NODES) {
        let netns = home.netns(part);
        for (index, node) in (0..).zip(NODES).filter(|(_, node)| *node != part) {
            let via = addresses.node(index).to_string();
            ip(&["-n", &netns, "route", "add", &pods(index), "via", &via])
                .with_context(|| format!("routing {node}'s pods in {netns}"))?;
        }
    }
    Ok(())
}

/// The bridge's port to a namespace: 0 is the control plane's, then the nodes'.
pub(crate) fn port(home: &Home, number: u8) -> String {
    format!("{}p{number}", home.bridge())
}

fn attach(home: &Home, part: &str, number: u8, address: &str) -> Result<()> {
    let netns = home.netns(part);
    let (outside, gateway) = (port(home, number), home.addresses().machine().to_string());
    ip(&["netns", "add", &netns])?;
    ip(&["link", "add", &outside, "type", "veth", "peer", "name", "eth0", "netns", &netns])?;
    ip(&["link", "set", &outside, "master", &home.bridge(), "up"])?;
    ip(&["-n", &netns, "link", "set", "lo", "up"])?;
    ip(&["-n", &netns, "address", "add", &format!("{address}/24"), "dev", "eth0"])?;
    ip(&["-n", &netns, "link", "set", "eth0", "up"])?;
    // Kubelet and kube-proxy want a default route. The machine forwards nothing.
    ip(&["-n", &netns, "route", "add", "default", "via", &gateway])
}

/// Removes what [`build`] made, as far as it is there.
pub(crate) fn remove(home: &Home) -> Result<()> {
    // First: the kernel takes its time with what is left in a namespace, and the next cluster's ports have the same names.
    let ports = (0..).zip(["control"].into_iter().chain(NODES)).map(|(number, _)| port(home, number));
    for link in ports.chain([home.bridge()]).filter(|link| PathBuf::from("/sys/class/net").join(link).exists()) {
        ip(&["link", "delete", &link])?;
    }
    for part in ["control"].into_iter().chain(NODES).filter(|part| netns(home, part).exists()) {
        ip(&["netns", "delete", &home.netns(part)])?;
    }
    Ok(())
}

fn ip(arguments: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(arguments).output().context("starting ip")?;
    if !output.status.success() {
        bail!("`ip {}`: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
