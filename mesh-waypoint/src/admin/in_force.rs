//! Which of the configuration's rules are in force at this waypoint, and for what.

use std::{collections::BTreeSet, sync::Arc};

use mesh_core::{
    Protocol, Service, Snapshot,
    l7::{L7, RouteTable, Rule, gateway::Serves},
};

use crate::{args::GatewayName, listeners::Listeners, upstream::ClusterKey};

/// The rules of one parent.
pub(super) struct Attached {
    /// What they are attached to, for people.
    pub(super) parent: String,
    /// The port that requests are for.
    pub(super) port: u16,
    pub(super) table: Arc<RouteTable>,
}

impl Attached {
    pub(super) fn rules(&self) -> impl Iterator<Item = &Arc<Rule>> {
        rules_of(&self.table)
    }
}

fn rules_of(table: &RouteTable) -> impl Iterator<Item = &Arc<Rule>> {
    table.hosts().iter().flat_map(|host| &host.rules)
}

/// All rules of a configuration, whoever they are for.
pub(crate) fn all_rules(l7: &L7) -> impl Iterator<Item = &Arc<Rule>> {
    let of_services = l7.routes().iter().flat_map(|routes| rules_of(&routes.table));
    let listeners = l7.gateways().iter().flat_map(|gateway| &gateway.listeners);
    let of_gateways = listeners.flat_map(|listener| match &listener.serves {
        Serves::Requests { table, .. } => Some(rules_of(table)),
        Serves::Connections(_) => None,
    });
    of_services.chain(of_gateways.flatten())
}

/// The Services that a waypoint stands before.
pub(super) fn served<'a>(snapshot: &'a Snapshot, own: &'a GatewayName) -> impl Iterator<Item = &'a Arc<Service>> {
    let by_own = |service: &&Arc<Service>| snapshot.l7().waypoint_of(service).is_some_and(|waypoint| own.is(waypoint));
    snapshot.services().filter(by_own)
}

/// What is in force here: rules of the Services that it stands before, and of its own listeners.
pub(super) fn attached(snapshot: &Snapshot, own: &GatewayName, listeners: &Listeners) -> Vec<Attached> {
    let served: Vec<_> = served(snapshot, own).collect();
    let hosts: BTreeSet<&str> = served.iter().map(|service| &*service.hostname).collect();
    let namespaces: BTreeSet<&str> = served.iter().map(|service| &*service.namespace).collect();
    let of_services = snapshot.l7().routes().iter().filter_map(|routes| {
        let here = match &routes.of_host_in {
            Some(namespace) => namespaces.contains(&**namespace),
            None => hosts.contains(&*routes.hostname),
        };
        let port = routes.port.map_or_else(|| "*".to_owned(), |port| port.to_string());
        let clients = routes.clients.as_ref().map_or(String::new(), |clients| format!(" from {clients}"));
        let parent = format!("{}:{port}{clients}", routes.hostname);
        let port = routes.port.or_else(|| {
            let service = snapshot.service_by_hostname(&routes.hostname)?;
            service.ports.first().map(|port| port.port)
        });
        here.then(|| Attached { parent, port: port.unwrap_or(80), table: routes.table.clone() })
    });
    let all = listeners.ports().flat_map(|port| port.listeners.all());
    let of_listeners = all.filter_map(|listener| match &listener.serves {
        Serves::Requests { table, .. } => {
            let parent = format!("gateway {} {}:{}", listener.gateway, listener.name, listener.port);
            Some(Attached { parent, port: listener.port, table: table.clone() })
        }
        Serves::Connections(_) => None,
    });
    of_services.chain(of_listeners).collect()
}

/// Where requests may be sent, by what is in force.
pub(super) fn clusters(snapshot: &Snapshot, own: &GatewayName, attached: &[Attached]) -> BTreeSet<ClusterKey> {
    let served = served(snapshot, own).flat_map(|service| {
        let ports = service.ports.iter().filter(|port| port.protocol == Protocol::Tcp);
        ports.map(|port| ClusterKey::Service { hostname: service.hostname.clone(), port: port.port, subset: None })
    });
    let of_rules = attached.iter().flat_map(|attached| {
        let targets = attached.rules().flat_map(|rule| rule.targets());
        targets.filter_map(|target| ClusterKey::of_backend(target, attached.port).ok())
    });
    served.chain(of_rules).collect()
}
