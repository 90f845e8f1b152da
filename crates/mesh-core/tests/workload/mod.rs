//! A workload for tests, of which each changes what it is about.

use std::sync::Arc;

use mesh_core::{Enrolment, LabelSet, SpiffeId, Template, TrustDomain, Unwatched, Workload};

/// A pod of that name, under a service account of that name, in the mesh, on node `a`, without labels.
pub fn workload(namespace: &str, name: &str, addresses: &[&str]) -> Workload {
    let template = Template {
        namespace: namespace.into(),
        identity: SpiffeId::new(&TrustDomain::default(), namespace, name).unwrap(),
        enrolment: Enrolment::Enrolled,
        probe_ports: Vec::new(),
        asks_itself: false,
        unwatched: Unwatched::default(),
        labels: LabelSet::default(),
        workload_name: name.into(),
        canonical_service: name.into(),
        canonical_revision: "latest".into(),
        app: name.into(),
        version: "latest".into(),
    };
    Workload {
        uid: format!("uid-{name}").into(),
        name: name.into(),
        node: "a".into(),
        locality: Default::default(),
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        ready: true,
        template: Arc::new(template),
    }
}

/// The workload with something changed of what it has in common with others.
#[allow(dead_code, reason = "not every test changes that")]
pub fn altered(mut workload: Workload, alter: impl FnOnce(&mut Template)) -> Workload {
    alter(Arc::make_mut(&mut workload.template));
    workload
}
