//! Services to the model.

use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use mesh_core::{Protocol, Service, ServicePort, Speaks};

use super::endpoints::{self, Endpoints, Slice};
use super::finding_set::Owner;
use super::{Translator, placement, port_number, protocol};
use crate::code::Code;
use crate::finding::{Finding, Origin};
use crate::kind::Kind;
use crate::kubernetes::{Address, Service as GivenService};
use crate::object::{Key, Located};

/// Takes a finding's code, field and message.
pub(super) type Report<'a> = dyn FnMut(Code, String, String) + 'a;

impl Translator {
    /// Looks at all Services of the queue again, with their slices, and at those that this concerns: in order, as Pods are.
    pub(super) fn settle_services(&mut self, mut queue: BTreeSet<Key>) {
        while let Some(key) = queue.pop_first() {
            self.withdraw_service(&key, &mut queue);
            let objects = &self.definitions.objects;
            let slices = self.slices.of(&key).map(|name| (Arc::clone(&key.0), Arc::clone(name)));
            let slices: Vec<Slice> = slices
                .filter_map(|name| {
                    let slice = objects.endpoint_slices.get(&name)?.clone();
                    Some((name, slice))
                })
                .collect();
            let located = objects.services.get(&key).cloned();
            let mut findings = Vec::new();
            match located {
                None => endpoints::report_without_service(&key, &slices, &mut findings),
                Some(located) => self.settle_service(&key, &located, &slices, &mut findings, &mut queue),
            }
            self.findings.set(Owner::Service(key), findings);
        }
    }

    fn withdraw_service(&mut self, key: &Key, queue: &mut BTreeSet<Key>) {
        self.vips.forget(key);
        let service = self.snapshot.remove_service(&key.0, &key.1);
        if let Some(service) = &service {
            service.vips.iter().for_each(|vip| self.vips.given_up(vip, queue));
        }
        self.before.note_service(key, service);
    }

    fn settle_service(
        &mut self,
        key: &Key,
        located: &Located<GivenService>,
        slices: &[Slice],
        findings: &mut Vec<Finding>,
        queue: &mut BTreeSet<Key>,
    ) {
        let origin = &located.origin_of(Kind::Service, key);
        let mut endpoints = Endpoints::of(key, slices, &self.snapshot, findings);
        let mut report = |code, field: String, message: String| {
            findings.push(Finding::new(code, origin.clone(), message).at(field));
        };
        let service = self.service(key, located, &mut endpoints, &mut report, queue);
        endpoints.report_unmatched(key, findings);
        if let Some(service) = service {
            report_empty(&service, origin, findings);
            let before = self.before.service_before(key).filter(|before| **before == service);
            self.snapshot.put_service(before.unwrap_or_else(|| Arc::new(service)));
        }
    }

    fn service(
        &mut self,
        key: &Key,
        located: &Located<GivenService>,
        endpoints: &mut Endpoints<'_>,
        report: &mut Report<'_>,
        queue: &mut BTreeSet<Key>,
    ) -> Option<Service> {
        let (namespace, name) = key;
        let given = &*located.object;
        if let Some(target) = &given.external_name {
            let message = format!("it stands for {target:?} in DNS only");
            report(Code::NoClusterAddress, "spec.type".to_owned(), message);
            return None;
        }
        report_not_honoured(given, report);
        let hostname = format!("{name}.{namespace}.svc.{}", self.options.cluster_domain);
        let vips = self.service_addresses(key, given, report, queue);
        let ports = ports(given, endpoints, report);
        let placement = placement::placement(given, &ports, report);
        let (namespace, name) = (Arc::clone(namespace), Arc::clone(name));
        Some(Service { namespace, name, hostname: hostname.into(), vips, ports, entry: None, placement })
    }

