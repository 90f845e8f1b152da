//! Every pair of a caller and a service is tried, by a request from the caller's own pod.

use anyhow::Result;
use mesh_bank::{CUSTOMER, Service};
use mesh_lab::Place as _;

use super::Bank;
use crate::claim::claim;
use crate::screen::Screen;
use crate::table::Table;

/// What became of the calls of every caller to every service.
pub(super) struct Tried {
    /// In the order of [`callers`], and of [`Service::ALL`].
    answered: Vec<[bool; Service::ALL.len()]>,
}

/// Everybody who may try: the customer, and the services themselves.
pub(super) fn callers() -> impl Iterator<Item = &'static str> {
    [CUSTOMER].into_iter().chain(Service::ALL.into_iter().map(Service::name))
}

/// Has every caller call every service.
pub(super) fn try_all(bank: &Bank, screen: &Screen) -> Result<Tried> {
    let mut answered = Vec::new();
    for caller in callers() {
        let pod = bank.pod(caller)?;
        let mut row = [false; Service::ALL.len()];
        for (service, answered) in Service::ALL.into_iter().zip(&mut row) {
            screen.progress(format!("{caller} calls {service}"));
            *answered = pod.exec(&["mesh-bank", "knock", service.name()])?.code == Some(0);
        }
        answered.push(row);
    }
    Ok(Tried { answered })
}

impl Tried {
    /// How many calls were answered, and how many there were.
    pub(super) fn count(&self) -> (usize, usize) {
        let all = self.answered.iter().flatten();
        (all.clone().filter(|answered| **answered).count(), all.count())
    }

    /// Callers down, services across.
    fn table(&self, screen: &Screen) -> Table {
        let mut table = Table::new(["caller"].into_iter().chain(Service::ALL.map(Service::name)));
        for (caller, row) in callers().zip(&self.answered) {
            let marks = row.iter().map(|answered| if *answered { screen.tick() } else { "-" }.to_owned());
            table.row([caller.to_owned()].into_iter().chain(marks));
        }
        table
    }
}

pub(super) fn show(bank: &mut Bank, screen: &Screen) -> Result<String> {
    bank.protect(screen)?;
    screen.say(
        "the namespace is in the mesh, STRICT, with a policy for each service (tests/bank/manifests/policies.yaml)",
    );
    let paid = super::open::pay(bank)?;
    screen.say(format!("a payment still goes through: {paid}"));
    let tried = try_all(bank, screen)?;
    screen.say("who is answered by whom:");
    screen.table(&tried.table(screen));
    let (mut allowed, mut denied) = (0, 0);
    for (caller, row) in callers().zip(&tried.answered) {
        for (service, answered) in Service::ALL.into_iter().zip(row) {
            // A service that calls its own name is a caller like any other.
            let may = service.callers().contains(&caller);
            let expected = if may { "to be answered" } else { "to be refused" };
            claim(*answered == may, format!("{caller} calling {service} {expected}"), "the opposite")?;
            *(if may { &mut allowed } else { &mut denied }) += 1;
        }
    }
    Ok(format!("{allowed} allowed calls answered, {denied} others refused"))
}
