//! A Namespace without what is never looked at.

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// A Namespace: its labels.
pub(crate) fn namespace(whole: Namespace) -> Namespace {
    let metadata = ObjectMeta { labels: whole.metadata.labels, ..Default::default() };
    Namespace { metadata, ..Default::default() }
}