    fn service_addresses(
        &mut self,
        key: &Key,
        given: &GivenService,
        report: &mut Report<'_>,
        queue: &mut BTreeSet<Key>,
    ) -> Vec<IpAddr> {
        let is_none = |address: &Address| matches!(address, Address::Text(text) if matches!(&**text, "" | "None"));
        let listed = given.addresses.iter().flatten().enumerate().filter(|(_, address)| !is_none(address));
        let mut addresses = Vec::with_capacity(given.addresses.as_ref().map_or(0, |all| all.len()));
        for (index, written) in listed {
            let address = match written.unicast() {
                Ok(address) => address,
                Err(message) => {
                    report(Code::BadServiceAddress, given.address_field(index), message);
                    continue;
                }
            };
            if addresses.contains(&address) {
                continue;
            }
            if let Some((namespace, name)) = self.vip_holder(address, key, queue) {
                let message = format!("{address} is {namespace}/{name}'s already");
                report(Code::SharedServiceAddress, given.address_field(index), message);
                continue;
            }
            addresses.push(address);
        }
        addresses
    }

    /// Who has the address, if not `key` is to have it.
    fn vip_holder(&mut self, address: IpAddr, key: &Key, queue: &mut BTreeSet<Key>) -> Option<Key> {
        let holder = self.snapshot.service_by_vip(address)?;
        let is_entry = holder.entry.is_some();
        let holder = (Arc::clone(&holder.namespace), Arc::clone(&holder.name));
        if is_entry {
            // Services come first; the entries are settled after them.
            let entry = self.snapshot.remove_service(&holder.0, &holder.1);
            self.before.note_service(&holder, entry);
            return None;
        }
        if holder < *key {
            self.vips.lose(key, &address);
            return Some(holder);
        }
        self.withdraw_service(&holder, queue);
        queue.insert(holder);
        None
    }
}

fn ports(service: &GivenService, endpoints: &mut Endpoints<'_>, report: &mut Report<'_>) -> Vec<ServicePort> {
    let mut ports: Vec<ServicePort> = Vec::new();
    for (index, given) in service.ports.iter().enumerate() {
        let field = format!("spec.ports[{index}]");
        let number = port_number(given.port).map_err(|message| ("port", message));
        let protocol = protocol(given.protocol.as_deref()).map_err(|e| ("protocol", e));
        let (port, protocol) = match number.and_then(|number| Ok((number, protocol?))) {
            Ok(both) => both,
            Err((sub, message)) => {
                report(Code::BadPort, format!("{field}.{sub}"), message);
                continue;
            }
        };
        if ports.iter().any(|p| p.port == port && p.protocol == protocol) {
            let message = format!("{port}/{protocol} is declared before");
            report(Code::BadPort, format!("{field}.port"), message);
            continue;
        }
        if protocol != Protocol::Tcp {
            let message = format!("{port}/{protocol} goes past the mesh");
            report(Code::ProtocolNotCarried, format!("{field}.protocol"), message);
        }
        let name = given.name.as_deref();
        ports.push(ServicePort {
            name: given.name.clone(),
            port,
            protocol,
            speaks: Speaks::of(name, given.app_protocol.as_deref()),
            endpoints: endpoints.take(name.unwrap_or_default(), protocol),
        });
    }
    ports
}

fn report_not_honoured(given: &GivenService, report: &mut Report<'_>) {
    if given.has_external_addresses {
        let message = "these addresses are not the Service's to the mesh".to_owned();
        report(Code::FieldNotHonoured, "spec.externalIPs".to_owned(), message);
    }
}

/// Says which TCP ports would refuse every connection to one of the Service's addresses.
fn report_empty(service: &Service, origin: &Origin, findings: &mut Vec<Finding>) {
    let tcp = || {
        let ports = service.ports.iter();
        ports.filter(|port| port.protocol == Protocol::Tcp)
    };
    if service.vips.is_empty() || tcp().next().is_none() {
        return;
    }
    if tcp().all(|port| port.endpoints.is_empty()) {
        let message = "nothing ready stands behind it";
        findings.push(Finding::new(Code::NoEndpoints, origin.clone(), message));
        return;
    }
    let families: HashSet<bool> = service.vips.iter().map(IpAddr::is_ipv6).collect();
    for ipv6 in [false, true] {
        if !families.contains(&ipv6) {
            continue;
        }
        let family = if ipv6 { "IPv6" } else { "IPv4" };
        for port in tcp() {
            let mut endpoints = port.endpoints.iter();
            if !endpoints.any(|endpoint| endpoint.address.is_ipv6() == ipv6) {
                let message = format!("nothing ready stands behind port {} on {family}", port.port);
                let finding = Finding::new(Code::NoEndpoints, origin.clone(), message);
                findings.push(finding.at("spec.ports"));
            }
        }
    }
}
