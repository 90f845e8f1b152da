//! What Istio's node proxies subscribe to, made of the snapshot that nodes of our own make themselves:
//! `istio.workload.Address` and `istio.security.Authorization`.

mod address;
mod authorization;
mod members;
pub mod proto;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use mesh_core::model::Workload;
use mesh_core::policy::Scope;
use mesh_core::snapshot::Snapshot;
use prost::Message;

use self::members::{Member, Members, resource_name};
use self::proto::address::Type;
use crate::table::{Body, Resource, Table};

/// Workloads and Services.
pub const ADDRESS_TYPE: &str = "type.googleapis.com/istio.workload.Address";
/// Policies.
pub const AUTHORIZATION_TYPE: &str = "type.googleapis.com/istio.security.Authorization";

/// The resources of one snapshot, kept current as another takes its place: what is the same costs nothing.
#[derive(Debug, Default)]
pub(crate) struct IstioTypes {
    of: Arc<Snapshot>,
    members: Members,
    addresses: Table,
    authorizations: Table,
    /// How many workloads each policy is about that no manifest has.
    derived: HashMap<String, usize>,
}

impl IstioTypes {
    /// Makes them those of `snapshot`: addresses and authorizations.
    pub(crate) fn follow(&mut self, snapshot: &Arc<Snapshot>) -> (Table, Table) {
        let before = std::mem::replace(&mut self.of, snapshot.clone());
        let mut affected = BTreeSet::new();
        for (old, new) in snapshot.changed_services(&before) {
            self.members.replace(old.map(|old| &**old), new.map(|new| &**new), &mut affected);
            match (old, new) {
                (_, Some(new)) => self.put_service(new),
                (Some(old), None) => self.addresses.remove(&resource_name(old)),
                (None, None) => {}
            }
        }
        let changed = snapshot.changed_workloads(&before).filter_map(|(old, new)| new.or(old));
        affected.extend(changed.map(|workload| member(workload)));
        if before.policies() != snapshot.policies() || before.l7() != snapshot.l7() {
            self.follow_policies(&before);
            snapshot.services().for_each(|service| self.put_service(service));
            affected.extend(snapshot.workloads().map(|workload| member(workload)));
        }
        affected.iter().for_each(|member| self.follow_member(&before, member));
        (self.addresses.clone(), self.authorizations.clone())
    }

    fn follow_policies(&mut self, before: &Snapshot) {
        let (before, now) = (before.policies(), self.of.policies());
        for gone in before.authorization() {
            self.authorizations.remove(&gone.name.to_string());
        }
        for policy in now.authorization() {
            if let Some(message) = authorization::policy(policy, now.root_namespace()) {
                put(&mut self.authorizations, &policy.name.to_string(), &message, Box::default());
            }
        }
    }

    fn put_service(&mut self, service: &mesh_core::model::Service) {
        let message = proto::Address { r#type: Some(Type::Service(Box::new(address::service(&self.of, service)))) };
        put(&mut self.addresses, &resource_name(service), &message, address::aliases(&service.vips));
    }

    /// Puts in, or takes out, what a member's resource says.
    fn follow_member(&mut self, before: &Snapshot, member: &Member) {
        let name = address::uid(member);
        let Member::Workload(namespace, pod) = member else {
            if self.members.contain(member) {
                let message = Type::Workload(Box::new(address::endpoint(member, &self.members)));
                let known_by = match member {
                    Member::Address(address) => address::aliases([address]),
                    _ => Box::default(),
                };
                put(&mut self.addresses, &name, &proto::Address { r#type: Some(message) }, known_by);
            } else {
                self.addresses.remove(&name);
            }
            return;
        };
        let snapshot = self.of.clone();
        let (old, new) = (before.workload(namespace, pod), snapshot.workload(namespace, pod));
        // First what is new: what stays is not taken out in between.
        let derived = new.map_or_else(Vec::new, |workload| authorization::derived(&snapshot, workload));
        for denial in &derived {
            let name = format!("{}/{}", denial.namespace, denial.name);
            *self.derived.entry(name.clone()).or_default() += 1;
            put(&mut self.authorizations, &name, denial, Box::default());
        }
        for denial in old.map_or_else(Vec::new, |workload| authorization::derived(before, workload)) {
            self.release(&format!("{}/{}", denial.namespace, denial.name));
        }
        let Some(workload) = new else { return self.addresses.remove(&name) };
        let derived = derived.iter().map(|denial| format!("{}/{}", denial.namespace, denial.name));
        let policies = selecting(&snapshot, workload).chain(derived).collect();
        let message = Type::Workload(Box::new(address::workload(&snapshot, workload, policies, &self.members)));
        // The addresses of a node are those of many.
        let shown: &[_] = if workload.is_on_host_network() { &[] } else { &workload.addresses };
        put(&mut self.addresses, &name, &proto::Address { r#type: Some(message) }, address::aliases(shown));
    }

    /// One workload less is under a derived policy.
    fn release(&mut self, name: &str) {
        let Some(count) = self.derived.get_mut(name) else { return };
        *count -= 1;
        if *count == 0 {
            self.derived.remove(name);
            self.authorizations.remove(name);
        }
    }
}

fn member(workload: &Workload) -> Member {
    Member::Workload(workload.namespace.clone(), workload.name.clone())
}

/// The policies that select the workload by its labels, by name; what reports alone is no resource.
fn selecting(snapshot: &Snapshot, workload: &Workload) -> impl Iterator<Item = String> {
    let policies = snapshot.policies();
    let about = policies.authorization_of(workload).into_iter();
    let root = policies.root_namespace();
    let selecting = about.filter(move |policy| policy.scope(root) == Scope::Selected);
    let told = selecting.filter(|policy| authorization::is_told(policy));
    told.map(|policy| policy.name.to_string())
}

/// Puts a resource in, unless it is there as it is.
fn put(table: &mut Table, name: &str, message: &impl Message, aliases: Box<[Box<str>]>) {
    let resource = Resource::new(name, Body::Message(message.encode_to_vec().into())).known_as(aliases);
    if table.get(name).is_none_or(|known| **known != resource) {
        table.put(resource);
    }
}
