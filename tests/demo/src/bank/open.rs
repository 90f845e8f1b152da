//! Before the mesh: the bank works, and nothing keeps anybody from calling anybody.

use anyhow::{Context as _, Result};
use mesh_bank::CUSTOMER;
use mesh_lab::Place as _;

use super::{Bank, pairs};
use crate::claim::claim;
use crate::screen::Screen;

pub(super) fn show(bank: &mut Bank, screen: &Screen) -> Result<String> {
    bank.deploy(screen)?;
    screen.command(CUSTOMER, "mesh-bank pay --from ada --to bob --cents 1250");
    screen.say(pay(bank)?);
    let (answered, all) = pairs::try_all(bank, screen)?.count();
    claim(answered == all, format!("all {all} calls to be answered without a mesh"), answered)?;
    screen.say(format!(
        "{} callers, each calls each service: {answered} of {all} are answered",
        pairs::callers().count()
    ));
    Ok(format!("a payment works; {answered} of {all} calls answered, wanted or not"))
}

/// The customer pays. What came of it.
pub(super) fn pay(bank: &Bank) -> Result<String> {
    let output = bank.pod(CUSTOMER)?.exec(&["mesh-bank", "pay", "--from", "ada", "--to", "bob", "--cents", "1250"])?;
    let answer = output.json().with_context(|| output.to_string())?;
    let paid = &answer["answer"];
    claim(paid["paid"] == 1250, "the payment to go through", &answer)?;
    Ok(format!("paid {}, risk {}, record {}, notice {}", paid["paid"], paid["score"], paid["record"], paid["notice"]))
}
