//! Who talked to whom under which identity: the metrics of both daemons, and that both ends agree.

use std::collections::BTreeMap;

use anyhow::Result;
use mesh_lab::wait_until;

use crate::claim::{claim, unmet};
use crate::screen::{Screen, bytes};
use crate::stage::{NODES, PATIENCE, SHOPPER, Stage, TRUST_DOMAIN};
use crate::table::Table;
use crate::traffic::{BY_KERNEL, Edge, Volume, edges, short};

/// How many checkouts more, so that there is something to count.
const CHECKOUTS: usize = 20;
/// Who calls whom in the shop: service accounts.
const SHOP: [(&str, &str); 6] = [
    (SHOPPER, "frontend"),
    ("frontend", "cart"),
    ("frontend", "product"),
    ("frontend", "order"),
    ("order", "payment"),
    ("order", "notification"),
];

pub fn show(stage: &mut Stage, screen: &Screen) -> Result<String> {
    let mut versions = BTreeMap::<String, usize>::new();
    for number in 1..=CHECKOUTS {
        screen.progress(format!("checkout {number} of {CHECKOUTS}"));
        let answer = stage.purchase.buy(stage.pod(SHOPPER)?)?;
        for hop in answer.hops.iter().filter(|hop| hop.service == "product") {
            *versions.entry(format!("{} {}", hop.service, hop.version)).or_default() += 1;
        }
    }
    let versions: Vec<_> = versions.iter().map(|(version, count)| format!("{version} answered {count}")).collect();
    screen.say(format!("{CHECKOUTS} more checkouts, all served; {}", versions.join(", ")));
    screen
        .say(format!("istio_tcp_* of the daemons on {}; identities in spiffe://{TRUST_DOMAIN}:", NODES.join(" and ")));

    let pairs = settled(stage)?;
    let mut table = Table::new(["client", "server", "connections", "bytes", "protection"]).numbers(&[2, 3]);
    for (edge, volume) in &pairs {
        let cells = [short(&edge.source), short(&edge.destination)].map(str::to_owned);
        let [source, destination] = cells;
        let protection = edge.protection().to_owned();
        table.row([source, destination, volume.opened.to_string(), bytes(volume.bytes), protection]);
    }
    screen.table(&table);

    for (client, server) in SHOP {
        let [source, destination] =
            [client, server].map(|account| format!("spiffe://{TRUST_DOMAIN}/ns/shop/sa/{account}"));
        let between = |edge: &Edge| edge.source == source && edge.destination == destination;
        let proven = |edge: &Edge| ["mTLS", BY_KERNEL].contains(&edge.protection());
        let opened: u64 =
            pairs.iter().filter(|(edge, _)| between(edge) && proven(edge)).map(|(_, volume)| volume.opened).sum();
        let least = CHECKOUTS as u64 + 1;
        claim(opened >= least, format!("{client} -> {server}, both proven, {least} connections or more"), opened)?;
    }
    screen.say(
        "mTLS between the nodes; within one, nothing is between two pods, and the kernel answers for who they are",
    );
    let total: u64 = pairs.values().map(|volume| volume.opened).sum();
    screen.say("the servers' side, by their clients' proven identities, counted the same connections and bytes");
    Ok(format!("{} pairs of identities, {total} connections, proven at both ends", pairs.len()))
}

/// What the clients' side reports, once every connection has ended and the servers' side says the same.
fn settled(stage: &Stage) -> Result<BTreeMap<Edge, Volume>> {
    let daemons = stage.both_daemons()?;
    let mut last = String::new();
    let agreed = wait_until("both sides to report the same", PATIENCE, || {
        let (clients, servers) = (edges(&daemons, "source")?, edges(&daemons, "destination")?);
        let ended = clients.values().all(|volume| volume.opened == volume.closed);
        last = format!("clients: {clients:?}; servers: {servers:?}");
        Ok((ended && clients == servers).then_some(clients))
    });
    agreed.map_err(|_| unmet("clients' and servers' sides to report the same", last))
}
