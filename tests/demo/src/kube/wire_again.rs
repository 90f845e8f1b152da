//! The same checkout crosses the nodes under TLS 1.3, and servers still see their clients' own addresses.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use mesh_lab::Packets;
use mesh_shop::Hop;
use serde_json::Value;

use super::{Kube, before};
use crate::checkout::client_of;
use crate::claim::claim;
use crate::screen::{Screen, count};
use crate::stage::{NODES, SHOPPER};
use crate::table::Table;
use crate::wire::{self, HBONE, cipher_name, version_name};

pub(super) fn show(kube: &mut Kube, screen: &Screen) -> Result<String> {
    let pods = kube.pods()?;
    let capture = kube.cluster.capture(NODES[0])?;
    screen.command(SHOPPER, &kube.checkout(1).join(" "));
    let bought = kube.buy(1)?;
    let packets = capture.stop()?;
    bought.iter().for_each(|bought| screen.say(&bought.summary));
    claim(packets.lost() == 0, "a capture without gaps", format!("{} packets lost", packets.lost()))?;

    let mut table = Table::new(["looked for on the wire", "", "found before", "now"]).numbers(&[2, 3]);
    for (secret, before) in before::secrets(kube).iter().zip(&kube.readable) {
        let found = wire::occurrences(&packets, &secret.text);
        table.row([secret.name.to_owned(), secret.text.clone(), before.to_string(), found.to_string()]);
        claim(found == 0, format!("{} ({:?}) not on the wire", secret.name, secret.text), format!("{found} times"))?;
    }
    screen.table(&table);
    let sessions = show_sessions(kube, screen, &pods, &packets)?;
    let hops: Vec<&Hop> = bought.iter().flat_map(|bought| &bought.hops).collect();
    show_callers(kube, screen, &pods, &hops)?;
    Ok(format!("{} under TLS 1.3 at port {HBONE}, no word of the purchase readable", count(sessions, "session")))
}

/// How many there are, each of TLS 1.3 at the tunnels' port.
fn show_sessions(kube: &Kube, screen: &Screen, pods: &[Value], packets: &Packets) -> Result<usize> {
    // Others on this wire are Kubernetes' own, to the API server and to kubelet.
    let all = packets.tls_sessions();
    let tunnels: Vec<_> = all.iter().filter(|session| session.server.port() == HBONE).collect();
    claim(!tunnels.is_empty(), format!("TLS sessions at port {HBONE}"), "none")?;
    let mut table = Table::new(["between", "version", "cipher", "records"]).numbers(&[3]);
    for session in &tunnels {
        let ends = [session.client, session.server].map(|end| kube.name_of(pods, end.ip())).join(" -> ");
        let version = version_name(session.version);
        claim(version == "TLS 1.3", format!("TLS 1.3 for {ends}"), &version)?;
        table.row([ends, version, cipher_name(session.cipher_suite), session.application_records().to_string()]);
    }
    screen.table(&table);
    Ok(tunnels.len())
}

fn show_callers(kube: &Kube, screen: &Screen, pods: &[Value], hops: &[&Hop]) -> Result<()> {
    let mut table = Table::new(["server", "node", "its accept() returned", "which is"]);
    for hop in hops {
        let seen: SocketAddr = hop.peer.parse().with_context(|| format!("{} is no address", hop.peer))?;
        let (server, name) = (format!("{}-{}", hop.service, hop.version), kube.name_of(pods, seen.ip()));
        let expected = client_of(&hop.service);
        claim(name == expected, format!("{server} to be called by {expected}"), &name)?;
        table.row([server, hop.node.clone(), seen.to_string(), name]);
    }
    screen.table(&table);
    Ok(())
}
