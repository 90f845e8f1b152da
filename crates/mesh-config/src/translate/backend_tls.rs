//! BackendTLSPolicies to what is begun to Services.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use mesh_core::Service;
use mesh_core::l7::gateway::GatewayPods;
use mesh_core::l7::traffic::{Origination, Roots, Tls};
use mesh_core::l7::{BackendTarget, BackendTls, Gateway, L7};

use super::policies::{by_age, report};
use crate::code::Code;
use crate::config::{Credentials, NamedKind, NamedObjects, Options};
use crate::finding::Finding;
use crate::gateway_api::{Authorities, BackendTlsPolicy, Role, TargetPort};
use crate::object::{Key, Located, ObjectSet};
use crate::status::{BackendTlsStatus, Refusal};

/// What is begun to Services.
#[derive(Debug, Default)]
pub(super) struct Begun {
    /// By their full host names.
    pub(super) by_host: HashMap<Arc<str>, Vec<BackendTls>>,
    /// What is to be said of the policies.
    pub(super) statuses: BTreeMap<Key, BackendTlsStatus>,
}

/// What policies begin to Services. Notes which ConfigMaps the replicas of Gateways need for that.
pub(super) fn policies(
    objects: &ObjectSet,
    options: &Options,
    (services, l7): (&[Arc<Service>], &L7),
    (gateways, named): (&[Arc<Gateway>], &mut NamedObjects),
    findings: &mut Vec<Finding>,
) -> Begun {
    let mut begun = Begun::default();
    if objects.backend_tls_policies.is_empty() {
        return begun;
    }
    let by_name: HashMap<(&str, &str), &Arc<Service>> =
        services.iter().map(|service| ((&*service.namespace, &*service.name), service)).collect();
    let senders = senders(gateways);
    for located in by_age(&objects.backend_tls_policies, |policy| &policy.age) {
        let policy = &located.object;
        report(located, &policy.remarks, findings);
        let mut status = BackendTlsStatus { generation: policy.generation, ..BackendTlsStatus::default() };
        let tls = resolved(located, objects, options, (&mut status, findings));
        let (mut conflict, mut is_in_force) = (None, false);
        for target in &policy.targets {
            let mut finding = |code, message: String, field: &str| {
                findings.push(Finding::new(code, (*located.origin).clone(), message).at(field));
            };
            let (service, port) = match place(policy, target, &by_name) {
                Ok(found) => found,
                Err((field, message)) => {
                    finding(Code::UnknownHost, message, &format!("{}.{field}", target.field));
                    continue;
                }
            };
            note(policy, service, (objects, options, l7), named);
            status.gateways.extend(senders.get(&*service.hostname).into_iter().flatten().cloned());
            status.gateways.extend(l7.waypoint_of(service).map(|it| (Arc::clone(&it.namespace), Arc::clone(&it.name))));
            let known = begun.by_host.entry(Arc::clone(&service.hostname)).or_default();
            if let Some(older) = known.iter().find(|known| known.port == port) {
                let message = format!("{} is older and about the same: it is in force there", older.name);
                conflict = Some(Refusal::new("Conflicted", message.as_str()));
                finding(Code::PolicyConflict, message, &target.field);
                continue;
            }
            is_in_force = true;
            known.push(BackendTls { name: Arc::clone(&policy.name), port, tls: tls.clone() });
        }
        status.refused = status.refused.or(conflict.filter(|_| !is_in_force));
        begun.statuses.insert((Arc::clone(&policy.name.namespace), Arc::clone(&policy.name.name)), status);
    }
    begun
}

/// A Service, and one of its ports.
type Place<'a> = (&'a Arc<Service>, Option<u16>);

/// The Service and the port that a target is, or which of its fields leads nowhere.
fn place<'a>(
    policy: &BackendTlsPolicy,
    target: &TargetPort,
    by_name: &HashMap<(&str, &str), &'a Arc<Service>>,
) -> Result<Place<'a>, (&'static str, String)> {
    let namespace = &*policy.name.namespace;
    let Some(service) = by_name.get(&(namespace, &*target.service)).copied() else {
        return Err(("name", format!("there is no Service {namespace}/{}", target.service)));
    };
    let Some(name) = &target.port else { return Ok((service, None)) };
    match service.ports.iter().find(|port| port.name.as_ref() == Some(name)) {
        Some(port) => Ok((service, Some(port.port))),
        None => Err(("sectionName", format!("Service {} has no port {name}", target.service))),
    }
}

/// The Gateways of the Gateway API whose routes lead to a host, by the host.
fn senders(gateways: &[Arc<Gateway>]) -> HashMap<&str, BTreeSet<Key>> {
    let mut senders: HashMap<&str, BTreeSet<Key>> = HashMap::new();
    for gateway in gateways.iter().filter(|gateway| gateway.pods == GatewayPods::Own) {
        for target in gateway.listeners.iter().flat_map(|listener| listener.targets()) {
            if let BackendTarget::Service { hostname, .. } = target {
                let key = (Arc::clone(&gateway.namespace), Arc::clone(&gateway.name));
                senders.entry(hostname).or_default().insert(key);
            }
        }
    }
    senders
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
    (status, findings): (&mut BackendTlsStatus, &mut Vec<Finding>),
) -> Tls {
    let policy = &located.object;
    let roots = match &policy.authorities {
        Authorities::System => Roots::System,
        Authorities::Of(references) => {
            let mut roots = Vec::new();
            for (index, reference) in references.iter().enumerate() {
                let found = match reference {
                    Ok(name) => authorities(objects, &policy.name.namespace, name)
                        .map_err(|why| ("InvalidCACertificateRef", why)),
                    Err(why) => Err(("InvalidKind", why.clone())),
                };
                match found {
                    Ok(found) => roots.extend(found.iter().cloned()),
                    // Who reads some ConfigMaps, or none, does not know whether the others are there.
                    Err((reason, why)) if options.credentials == Credentials::Everybodys => {
                        status.unresolved.get_or_insert_with(|| Refusal::new(reason, why.as_str()));
                        let finding = Finding::new(Code::NoRoots, (*located.origin).clone(), why);
                        findings.push(finding.at(format!("spec.validation.caCertificateRefs[{index}]")));
                    }
                    Err(_) => {}
                }
            }
            if roots.is_empty() {
                let message = "none of its authorities can be had: nothing is sent";
                status.refused = Some(Refusal::new("NoValidCACertificate", message));
                return Tls::Impossible;
            }
            Roots::Held(roots.into())
        }
    };
    let (sni, names) = (Some(Arc::clone(&policy.hostname)), policy.names.clone());
    Tls::Originate(Arc::new(Origination { sni, roots, names, ..Origination::default() }))
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
