//! Lists of what the daemon knows and holds.

use std::time::SystemTime;

use mesh_admin::{Certificate, List, Policy, PolicyRef, Selection, Service, Workload};
use mesh_admin_server::certificate;

use super::Admin;

impl Admin {
    /// The workloads of the cluster; with their actual state, those of this node.
    pub(super) fn workloads(&self, selection: &Selection) -> List<Workload> {
        let config = self.shared.config();
        let roster = self.pods.roster.borrow();
        let make = |workload: &std::sync::Arc<mesh_core::Workload>| {
            let mut item = Workload::from(&**workload);
            if workload.node == self.node && workload.is_enrolled() {
                let waiting = roster.waiting.get(&workload.uid);
                item.state = Some(waiting.map_or("enrolled", |waiting| waiting.state()).to_owned());
                item.reason = waiting.map(|waiting| waiting.reason.clone());
                item.existing_connections = roster.existing.get(&workload.uid).copied();
            }
            item
        };
        selection.take(config.snapshot.workloads(), |workload| &workload.namespace, config.generation, make)
    }

    /// The Services of the cluster.
    pub(super) fn services(&self, selection: &Selection) -> List<Service> {
        let config = self.shared.config();
        let services = config.snapshot.services();
        selection.take(
            services,
            |service| &service.namespace,
            config.generation,
            |service| Service::of(&config.snapshot, service),
        )
    }

    /// The policies in force.
    pub(super) fn policies(&self, selection: &Selection) -> List<Policy> {
        let config = self.shared.config();
        let policies = config.snapshot.policies();
        let describe = |policy: PolicyRef<'_>| policy.describe(policies.root_namespace());
        selection.take(PolicyRef::all(policies), |policy| policy.namespace(), config.generation, describe)
    }

    /// The certificates that the daemon holds, by identity.
    pub(super) fn certificates(&self, selection: &Selection) -> List<Certificate> {
        let now = SystemTime::now();
        let held = self.shared.identities.certificates();
        let generation = self.shared.config().generation;
        selection.take(held.iter(), |held| held.identity.namespace(), generation, |held| certificate(held, now))
    }
}
