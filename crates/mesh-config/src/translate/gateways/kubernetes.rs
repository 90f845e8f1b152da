//! Gateways of the Gateway API: their listeners, and which of them a route attaches itself to.

use std::sync::Arc;

use mesh_core::l7::gateway::{ClientCertificates, GatewayPods, Listener, Serves, Termination, Tls};
use mesh_core::l7::{Gateway, Precedence};
use mesh_core::policy::HostPattern;

use super::super::waypoints::admits;
use super::clients;
use super::credentials::Keychain;
use super::hosts::{common, patterns};
use super::{ListenerRoutes, table};
use crate::code::Code;
use crate::finding::Finding;
use crate::gateway_api::{self, GatewayRef, ListenerProtocol, Role};
use crate::object::{Key, Located, ObjectSet};
use crate::status::{GatewayStatus, ListenerStatus, Refusal};

/// Why a certificate cannot be used, as the Gateway API calls it.
const INVALID: &str = "InvalidCertificateRef";

/// What a route attaches to a Gateway.
#[derive(Debug)]
pub(in crate::translate) struct Attachment {
    /// The listener: the Gateway, and the listener's place in it.
    pub(in crate::translate) listener: (Key, usize),
    /// The hosts that the two have in common.
    pub(in crate::translate) hosts: Vec<HostPattern>,
}

/// Why a route is not attached by a reference.
#[derive(Debug)]
pub(in crate::translate) struct NotAttached {
    /// What it is as a finding.
    pub(in crate::translate) code: Code,
    /// What the Gateway's status says; none where the Gateway is nobody's, and so has no status.
    pub(in crate::translate) refused: Option<&'static str>,
    /// What was found.
    pub(in crate::translate) message: String,
}

impl NotAttached {
    fn new(code: Code, refused: Option<&'static str>, message: String) -> Self {
        Self { code, refused, message }
    }
}

/// The listeners that a route of that kind and namespace, for those hosts, is attached to by a reference; none where the
/// Gateway is another program's.
///
/// # Errors
/// Why there is none.
pub(in crate::translate) fn attach(
    objects: &ObjectSet,
    reference: &GatewayRef,
    (kind, namespace): (&str, &str),
    hostnames: &[String],
) -> Result<Option<Vec<Attachment>>, NotAttached> {
    let GatewayRef { namespace: at, name, listener, port } = reference;
    let key: Key = (at.as_str().into(), name.as_str().into());
    let gateway = objects.gateways.get(&key).map(|located| &*located.object);
    let listeners = match gateway.map(|gateway| &gateway.role) {
        Some(Role::Ingress(listeners)) => listeners,
        Some(Role::Waypoint { .. }) => {
            let message = format!("Gateway {at}/{name} is a waypoint: name a Service instead");
            return Err(NotAttached::new(Code::ParentNotFound, Some("NoMatchingParent"), message));
        }
        Some(Role::Foreign) => return Ok(None),
        None => {
            let message = format!("there is no Gateway {at}/{name}");
            return Err(NotAttached::new(Code::ParentNotFound, None, message));
        }
    };
    let labels = objects.namespaces.get(namespace).and_then(|located| located.object.metadata.labels.as_ref());
    let (mut named, mut allowed) = (false, false);
    let mut found = Vec::new();
    for (index, candidate) in listeners.iter().enumerate() {
        let is_named = listener.as_ref().is_none_or(|name| *name == candidate.name)
            && port.is_none_or(|port| port == candidate.port);
        if !is_named {
            continue;
        }
        named = true;
        if !candidate.kinds.contains(&kind) || !admits(&candidate.allowed, at, namespace, labels) {
            continue;
        }
        allowed = true;
        if let Some(hosts) = common(&patterns(&candidate.hostname), &patterns(hostnames)) {
            found.push(Attachment { listener: (key.clone(), index), hosts });
        }
    }
    let (code, reason, message) = match (found.is_empty(), named, allowed) {
        (false, ..) => return Ok(Some(found)),
        (true, false, _) => {
            (Code::ParentNotFound, "NoMatchingParent", format!("Gateway {at}/{name} has no such listener"))
        }
        (true, true, false) => {
            let message = format!("no listener of Gateway {at}/{name} admits a {kind} of {namespace}");
            (Code::RouteNotAllowed, "NotAllowedByListeners", message)
        }
        (true, true, true) => {
            let message = format!("no listener of Gateway {at}/{name} is for one of its hosts");
            (Code::RouteNotAllowed, "NoMatchingListenerHostname", message)
        }
    };
    Err(NotAttached::new(code, Some(reason), message))
}

