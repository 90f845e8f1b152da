//! Where nobody but a waypoint may connect: policies are attached there that nobody else can judge.

use std::collections::HashMap;
use std::sync::Arc;

use mesh_core::l7::{Guard, L7, Waypoint};
use mesh_core::policy::{Action, AuthorizationPolicy};
use mesh_core::{Policies, Protocol, Service, Workload, WorkloadUid};

/// Adds the guards of workloads.
pub(super) fn guards(l7: L7, policies: &Policies, services: &[Arc<Service>], workloads: &[Arc<Workload>]) -> L7 {
    if policies.targeted().is_empty() && policies.targeted_authentication().is_empty() {
        return l7;
    }
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

/// Whether a policy may refuse something that goes by the waypoint, if only a token.
fn refuses(policies: &Policies, waypoint: &Waypoint, service: Option<&Service>) -> bool {
    let enforced = |policy: &&Arc<AuthorizationPolicy>| policy.action != Action::Audit && !policy.dry_run;
    policies.for_waypoint(waypoint, service).iter().any(enforced)
        || !policies.authentication_for_waypoint(waypoint, service).is_empty()
}
