//! Who may talk to whom: the decision on a connection, Istio's own examples, and the modes of PeerAuthentication.
#![allow(clippy::unwrap_used)]

mod decision;
mod examples;
mod modes;
mod written;

use std::sync::Arc;

use mesh_core::{Enrolment, LabelSet, SpiffeId, TrustDomain, Workload};

/// The workload that connections go to: `shop/cart`, whose only label is `app: cart`.
fn cart() -> Arc<Workload> {
    Arc::new(Workload {
        uid: "uid-cart".into(),
        name: "cart".into(),
        namespace: "shop".into(),
        identity: SpiffeId::new(&TrustDomain::default(), "shop", "cart").unwrap(),
        node: "a".into(),
        addresses: vec!["10.0.0.9".parse().unwrap(), "fd00::9".parse().unwrap()],
        enrolment: Enrolment::Enrolled,
        ready: true,
        labels: LabelSet::from_iter([("app", "cart")]),
        workload_name: "cart".into(),
        canonical_service: "cart".into(),
        canonical_revision: "latest".into(),
        app: "cart".into(),
        version: "latest".into(),
    })
}
