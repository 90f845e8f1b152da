//! A third version answers every request with 503; retries lead what it fails to the others.

use anyhow::{Context as _, Result};
use mesh_lab::Place as _;

use super::{BAD, Shop, rule, visits};
use crate::claim::claim;
use crate::screen::Screen;

/// Requests for each count.
const REQUESTS: usize = 90;

pub(super) fn show(shop: &mut Shop, screen: &Screen) -> Result<String> {
    screen.progress("releasing product v3");
    shop.release_bad()?;
    screen.say("product v3 is released, and answers every request with 503");
    rule::apply(
        shop,
        screen,
        "no-retries",
        "  - route: [{destination: {host: product}}]\n    retries: {attempts: 0}\n",
    )?;
    let failed = visits::by_status(&visits::ask(shop.shopper()?, REQUESTS, &[])?, 503);
    claim(failed > 0, "customers to see the bad release", "none does")?;
    screen.say(format!("without retries customers see it: {failed} of {REQUESTS} fail"));
    let retries = "    retries: {attempts: 3, perTryTimeout: 2s, retryOn: 5xx}\n";
    rule::apply(shop, screen, "retries", &format!("  - route: [{{destination: {{host: product}}}}]\n{retries}"))?;
    let before = asked(shop)?;
    let visits = visits::ask(shop.shopper()?, REQUESTS, &[])?;
    let attempts = asked(shop)? - before;
    let served = visits::by_status(&visits, 200);
    claim(served == REQUESTS, format!("all {REQUESTS} served"), served)?;
    claim(attempts > 0, "v3 to be asked, in vain", attempts)?;
    screen.say(format!("with retries nobody does: v3 was asked {attempts} times, and each was tried again elsewhere"));
    Ok(format!("{failed} of {REQUESTS} failed; with retries {served} of {REQUESTS} served, past {attempts} failures"))
}

/// How often the bad release was asked, by its own count.
pub(super) fn asked(shop: &Shop) -> Result<u32> {
    let address = shop.stage.pod(BAD)?.ipv4();
    let url = format!("http://{address}:8080/seen/products");
    let output = shop.shopper()?.exec(&["curl", "--silent", "--show-error", &url])?;
    output.stdout.trim().parse().with_context(|| format!("{BAD} says how often it was asked: {output}"))
}
