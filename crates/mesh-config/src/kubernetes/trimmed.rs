//! Kubernetes' objects without what is never looked at, so that a large cluster is not held in memory twice.

use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// A Namespace: its labels.
pub(crate) fn namespace(whole: Namespace) -> Namespace {
    let metadata = ObjectMeta { labels: whole.metadata.labels, ..Default::default() };
    Namespace { metadata, ..Default::default() }
}

/// The annotation by which Istio's users say what `spec.trafficDistribution` says.
pub(crate) const TRAFFIC_DISTRIBUTION: &str = "networking.istio.io/traffic-distribution";

/// A Service: its labels and what it asks for.
pub(crate) fn service(whole: Service) -> Service {
    let mut annotations = whole.metadata.annotations;
    if let Some(all) = &mut annotations {
        all.retain(|name, _| name == TRAFFIC_DISTRIBUTION);
    }
    let annotations = annotations.filter(|all| !all.is_empty());
    let metadata = ObjectMeta { labels: whole.metadata.labels, annotations, ..Default::default() };
    Service { metadata, spec: whole.spec, status: None }
}
