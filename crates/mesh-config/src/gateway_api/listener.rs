//! A Gateway's listeners.

use std::collections::BTreeMap;

use mesh_core::policy::Selector;
use serde::Deserialize;
use serde_json::Value;

use crate::code::Code;
use crate::istio::{Flaw, Remark};

/// A listener of a Gateway that is no waypoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Its name among the Gateway's.
    pub name: String,
    /// Its port.
    pub port: u16,
    /// What it carries.
    pub protocol: ListenerProtocol,
    /// The host that it is for, perhaps with `*.` before it; none for all.
    pub hostname: Option<String>,
    /// Whether TLS goes on to the backend.
    pub passthrough: bool,
    /// The certificates that it shows.
    pub certificates: Vec<SecretRef>,
    /// The namespaces whose routes may attach themselves.
    pub allowed: AllowedNamespaces,
    /// The kinds of routes that may; none for all that fit the protocol.
    pub kinds: Option<Vec<String>>,
}

/// What a listener carries (`ProtocolType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenerProtocol {
    /// HTTP without TLS.
    Http,
    /// HTTP in TLS that ends at the Gateway.
    Https,
    /// TLS, with anything in it.
    Tls,
    /// Bytes.
    Tcp,
}

impl ListenerProtocol {
    /// The routes that fit.
    pub const fn kinds(self) -> &'static [&'static str] {
        match self {
            Self::Http | Self::Https => &["HTTPRoute", "GRPCRoute"],
            Self::Tls => &["TLSRoute", "TCPRoute"],
            Self::Tcp => &["TCPRoute"],
        }
    }
}

/// A Secret by its name, as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretRef {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Why it is no Secret, whatever there is.
    pub impossible: Option<String>,
}

