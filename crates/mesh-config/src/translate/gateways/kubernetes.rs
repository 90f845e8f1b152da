//! Gateways of the Gateway API: their listeners, and which of them a route attaches itself to.

use std::sync::Arc;

use mesh_core::l7::gateway::{ClientCertificates, GatewayPods, Listener, Serves, Termination, Tls};
use mesh_core::l7::{Gateway, Precedence};
use mesh_core::policy::HostPattern;

use super::super::waypoints::admits;
use super::credentials::credential;
use super::hosts::{common, patterns};
use super::{ListenerRoutes, table};
use crate::code::Code;
use crate::config::Options;
use crate::finding::Finding;
use crate::gateway_api::{self, GatewayRef, ListenerProtocol, Role};
use crate::object::{Key, Located, ObjectSet};

/// What a route attaches to a Gateway.
#[derive(Debug)]
pub(in crate::translate) struct Attachment {
    /// The listener: the Gateway, and the listener's place in it.
    pub(in crate::translate) listener: (Key, usize),
    /// The hosts that the two have in common.
    pub(in crate::translate) hosts: Vec<HostPattern>,
}

/// The listeners that a route of that kind and namespace, for those hosts, is attached to by a reference.
///
/// # Errors
/// Why there is none.
pub(in crate::translate) fn attach(
    objects: &ObjectSet,
    reference: &GatewayRef,
    (kind, namespace): (&str, &str),
    hostnames: &[String],
) -> Result<Vec<Attachment>, (Code, String)> {
    let GatewayRef { namespace: at, name, listener, port } = reference;
    let key: Key = (at.as_str().into(), name.as_str().into());
    let gateway = objects.gateways.get(&key).map(|located| &*located.object);
    let listeners = match gateway.map(|gateway| &gateway.role) {
        Some(Role::Ingress(listeners)) => listeners,
        Some(Role::Waypoint { .. }) => {
            return Err((Code::ParentNotFound, format!("Gateway {at}/{name} is a waypoint: name a Service instead")));
        }
        Some(Role::Foreign) => return Ok(Vec::new()),
        None => return Err((Code::ParentNotFound, format!("there is no Gateway {at}/{name}"))),
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
        let kinds = candidate.protocol.kinds();
        let takes_kind =
            kinds.contains(&kind) && candidate.kinds.as_ref().is_none_or(|own| own.iter().any(|own| own == kind));
        if !takes_kind || !admits(&candidate.allowed, at, namespace, labels) {
            continue;
        }
        allowed = true;
        if let Some(hosts) = common(&patterns(&candidate.hostname), &patterns(hostnames)) {
            found.push(Attachment { listener: (key.clone(), index), hosts });
        }
    }
    match (found.is_empty(), named, allowed) {
        (false, ..) => Ok(found),
        (true, false, _) => Err((Code::ParentNotFound, format!("Gateway {at}/{name} has no such listener"))),
        (true, true, false) => {
            Err((Code::RouteNotAllowed, format!("no listener of Gateway {at}/{name} admits a {kind} of {namespace}")))
        }
        (true, true, true) => {
            Err((Code::RouteNotAllowed, format!("no listener of Gateway {at}/{name} is for one of its hosts")))
        }
    }
}

/// A Gateway's listeners; none where it is no ingress.
pub(super) fn gateway(
    located: &Located<gateway_api::Gateway>,
    objects: &ObjectSet,
    options: &Options,
    attached: &mut ListenerRoutes,
    findings: &mut Vec<Finding>,
) -> Option<Gateway> {
    let gateway_api::Gateway { name, role, .. } = &*located.object;
    let Role::Ingress(written) = role else { return None };
    let key: Key = (Arc::clone(&name.namespace), Arc::clone(&name.name));
    let full_name: Arc<str> = name.to_string().into();
    let mut listeners: Vec<Arc<Listener>> = Vec::new();
    for (index, listener) in written.iter().enumerate() {
        let mut tell = |code, field: &str, message: String| {
            let finding = Finding::new(code, (*located.origin).clone(), message);
            findings.push(finding.at(format!("spec.listeners[{index}]{field}")));
        };
        let hosts = patterns(&listener.hostname);
        let tls = tls(listener, &name.namespace, objects, options, |message| {
            tell(Code::NoCertificate, ".tls.certificateRefs", message);
        });
        if let Some(other) = listeners.iter().find(|other| conflict(other, listener.port, &hosts, &tls)) {
            let message = format!("listener {} has port {} for that host already", other.name, listener.port);
            tell(Code::ListenerConflict, "", message);
            continue;
        }
        let place = (key.clone(), index);
        let serves = match listener.protocol {
            ListenerProtocol::Http | ListenerProtocol::Https => {
                let rules = attached.rules.remove(&place).unwrap_or_default();
                Serves::Requests { table: table(rules, Precedence::MostSpecific), to_https: false }
            }
            ListenerProtocol::Tls | ListenerProtocol::Tcp => {
                Serves::Connections(attached.connections.remove(&place).unwrap_or_default())
            }
        };
        let (gateway, name) = (Arc::clone(&full_name), listener.name.as_str().into());
        listeners.push(Arc::new(Listener { gateway, name, port: listener.port, hosts, tls, serves }));
    }
    let (namespace, name) = key;
    Some(Gateway { namespace, name, pods: GatewayPods::Own, listeners })
}

/// Whether a listener has what another one asks for: the same host of a port, or a port with and without TLS.
fn conflict(other: &Listener, port: u16, hosts: &[HostPattern], tls: &Tls) -> bool {
    let is_tls = |tls: &Tls| *tls != Tls::None;
    other.port == port && (is_tls(&other.tls) != is_tls(tls) || other.hosts.iter().any(|host| hosts.contains(host)))
}

fn tls(
    listener: &gateway_api::Listener,
    namespace: &str,
    objects: &ObjectSet,
    options: &Options,
    mut tell: impl FnMut(String),
) -> Tls {
    match listener.protocol {
        ListenerProtocol::Http | ListenerProtocol::Tcp => return Tls::None,
        ListenerProtocol::Tls if listener.passthrough => return Tls::Passthrough,
        ListenerProtocol::Https | ListenerProtocol::Tls => {}
    }
    let mut credentials = Vec::new();
    // Whoever holds no Secrets knows nothing of them.
    for reference in listener.certificates.iter().filter(|_| options.credentials) {
        let gateway_api::SecretRef { namespace: at, name, impossible } = reference;
        let granted = at == namespace
            || objects.reference_grants.iter().any(|((place, _), grant)| {
                **place == **at && grant.object.allows_kind(("Gateway", namespace), ("Secret", name))
            });
        let found = match impossible {
            Some(why) => Err(why.clone()),
            None if !granted => {
                Err(format!("no ReferenceGrant of {at} lets Gateways of {namespace} use Secret {name}"))
            }
            None => credential(objects, at, name),
        };
        match found {
            Ok(credential) => credentials.push(credential),
            Err(why) => tell(why),
        }
    }
    let clients = ClientCertificates::NotAsked;
    Tls::Terminate(Arc::new(Termination { credentials, clients, only_tls13: false }))
}
