//! Before the mesh: a checkout works, and whoever listens between the nodes reads the card's number.

use anyhow::Result;
use mesh_lab::Place as _;

use crate::checkout::callers;
use crate::claim::claim;
use crate::processes;
use crate::screen::{Screen, bytes, count};
use crate::stage::{NODES, SHOPPER, Stage};
use crate::table::Table;
use crate::wire;

pub fn show(stage: &mut Stage, screen: &Screen) -> Result<String> {
    stage.deploy(screen)?;
    stage.before = processes::of(&stage.pods)?;
    let mut table = Table::new(["node", "address", "pods"]);
    for node in NODES {
        let names: Vec<_> = stage.pods_on(node)?.iter().map(|pod| pod.name().to_owned()).collect();
        table.row([node.to_owned(), stage.lab.node(node)?.ipv4().to_string(), names.join(", ")]);
    }
    screen.table(&table);

    let capture = stage.lab.capture(NODES[0])?;
    let shopper = stage.pod(SHOPPER)?;
    screen.command(SHOPPER, &format!("curl '{}'", stage.purchase.cluster_url()));
    let answer = stage.purchase.buy(shopper)?;
    let packets = capture.stop()?;
    screen.say(answer.summary());
    for caller in callers(stage, &answer)? {
        let expected = format!("{} to be called by {}", caller.server, caller.expected);
        claim(caller.name == caller.expected, expected, &caller.name)?;
    }

    let total: usize = packets.streams().iter().map(mesh_lab::Stream::len).sum();
    screen.say(format!(
        "tcpdump on the wire between the nodes: {}, {} octets of TCP",
        count(packets.packets().len(), "packet"),
        bytes(total as u64)
    ));
    for secret in wire::secrets(&stage.purchase) {
        let found = wire::occurrences(&packets, &secret.text);
        claim(found > 0, format!("{} ({:?}) readable on the wire", secret.name, secret.text), "it is not there")?;
        stage.readable.push(found);
    }
    let card = &stage.purchase.card;
    if let Some(excerpt) = wire::excerpt(&packets, card) {
        let (from, to) = (stage.name_of(excerpt.source.ip()), stage.name_of(excerpt.destination.ip()));
        screen.say(format!("from {from} to {to}, {} > {}:", excerpt.source, excerpt.destination));
        excerpt.dump.iter().for_each(|line| screen.quote(line));
    }
    Ok(format!("card {card} read {} times off the wire", wire::occurrences(&packets, card)))
}
