//! The same checkout crosses the nodes under TLS 1.3, and servers still see their clients' own addresses.

use std::collections::BTreeMap;

use anyhow::Result;
use mesh_lab::{Packets, TlsSession};

use crate::checkout::{Answer, callers};
use crate::claim::claim;
use crate::screen::{Screen, bytes, count};
use crate::stage::{NODES, SHOPPER, Stage};
use crate::table::Table;
use crate::wire::{self, HBONE, cipher_name, version_name};

pub fn show(stage: &mut Stage, screen: &Screen) -> Result<String> {
    let capture = stage.lab.capture(NODES[0])?;
    screen.command(SHOPPER, &format!("curl '{}'", stage.purchase.cluster_url()));
    let answer = stage.purchase.buy(stage.pod(SHOPPER)?)?;
    let packets = capture.stop()?;
    screen.say(answer.summary());
    show_absence(stage, screen, &packets)?;
    let sessions = packets.tls_sessions();
    show_sessions(stage, screen, &sessions)?;
    let octets = wire::octets(&packets, &sessions);
    claim(
        octets.tls > 0 && octets.other == 0,
        "every octet of TCP between the nodes in a TLS record",
        format!("{octets:?}"),
    )?;
    screen.say(format!(
        "{} octets of TCP in {}, every one of them in a TLS record",
        bytes(octets.tls),
        count(packets.packets().len(), "packet")
    ));
    show_callers(stage, screen, &answer)?;
    Ok(format!("{} under TLS 1.3, {} octets in plaintext", count(sessions.len(), "session"), octets.other))
}

/// What could be read before is looked for again.
fn show_absence(stage: &Stage, screen: &Screen, packets: &Packets) -> Result<()> {
    claim(packets.lost() == 0, "a capture without gaps", format!("{} packets lost", packets.lost()))?;
    let mut table = Table::new(["looked for on the wire", "", "found before", "now"]).numbers(&[2, 3]);
    for (secret, before) in wire::secrets(&stage.purchase).iter().zip(&stage.readable) {
        let found = wire::occurrences(packets, &secret.text);
        table.row([secret.name.to_owned(), secret.text.clone(), before.to_string(), found.to_string()]);
        claim(found == 0, format!("{} ({:?}) not on the wire", secret.name, secret.text), format!("{found} times"))?;
    }
    screen.table(&table);
    Ok(())
}

fn show_sessions(stage: &Stage, screen: &Screen, sessions: &[TlsSession]) -> Result<()> {
    claim(!sessions.is_empty(), "TLS sessions on the wire", "none")?;
    let mut alike = BTreeMap::<_, (usize, usize)>::new();
    for session in sessions {
        let (version, port) = (version_name(session.version), session.server.port());
        let ends = format!("{} -> {}", stage.name_of(session.client.ip()), stage.name_of(session.server.ip()));
        claim(version == "TLS 1.3", format!("TLS 1.3 for {ends}"), &version)?;
        claim(port == HBONE, format!("{ends} at the tunnels' port, {HBONE}"), port)?;
        let named = if session.has_server_name { "the ClientHello has one" } else { "" };
        claim(named.is_empty(), format!("no server's name in the clear for {ends}"), named)?;
        let (count, records) = alike.entry((ends, port, version, cipher_name(session.cipher_suite))).or_default();
        *count += 1;
        *records += session.application_records();
    }
    let mut table = Table::new(["sessions", "between", "port", "version", "cipher", "records"]).numbers(&[0, 5]);
    for ((ends, port, version, cipher), (count, records)) in alike {
        table.row([count.to_string(), ends, port.to_string(), version, cipher, records.to_string()]);
    }
    screen.table(&table);
    Ok(())
}

fn show_callers(stage: &Stage, screen: &Screen, answer: &Answer) -> Result<()> {
    let mut table = Table::new(["server", "node", "its accept() returned", "which is"]);
    let callers = callers(stage, answer)?;
    claim(callers.len() == 6, "six programs in a checkout", callers.len())?;
    for caller in callers {
        let (seen, name) = (caller.seen.to_string(), caller.name.clone());
        table.row([caller.server.clone(), caller.node, seen, name]);
        let seen = format!("{}, which is {}", caller.seen, caller.name);
        claim(
            caller.name == caller.expected,
            format!("{} to see an address of {}", caller.server, caller.expected),
            seen,
        )?;
    }
    screen.say("every server sees its client's own address:");
    screen.table(&table);
    Ok(())
}
