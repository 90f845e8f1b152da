//! A workload for tests, of which each changes what it is about.

use mesh_core::{Enrolment, LabelSet, SpiffeId, TrustDomain, Unwatched, Workload};

/// A pod of that name, under a service account of that name, in the mesh, on node `a`, without labels.
pub fn workload(namespace: &str, name: &str, addresses: &[&str]) -> Workload {
    Workload {
        uid: format!("uid-{name}").into(),
        name: name.into(),
        namespace: namespace.into(),
        identity: SpiffeId::new(&TrustDomain::default(), namespace, name).unwrap(),
        node: "a".into(),
        locality: Default::default(),
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        enrolment: Enrolment::Enrolled,
        ready: true,
        probe_ports: Vec::new(),
        unwatched: Unwatched::default(),
        labels: LabelSet::default(),
        workload_name: name.into(),
        canonical_service: name.into(),
        canonical_revision: "latest".into(),
        app: name.into(),
        version: "latest".into(),
    }
}
