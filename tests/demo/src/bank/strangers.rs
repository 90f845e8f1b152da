//! Whoever comes without an identity of the mesh: a machine outside, and a pod that is not enrolled.

use std::net::SocketAddr;

use anyhow::Result;
use mesh_bank::{NAMESPACE, PORT, Service};
use mesh_lab::{Place, PodSpec};

use super::Bank;
use crate::claim::claim;
use crate::screen::Screen;
use crate::stage::{LAPTOP, NODES};

/// Why plaintext is refused, in the metrics.
const STRICT: [(&str, &str); 2] = [("reporter", "destination"), ("reason", "plaintext_under_strict")];

pub(super) fn show(bank: &mut Bank, screen: &Screen) -> Result<String> {
    let spec = PodSpec::new(NAMESPACE, "stranger").on(NODES[0]).service_account("payment");
    let stranger = bank.lab.deploy(spec.label("mesh.dev/join", "disabled"))?;
    for service in [Service::Risk, Service::Transaction, Service::Payment] {
        refused(bank, screen, LAPTOP, &bank.outside, service)?;
        refused(bank, screen, "stranger", &stranger, service)?;
    }
    screen.say("the stranger even runs under payment's service account: only a certificate counts");
    let mut counted = 0.0;
    for daemon in &bank.daemons {
        counted += daemon.metrics()?.sum("mesh_connections_refused_total", &STRICT);
    }
    claim(counted >= 6.0, "6 connections or more refused for being plaintext", counted)?;
    Ok(format!("6 calls in plaintext refused, {counted} counted"))
}

fn refused(bank: &Bank, screen: &Screen, name: &str, place: &impl Place, service: Service) -> Result<()> {
    let url = format!("http://{}/healthz", SocketAddr::new(bank.pod(service.name())?.ipv4(), PORT));
    let output = place.exec(&["curl", "--silent", "--show-error", "--max-time", "10", &url])?;
    claim(output.code != Some(0), format!("{name} to be refused by {service}"), &output.stdout)?;
    screen.command(name, &format!("curl {url}   # {service}"));
    screen.say(output.stderr.trim());
    Ok(())
}
