//! Kubernetes' objects without what is never looked at, so that a large cluster is not held in memory twice.

use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// A Namespace: its labels.
pub(crate) fn namespace(whole: Namespace) -> Namespace {
    let metadata = ObjectMeta { labels: whole.metadata.labels, ..Default::default() };
    Namespace { metadata, ..Default::default() }
}

/// A Service: its labels and what it asks for.
pub(crate) fn service(whole: Service) -> Service {
    let metadata = ObjectMeta { labels: whole.metadata.labels, ..Default::default() };
    Service { metadata, spec: whole.spec, status: None }
}
