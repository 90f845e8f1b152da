//! What labels mean.
#![allow(clippy::unwrap_used)]

use mesh_core::labels::{Labels, canonical_revision, canonical_service, enrolment, workload_name};
use mesh_core::{Enrolment, OutsideReason};

/// `key=value` pairs, separated by spaces.
fn labels(text: &str) -> Labels {
    let pairs = text.split_whitespace().map(|pair| pair.split_once('=').unwrap());
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

#[test]
fn enrolment_follows_the_pod_and_then_the_namespace() {
    use Enrolment::{Enrolled, Outside};
    use OutsideReason::{HostNetwork, NotLabelled, OptedOut};
    let cases = [
        ("", "", false, Outside(NotLabelled)),
        ("mesh.dev/join=enabled", "", false, Enrolled),
        ("istio.io/dataplane-mode=ambient", "", false, Enrolled),
        ("", "mesh.dev/join=enabled", false, Enrolled),
        ("", "istio.io/dataplane-mode=ambient", false, Enrolled),
        ("mesh.dev/join=enabled", "mesh.dev/join=disabled", false, Outside(OptedOut)),
        ("istio.io/dataplane-mode=ambient", "istio.io/dataplane-mode=none", false, Outside(OptedOut)),
        ("mesh.dev/join=enabled", "istio.io/dataplane-mode=none", false, Outside(OptedOut)),
        ("mesh.dev/join=disabled", "", false, Outside(NotLabelled)),
        ("mesh.dev/join=disabled", "mesh.dev/join=enabled", false, Enrolled),
        ("mesh.dev/join=yes", "", false, Outside(NotLabelled)),
        ("mesh.dev/join=disabled istio.io/dataplane-mode=ambient", "", false, Outside(NotLabelled)),
        ("mesh.dev/join=enabled", "mesh.dev/join=enabled", true, Outside(HostNetwork)),
    ];
    for (namespace, pod, host_network, expected) in cases {
        let found = enrolment(&labels(namespace), &labels(pod), host_network);
        assert_eq!(found, expected, "namespace {namespace:?} pod {pod:?} host {host_network}");
    }
}

#[test]
fn canonical_names_are_istios() {
    let cases = [
        ("", "cart-v1", "latest"),
        ("app=cart version=v1", "cart", "v1"),
        ("app=a app.kubernetes.io/name=b version=1 app.kubernetes.io/version=2", "b", "2"),
        (
            "app=a app.kubernetes.io/name=b service.istio.io/canonical-name=c service.istio.io/canonical-revision=3 version=1",
            "c",
            "3",
        ),
        ("app.kubernetes.io/name= app=a", "a", "latest"),
    ];
    for (text, service, revision) in cases {
        let labels = labels(text);
        assert_eq!(canonical_service(&labels, "cart-v1"), service, "{text:?}");
        assert_eq!(canonical_revision(&labels), revision, "{text:?}");
    }
}

#[test]
fn a_workload_is_named_for_its_owner() {
    let hash = "pod-template-hash=6d4cf56db6";
    let cases = [
        (None, "", "cart-0"),
        (Some(("ReplicaSet", "cart-v1-6d4cf56db6")), hash, "cart-v1"),
        (Some(("ReplicaSet", "cart-v1-abc")), hash, "cart-v1-abc"),
        (Some(("ReplicaSet", "cart-v1-6d4cf56db6")), "", "cart-v1-6d4cf56db6"),
        (Some(("ReplicaSet", "-6d4cf56db6")), hash, "-6d4cf56db6"),
        (Some(("StatefulSet", "cart")), hash, "cart"),
        (Some(("DaemonSet", "agent")), "", "agent"),
    ];
    for (owner, text, expected) in cases {
        assert_eq!(workload_name(owner, &labels(text), "cart-0"), expected, "{owner:?} {text:?}");
    }
}
