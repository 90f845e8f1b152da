//! Secrets that DestinationRules name for TLS to endpoints (`credentialName`): each proxy reads those of its own namespace.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use mesh_core::l7::traffic::{OriginSecret, Tls};
use mesh_core::l7::{L7, TrafficPolicy};

use crate::code::Code;
use crate::config::{Credentials, NamedKind, NamedObjects, Options};
use crate::credential::Secret;
use crate::finding::Finding;
use crate::gateway_api::Role;
use crate::istio::DestinationRule;
use crate::object::{Key, ObjectSet};

/// What Secrets of proxies' namespaces hold, by namespace and name, of the proxies whose Secrets are read. Notes which they need.
pub(super) fn secrets(
    objects: &ObjectSet,
    options: &Options,
    l7: &L7,
    named: &mut NamedObjects,
    findings: &mut Vec<Finding>,
) -> HashMap<Key, OriginSecret> {
    let mut held = HashMap::new();
    let proxies: BTreeSet<Key> = proxies(objects, l7).collect();
    for located in objects.destination_rules.values() {
        let rule = &located.object;
        for name in names(rule) {
            let is_for = |(namespace, _): &&Key| {
                rule.exported_to.as_ref().is_none_or(|all| all.iter().any(|one| one == namespace))
            };
            let (mut problem, mut is_there) = (None, false);
            for key in proxies.iter().filter(is_for) {
                if !options.credentials.are_read_of((&key.0, &key.1)) {
                    continue;
                }
                match secret(objects, &key.0, &name) {
                    Ok(found) => {
                        is_there = true;
                        held.insert((Arc::clone(&key.0), Arc::clone(&name)), found);
                    }
                    Err(why) => problem = Some(why),
                }
                let needed = named.entry(key.clone()).or_default();
                for name in [Arc::clone(&name), beside(&name)] {
                    needed.insert((NamedKind::Secret, (Arc::clone(&key.0), name)));
                }
            }
            // Who reads some namespace's Secrets alone knows nothing of the others'.
            if let Some(why) = problem
                && options.credentials == Credentials::Everybodys
                && !is_there
            {
                let message = format!("credentialName {name:?}: {why}");
                let finding = Finding::new(Code::TlsNotOriginated, (*located.origin).clone(), message);
                findings.push(finding.at("spec"));
            }
        }
    }
    held
}

/// The waypoints and gateways that may have to begin TLS.
fn proxies(objects: &ObjectSet, l7: &L7) -> impl Iterator<Item = Key> {
    let ingress = objects.gateways.iter().filter(|(_, gateway)| matches!(gateway.object.role, Role::Ingress(_)));
    let waypoints = l7.waypoints().iter().map(|it| (Arc::clone(&it.namespace), Arc::clone(&it.name)));
    ingress.map(|(key, _)| key.clone()).chain(waypoints)
}

/// The Secrets that a rule names.
fn names(rule: &DestinationRule) -> BTreeSet<Arc<str>> {
    let traffic = &rule.traffic;
    let of_subsets = traffic.subsets.values().flat_map(|subset| subset.ports.values().chain([&subset.policy]));
    let all = traffic.ports.values().chain([&traffic.policy]).chain(of_subsets);
    let named = |policy: &TrafficPolicy| match &policy.tls {
        Some(Tls::Originate(origination)) => origination.secret.clone(),
        _ => None,
    };
    all.filter_map(named).collect()
}

/// The Secret of roots alone, as Istio names it.
fn beside(name: &str) -> Arc<str> {
    format!("{name}-cacert").into()
}

fn secret(objects: &ObjectSet, namespace: &Arc<str>, name: &Arc<str>) -> Result<OriginSecret, String> {
    let of = |name: Arc<str>| objects.secrets.get(&(Arc::clone(namespace), name)).map(|located| &*located.object);
    let roots_beside = match of(beside(name)) {
        Some(Secret::Roots(roots)) => Some(Arc::clone(roots)),
        Some(Secret::Credential(credential)) => Some(Arc::clone(&credential.roots)),
        Some(Secret::Unusable(_)) | None => None,
    };
    let (client, own_roots) = match of(Arc::clone(name)) {
        Some(Secret::Credential(credential)) => (Some(Arc::clone(credential)), Some(Arc::clone(&credential.roots))),
        Some(Secret::Roots(roots)) => (None, Some(Arc::clone(roots))),
        Some(Secret::Unusable(why)) => return Err(format!("Secret {namespace}/{name} cannot be used: {why}")),
        None if roots_beside.is_some() => (None, None),
        None => return Err(format!("there is no Secret {namespace}/{name}")),
    };
    Ok(OriginSecret { client, roots: roots_beside.or(own_roots).unwrap_or_else(|| Arc::from([])) })
}