/// A Gateway's listeners, and what is to be said of them; none where it is no ingress.
pub(super) fn gateway(
    located: &Located<gateway_api::Gateway>,
    objects: &ObjectSet,
    keychain: &Keychain<'_>,
    attached: &mut ListenerRoutes,
    findings: &mut Vec<Finding>,
) -> Option<(Gateway, GatewayStatus)> {
    let gateway_api::Gateway { name, class, role, generation, .. } = &*located.object;
    let Role::Ingress(written) = role else { return None };
    let key: Key = (Arc::clone(&name.namespace), Arc::clone(&name.name));
    let full_name: Arc<str> = name.to_string().into();
    let mut listeners: Vec<Arc<Listener>> = Vec::new();
    let mut status = GatewayStatus { generation: *generation, class: Arc::clone(class), listeners: Vec::new() };
    let mut beside = Vec::new();
    for (index, listener) in written.iter().enumerate() {
        let mut tell = |code, field: &str, message: String| {
            let finding = Finding::new(code, (*located.origin).clone(), message);
            findings.push(finding.at(format!("spec.listeners[{index}]{field}")));
        };
        let place = (key.clone(), index);
        let mut of_listener = ListenerStatus {
            name: listener.name.clone(),
            kinds: listener.kinds.clone(),
            attached: attached.counts.get(&place).copied().unwrap_or(0),
            refused: listener.refused.clone(),
            conflict: None,
            unresolved: listener.unresolved.clone(),
        };
        let hosts = patterns(&listener.hostname);
        let mut tls = tls(listener, &name.namespace, objects, keychain, |refusal| {
            tell(Code::NoCertificate, ".tls.certificateRefs", refusal.message.clone());
            of_listener.unresolved = Some(refusal);
        });
        if let (Tls::Terminate(termination), Some(validation)) = (&mut tls, &listener.clients) {
            let asked = clients::clients(validation, &name.namespace, objects, keychain);
            beside.extend(clients::findings(&asked, validation, &located.origin));
            Arc::make_mut(termination).clients = clients::note(asked, &mut of_listener);
        }
        let conflict = listeners.iter().find_map(|other| Some((other, conflict(other, listener, &hosts)?)));
        if let Some((other, reason)) = conflict.filter(|_| of_listener.refused.is_none()) {
            let message = format!("listener {} has port {} already", other.name, listener.port);
            tell(Code::ListenerConflict, "", message.clone());
            of_listener.conflict = Some(Refusal::new(reason, message));
        }
        let is_open = of_listener.refused.is_none() && of_listener.conflict.is_none();
        status.listeners.push(of_listener);
        if !is_open {
            continue;
        }
        let serves = serves(listener.protocol, &place, attached);
        let (gateway, name, port) = (Arc::clone(&full_name), listener.name.as_str().into(), listener.port);
        listeners.push(Arc::new(Listener { gateway, name, port, hosts, tls, serves }));
    }
    // Several listeners go by one validation.
    beside.dedup();
    findings.extend(beside);
    let (namespace, name) = key;
    Some((Gateway { namespace, name, pods: GatewayPods::Own, listeners }, status))
}

/// What a listener carries, of what is attached to it.
fn serves(protocol: ListenerProtocol, place: &(Key, usize), attached: &mut ListenerRoutes) -> Serves {
    match protocol {
        ListenerProtocol::Http | ListenerProtocol::Https => {
            let rules = attached.rules.remove(place).unwrap_or_default();
            Serves::Requests { table: table(rules, Precedence::MostSpecific), to_https: false }
        }
        ListenerProtocol::Tls | ListenerProtocol::Tcp | ListenerProtocol::Unsupported => {
            Serves::Connections(attached.connections.remove(place).unwrap_or_default())
        }
    }
}

/// Why two listeners of one port cannot both be open: with and without TLS, bytes beside requests, or the same host.
fn conflict(other: &Listener, listener: &gateway_api::Listener, hosts: &[HostPattern]) -> Option<&'static str> {
    if other.port != listener.port {
        return None;
    }
    let raw = other.tls == Tls::None && matches!(other.serves, Serves::Connections(_));
    let with_tls = matches!(listener.protocol, ListenerProtocol::Https | ListenerProtocol::Tls);
    if (other.tls != Tls::None) != with_tls || raw != (listener.protocol == ListenerProtocol::Tcp) {
        return Some("ProtocolConflict");
    }
    other.hosts.iter().any(|host| hosts.contains(host)).then_some("HostnameConflict")
}

fn tls(
    listener: &gateway_api::Listener,
    namespace: &str,
    objects: &ObjectSet,
    keychain: &Keychain<'_>,
    mut tell: impl FnMut(Refusal),
) -> Tls {
    match listener.protocol {
        ListenerProtocol::Http | ListenerProtocol::Tcp | ListenerProtocol::Unsupported => return Tls::None,
        ListenerProtocol::Tls if listener.passthrough => return Tls::Passthrough,
        ListenerProtocol::Https | ListenerProtocol::Tls => {}
    }
    if listener.certificates.is_empty() {
        tell(Refusal::new(INVALID, "TLS cannot end here without a certificate"));
    }
    let mut credentials = Vec::new();
    for reference in listener.certificates.iter().filter(|_| keychain.is_read()) {
        let gateway_api::SecretRef { namespace: at, name, impossible } = reference;
        let granted = at == namespace
            || objects.reference_grants.iter().any(|((place, _), grant)| {
                **place == **at && grant.object.allows_kind(("Gateway", namespace), ("Secret", name))
            });
        let found = match impossible {
            Some(why) => Err(Refusal::new(INVALID, why.as_str())),
            None if !granted => {
                let message = format!("no ReferenceGrant of {at} lets Gateways of {namespace} use Secret {name}");
                Err(Refusal::new("RefNotPermitted", message))
            }
            None => keychain.credential(at, name).map_err(|why| Refusal::new(INVALID, why)),
        };
        match found {
            Ok(credential) => credentials.push(credential),
            Err(refusal) => tell(refusal),
        }
    }
    let clients = ClientCertificates::NotAsked;
    Tls::Terminate(Arc::new(Termination { credentials, clients, only_tls13: false }))
}
