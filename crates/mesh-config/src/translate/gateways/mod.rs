//! Gateways of both APIs to listeners, with what attached itself to them.

mod clients;
mod credentials;
mod hosts;
mod istio;
mod kubernetes;
mod topologies;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_core::Workload;
use mesh_core::l7::gateway::ConnectionRoute;
use mesh_core::l7::{Gateway, HostRules, Precedence, RouteTable, Rule};
use mesh_core::policy::HostPattern;

use self::credentials::Keychain;
pub(super) use self::hosts::pattern;
pub(super) use self::istio::{Routes, VirtualServiceRoutes};
pub(super) use self::kubernetes::{Attachment, NotAttached, attach};
pub(super) use self::topologies::topologies;
use super::policies::{by_age, report};
use crate::config::{NamedObjects, Options};
use crate::finding::Finding;
use crate::object::{Key, ObjectSet};
use crate::status::GatewayStatus;

/// Rules for some hosts.
type HostedRules = (Vec<HostPattern>, Vec<Arc<Rule>>);

/// What attached itself to listeners of Gateways of the Gateway API: by the Gateway, and the listener's place in it.
#[derive(Debug, Default)]
pub(super) struct ListenerRoutes {
    /// Rules, the oldest route's first, each with the hosts that the route and the listener have in common.
    pub(super) rules: BTreeMap<(Key, usize), Vec<HostedRules>>,
    /// Routes of connections, likewise.
    pub(super) connections: BTreeMap<(Key, usize), Vec<ConnectionRoute>>,
    /// How many routes that is.
    pub(super) counts: BTreeMap<(Key, usize), usize>,
}

/// What Gateways are, and what is said of them.
pub(super) struct Gateways {
    pub(super) all: Vec<Arc<Gateway>>,
    pub(super) statuses: BTreeMap<Key, GatewayStatus>,
    pub(super) named: NamedObjects,
}

/// All gateways: those of the Gateway API, and then Istio's, each the oldest first.
pub(super) fn gateways(
    objects: &ObjectSet,
    (options, workloads): (&Options, &[Arc<Workload>]),
    mut attached: ListenerRoutes,
    mut of_virtual_services: VirtualServiceRoutes,
    findings: &mut Vec<Finding>,
) -> Gateways {
    let (mut all, mut statuses) = (Vec::new(), BTreeMap::new());
    let named = RefCell::default();
    for located in by_age(&objects.gateways, |gateway| &gateway.age) {
        let name = &located.object.name;
        let key = (Arc::clone(&name.namespace), Arc::clone(&name.name));
        let keychain = Keychain::new(objects, key, &options.credentials, &named);
        let gateway = kubernetes::gateway(located, objects, &keychain, &mut attached, findings);
        if let Some((gateway, status)) = gateway {
            statuses.insert((Arc::clone(&gateway.namespace), Arc::clone(&gateway.name)), status);
            all.push(Arc::new(gateway));
        }
    }
    for located in by_age(&objects.istio_gateways, |gateway| &gateway.age) {
        report(located, &located.object.remarks, findings);
        let by = (options, workloads);
        all.push(Arc::new(istio::gateway(located, objects, by, &named, &mut of_virtual_services, findings)));
    }
    Gateways { all, statuses, named: named.into_inner() }
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
