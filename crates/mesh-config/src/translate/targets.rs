//! What policies for waypoints and gateways are attached to, and which of them to nothing.

use std::collections::HashSet;
use std::sync::Arc;

use mesh_core::l7::gateway::GatewayPods;
use mesh_core::l7::{GATEWAY_NAME, L7};
use mesh_core::policy::{AuthorizationPolicy, PolicyTarget, RequestAuthentication};
use mesh_core::telemetry::Scope;
use mesh_core::{Policies, Providers, Service, Workload};

use super::selected::Selected;
use super::{authorizers, rate_limits};
use crate::code::Code;
use crate::finding::{Finding, Origin};
use crate::object::ObjectSet;

/// What there is to attach a policy to.
pub(super) struct Attachable<'a> {
    pub(super) l7: &'a L7,
    pub(super) root_namespace: &'a str,
    /// Services with a waypoint, by namespace and name.
    taken: HashSet<(&'a str, &'a str)>,
    pub(super) services: &'a [Arc<Service>],
}

/// Says which policies are attached to nothing, or select pods of which nobody sees what they name: tokens, fields of requests, authorizers.
pub(super) fn report_idle(
    objects: &ObjectSet,
    (policies, providers): (&Policies, &Providers),
    services: &[Arc<Service>],
    workloads: &[Arc<Workload>],
    l7: &L7,
    findings: &mut Vec<Finding>,
) {
    let with_waypoint = services.iter().filter(|service| l7.waypoint_of(service).is_some());
    let taken = with_waypoint.map(|service| (&*service.namespace, &*service.name)).collect();
    let attachable = Attachable { l7, root_namespace: policies.root_namespace(), taken, services };
    for located in objects.authorization_policies.values() {
        let (policy, targets) = (&located.object.policy, &located.object.targets);
        attachable.report(&policy.name.namespace, targets, &located.origin, findings);
        attachable.report_servers(policy, targets, &located.origin, findings);
    }
    for located in objects.request_authentications.values() {
        let (policy, targets) = (&located.object.policy, &located.object.targets);
        attachable.report(&policy.name.namespace, targets, &located.origin, findings);
        if targets.is_empty() && !workloads.iter().any(|workload| attachable.reads_tokens(policy, workload)) {
            let message = "it selects no gateway's pod, and nobody else reads tokens for a selector";
            findings.push(Finding::new(Code::TokensNotRead, (*located.origin).clone(), message).at("spec.selector"));
        }
    }
    for located in objects.telemetries.values() {
        let policy = &located.object.policy;
        if let Scope::Targets(targets) = &policy.scope {
            attachable.report(&policy.name.namespace, targets, &located.origin, findings);
        }
    }
    let selected = Selected { objects, attachable: &attachable, workloads };
    selected.report_fields(findings);
    authorizers::report_missing(&selected, providers, findings);
    rate_limits::report_idle(objects, &attachable, workloads, findings);
}

impl Attachable<'_> {
    fn report(&self, namespace: &str, targets: &[PolicyTarget], origin: &Origin, findings: &mut Vec<Finding>) {
        for (index, target) in targets.iter().enumerate() {
            if let Some(message) = self.idle(namespace, target) {
                let finding = Finding::new(Code::PolicyForWaypoint, origin.clone(), message);
                findings.push(finding.at(format!("spec.targetRefs[{index}]")));
            }
        }
    }

    /// Says which conditions on the server that a TLS client asks for stand where there is no TLS.
    fn report_servers(
        &self,
        policy: &AuthorizationPolicy,
        targets: &[PolicyTarget],
        origin: &Origin,
        findings: &mut Vec<Finding>,
    ) {
        let at_gateway = |target: &PolicyTarget| match target {
            PolicyTarget::Gateway(name) => self.is_gateway_object(&name.namespace, &name.name),
            _ => false,
        };
        if targets.is_empty() || targets.iter().any(at_gateway) {
            return;
        }
        let fields = policy.rules.iter().flat_map(|rule| &rule.needs_request);
        for field in fields.filter(|field| field.ends_with("(connection.sni)")) {
            let message =
                "at a waypoint nobody knows which server a client asks for; at a gateway that ends TLS it is known";
            findings.push(Finding::new(Code::NeverMatches, origin.clone(), message).at(&**field));
        }
    }

    fn is_gateway_object(&self, namespace: &str, name: &str) -> bool {
        let mut gateways = self.l7.gateways().iter().filter(|gateway| gateway.pods == GatewayPods::Own);
        gateways.any(|gateway| *gateway.namespace == *namespace && *gateway.name == *name)
    }

    /// Why a policy in that namespace has no effect there.
    pub(super) fn idle(&self, namespace: &str, target: &PolicyTarget) -> Option<String> {
        match target {
            PolicyTarget::Gateway(name) => {
                let is = |namespace: &str, own: &str| *namespace == *name.namespace && *own == *name.name;
                let is_waypoint = self.l7.waypoints().iter().any(|waypoint| is(&waypoint.namespace, &waypoint.name));
                let is_gateway = self.is_gateway_object(&name.namespace, &name.name);
                (!is_waypoint && !is_gateway).then(|| format!("Gateway {name} is no waypoint and no gateway of ours"))
            }
            PolicyTarget::Service(name) => (!self.taken.contains(&(&*name.namespace, &*name.name)))
                .then(|| format!("Service {name} has no waypoint")),
            PolicyTarget::ServiceEntry(name) => {
                let hosts = self.services.iter().filter(|service| service.is_of_entry(&name.namespace, &name.name));
                let taken = hosts.into_iter().any(|service| self.l7.waypoint_of(service).is_some());
                (!taken).then(|| format!("ServiceEntry {name} has no waypoint"))
            }
            PolicyTarget::GatewayClass(_) if *namespace != *self.root_namespace => {
                Some("a policy for a GatewayClass stands in the root namespace".to_owned())
            }
            PolicyTarget::GatewayClass(class) => {
                let used = self.l7.waypoints().iter().any(|waypoint| *class == waypoint.class);
                (!used).then(|| format!("no waypoint is of class {class}"))
            }
        }
    }

    /// Whether the workload is a gateway that the policy is about.
    fn reads_tokens(&self, policy: &RequestAuthentication, workload: &Workload) -> bool {
        let namespace = &*policy.name.namespace;
        let reaches = *namespace == *self.root_namespace || *namespace == *workload.namespace;
        let selected = policy.selector.as_ref().is_none_or(|selector| selector.selects(&workload.labels));
        reaches && selected && self.is_gateway(workload)
    }

    /// Whether the workload is a gateway.
    pub(super) fn is_gateway(&self, workload: &Workload) -> bool {
        let name = workload.labels.get(GATEWAY_NAME).unwrap_or_default();
        let is_one =
            |gateway: &Arc<mesh_core::l7::Gateway>| gateway.runs_as(&workload.namespace, name, Some(&workload.labels));
        self.l7.gateways().iter().any(is_one)
    }
}
