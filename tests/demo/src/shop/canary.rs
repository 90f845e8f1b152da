//! Weights: a tenth, then everything.

use anyhow::Result;

use super::{Shop, rule, visits};
use crate::claim::claim;
use crate::screen::Screen;
use crate::table::Table;

/// Requests for each count.
const REQUESTS: usize = 400;
/// A tenth of them, and five standard deviations (of 6) to either side.
const A_TENTH: std::ops::RangeInclusive<usize> = 10..=70;

/// The versions by their labels.
const SUBSETS: &str = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: product, namespace: shop}\n\
    spec:\n  host: product\n  subsets:\n  - {name: v1, labels: {version: v1}}\n  - {name: v2, labels: {version: v2}}\n";

pub(super) fn show(shop: &mut Shop, screen: &Screen) -> Result<String> {
    let mut table = Table::new(["weights", "by v1", "by v2"]).numbers(&[1, 2]);
    let mut tried = |shop: &Shop, what: &str| -> Result<usize> {
        screen.progress(format!("{REQUESTS} requests"));
        let visits = visits::ask(shop.shopper()?, REQUESTS, &[])?;
        let [first, second] = ["v1", "v2"].map(|version| visits::by_version(&visits, version));
        claim(first + second == REQUESTS, format!("{REQUESTS} answers by v1 or v2"), first + second)?;
        table.row([what.to_owned(), first.to_string(), second.to_string()]);
        Ok(second)
    };
    let even = tried(shop, "none: by pods")?;
    claim(even > *A_TENTH.end(), "about half by v2, without weights", even)?;
    shop.stage.lab.apply("destinationrule.product.yaml", SUBSETS)?;
    rule::apply(shop, screen, "canary", &weights(90, 10))?;
    let canary = tried(shop, "90 / 10")?;
    claim(A_TENTH.contains(&canary), format!("a tenth of {REQUESTS} by v2"), canary)?;
    rule::apply(shop, screen, "promoted", &weights(0, 100))?;
    let promoted = tried(shop, "0 / 100")?;
    claim(promoted == REQUESTS, "all by v2", promoted)?;
    screen.table(&table);
    Ok(format!("{canary} of {REQUESTS} by the canary at 10 %, {promoted} once promoted"))
}

fn weights(first: u8, second: u8) -> String {
    format!(
        "  - route:\n    - {{destination: {{host: product, subset: v1}}, weight: {first}}}\n    \
         - {{destination: {{host: product, subset: v2}}, weight: {second}}}\n"
    )
}
