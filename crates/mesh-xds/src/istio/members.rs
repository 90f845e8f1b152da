//! What stands behind Services, found from the other side: of which Services somebody is an endpoint.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use mesh_core::entry::EndpointTraits;
use mesh_core::locality::Locality;
use mesh_core::model::{Protocol, Service};

/// An endpoint, as the subject of a resource.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Member {
    /// A workload, by namespace and name.
    Workload(Arc<str>, Arc<str>),
    /// An address that is no workload's.
    Address(IpAddr),
    /// A name that DNS has the addresses of.
    Name(Arc<str>),
}

/// As what somebody is an endpoint of one Service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Membership {
    /// The Service's port, and the endpoint's.
    pub(super) ports: BTreeSet<(u16, u16)>,
    /// The endpoint's share.
    pub(super) weight: Option<u32>,
    /// Where it is, if that is said of an endpoint that is no workload.
    pub(super) locality: Option<Locality>,
}

/// Who is an endpoint of what.
#[derive(Debug, Default)]
pub(super) struct Members(HashMap<Member, BTreeMap<Arc<str>, Membership>>);

impl Members {
    /// The Services of a member, by `namespace/hostname`.
    pub(super) fn services_of(&self, member: &Member) -> impl Iterator<Item = (&Arc<str>, &Membership)> {
        self.0.get(member).into_iter().flatten()
    }

    /// Whether it is an endpoint of anything.
    pub(super) fn contain(&self, member: &Member) -> bool {
        self.0.contains_key(member)
    }

    /// Puts a Service in the place of another; adds to `affected` whose part in it is another now.
    pub(super) fn replace(&mut self, before: Option<&Service>, now: Option<&Service>, affected: &mut BTreeSet<Member>) {
        let Some(either) = now.or(before) else { return };
        let service: Arc<str> = resource_name(either).into();
        let (gone, mut come) = (before.map(members_of).unwrap_or_default(), now.map(members_of).unwrap_or_default());
        for (member, was) in gone {
            match come.remove(&member) {
                Some(is) if is == was => continue,
                Some(is) => self.insert(&member, &service, is),
                None => self.remove(&member, &service),
            }
            affected.insert(member);
        }
        for (member, is) in come {
            self.insert(&member, &service, is);
            affected.insert(member);
        }
    }

    fn insert(&mut self, member: &Member, service: &Arc<str>, membership: Membership) {
        self.0.entry(member.clone()).or_default().insert(service.clone(), membership);
    }

    fn remove(&mut self, member: &Member, service: &str) {
        let Some(services) = self.0.get_mut(member) else { return };
        services.remove(service);
        if services.is_empty() {
            self.0.remove(member);
        }
    }
}

/// The name of a Service's resource.
pub(super) fn resource_name(service: &Service) -> String {
    format!("{}/{}", service.namespace, service.hostname)
}

fn members_of(service: &Service) -> HashMap<Member, Membership> {
    let mut members: HashMap<Member, Membership> = HashMap::new();
    let mut add = |member, ports, traits: Option<&EndpointTraits>| {
        let membership = members.entry(member).or_default();
        membership.ports.insert(ports);
        if let Some(traits) = traits {
            membership.weight = membership.weight.or(traits.weight);
            membership.locality = membership.locality.take().or_else(|| traits.locality.clone());
        }
    };
    for port in service.ports.iter().filter(|port| port.protocol == Protocol::Tcp) {
        for endpoint in &port.endpoints {
            let member = endpoint.workload.as_ref().map_or_else(
                || Member::Address(endpoint.address.ip()),
                |workload| Member::Workload(workload.namespace.clone(), workload.name.clone()),
            );
            add(member, (port.port, endpoint.address.port()), endpoint.traits.as_deref());
        }
    }
    for named in service.entry.iter().flat_map(|entry| &entry.names) {
        add(Member::Name(named.name.clone()), (named.of_port, named.port), Some(&named.traits));
    }
    members
}
