//! Where nobody but a waypoint may connect: policies are attached there that nobody else can judge.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use mesh_core::l7::{Guard, L7, Waypoint};
use mesh_core::policy::{Action, AuthorizationPolicy, PolicyTarget};
use mesh_core::{Policies, Protocol, Service, Workload, WorkloadUid};

use crate::code::Code;
use crate::finding::Finding;
use crate::object::ObjectSet;

/// Adds the guards of workloads, and says which policies for waypoints are attached to nothing.
pub(super) fn guards(
    l7: L7,
    objects: &ObjectSet,
    policies: &Policies,
    services: &[Arc<Service>],
    workloads: &[Arc<Workload>],
    findings: &mut Vec<Finding>,
) -> L7 {
    if policies.targeted().is_empty() {
        return l7;
    }
    report_loose(&l7, objects, policies, services, findings);
    let mut guards: HashMap<WorkloadUid, Vec<Guard>> = HashMap::new();
    for service in services {
        let enforcing = l7.waypoint_of(service).filter(|waypoint| refuses(policies, waypoint, Some(service)));
        let Some(waypoint) = enforcing else {
            continue;
        };
        let ports = service.ports.iter().filter(|port| port.protocol == Protocol::Tcp);
        for endpoint in ports.flat_map(|port| &port.endpoints) {
            if let Some(workload) = &endpoint.workload {
                let guard = Guard { port: Some(endpoint.address.port()), waypoint: Arc::clone(waypoint) };
                let of_workload = guards.entry(workload.uid.clone()).or_default();
                if !of_workload.contains(&guard) {
                    of_workload.push(guard);
                }
            }
        }
    }
    for workload in workloads {
        let enforcing = l7.waypoint_of_workload(workload).filter(|waypoint| refuses(policies, waypoint, None));
        if let Some(waypoint) = enforcing {
            let guard = Guard { port: None, waypoint: Arc::clone(waypoint) };
            guards.entry(workload.uid.clone()).or_default().push(guard);
        }
    }
    l7.with_guards(guards)
}

/// Whether a policy may refuse something that goes by the waypoint.
fn refuses(policies: &Policies, waypoint: &Waypoint, service: Option<&Service>) -> bool {
    let enforced = |policy: &&Arc<AuthorizationPolicy>| policy.action != Action::Audit && !policy.dry_run;
    policies.for_waypoint(waypoint, service).iter().any(enforced)
}

fn report_loose(
    l7: &L7,
    objects: &ObjectSet,
    policies: &Policies,
    services: &[Arc<Service>],
    findings: &mut Vec<Finding>,
) {
    let is = |name: &Arc<str>, given: &Arc<str>| name == given;
    let taken: HashSet<(&str, &str)> = services
        .iter()
        .filter(|service| l7.waypoint_of(service).is_some())
        .map(|service| (&*service.namespace, &*service.name))
        .collect();
    for located in objects.authorization_policies.values() {
        for (index, target) in located.object.targets.iter().enumerate() {
            let message = match target {
                PolicyTarget::Gateway(name) => l7
                    .waypoints()
                    .iter()
                    .all(|waypoint| !is(&name.namespace, &waypoint.namespace) || !is(&name.name, &waypoint.name))
                    .then(|| format!("Gateway {name} is no waypoint")),
                PolicyTarget::Service(name) => (!taken.contains(&(&*name.namespace, &*name.name)))
                    .then(|| format!("Service {name} has no waypoint")),
                PolicyTarget::GatewayClass(class) => {
                    let in_root = *located.object.policy.name.namespace == *policies.root_namespace();
                    let message = "a policy for a GatewayClass stands in the root namespace".to_owned();
                    let unused = || format!("no waypoint is of class {class}");
                    let used = l7.waypoints().iter().any(|waypoint| is(class, &waypoint.class));
                    if in_root { (!used).then(unused) } else { Some(message) }
                }
            };
            if let Some(message) = message {
                let finding = Finding::new(Code::PolicyForWaypoint, (*located.origin).clone(), message);
                findings.push(finding.at(format!("spec.targetRefs[{index}]")));
            }
        }
    }
}
