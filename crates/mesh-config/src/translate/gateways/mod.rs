//! Gateways of both APIs to listeners, with what attached itself to them.

mod credentials;
mod hosts;
mod istio;
mod kubernetes;

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_core::Workload;
use mesh_core::l7::gateway::ConnectionRoute;
use mesh_core::l7::{Gateway, HostRules, Precedence, RouteTable, Rule};
use mesh_core::policy::HostPattern;

pub(super) use self::hosts::pattern;
pub(super) use self::istio::{Routes, VirtualServiceRoutes};
pub(super) use self::kubernetes::{Attachment, attach};
use super::policies::{by_age, report};
use crate::config::Options;
use crate::finding::Finding;
use crate::object::{Key, ObjectSet};

/// Rules for some hosts.
type HostedRules = (Vec<HostPattern>, Vec<Arc<Rule>>);

/// What attached itself to listeners of Gateways of the Gateway API: by the Gateway, and the listener's place in it.
#[derive(Debug, Default)]
pub(super) struct ListenerRoutes {
    /// Rules, the oldest route's first, each with the hosts that the route and the listener have in common.
    pub(super) rules: BTreeMap<(Key, usize), Vec<HostedRules>>,
    /// Routes of connections, likewise.
    pub(super) connections: BTreeMap<(Key, usize), Vec<ConnectionRoute>>,
}

/// All gateways: those of the Gateway API, and then Istio's, each the oldest first.
pub(super) fn gateways(
    objects: &ObjectSet,
    (options, workloads): (&Options, &[Arc<Workload>]),
    mut attached: ListenerRoutes,
    mut of_virtual_services: VirtualServiceRoutes,
    findings: &mut Vec<Finding>,
) -> Vec<Arc<Gateway>> {
    let mut all = Vec::new();
    for located in by_age(&objects.gateways, |gateway| &gateway.age) {
        all.extend(kubernetes::gateway(located, objects, options, &mut attached, findings).map(Arc::new));
    }
    for located in by_age(&objects.istio_gateways, |gateway| &gateway.age) {
        report(located, &located.object.remarks, findings);
        all.push(Arc::new(istio::gateway(located, objects, (options, workloads), &mut of_virtual_services, findings)));
    }
    all
}

/// A table of rules that are for some hosts each. Rules for one host are joined, in the order given.
fn table(rules: Vec<HostedRules>, precedence: Precedence) -> Arc<RouteTable> {
    let mut by_host: Vec<HostRules> = Vec::new();
    for (hosts, rules) in rules {
        for host in hosts {
            match by_host.iter_mut().find(|known| known.hosts[0] == host) {
                Some(known) => known.rules.extend(rules.iter().cloned()),
                None => by_host.push(HostRules { hosts: vec![host], rules: rules.clone(), precedence }),
            }
        }
    }
    Arc::new(RouteTable::build(by_host))
}
