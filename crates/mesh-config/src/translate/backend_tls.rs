//! BackendTLSPolicies to what is begun to Services.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use mesh_core::Service;
use mesh_core::l7::traffic::{Origination, Roots, Tls};
use mesh_core::l7::{BackendTls, L7};

use super::policies::{by_age, report};
use crate::code::Code;
use crate::config::{Credentials, NamedKind, NamedObjects, Options};
use crate::finding::Finding;
use crate::gateway_api::{Authorities, BackendTlsPolicy, Role};
use crate::object::{Key, Located, ObjectSet};

/// What is begun to Services, by their full host names. Notes which ConfigMaps the replicas of Gateways need for that.
pub(super) fn policies(
    objects: &ObjectSet,
    options: &Options,
    (services, l7): (&[Arc<Service>], &L7),
    named: &mut NamedObjects,
    findings: &mut Vec<Finding>,
) -> HashMap<Arc<str>, Vec<BackendTls>> {
    let mut by_host: HashMap<Arc<str>, Vec<BackendTls>> = HashMap::new();
    if objects.backend_tls_policies.is_empty() {
        return by_host;
    }
    let by_name: HashMap<(&str, &str), &Arc<Service>> =
        services.iter().map(|service| ((&*service.namespace, &*service.name), service)).collect();
    for located in by_age(&objects.backend_tls_policies, |policy| &policy.age) {
        let policy = &located.object;
        report(located, &policy.remarks, findings);
        let tls = resolved(located, objects, options, findings);
        let mut finding = |code, message: String, field: &str| {
            findings.push(Finding::new(code, (*located.origin).clone(), message).at(field));
        };
        for target in &policy.targets {
            let Some(service) = by_name.get(&(&*policy.name.namespace, &*target.service)) else {
                let message = format!("there is no Service {}/{}", policy.name.namespace, target.service);
                finding(Code::UnknownHost, message, &format!("{}.name", target.field));
                continue;
            };
            let port = match &target.port {
                None => None,
                Some(name) => match service.ports.iter().find(|port| port.name.as_ref() == Some(name)) {
                    Some(port) => Some(port.port),
                    None => {
                        let message = format!("Service {} has no port {name}", target.service);
                        finding(Code::UnknownHost, message, &format!("{}.sectionName", target.field));
                        continue;
                    }
                },
            };
            note(policy, service, (objects, options, l7), named);
            let known = by_host.entry(Arc::clone(&service.hostname)).or_default();
            if let Some(older) = known.iter().find(|known| known.port == port) {
                let message = format!("{} is older and about the same: it is in force there", older.name);
                finding(Code::PolicyConflict, message, &target.field);
                continue;
            }
            known.push(BackendTls { name: Arc::clone(&policy.name), port, tls: tls.clone() });
        }
    }
    by_host
}

/// Says which DestinationRules say something else of TLS to the same Service.
pub(super) fn report_rules(objects: &ObjectSet, l7: &L7, cluster_domain: &str, findings: &mut Vec<Finding>) {
    for located in objects.destination_rules.values() {
        let rule = located.object.rule(cluster_domain);
        let mesh_core::policy::HostPattern::Exact(host) = &rule.host else { continue };
        if let Some(policy) = l7.backend_tls_of(host).first().filter(|_| rule.says_something()) {
            let message = format!("BackendTLSPolicy {} says how TLS is begun to {host}, and counts", policy.name);
            let finding = Finding::new(Code::PolicyConflict, (*located.origin).clone(), message);
            findings.push(finding.at("spec.trafficPolicy.tls"));
        }
    }
}

/// What a policy has begun. Where none of its authorities can be had, nothing is sent.
fn resolved(
    located: &Located<BackendTlsPolicy>,
    objects: &ObjectSet,
    options: &Options,
    findings: &mut Vec<Finding>,
) -> Tls {
    let policy = &located.object;
    let roots = match &policy.authorities {
        Authorities::System => Roots::System,
        Authorities::Of(references) => {
            let mut roots = Vec::new();
            for (index, reference) in references.iter().enumerate() {
                match reference.clone().and_then(|name| authorities(objects, &policy.name.namespace, &name)) {
                    Ok(found) => roots.extend(found.iter().cloned()),
                    // Who reads some ConfigMaps, or none, does not know whether the others are there.
                    Err(why) if options.credentials == Credentials::Everybodys => {
                        let finding = Finding::new(Code::NoRoots, (*located.origin).clone(), why);
                        findings.push(finding.at(format!("spec.validation.caCertificateRefs[{index}]")));
                    }
                    Err(_) => {}
                }
            }
            if roots.is_empty() {
                return Tls::Impossible;
            }
            Roots::Held(roots.into())
        }
    };
    let (sni, names) = (Some(Arc::clone(&policy.hostname)), policy.names.clone());
    Tls::Originate(Arc::new(Origination { sni, roots, names, client: None }))
}

fn authorities(objects: &ObjectSet, namespace: &str, name: &str) -> Result<Arc<[Arc<[u8]>]>, String> {
    let found = objects.ca_bundles.get(&(Arc::from(namespace), Arc::from(name)));
    let found = found.ok_or_else(|| format!("there is no ConfigMap {namespace}/{name} with a ca.crt"))?;
    found.object.0.clone().map_err(|why| format!("ConfigMap {namespace}/{name} cannot be used: {why}"))
}

/// Those who may send to the Service need the authorities: gateways, and its waypoint.
fn note(
    policy: &BackendTlsPolicy,
    service: &Service,
    (objects, options, l7): (&ObjectSet, &Options, &L7),
    named: &mut NamedObjects,
) {
    let Authorities::Of(references) = &policy.authorities else { return };
    let ingress = objects.gateways.iter().filter(|(_, gateway)| matches!(gateway.object.role, Role::Ingress(_)));
    let waypoint = l7.waypoint_of(service).map(|it| (Arc::clone(&it.namespace), Arc::clone(&it.name)));
    let gateways: HashSet<Key> = ingress.map(|(key, _)| key.clone()).chain(waypoint).collect();
    let read = |(namespace, name): &Key| options.credentials.are_read_of((namespace, name));
    for gateway in gateways.into_iter().filter(read) {
        let of_gateway = named.entry(gateway).or_default();
        for name in references.iter().filter_map(|reference| reference.as_ref().ok()) {
            of_gateway.insert((NamedKind::ConfigMap, (Arc::clone(&policy.name.namespace), Arc::clone(name))));
        }
    }
}