/// Namespaces that may attach something to a Gateway (`allowedRoutes.namespaces`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowedNamespaces {
    /// The Gateway's own.
    Same,
    /// All.
    All,
    /// Those with the labels; none stands for any labels.
    Selected(Option<Selector>),
    /// None.
    Nobody,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct RawListener {
    pub(super) name: String,
    port: u16,
    pub(super) protocol: String,
    pub(super) hostname: Option<String>,
    pub(super) tls: Option<RawTls>,
    allowed_routes: Option<RawAllowedRoutes>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct RawTls {
    mode: Option<RawMode>,
    #[serde(default)]
    certificate_refs: Vec<RawSecretRef>,
    options: Option<BTreeMap<String, Value>>,
    frontend_validation: Option<Value>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
enum RawMode {
    Terminate,
    Passthrough,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSecretRef {
    group: Option<String>,
    kind: Option<String>,
    namespace: Option<String>,
    name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawAllowedRoutes {
    namespaces: Option<RawNamespaces>,
    kinds: Option<Vec<RawRouteKind>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRouteKind {
    #[serde(rename = "group")]
    _group: Option<String>,
    kind: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawNamespaces {
    from: Option<RawFrom>,
    selector: Option<RawSelector>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
enum RawFrom {
    All,
    Same,
    Selector,
    None,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawSelector {
    match_labels: Option<BTreeMap<String, String>>,
    match_expressions: Option<Value>,
}

impl RawListener {
    /// Who may attach something; none where nothing is said.
    pub(super) fn allowed(&mut self, field: &str) -> Result<Option<AllowedNamespaces>, Flaw> {
        let namespaces = self.allowed_routes.as_mut().and_then(|routes| routes.namespaces.take());
        namespaces.map(|namespaces| namespaces.read(&format!("{field}.allowedRoutes.namespaces"))).transpose()
    }

    /// A listener that is no waypoint's; none where its protocol is none of those that are carried.
    pub(super) fn read(
        mut self,
        field: &str,
        namespace: &str,
        remarks: &mut Vec<Remark>,
    ) -> Result<Option<Listener>, Flaw> {
        let protocol = match self.protocol.as_str() {
            "HTTP" => ListenerProtocol::Http,
            "HTTPS" => ListenerProtocol::Https,
            "TLS" => ListenerProtocol::Tls,
            "TCP" => ListenerProtocol::Tcp,
            other => {
                let message = format!("listener {} is of protocol {other:?}, which is not carried", self.name);
                remarks.push(Remark::new(Code::FieldNotHonoured, format!("{field}.protocol"), message));
                return Ok(None);
            }
        };
        let allowed = self.allowed(field)?.unwrap_or(AllowedNamespaces::Same);
        let kinds = self.allowed_routes.unwrap_or_default().kinds;
        let kinds = kinds.filter(|kinds| !kinds.is_empty());
        let hostname = self.hostname.filter(|hostname| !hostname.is_empty()).map(|name| name.to_ascii_lowercase());
        let wants_tls = matches!(protocol, ListenerProtocol::Https | ListenerProtocol::Tls);
        let (passthrough, certificates) = match self.tls {
            None => (false, Vec::new()),
            Some(_) if !wants_tls => return Err(Flaw::value(format!("{field}.tls"), "the protocol is none of TLS")),
            Some(tls) => tls.read(protocol, &format!("{field}.tls"), namespace, remarks)?,
        };
        if wants_tls && !passthrough && certificates.is_empty() {
            let message = "TLS cannot end here without a certificate";
            return Err(Flaw::value(format!("{field}.tls.certificateRefs"), message));
        }
        let kinds = kinds.map(|kinds| kinds.into_iter().map(|kind| kind.kind).collect());
        Ok(Some(Listener {
            name: self.name,
            port: self.port,
            protocol,
            hostname,
            passthrough,
            certificates,
            allowed,
            kinds,
        }))
    }
}

impl RawTls {
    /// Whether TLS goes on, and the certificates that are shown where it does not.
    fn read(
        self,
        protocol: ListenerProtocol,
        field: &str,
        namespace: &str,
        remarks: &mut Vec<Remark>,
    ) -> Result<(bool, Vec<SecretRef>), Flaw> {
        let passthrough = self.mode == Some(RawMode::Passthrough);
        for (name, given) in
            [("options", self.options.is_some()), ("frontendValidation", self.frontend_validation.is_some())]
        {
            if given {
                let message = "it is not honoured; Istio's Gateway has mode MUTUAL for clients' certificates";
                remarks.push(Remark::new(Code::FieldNotHonoured, format!("{field}.{name}"), message));
            }
        }
        if passthrough && protocol == ListenerProtocol::Https {
            return Err(Flaw::value(format!("{field}.mode"), "HTTPS ends at the Gateway: use protocol TLS"));
        }
        Ok((passthrough, self.certificate_refs.into_iter().map(|reference| reference.read(namespace)).collect()))
    }
}

impl RawSecretRef {
    fn read(self, namespace: &str) -> SecretRef {
        let (group, kind) = (self.group.unwrap_or_default(), self.kind.unwrap_or_else(|| "Secret".to_owned()));
        let is_secret = group.is_empty() && kind == "Secret";
        SecretRef {
            namespace: self.namespace.unwrap_or_else(|| namespace.to_owned()),
            name: self.name,
            impossible: (!is_secret).then(|| format!("{kind} of {group:?} is no Secret")),
        }
    }
}

impl RawNamespaces {
    fn read(self, field: &str) -> Result<AllowedNamespaces, Flaw> {
        match (self.from.unwrap_or(RawFrom::Same), self.selector) {
            (RawFrom::All, _) => Ok(AllowedNamespaces::All),
            (RawFrom::Same, _) => Ok(AllowedNamespaces::Same),
            (RawFrom::None, _) => Ok(AllowedNamespaces::Nobody),
            (RawFrom::Selector, None) => {
                Err(Flaw::value(format!("{field}.selector"), "from: Selector needs a selector"))
            }
            (RawFrom::Selector, Some(selector)) if selector.match_expressions.is_some() => {
                let message = "expressions are not read here; write matchLabels";
                Err(Flaw::value(format!("{field}.selector.matchExpressions"), message))
            }
            (RawFrom::Selector, Some(selector)) => {
                Ok(AllowedNamespaces::Selected(Selector::new(selector.match_labels.unwrap_or_default())))
            }
        }
    }
}
