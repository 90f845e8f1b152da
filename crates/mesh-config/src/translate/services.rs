//! Services to the model.

use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Service as KubeService, ServiceSpec};
use mesh_core::{Protocol, Service, ServicePort, Speaks};

use super::endpoints::{self, Endpoints};
use super::finding_set::Owner;
use super::{Translator, placement, port_number, protocol};
use crate::code::Code;
use crate::finding::{Finding, Origin};
use crate::kubernetes::{Address, EndpointSlice, TRAFFIC_DISTRIBUTION};
use crate::object::{Key, Located};
use crate::texts;

/// Takes a finding's code, field and message.
pub(super) type Report<'a> = dyn FnMut(Code, String, String) + 'a;

impl Translator {
    /// Looks at all Services of the queue again, with their slices, and at those that this concerns: in order, as Pods are.
    pub(super) fn settle_services(&mut self, mut queue: BTreeSet<Key>) {
        while let Some(key) = queue.pop_first() {
            self.withdraw_service(&key, &mut queue);
            let objects = &self.definitions.objects;
            let slices = self.slices.of(&key).map(|name| (Arc::clone(&key.0), Arc::clone(name)));
            let slices: Vec<_> = slices.filter_map(|slice| objects.endpoint_slices.get(&slice).cloned()).collect();
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
        located: &Located<KubeService>,
        slices: &[Located<EndpointSlice>],
        findings: &mut Vec<Finding>,
        queue: &mut BTreeSet<Key>,
    ) {
        let origin = &*located.origin;
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
        located: &Located<KubeService>,
        endpoints: &mut Endpoints,
        report: &mut Report<'_>,
        queue: &mut BTreeSet<Key>,
    ) -> Option<Service> {
        let (namespace, name) = key;
        let nothing = ServiceSpec::default();
        let spec = located.object.spec.as_ref().unwrap_or(&nothing);
        if spec.type_.as_deref() == Some("ExternalName") {
            let target = spec.external_name.as_deref().unwrap_or_default();
            let message = format!("it stands for {target:?} in DNS only");
            report(Code::NoClusterAddress, "spec.type".to_owned(), message);
            return None;
        }
        report_not_honoured(spec, report);
        let annotations = located.object.metadata.annotations.as_ref();
        let annotated = annotations.and_then(|all| all.get(TRAFFIC_DISTRIBUTION)).map(String::as_str);
        let hostname = format!("{name}.{namespace}.svc.{}", self.options.cluster_domain);
        let vips = self.service_addresses(key, spec, report, queue);
        let ports = ports(spec, endpoints, report);
        let placement = placement::placement(spec, annotated, &ports, report);
        let (namespace, name) = (Arc::clone(namespace), Arc::clone(name));
        Some(Service { namespace, name, hostname: hostname.into(), vips, ports, entry: None, placement })
    }

    fn service_addresses(
        &mut self,
        key: &Key,
        spec: &ServiceSpec,
        report: &mut Report<'_>,
        queue: &mut BTreeSet<Key>,
    ) -> Vec<IpAddr> {
        let listed = spec.cluster_ips.iter().flatten().enumerate();
        let mut given: Vec<(String, &str)> =
            listed.map(|(index, ip)| (format!("spec.clusterIPs[{index}]"), ip.as_str())).collect();
        if let Some(single) = spec.cluster_ip.as_deref()
            && given.is_empty()
        {
            given.push(("spec.clusterIP".to_owned(), single));
        }
        given.retain(|(_, ip)| !matches!(*ip, "" | "None"));
        let mut addresses = Vec::with_capacity(given.len());
        for (field, text) in given {
            let address = match Address::read(text).unicast() {
                Ok(address) => address,
                Err(message) => {
                    report(Code::BadServiceAddress, field, message);
                    continue;
                }
            };
            if addresses.contains(&address) {
                continue;
            }
            if let Some((namespace, name)) = self.vip_holder(address, key, queue) {
                let message = format!("{address} is {namespace}/{name}'s already");
                report(Code::SharedServiceAddress, field, message);
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

fn ports(spec: &ServiceSpec, endpoints: &mut Endpoints, report: &mut Report<'_>) -> Vec<ServicePort> {
    let mut ports: Vec<ServicePort> = Vec::new();
    for (index, given) in spec.ports.iter().flatten().enumerate() {
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
        let name = given.name.as_deref().filter(|name| !name.is_empty());
        ports.push(ServicePort {
            name: name.map(texts::text),
            port,
            protocol,
            speaks: Speaks::of(name, given.app_protocol.as_deref()),
            endpoints: endpoints.take(name.unwrap_or_default(), protocol),
        });
    }
    ports
}

fn report_not_honoured(spec: &ServiceSpec, report: &mut Report<'_>) {
    if let Some(value) = spec.session_affinity.as_deref().filter(|value| *value != "None") {
        let message = format!("{value:?} has no effect");
        report(Code::FieldNotHonoured, "spec.sessionAffinity".to_owned(), message);
    }
    if spec.external_ips.as_ref().is_some_and(|ips| !ips.is_empty()) {
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
