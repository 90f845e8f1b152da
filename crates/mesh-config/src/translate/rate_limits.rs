//! Limits on requests, to the model, and which of them are on nothing.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use mesh_core::l7::L7;
use mesh_core::policy::Selector;
use mesh_core::rate_limit::{LimitScope, LimitTarget, RateLimits};
use mesh_core::{LabelSet, Service, Workload};

use super::policies::{by_age, report};
use super::targets::Attachable;
use crate::code::Code;
use crate::config::Options;
use crate::finding::Finding;
use crate::object::{Located, ObjectSet};

/// Translates all limits: of objects of either kind the oldest first.
pub(super) fn rate_limits(objects: &ObjectSet, options: &Options, findings: &mut Vec<Finding>) -> RateLimits {
    let own = by_age(&objects.rate_limit_policies, |read| &read.age);
    let mut all: Vec<_> = own.into_iter().chain(by_age(&objects.envoy_filters, |read| &read.age)).collect();
    all.sort_by(|a, b| a.object.age.cmp(&b.object.age));
    all.iter().for_each(|located| report(located, &located.object.remarks, findings));
    let policies = all.iter().filter(|located| !located.object.policy.limits.is_empty());
    RateLimits::new(
        options.root_namespace.as_str().into(),
        policies.map(|located| Arc::clone(&located.object.policy)).collect(),
    )
}

/// Says which limits are on nothing that is there.
pub(super) fn report_idle(
    objects: &ObjectSet,
    attachable: &Attachable<'_>,
    workloads: &[Arc<Workload>],
    findings: &mut Vec<Finding>,
) {
    let mut by_address: Option<HashMap<IpAddr, &LabelSet>> = None;
    for located in objects.rate_limit_policies.values().chain(objects.envoy_filters.values()) {
        let policy = &located.object.policy;
        match &policy.scope {
            _ if policy.limits.is_empty() => {}
            LimitScope::Namespace => {}
            LimitScope::Targets(targets) => {
                let idle = targets.iter().map(|target| idle(objects, attachable, &policy.name.namespace, target));
                for (index, message) in idle.enumerate() {
                    let Some(message) = message else { continue };
                    let finding = Finding::new(Code::LimitWithoutEffect, (*located.origin).clone(), message);
                    findings.push(finding.at(format!("spec.targetRefs[{index}]")));
                }
            }
            LimitScope::Workloads(selector) => {
                let by_address = by_address.get_or_insert_with(|| {
                    let addresses = |workload| labels_by_address(workload);
                    workloads.iter().flat_map(addresses).collect()
                });
                let of_gateway = workloads
                    .iter()
                    .any(|workload| selector.selects(&workload.labels) && attachable.is_gateway(workload));
                if !of_gateway
                    && !attachable
                        .services
                        .iter()
                        .any(|service| is_behind(service, attachable.l7, selector, by_address))
                {
                    let message = "it selects no gateway's pod, and not all pods of a Service that has a waypoint";
                    let finding = Finding::new(Code::LimitWithoutEffect, (*located.origin).clone(), message);
                    findings.push(finding.at("spec.workloadSelector"));
                }
            }
        }
    }
}

fn labels_by_address(workload: &Arc<Workload>) -> impl Iterator<Item = (IpAddr, &LabelSet)> {
    workload.addresses.iter().map(|address| (*address, &workload.labels))
}

/// Whether a waypoint stands before the Service, and all that is behind it is selected.
fn is_behind(service: &Service, l7: &L7, selector: &Selector, by_address: &HashMap<IpAddr, &LabelSet>) -> bool {
    let endpoints = service.ports.iter().flat_map(|port| &port.endpoints);
    let mut behind = endpoints.filter_map(|endpoint| by_address.get(&endpoint.address.ip())).peekable();
    l7.waypoint_of(service).is_some() && behind.peek().is_some() && behind.all(|labels| selector.selects(labels))
}

/// Why limits of a namespace have no effect at a target.
fn idle(objects: &ObjectSet, attachable: &Attachable<'_>, namespace: &str, target: &LimitTarget) -> Option<String> {
    let (kind, name, rule) = match target {
        LimitTarget::Place(target) => return attachable.idle(namespace, target),
        LimitTarget::Route { kind, name, rule } => (*kind, name, rule),
    };
    let routes = if kind == "HTTPRoute" { &objects.http_routes } else { &objects.grpc_routes };
    let key = (Arc::clone(&name.namespace), Arc::clone(&name.name));
    let Some(Located { object: route, .. }) = routes.get(&key) else {
        return Some(format!("{kind} {name} is not there"));
    };
    let rule = rule.as_ref()?;
    let named = route.rules.iter().any(|own| own.rule.at.name.as_ref() == Some(rule));
    (!named).then(|| format!("{kind} {name} has no rule of the name {rule:?}"))
}
