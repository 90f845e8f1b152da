//! What the node's pods are told of the mesh's hosts when they ask DNS: the kernel answers by tables that are made here.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
};

use mesh_abi::dns::EVERYBODY;
use mesh_core::{
    Snapshot, Workload, WorkloadUid,
    hosts::{concerns, dns_servers, scope, told, untold},
};

use crate::{
    bpf::{HostMaps, HostTables},
    pods::{EnrolledPod, Members, members},
};

/// Keeps the kernel's tables as the configuration wants them.
pub struct Hosts {
    maps: HostMaps,
    enabled: bool,
    /// What the tables were made of.
    made_of: Option<(Arc<Snapshot>, Members)>,
    left_out: usize,
    /// Pods that have been behind a DNS port: they may go on answering when they are ready no more.
    dns_servers: HashSet<WorkloadUid>,
    /// Why the tables are not as they should be; said once for each reason.
    failure: Option<String>,
}

impl Hosts {
    /// Takes the tables over. Where it is not `enabled`, no pod is told of any host.
    #[must_use]
    pub fn new(maps: HostMaps, enabled: bool) -> Self {
        Self { maps, enabled, made_of: None, left_out: 0, dns_servers: HashSet::new(), failure: None }
    }

    /// Makes the tables what the snapshot wants for these pods.
    pub fn apply<'a>(&mut self, snapshot: &Arc<Snapshot>, pods: impl IntoIterator<Item = &'a Arc<EnrolledPod>>) {
        let members = members(snapshot, pods);
        if !self.is_as_made(snapshot, &members) {
            self.follow_dns_servers(snapshot, &members);
            let askers = || members.iter().filter(|(_, pod)| self.is_told(pod));
            let tables = if self.enabled { tables(snapshot, askers) } else { HostTables::default() };
            let left_out = tables.left_out();
            if let Err(error) = self.maps.set(tables) {
                self.made_of = None;
                return self.note_failure(error.to_string());
            }
            self.failure = None;
            self.note_left_out(left_out);
        }
        self.made_of = Some((snapshot.clone(), members));
    }

    fn follow_dns_servers(&mut self, snapshot: &Snapshot, members: &Members) {
        let servers = dns_servers(snapshot);
        let serves = |pod: &Workload| pod.addresses.iter().any(|address| servers.contains(address));
        let known = &self.dns_servers;
        let now = members.values().filter(|pod| known.contains(&pod.uid) || serves(pod)).map(|pod| pod.uid.clone());
        self.dns_servers = now.collect();
    }

    fn is_told(&self, pod: &Workload) -> bool {
        untold(pod, self.dns_servers.contains(&pod.uid)).is_none()
    }

    /// Whether the tables would be the same again: most changes are of endpoints and of others' pods.
    fn is_as_made(&self, snapshot: &Arc<Snapshot>, members: &Members) -> bool {
        self.made_of.as_ref().is_some_and(|(known, pods)| {
            let is_known = || {
                snapshot.has_l7_of(known)
                    && !snapshot.changed_services(known).any(|(now, before)| {
                        now.is_some_and(|now| concerns(snapshot, now))
                            || before.is_some_and(|before| concerns(known, before))
                    })
            };
            pods == members && (Arc::ptr_eq(known, snapshot) || is_known())
        })
    }

    fn note_failure(&mut self, error: String) {
        if self.failure.as_ref() != Some(&error) {
            tracing::error!(error, "pods are told of the mesh's hosts as before, or not: it is tried again");
            self.failure = Some(error);
        }
    }

    fn note_left_out(&mut self, hosts: usize) {
        if hosts > self.left_out {
            tracing::warn!(hosts, "pods are not told of some hosts of the mesh: there are too many");
        }
        self.left_out = hosts;
    }
}

fn tables<'a, I>(snapshot: &Snapshot, askers: impl Fn() -> I) -> HostTables
where
    I: Iterator<Item = (&'a u64, &'a Arc<Workload>)>,
{
    let mut tables = HostTables::default();
    let namespaces: BTreeSet<&str> = askers().map(|(_, pod)| &*pod.namespace).collect();
    for service in snapshot.services().filter(|service| service.entry.is_some()) {
        let Some(told) = told(snapshot, service) else { continue };
        if service.is_visible_to(None) {
            tables.add_host(EVERYBODY, &service.hostname, told.v4, told.v6);
            continue;
        }
        for namespace in namespaces.iter().filter(|namespace| service.is_visible_to(Some(namespace))) {
            tables.add_host(scope(namespace), &service.hostname, told.v4, told.v6);
        }
    }
    for (cookie, pod) in askers() {
        tables.add_asker(*cookie, scope(&pod.namespace), &pod.addresses);
    }
    tables
}
