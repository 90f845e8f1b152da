//! What a Service says of where its clients are led.

use mesh_core::locality::Nearest;
use mesh_core::{Placement, ServicePort};

use super::services::Report;
use crate::code::Code;
use crate::kubernetes::{Service as GivenService, TRAFFIC_DISTRIBUTION};

/// Reads `internalTrafficPolicy` and `trafficDistribution`; Istio's annotation comes before the field.
pub(super) fn placement(given: &GivenService, ports: &[ServicePort], report: &mut Report<'_>) -> Placement {
    let node_only = match given.internal_traffic_policy.as_deref() {
        None | Some("" | "Cluster") => false,
        Some("Local") => true,
        Some(other) => {
            let message = format!("{other:?} is neither Cluster nor Local; Cluster is taken");
            report(Code::FieldNotHonoured, "spec.internalTrafficPolicy".to_owned(), message);
            false
        }
    };
    let of_annotation = given
        .annotated_distribution
        .as_deref()
        .map(|text| (text, format!("metadata.annotations[{TRAFFIC_DISTRIBUTION:?}]")));
    let of_field = || Some((given.traffic_distribution.as_deref()?, "spec.trafficDistribution".to_owned()));
    let nearest = match of_annotation.or_else(of_field) {
        None | Some(("" | "Any", _)) => None,
        Some(("PreferClose", _)) => Some(Nearest::Close),
        Some(("PreferSameZone", _)) => Some(Nearest::Zone),
        Some(("PreferSameNode", _)) => Some(Nearest::Node),
        Some((other, field)) => {
            let message = format!("{other:?} is none of PreferClose, PreferSameZone and PreferSameNode; none is taken");
            report(Code::FieldNotHonoured, field, message);
            None
        }
    };
    let is_hinted = |port: &ServicePort| {
        let mut traits = port.endpoints.iter().filter_map(|endpoint| endpoint.traits.as_ref());
        traits.any(|traits| traits.hints.is_some())
    };
    let is_sticky = match given.session_affinity.as_deref() {
        None | Some("") => false,
        Some("ClientIP") => true,
        Some(other) => {
            let message = format!("{other:?} is neither None nor ClientIP; None is taken");
            report(Code::FieldNotHonoured, "spec.sessionAffinity".to_owned(), message);
            false
        }
    };
    Placement { node_only, nearest, is_hinted: ports.iter().any(is_hinted), is_sticky }
}
