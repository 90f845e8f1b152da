//! Who may talk to whom: the decision on a connection, Istio's own examples, and the modes of PeerAuthentication.
#![allow(clippy::unwrap_used)]

mod decision;
mod examples;
mod modes;
#[path = "../workload/mod.rs"]
mod workload;
mod written;

use std::sync::Arc;

use mesh_core::{LabelSet, Workload};

/// The workload that connections go to: `shop/cart`, whose only label is `app: cart`.
fn cart() -> Arc<Workload> {
    let labels = LabelSet::from_iter([("app", "cart")]);
    let one = workload::workload("shop", "cart", &["10.0.0.9", "fd00::9"]);
    Arc::new(workload::altered(one, |template| template.labels = labels))
}
