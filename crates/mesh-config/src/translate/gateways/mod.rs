//! Gateways of both APIs to listeners, with what attached itself to them.

mod attach;
mod clients;
mod credentials;
mod hosts;
mod istio;
mod kubernetes;
mod listener_sets;
mod opening;
mod topologies;

use std::cell::RefCell;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use mesh_core::Workload;
use mesh_core::l7::gateway::{ConnectionRoute, Listener, Serves};
use mesh_core::l7::{Gateway, HostRules, Precedence, RouteTable, Rule};
use mesh_core::policy::HostPattern;

pub(super) use self::attach::{Attachment, NotAttached, attach};
use self::credentials::Keychain;
pub(super) use self::hosts::pattern;
pub(super) use self::istio::{Routes, VirtualServiceRoutes};
pub(super) use self::topologies::topologies;
use super::policies::{by_age, report};
use crate::config::{NamedObjects, Options};
use crate::finding::Finding;
use crate::gateway_api::ListenersOf;
use crate::object::{Key, ObjectSet};
use crate::status::{GatewayStatus, ListenerSetStatus};

/// Rules for some hosts.
type HostedRules = (Vec<HostPattern>, Vec<Arc<Rule>>);

/// A listener of the Gateway API, by where it is written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ListenerPlace {
    /// The kind of the object.
    pub(super) of: ListenersOf,
    /// The object.
    pub(super) key: Key,
    /// Its place in the object's list.
    pub(super) index: usize,
}

/// What attached itself to listeners of the Gateway API.
#[derive(Debug, Default)]
pub(super) struct ListenerRoutes {
    /// Rules, the oldest route's first, each with the hosts that the route and the listener have in common.
    pub(super) rules: BTreeMap<ListenerPlace, Vec<HostedRules>>,
    /// Routes of connections, likewise.
    pub(super) connections: BTreeMap<ListenerPlace, Vec<ConnectionRoute>>,
    /// How many routes that is.
    pub(super) counts: BTreeMap<ListenerPlace, usize>,
}

/// What Gateways are, and what is said of them.
pub(super) struct Gateways {
    pub(super) all: Vec<Arc<Gateway>>,
    pub(super) statuses: BTreeMap<Key, GatewayStatus>,
    pub(super) of_sets: BTreeMap<Key, ListenerSetStatus>,
    pub(super) named: NamedObjects,
}

/// All gateways: those of the Gateway API, and then Istio's, each the oldest first. Tables are those from `before` where they are
/// the same.
pub(super) fn gateways(
    objects: &ObjectSet,
    (options, workloads): (&Options, &[Arc<Workload>]),
    (mut attached, mut of_virtual_services): (ListenerRoutes, VirtualServiceRoutes),
    before: &[Arc<Gateway>],
    findings: &mut Vec<Finding>,
) -> Gateways {
    let (mut all, mut statuses) = (Vec::new(), BTreeMap::new());
    let tables = Tables::of(before);
    let named = RefCell::default();
    let (sets, mut of_sets) = listener_sets::admitted(objects, findings);
    for located in by_age(&objects.gateways, |gateway| &gateway.age) {
        let name = &located.object.name;
        let key = (Arc::clone(&name.namespace), Arc::clone(&name.name));
        let own_sets = sets.get(&key).map_or(&[][..], Vec::as_slice);
        let keychain = Keychain::new(objects, key, &options.credentials, &named);
        let found = kubernetes::gateway((located, own_sets), objects, &keychain, (&mut attached, &tables), findings);
        if let Some((gateway, status, own_statuses)) = found {
            statuses.insert((Arc::clone(&gateway.namespace), Arc::clone(&gateway.name)), status);
            of_sets.extend(own_statuses);
            all.push(Arc::new(gateway));
        }
    }
    for located in by_age(&objects.istio_gateways, |gateway| &gateway.age) {
        report(located, &located.object.remarks, findings);
        let by = (options, workloads);
        all.push(Arc::new(istio::gateway(located, objects, by, &named, (&mut of_virtual_services, &tables), findings)));
    }
    Gateways { all, statuses, of_sets, named: named.into_inner() }
}

/// The tables of before, by the Gateway and the listener's name.
pub(super) struct Tables<'a>(HashMap<(&'a str, &'a str), &'a Arc<RouteTable>>);

impl<'a> Tables<'a> {
    fn of(before: &'a [Arc<Gateway>]) -> Self {
        let listeners = before.iter().flat_map(|gateway| &gateway.listeners);
        let table = |listener: &'a Arc<Listener>| match &listener.serves {
            Serves::Requests { table, .. } => Some(((&*listener.gateway, &*listener.name), table)),
            Serves::Connections(_) => None,
        };
        Self(listeners.filter_map(table).collect())
    }

    /// A listener's table, of rules that are for some hosts each. Rules for one host are joined, in the order given.
    fn table(
        &self,
        (gateway, listener): (&str, &str),
        rules: Vec<HostedRules>,
        precedence: Precedence,
    ) -> Arc<RouteTable> {
        let mut by_host: Vec<HostRules> = Vec::new();
        let mut places: HashMap<HostPattern, usize> = HashMap::new();
        for (hosts, rules) in rules {
            for host in hosts {
                match places.entry(host) {
                    Entry::Occupied(known) => by_host[*known.get()].rules.extend(rules.iter().cloned()),
                    Entry::Vacant(new) => {
                        let hosts = vec![new.key().clone()];
                        by_host.push(HostRules { hosts, rules: rules.clone(), precedence });
                        new.insert(by_host.len() - 1);
                    }
                }
            }
        }
        RouteTable::renewed(by_host, self.0.get(&(gateway, listener)).copied())
    }
}
