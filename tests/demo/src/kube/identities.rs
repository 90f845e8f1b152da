//! Who talked to whom under which identity, by the metrics that Prometheus would read.

use anyhow::Result;
use mesh_lab::{Metrics, wait_until};

use super::Kube;
use crate::claim::{claim, unmet};
use crate::screen::{Screen, bytes};
use crate::stage::{NODES, PATIENCE, TRUST_DOMAIN};
use crate::table::Table;
use crate::traffic::{BY_KERNEL, Edge, UNKNOWN, Volume, edges_of, short};

/// How many checkouts more, so that there is something to count.
const CHECKOUTS: usize = 20;

pub(super) fn show(kube: &mut Kube, screen: &Screen) -> Result<String> {
    screen.progress(format!("{CHECKOUTS} checkouts"));
    kube.buy(CHECKOUTS)?;
    screen.say(format!(
        "{CHECKOUTS} more checkouts, all served; istio_tcp_* of the daemons, identities in spiffe://{TRUST_DOMAIN}:"
    ));
    let mut last = String::new();
    let settled = wait_until("both sides to report the same", PATIENCE, || {
        let metrics =
            NODES.iter().map(|node| Ok(Metrics::parse(&kube.mesh.metrics(node)?))).collect::<Result<Vec<_>>>()?;
        // Kubelet's probes come from nobody of the mesh.
        let [clients, servers] = ["source", "destination"].map(|reporter| {
            let mut edges = edges_of(&metrics, reporter);
            edges.retain(|edge, _| edge.source != UNKNOWN);
            edges
        });
        last = format!("clients: {clients:?}; servers: {servers:?}");
        Ok((clients == servers && !clients.is_empty()).then_some(clients))
    });
    let pairs = settled.map_err(|_| unmet("clients' and servers' sides to report the same", last))?;
    let mut table = Table::new(["client", "server", "connections", "bytes", "protection"]).numbers(&[2, 3]);
    for (edge, Volume { opened, bytes: moved, .. }) in &pairs {
        let ends = [short(&edge.source), short(&edge.destination)].map(str::to_owned);
        let proven = |edge: &Edge| ["mTLS", BY_KERNEL].contains(&edge.protection());
        claim(proven(edge), format!("{} with both ends proven", ends.join(" -> ")), edge.protection())?;
        let [client, server] = ends;
        table.row([client, server, opened.to_string(), bytes(*moved), edge.protection().to_owned()]);
    }
    screen.table(&table);
    let total: u64 = pairs.values().map(|volume| volume.opened).sum();
    Ok(format!("{} pairs of identities, {total} connections, proven at both ends", pairs.len()))
}
