//! Links, addresses and routes, as batches for `ip`.

use std::net::IpAddr;
use std::process::Command;

use anyhow::{Context, Result};

use crate::addresses::{self, Pair};
use crate::netns::Netns;
use crate::process::run;
use crate::requirements::search_path;

/// Runs a batch of `ip` commands in a namespace.
fn ip(netns: &Netns, batch: &str) -> Result<()> {
    netns
        .run(|| run(Command::new("ip").args(["-batch", "-"]).env("PATH", search_path()), batch))
        .with_context(|| format!("setting up links in {}", netns.name()))
}

/// Runs an nftables script, one transaction, in a namespace.
pub(crate) fn nft(netns: &Netns, script: &str) -> Result<()> {
    netns
        .run(|| run(Command::new("nft").args(["-f", "-"]).env("PATH", search_path()), script))
        .with_context(|| format!("setting the rules of {}", netns.name()))
}

/// The bridge that joins the nodes.
pub(crate) fn set_up_wire(wire: &Netns) -> Result<()> {
    let own = addresses::wire();
    ip(wire, &format!("link set lo up\n{}", bridge("br0", own, [24, 64])))
}

fn bridge(name: &str, own: Pair, lengths: [u8; 2]) -> String {
    let Pair { v4, v6 } = own;
    let [v4_length, v6_length] = lengths;
    format!(
        "link add {name} address {mac} type bridge mcast_snooping 0\n\
         link set {name} up\n\
         addr add {v4}/{v4_length} dev {name}\n\
         addr add {v6}/{v6_length} dev {name} nodad\n",
        mac = own.mac()
    )
}

/// A node's interfaces: `eth0` on the wire (whose other end there is `port`) and the pods' bridge `cni0`; routes to the
/// pods of the other `nodes`.
pub(crate) fn set_up_node(netns: &Netns, wire: &Netns, node: u8, nodes: u8, port: &str) -> Result<()> {
    let mut batch = attach_to_wire(addresses::node(node), wire, port);
    batch += &bridge("cni0", addresses::pod(node, 1), [24, 64]);
    batch += &routes_to_pods((1..=nodes).filter(|other| *other != node));
    ip(netns, &batch)?;
    join_bridge(wire, port)
}

/// A machine outside: `eth0` on the wire, routes to all pods through their nodes, to Services through the first node.
pub(crate) fn set_up_outside(netns: &Netns, wire: &Netns, own: Pair, nodes: u8, port: &str) -> Result<()> {
    let mut batch = attach_to_wire(own, wire, port);
    batch += &routes_to_pods(1..=nodes);
    let first = addresses::node(1);
    let [v4, v6] = addresses::SERVICE_RANGES;
    batch += &format!("route add {v4} via {}\nroute add {v6} via {}\n", first.v4, first.v6);
    ip(netns, &batch)?;
    join_bridge(wire, port)
}

fn attach_to_wire(own: Pair, wire: &Netns, port: &str) -> String {
    let gateway = addresses::wire();
    format!(
        "link set lo up\n\
         link add eth0 address {mac} type veth peer name {port} netns {wire}\n\
         link set eth0 up\n\
         addr add {v4}/24 dev eth0\n\
         addr add {v6}/64 dev eth0 nodad\n\
         route add default via {gateway4}\n\
         route add default via {gateway6}\n",
        mac = own.mac(),
        wire = wire.name(),
        v4 = own.v4,
        v6 = own.v6,
        gateway4 = gateway.v4,
        gateway6 = gateway.v6,
    )
}

fn join_bridge(wire: &Netns, port: &str) -> Result<()> {
    ip(wire, &format!("link set {port} master br0 up\n"))
}

fn routes_to_pods(nodes: impl Iterator<Item = u8>) -> String {
    nodes
        .map(|node| {
            let [v4, v6] = addresses::pod_ranges(node);
            let via = addresses::node(node);
            let neighbours = neighbours(via, "eth0");
            format!("{neighbours}route add {v4} via {}\nroute add {v6} via {}\n", via.v4, via.v6)
        })
        .collect()
}

/// Says who has these addresses. A burst of connections would else lose packets while the kernel asks, as it holds back
/// only a few, and be late by a retransmission.
fn neighbours(of: Pair, device: &str) -> String {
    let mac = of.mac();
    let entry = |address: IpAddr| format!("neigh replace {address} lladdr {mac} dev {device} nud permanent\n");
    entry(of.v4.into()) + &entry(of.v6.into())
}

/// A pod's `eth0`, with its addresses alone on it and everything routed by the node; `port` is the other end.
pub(crate) fn set_up_pod(pod: &Netns, node: &Netns, node_number: u8, own: Pair, port: &str) -> Result<()> {
    let mac = own.mac();
    ip(
        node,
        &format!(
            "link add {port} type veth peer name eth0 address {mac} netns {}\nlink set {port} master cni0 up\n{}",
            pod.name(),
            neighbours(own, "cni0")
        ),
    )?;
    let gateway = addresses::pod(node_number, 1);
    ip(
        pod,
        &format!(
            "link set lo up\n\
             link set eth0 up\n\
             addr add {v4}/32 dev eth0\n\
             addr add {v6}/128 dev eth0 nodad\n\
             {neighbours}\
             route add {gateway4} dev eth0 scope link\n\
             route add default via {gateway4}\n\
             route add {gateway6} dev eth0\n\
             route add default via {gateway6} dev eth0\n",
            v4 = own.v4,
            v6 = own.v6,
            neighbours = neighbours(gateway, "eth0"),
            gateway4 = gateway.v4,
            gateway6 = gateway.v6,
        ),
    )
}

/// Takes a pod's link away at once; deleting its namespace would do it later.
pub(crate) fn remove_pod(node: &Netns, own: Pair, port: &str) -> Result<()> {
    let Pair { v4, v6 } = own;
    ip(node, &format!("link del {port}\nneigh del {v4} dev cni0\nneigh del {v6} dev cni0\n"))
}
