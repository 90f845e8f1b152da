//! A waypoint, and weights: a tenth for the new version, then everything.

use anyhow::Result;
use mesh_lab::wait_until;
use mesh_shop::catalogue::NAMESPACE;

use super::Kube;
use crate::claim::{claim, unmet};
use crate::screen::Screen;
use crate::stage::PATIENCE;
use crate::table::Table;

/// Checkouts for each count; each asks for one product.
const CHECKOUTS: usize = 200;
/// A tenth of them, and five standard deviations (of 4.2) to either side; at least one.
const A_TENTH: std::ops::RangeInclusive<usize> = 1..=41;

const WAYPOINT: &str = "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: waypoint, namespace: shop}\nspec:\n  \
                        gatewayClassName: mesh-waypoint\n  listeners: [{name: mesh, port: 15008, protocol: HBONE}]\n";
const SUBSETS: &str = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: product, namespace: shop}\nspec:\n  \
                       host: product\n  subsets:\n  - {name: v1, labels: {version: v1}}\n  - {name: v2, labels: {version: v2}}\n";

pub(super) fn show(kube: &mut Kube, screen: &Screen) -> Result<String> {
    let mut table = Table::new(["weights", "by v1", "by v2"]).numbers(&[1, 2]);
    let (first, even) = by_version(kube, screen)?;
    table.row(["none: by pods".to_owned(), first.to_string(), even.to_string()]);
    claim(even > *A_TENTH.end(), "about half by v2, without weights", even)?;
    kube.apply(screen, WAYPOINT)?;
    kube.show(screen, &["-n", NAMESPACE, "wait", "--for=condition=Programmed", "--timeout=90s", "gateway/waypoint"])?;
    kube.show(screen, &["label", "namespace", NAMESPACE, "istio.io/use-waypoint=waypoint"])?;

    kube.apply(screen, &format!("{SUBSETS}---\n{}", weights(90, 10)))?;
    // Before the waypoint has the rule, half are of each version.
    let settled = wait_until("the weights to be in force", PATIENCE, || {
        let (first, second) = by_version(kube, screen)?;
        Ok(A_TENTH.contains(&second).then_some((first, second)))
    });
    let (first, canary) = settled.map_err(|_| unmet(format!("a tenth of {CHECKOUTS} by v2"), "other shares"))?;
    table.row(["90 / 10".to_owned(), first.to_string(), canary.to_string()]);
    kube.apply(screen, &weights(0, 100))?;
    let promoted = wait_until("all to be of v2", PATIENCE, || {
        let (_, second) = by_version(kube, screen)?;
        Ok((second == CHECKOUTS).then_some(second))
    });
    let promoted = promoted.map_err(|_| unmet(format!("all {CHECKOUTS} by v2"), "some by v1"))?;
    table.row(["0 / 100".to_owned(), "0".to_owned(), promoted.to_string()]);
    screen.table(&table);
    Ok(format!("{canary} of {CHECKOUTS} by the canary at 10 %, {promoted} once promoted"))
}

fn by_version(kube: &Kube, screen: &Screen) -> Result<(usize, usize)> {
    screen.progress(format!("{CHECKOUTS} checkouts"));
    let bought = kube.buy(CHECKOUTS)?;
    let by = |version: &str| {
        let is = |hop: &&mesh_shop::Hop| hop.service == "product" && hop.version == version;
        bought.iter().filter(|bought| bought.hops.iter().any(|hop| is(&hop))).count()
    };
    Ok((by("v1"), by("v2")))
}

fn weights(first: u8, second: u8) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: product, namespace: shop}}\nspec:\n  \
         hosts: [product]\n  http:\n  - route:\n    - {{destination: {{host: product, subset: v1}}, weight: {first}}}\n    \
         - {{destination: {{host: product, subset: v2}}, weight: {second}}}\n"
    )
}
