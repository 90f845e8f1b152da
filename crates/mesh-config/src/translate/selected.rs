//! Who judges by a policy with a selector: nodes, which see connections, or gateways, which see requests.

use std::sync::Arc;

use mesh_core::l7::GATEWAY_NAME;
use mesh_core::policy::AuthorizationPolicy;
use mesh_core::{Enrolment, Workload};

use super::policies::report;
use super::targets::Attachable;
use crate::code::Code;
use crate::finding::Finding;
use crate::gateway_api::Role;
use crate::object::ObjectSet;

/// The label by which pods that are made for Gateways name the class.
const CLASS_NAME: &str = "gateway.networking.k8s.io/gateway-class-name";

/// What there is to select.
pub(super) struct Selected<'a> {
    pub(super) objects: &'a ObjectSet,
    pub(super) attachable: &'a Attachable<'a>,
    pub(super) workloads: &'a [Arc<Workload>],
}

impl Selected<'_> {
    /// Says which policies name fields of requests where only connections are judged.
    pub(super) fn report_fields(&self, findings: &mut Vec<Finding>) {
        for located in self.objects.authorization_policies.values() {
            let of_requests = |remark: &&crate::istio::Remark| remark.code == Code::FieldNeedsRequest;
            let mut remarks = located.object.remarks.iter().filter(of_requests).peekable();
            if remarks.peek().is_some() && !self.is_by_gateways(&located.object.policy) {
                report(located, remarks, findings);
            }
        }
    }

    /// Whether gateways judge by the policy, and no node does: what it selects are gateways' pods, or will be, and no pods of the mesh.
    pub(super) fn is_by_gateways(&self, policy: &AuthorizationPolicy) -> bool {
        let Some(selector) = &policy.selector else { return false };
        let selected = || {
            let reached = self.workloads.iter().filter(|workload| self.reaches(policy, &workload.namespace));
            reached.filter(|workload| selector.selects(&workload.labels))
        };
        (self.names_gateways(policy) || selected().any(|workload| self.attachable.is_gateway(workload)))
            && !selected().any(|workload| workload.enrolment == Enrolment::Enrolled)
    }

    /// Whether only gateways' pods have the labels that it selects.
    fn names_gateways(&self, policy: &AuthorizationPolicy) -> bool {
        let labels = policy.selector.as_ref().map(|selector| selector.labels()).unwrap_or_default();
        let selects = |key: &str, value: &str| labels.iter().any(|(k, v)| **k == *key && **v == *value);
        let by_labels = self.objects.istio_gateways.values().any(|located| {
            let pods = located.object.selector.as_ref();
            pods.is_some_and(|pods| pods.labels().iter().all(|(key, value)| selects(key, value)))
        });
        by_labels
            || self.objects.gateways.iter().any(|((namespace, name), located)| {
                matches!(located.object.role, Role::Ingress(_))
                    && self.reaches(policy, namespace)
                    && (selects(GATEWAY_NAME, name) || selects(CLASS_NAME, &located.object.class))
            })
    }

    /// Whether it is about pods of that namespace at all.
    fn reaches(&self, policy: &AuthorizationPolicy, namespace: &str) -> bool {
        *policy.name.namespace == *namespace || *policy.name.namespace == *self.attachable.root_namespace
    }
}
