//! What labels mean to the mesh: enrolment, and the names under which Istio's metrics show a workload.

use std::collections::BTreeMap;

use crate::label_set::LabelSet;
use crate::model::{Enrolment, OutsideReason};

/// Labels of a Kubernetes object.
pub type Labels = BTreeMap<String, String>;

/// Labels in any form.
pub trait Lookup {
    /// The value of a label.
    fn value(&self, key: &str) -> Option<&str>;
}

impl Lookup for Labels {
    fn value(&self, key: &str) -> Option<&str> {
        self.get(key).map(String::as_str)
    }
}

impl Lookup for LabelSet {
    fn value(&self, key: &str) -> Option<&str> {
        self.get(key)
    }
}

/// Our own label for enrolment: `enabled` or `disabled`.
pub const JOIN: &str = "mesh.dev/join";
/// Istio's label for enrolment: `ambient` or `none`.
pub const DATAPLANE_MODE: &str = "istio.io/dataplane-mode";

/// The label that names the waypoint of a Service, Pod or Namespace; `none` for none.
pub const USE_WAYPOINT: &str = "istio.io/use-waypoint";
/// The waypoint's namespace, where that is another.
pub const USE_WAYPOINT_NAMESPACE: &str = "istio.io/use-waypoint-namespace";

/// The label by which the injection of Istio's sidecars says what they take at a Pod's ports: `istio` for mutual TLS.
pub const TLS_MODE: &str = "security.istio.io/tlsMode";

/// What an object's labels ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// To be part of the mesh.
    Join,
    /// To stay outside.
    StayOut,
    /// Nothing.
    Silent,
}

/// Whether a Pod is part of the mesh: its own labels come before its namespace's.
#[must_use]
pub fn enrolment(namespace: &impl Lookup, pod: &impl Lookup, host_network: bool) -> Enrolment {
    if host_network {
        return Enrolment::Outside(OutsideReason::HostNetwork);
    }
    enrolment_of(wish(namespace), wish(pod))
}

/// The same of a Pod that is not on its node's own network, by what is asked for.
#[must_use]
pub const fn enrolment_of(namespace: Wish, pod: Wish) -> Enrolment {
    match (pod, namespace) {
        (Wish::StayOut, _) => Enrolment::Outside(OutsideReason::OptedOut),
        (Wish::Join, _) | (Wish::Silent, Wish::Join) => Enrolment::Enrolled,
        (Wish::Silent, Wish::Silent | Wish::StayOut) => Enrolment::Outside(OutsideReason::NotLabelled),
    }
}

/// What the labels of one object ask for. [`JOIN`] comes before [`DATAPLANE_MODE`]; an unknown value asks for nothing.
#[must_use]
pub fn wish(labels: &impl Lookup) -> Wish {
    match labels.value(JOIN) {
        Some("enabled") => return Wish::Join,
        Some("disabled") => return Wish::StayOut,
        _ => {}
    }
    match labels.value(DATAPLANE_MODE) {
        Some("ambient") => Wish::Join,
        Some("none") => Wish::StayOut,
        _ => Wish::Silent,
    }
}

/// Istio's canonical service of a workload.
#[must_use]
pub fn canonical_service<'a>(labels: &'a impl Lookup, workload_name: &'a str) -> &'a str {
    const KEYS: [&str; 3] = ["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"];
    first(labels, &KEYS).unwrap_or(workload_name)
}

/// Istio's canonical revision of a workload.
#[must_use]
pub fn canonical_revision(labels: &impl Lookup) -> &str {
    const KEYS: [&str; 3] = ["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"];
    first(labels, &KEYS).unwrap_or("latest")
}

/// The workload's name, from the kind and name of the Pod's controlling owner.
///
/// A ReplicaSet stands for its Deployment when its name ends in the Pod's `pod-template-hash`.
#[must_use]
pub fn workload_name<'a>(owner: Option<(&str, &'a str)>, labels: &impl Lookup, pod_name: &'a str) -> &'a str {
    match owner {
        None => pod_name,
        Some(("ReplicaSet", name)) => labels
            .value("pod-template-hash")
            .and_then(|hash| name.strip_suffix(hash)?.strip_suffix('-'))
            .filter(|deployment| !deployment.is_empty())
            .unwrap_or(name),
        Some((_, name)) => name,
    }
}

/// The first label that is there and not empty.
fn first<'a>(labels: &'a impl Lookup, keys: &[&str]) -> Option<&'a str> {
    keys.iter().filter_map(|key| labels.value(key)).find(|value| !value.is_empty())
}
