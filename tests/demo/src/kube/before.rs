//! Before the mesh: the shop works, and whoever listens between the nodes reads the card's number.

use anyhow::{Context as _, Result};
use mesh_shop::catalogue::NAMESPACE;

use super::{Kube, joined, shopper, workload};
use crate::claim::claim;
use crate::screen::{Screen, bytes, count};
use crate::stage::{NODES, SHOPPER};
use crate::table::Table;
use crate::wire;

pub(super) fn show(kube: &mut Kube, screen: &Screen) -> Result<String> {
    let nodes = kube.kubectl.get(&["nodes"])?;
    let mut table = Table::new(["node", "kernel", "kubelet", "containers by"]);
    for node in nodes["items"].as_array().into_iter().flatten() {
        let info = |field: &str| node["status"]["nodeInfo"][field].as_str().unwrap_or_default().to_owned();
        let name = node["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        table.row([name, info("kernelVersion"), info("kubeletVersion"), info("containerRuntimeVersion")]);
    }
    screen.table(&table);
    deploy(kube, screen)?;

    let mut table = Table::new(["node", "pods"]);
    let pods = kube.pods()?;
    for node in NODES {
        let names: Vec<_> = pods.iter().filter(|pod| pod["spec"]["nodeName"] == node).map(workload).collect();
        table.row([node.to_owned(), names.join(", ")]);
    }
    screen.table(&table);
    kube.before = joined::containers(&pods);

    let capture = kube.cluster.capture(NODES[0])?;
    screen.command(SHOPPER, &kube.checkout(1).join(" "));
    let bought = kube.buy(1)?;
    let packets = capture.stop()?;
    bought.iter().for_each(|bought| screen.say(&bought.summary));
    let total: usize = packets.streams().iter().map(mesh_lab::Stream::len).sum();
    let (packets_seen, octets) = (count(packets.packets().len(), "packet"), bytes(total as u64));
    screen.say(format!("tcpdump on the wire of {}: {packets_seen}, {octets} octets of TCP", NODES[0]));
    for secret in secrets(kube) {
        let found = wire::occurrences(&packets, &secret.text);
        claim(found > 0, format!("{} ({:?}) readable on the wire", secret.name, secret.text), "it is not there")?;
        kube.readable.push(found);
    }
    let card = &kube.purchase.card;
    if let Some(excerpt) = wire::excerpt(&packets, card) {
        let [from, to] = [excerpt.source, excerpt.destination].map(|end| kube.name_of(&pods, end.ip()));
        screen.say(format!("from {from} to {to}, {} > {}:", excerpt.source, excerpt.destination));
        excerpt.dump.iter().for_each(|line| screen.quote(line));
    }
    Ok(format!("card {card} read {} times off the wire", wire::occurrences(&packets, card)))
}

/// What the purchase says in plaintext between the shopper and the frontend: the scheduler may put the others on one node.
pub(super) fn secrets(kube: &Kube) -> Vec<wire::Secret> {
    wire::secrets(&kube.purchase)
        .into_iter()
        .filter(|secret| !["GET ", "POST "].iter().any(|verb| secret.text.starts_with(verb)))
        .collect()
}

/// The shop, and a shopper on another node than the frontend's, so that every purchase crosses the wire.
fn deploy(kube: &Kube, screen: &Screen) -> Result<()> {
    screen.command("you", "kubectl apply -f tests/shop/manifests");
    kube.kubectl.apply(&shopper::manifests()?)?;
    screen.progress("waiting for the shop");
    kube.kubectl.run(&[
        "-n",
        NAMESPACE,
        "wait",
        "--for=condition=Available",
        "--timeout=120s",
        "deployment",
        "--all",
    ])?;
    let frontend = kube.pods()?.into_iter().find(|pod| workload(pod).starts_with("frontend")).context("no frontend")?;
    let other = NODES.into_iter().find(|node| frontend["spec"]["nodeName"] != *node).context("one node")?;
    kube.kubectl.apply(&shopper::pod(NAMESPACE, SHOPPER, other))?;
    let ready = ["-n", NAMESPACE, "wait", "--for=condition=Ready", "--timeout=60s", &format!("pod/{SHOPPER}")];
    kube.kubectl.run(&ready).map(drop)
}
