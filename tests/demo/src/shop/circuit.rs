//! Outlier detection: after five failures in a row an endpoint is left alone.

use anyhow::Result;

use super::{Shop, retries, rule, visits};
use crate::claim::claim;
use crate::screen::Screen;

/// Requests for each count.
const REQUESTS: usize = 100;
/// Five in a row open it; of these the question whether the rule is in force may have had some, or all.
const UNTIL_OPEN: std::ops::RangeInclusive<usize> = 0..=20;

const RULE: &str = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: product, namespace: shop}\n\
    spec:\n  host: product\n  trafficPolicy:\n    outlierDetection:\n      consecutive5xxErrors: 5\n      interval: 10s\n      \
    baseEjectionTime: 300s\n      maxEjectionPercent: 50\n";

pub(super) fn show(shop: &mut Shop, screen: &Screen) -> Result<String> {
    screen.say("DestinationRule product: consecutive5xxErrors 5, baseEjectionTime 300s, maxEjectionPercent 50");
    shop.stage.lab.apply("destinationrule.product.yaml", RULE)?;
    // In force no earlier than the rule above, and seen to be.
    rule::apply(shop, screen, "alone", "  - route: [{destination: {host: product}}]\n    retries: {attempts: 0}\n")?;
    let failed = visits::by_status(&visits::ask(shop.shopper()?, REQUESTS, &[])?, 503);
    claim(UNTIL_OPEN.contains(&failed), "a few failures until the circuit opens", failed)?;
    let before = retries::asked(shop)?;
    let visits = visits::ask(shop.shopper()?, REQUESTS, &[])?;
    let (served, asked) = (visits::by_status(&visits, 200), retries::asked(shop)? - before);
    claim(served == REQUESTS && asked == 0, "v3 to be left alone", format!("{served} served, v3 asked {asked} times"))?;
    screen.say(format!("{failed} of {REQUESTS} failed until v3 was ejected; then {served} of {REQUESTS} were served, v3 was asked {asked} times"));
    shop.withdraw_bad()?;
    Ok(format!("after {failed} failures v3 is asked no more: {served} of {REQUESTS} served"))
}
