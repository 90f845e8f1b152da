//! Gateways of the Gateway API, with the ListenerSets that they take.

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_core::l7::Gateway;
use mesh_core::l7::gateway::{Credential, GatewayPods};

use super::credentials::Keychain;
use super::listener_sets;
use super::opening::{INVALID, Opening};
use super::{ListenerPlace, ListenerRoutes, Tables};
use crate::code::Code;
use crate::finding::Finding;
use crate::gateway_api::{self, Ingress, ListenerProtocol, ListenerSet, ListenersOf, Role};
use crate::object::{Key, Located, ObjectSet};
use crate::status::{GatewayStatus, ListenerSetStatus, ListenerStatus, Refusal};

/// Why the certificate that backends are shown cannot be used, as the Gateway API calls it.
const INVALID_CLIENT: &str = "InvalidClientCertificateRef";

/// A Gateway's listeners, its own before those of its sets, and what is to be said of it and of them; none where it is no
/// ingress.
pub(super) fn gateway(
    (located, sets): (&Located<gateway_api::Gateway>, &[&Located<ListenerSet>]),
    objects: &ObjectSet,
    keychain: &Keychain<'_>,
    (attached, tables): (&mut ListenerRoutes, &Tables<'_>),
    findings: &mut Vec<Finding>,
) -> Option<(Gateway, GatewayStatus, BTreeMap<Key, ListenerSetStatus>)> {
    let gateway_api::Gateway { name, class, role, generation, .. } = &*located.object;
    let Role::Ingress(Ingress { listeners, tls, .. }) = role else { return None };
    let key: Key = (Arc::clone(&name.namespace), Arc::clone(&name.name));
    let mut opening = Opening {
        objects,
        keychain,
        gateway: name.to_string().into(),
        namespace: &name.namespace,
        origin: &located.origin,
        tls,
        attached,
        tables,
        findings,
        listeners: Vec::new(),
        of_clients: Vec::new(),
    };
    let mut opened = |of, key: &Key, origin, listeners: &[gateway_api::Listener]| {
        let place = |index| ListenerPlace { of, key: key.clone(), index };
        let all = listeners.iter().enumerate();
        all.map(|(index, listener)| opening.open(&place(index), origin, listener)).collect::<Vec<_>>()
    };
    let of_own = opened(ListenersOf::Gateway, &key, &*located.origin, listeners);
    let mut of_sets = BTreeMap::new();
    for located in sets {
        let set = &*located.object;
        let key: Key = (Arc::clone(&set.name.namespace), Arc::clone(&set.name.name));
        let listeners = opened(ListenersOf::ListenerSet, &key, &*located.origin, &set.listeners);
        let status = listener_sets::status(objects, set, None);
        let ports = ports(&set.listeners, &listeners);
        of_sets.insert(key, ListenerSetStatus { listeners, ports, ..status });
    }
    let (shown, unresolved) = shown(&opening).map_or_else(|refusal| (None, Some(refusal)), |shown| (shown, None));
    let Opening { listeners, mut of_clients, .. } = opening;
    of_clients.dedup();
    findings.extend(of_clients);
    if let Some(refusal) = &unresolved {
        let finding = Finding::new(Code::NoCertificate, (*located.origin).clone(), refusal.message.clone());
        findings.push(finding.at("spec.tls.backend.clientCertificateRef"));
    }
    let status = GatewayStatus {
        generation: *generation,
        class: Arc::clone(class),
        listeners: of_own,
        unresolved,
        lets_others_in: tls.lets_others_in(),
    };
    let (namespace, name) = key;
    Some((Gateway { namespace, name, pods: GatewayPods::Own, listeners, shown }, status, of_sets))
}

/// The ports of those listeners that are open.
fn ports(written: &[gateway_api::Listener], found: &[ListenerStatus]) -> BTreeMap<u16, ListenerProtocol> {
    let open = written.iter().zip(found).filter(|(_, status)| status.refused.is_none() && status.conflict.is_none());
    // The first of a port names it.
    open.rev().map(|(listener, _)| (listener.port, listener.protocol)).collect()
}

/// The certificate that backends are shown, where one is named.
fn shown(opening: &Opening<'_>) -> Result<Option<Arc<Credential>>, Refusal> {
    let named = opening.tls.shown.as_ref().filter(|_| opening.keychain.is_read());
    let found = named.map(|reference| opening.credential(reference, (ListenersOf::Gateway, opening.namespace)));
    found.transpose().map_err(|refusal| match refusal.reason {
        INVALID => Refusal { reason: INVALID_CLIENT, ..refusal },
        _ => refusal,
    })
}
