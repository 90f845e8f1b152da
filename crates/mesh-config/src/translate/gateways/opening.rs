//! The listeners of one Gateway of the Gateway API, its own and those of its ListenerSets: which of them are opened.

use std::sync::Arc;

use mesh_core::l7::Precedence;
use mesh_core::l7::gateway::{ClientCertificates, Credential, Listener, Serves, Termination, Tls};
use mesh_core::policy::HostPattern;

use super::clients;
use super::credentials::Keychain;
use super::hosts::patterns;
use super::{ListenerPlace, ListenerRoutes, Tables};
use crate::code::Code;
use crate::finding::{Finding, Origin};
use crate::gateway_api::{self, GatewayTls, ListenerProtocol, ListenersOf, SecretRef};
use crate::object::ObjectSet;
use crate::status::{ListenerStatus, Refusal};

/// Why a certificate cannot be used, as the Gateway API calls it.
pub(super) const INVALID: &str = "InvalidCertificateRef";

/// Opens listeners one by one; the first of several that cannot all be open is.
pub(super) struct Opening<'a> {
    pub(super) objects: &'a ObjectSet,
    pub(super) keychain: &'a Keychain<'a>,
    /// The Gateway, as `namespace/name`.
    pub(super) gateway: Arc<str>,
    /// Its namespace.
    pub(super) namespace: &'a str,
    /// Where it is written.
    pub(super) origin: &'a Origin,
    /// Which certificates its clients show.
    pub(super) tls: &'a GatewayTls,
    pub(super) attached: &'a mut ListenerRoutes,
    /// Those of before.
    pub(super) tables: &'a Tables<'a>,
    pub(super) findings: &'a mut Vec<Finding>,
    /// Those that are open.
    pub(super) listeners: Vec<Arc<Listener>>,
    /// What is found of clients' certificates: several listeners go by one validation.
    pub(super) of_clients: Vec<Finding>,
}

impl Opening<'_> {
    /// Opens a listener that is written at a place of an object, and says what is to be said of it.
    pub(super) fn open(
        &mut self,
        place: &ListenerPlace,
        origin: &Origin,
        listener: &gateway_api::Listener,
    ) -> ListenerStatus {
        let mut findings = Vec::new();
        let mut tell = |code, field: &str, message: String| {
            let finding = Finding::new(code, origin.clone(), message);
            findings.push(finding.at(format!("spec.listeners[{}]{field}", place.index)));
        };
        let mut status = ListenerStatus {
            name: listener.name.clone(),
            kinds: listener.kinds.clone(),
            attached: self.attached.counts.get(place).copied().unwrap_or(0),
            refused: listener.refused.clone(),
            conflict: None,
            unresolved: listener.unresolved.clone(),
        };
        let hosts = patterns(&listener.hostname);
        let mut tls = self.ends_tls(place, listener, |refusal| {
            tell(Code::NoCertificate, ".tls.certificateRefs", refusal.message.clone());
            status.unresolved = Some(refusal);
        });
        if let Tls::Terminate(termination) = &mut tls
            && listener.protocol == ListenerProtocol::Https
            && let Some(validation) = self.tls.of_port(listener.port)
        {
            let asked = clients::clients(validation, self.namespace, self.objects, self.keychain);
            self.of_clients.extend(clients::findings(&asked, validation, self.origin));
            Arc::make_mut(termination).clients = clients::note(asked, &mut status);
        }
        let conflict = self.listeners.iter().find_map(|other| Some((other, conflict(other, listener, &hosts)?)));
        if let Some((other, reason)) = conflict.filter(|_| status.refused.is_none()) {
            let message = format!("listener {} has port {} already", other.name, listener.port);
            tell(Code::ListenerConflict, "", message.clone());
            status.conflict = Some(Refusal::new(reason, message));
        }
        self.findings.extend(findings);
        if status.refused.is_none() && status.conflict.is_none() {
            let (gateway, port, name) = (Arc::clone(&self.gateway), listener.port, full_name(place, &listener.name));
            let serves = self.serves(listener.protocol, place, &name);
            self.listeners.push(Arc::new(Listener { gateway, name, port, hosts, tls, serves }));
        }
        status
    }

    /// What the listener of that name carries, of what is attached to it.
    fn serves(&mut self, protocol: ListenerProtocol, place: &ListenerPlace, name: &str) -> Serves {
        match protocol {
            ListenerProtocol::Http | ListenerProtocol::Https => {
                let rules = self.attached.rules.remove(place).unwrap_or_default();
                let table = self.tables.table((&self.gateway, name), rules, Precedence::MostSpecific);
                Serves::Requests { table, to_https: false }
            }
            ListenerProtocol::Tls | ListenerProtocol::Tcp | ListenerProtocol::Unsupported => {
                Serves::Connections(self.attached.connections.remove(place).unwrap_or_default())
            }
        }
    }

    fn ends_tls(&self, place: &ListenerPlace, listener: &gateway_api::Listener, mut tell: impl FnMut(Refusal)) -> Tls {
        match listener.protocol {
            ListenerProtocol::Http | ListenerProtocol::Tcp | ListenerProtocol::Unsupported => return Tls::None,
            ListenerProtocol::Tls if listener.passthrough => return Tls::Passthrough,
            ListenerProtocol::Https | ListenerProtocol::Tls => {}
        }
        if listener.certificates.is_empty() {
            tell(Refusal::new(INVALID, "TLS cannot end here without a certificate"));
        }
        let mut credentials = Vec::new();
        for reference in listener.certificates.iter().filter(|_| self.keychain.is_read()) {
            match self.credential(reference, (place.of, &place.key.0)) {
                Ok(credential) => credentials.push(credential),
                Err(refusal) => tell(refusal),
            }
        }
        let clients = ClientCertificates::NotAsked;
        Tls::Terminate(Arc::new(Termination { credentials, clients, only_tls13: false }))
    }

    /// A certificate that an object of that kind and namespace names, if it may.
    pub(super) fn credential(
        &self,
        SecretRef { namespace: at, name, impossible }: &SecretRef,
        (of, namespace): (ListenersOf, &str),
    ) -> Result<Arc<Credential>, Refusal> {
        let kind = of.as_str();
        match impossible {
            Some(why) => Err(Refusal::new(INVALID, why.as_str())),
            None if !self.objects.may_refer((kind, namespace), at, ("Secret", name)) => {
                let message = format!("no ReferenceGrant of {at} lets {kind}s of {namespace} use Secret {name}");
                Err(Refusal::new("RefNotPermitted", message))
            }
            None => self.keychain.credential(at, name).map_err(|why| Refusal::new(INVALID, why)),
        }
    }
}

/// The listener's name among all of the Gateway's.
fn full_name(ListenerPlace { of, key: (namespace, object), .. }: &ListenerPlace, name: &str) -> Arc<str> {
    match of {
        ListenersOf::Gateway => name.into(),
        ListenersOf::ListenerSet => format!("{namespace}/{object}/{name}").into(),
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
