//! A refused call, and what `mesh-ctl why` says of it before anybody looks at a log.

use anyhow::Result;
use mesh_bank::{CUSTOMER, NAMESPACE, Service};
use mesh_lab::Place as _;

use super::Bank;
use crate::claim::claim;
use crate::screen::Screen;
use crate::stage::NODES;

pub(super) fn show(bank: &mut Bank, screen: &Screen) -> Result<String> {
    let source = format!("{NAMESPACE}/{CUSTOMER}");
    let destination = Service::Risk.address();
    let node = bank.lab.node(NODES[Service::Risk.node()])?;
    screen.command(node.name(), &format!("mesh-ctl why {source} {destination}"));
    let output = node.exec(&["mesh-ctl", "why", &source, &destination])?;
    output.stdout.lines().for_each(|line| screen.quote(line));
    claim(output.code == Some(1), "exit code 1: the call is refused", &output)?;
    for needed in [format!("cluster.local/ns/{NAMESPACE}/sa/{CUSTOMER}"), format!("{NAMESPACE}/risk")] {
        claim(output.stdout.contains(&needed), format!("the explanation to name {needed}"), &output.stdout)?;
    }
    let allowed = node.exec(&["mesh-ctl", "why", &format!("{NAMESPACE}/fraud-detection"), &destination])?;
    claim(allowed.code == Some(0), "exit code 0: fraud-detection may", &allowed)?;
    screen.command(node.name(), &format!("mesh-ctl why {NAMESPACE}/fraud-detection {destination}   # exit code 0"));
    Ok(format!("{CUSTOMER} may not call {}, fraud-detection may, and why", Service::Risk))
}
