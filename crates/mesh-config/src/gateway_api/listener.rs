//! A Gateway's listeners.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::namespace_selector::{NamespaceSelector, RawSelector};
use crate::code::Code;
use crate::istio::{Flaw, Remark};
use crate::status::Refusal;

/// The API's own group.
const GROUP: &str = "gateway.networking.k8s.io";

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
    /// The kinds of routes that may.
    pub kinds: Vec<&'static str>,
    /// Why it cannot be opened, whatever else there is.
    pub refused: Option<Refusal>,
    /// What it names that is not here: kinds of routes.
    pub unresolved: Option<Refusal>,
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
    /// Something that is not carried.
    Unsupported,
}

impl ListenerProtocol {
    /// As the API calls it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "HTTP",
            Self::Https => "HTTPS",
            Self::Tls => "TLS",
            Self::Tcp => "TCP",
            Self::Unsupported => "unsupported",
        }
    }

    /// The routes that fit.
    pub const fn kinds(self, passthrough: bool) -> &'static [&'static str] {
        match self {
            // What goes on in TLS is told by the server's name alone.
            Self::Tls if passthrough => &["TLSRoute"],
            Self::Http | Self::Https => &["HTTPRoute", "GRPCRoute"],
            Self::Tls => &["TLSRoute", "TCPRoute"],
            Self::Tcp => &["TCPRoute"],
            Self::Unsupported => &[],
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

/// Namespaces that may attach something to a Gateway (`allowedRoutes.namespaces`, `allowedListeners.namespaces`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowedNamespaces {
    /// The Gateway's own.
    Same,
    /// All.
    All,
    /// Those with labels such as these.
    Selected(NamespaceSelector),
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
pub(super) struct RawSecretRef {
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

/// Whose ListenerSets a Gateway opens (`AllowedListeners`).
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawAllowedListeners {
    namespaces: Option<RawNamespaces>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRouteKind {
    group: Option<String>,
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

impl RawListener {
    /// Who may attach something; none where nothing is said.
    pub(super) fn allowed(&mut self, field: &str) -> Result<Option<AllowedNamespaces>, Flaw> {
        let namespaces = self.allowed_routes.as_mut().and_then(|routes| routes.namespaces.take());
        namespaces.map(|namespaces| namespaces.read(&format!("{field}.allowedRoutes.namespaces"))).transpose()
    }

    /// A listener that is no waypoint's. What is wrong with it is its own matter, and not the Gateway's.
    pub(super) fn read(mut self, field: &str, namespace: &str, remarks: &mut Vec<Remark>) -> Listener {
        let mut refused = Vec::new();
        let protocol = match self.protocol.as_str() {
            "HTTP" => ListenerProtocol::Http,
            "HTTPS" => ListenerProtocol::Https,
            "TLS" => ListenerProtocol::Tls,
            "TCP" => ListenerProtocol::Tcp,
            other => {
                let message = format!("listener {} is of protocol {other:?}, which is not carried", self.name);
                remarks.push(Remark::new(Code::FieldNotHonoured, format!("{field}.protocol"), message.clone()));
                refused.push(Refusal::new("UnsupportedProtocol", message));
                ListenerProtocol::Unsupported
            }
        };
        let mut refuse = |flaw: Flaw, remarks: &mut Vec<Remark>| {
            refused.push(Refusal::new("UnsupportedValue", format!("{}: {}", flaw.field, flaw.message)));
            remarks.push(Remark::new(Code::ListenerNotOpened, flaw.field, flaw.message));
        };
        let allowed = self.allowed(field).unwrap_or_else(|flaw| {
            refuse(flaw, remarks);
            Some(AllowedNamespaces::Nobody)
        });
        let wants_tls = matches!(protocol, ListenerProtocol::Https | ListenerProtocol::Tls);
        let (mut passthrough, mut certificates) = (false, Vec::new());
        if let Some(tls) = self.tls.filter(|_| protocol != ListenerProtocol::Unsupported) {
            passthrough = tls.mode == Some(RawMode::Passthrough);
            if !wants_tls {
                refuse(Flaw::value(format!("{field}.tls"), "the protocol is none of TLS"), remarks);
            } else if passthrough && protocol == ListenerProtocol::Https {
                refuse(
                    Flaw::value(format!("{field}.tls.mode"), "HTTPS ends at the Gateway: use protocol TLS"),
                    remarks,
                );
            }
            certificates = tls.read(&format!("{field}.tls"), namespace, remarks);
        }
        let (kinds, unresolved) =
            kinds((protocol, passthrough), self.allowed_routes.unwrap_or_default().kinds, field, remarks);
        Listener {
            name: self.name,
            port: self.port,
            protocol,
            hostname: self.hostname.filter(|hostname| !hostname.is_empty()).map(|name| name.to_ascii_lowercase()),
            passthrough,
            certificates,
            allowed: allowed.unwrap_or(AllowedNamespaces::Same),
            kinds,
            refused: refused.into_iter().next(),
            unresolved,
        }
    }
}

/// The kinds of routes that a listener takes: those that fit its protocol, of those that it names.
fn kinds(
    (protocol, passthrough): (ListenerProtocol, bool),
    named: Option<Vec<RawRouteKind>>,
    field: &str,
    remarks: &mut Vec<Remark>,
) -> (Vec<&'static str>, Option<Refusal>) {
    let fitting = protocol.kinds(passthrough);
    let named = named.unwrap_or_default();
    if named.is_empty() || protocol == ListenerProtocol::Unsupported {
        return (fitting.to_vec(), None);
    }
    let fits = |named: &RawRouteKind| {
        let group = named.group.as_deref().unwrap_or(GROUP);
        fitting.iter().copied().find(|kind| *kind == named.kind && group == GROUP)
    };
    let unresolved = named.iter().find(|named| fits(named).is_none()).map(|unfit| {
        let message = format!("the listener takes no {}", unfit.kind);
        remarks.push(Remark::new(Code::FieldNotHonoured, format!("{field}.allowedRoutes.kinds"), message.clone()));
        Refusal::new("InvalidRouteKinds", message)
    });
    (named.iter().filter_map(fits).collect(), unresolved)
}

impl RawTls {
    /// The certificates that are shown where TLS ends here.
    fn read(self, field: &str, namespace: &str, remarks: &mut Vec<Remark>) -> Vec<SecretRef> {
        let given = [
            ("options", self.options.is_some(), "it is not honoured"),
            ("frontendValidation", self.frontend_validation.is_some(), "the API has it at spec.tls.frontend"),
        ];
        for (name, _, message) in given.into_iter().filter(|(_, given, _)| *given) {
            remarks.push(Remark::new(Code::FieldNotHonoured, format!("{field}.{name}"), message));
        }
        self.certificate_refs.into_iter().map(|reference| reference.read(namespace)).collect()
    }
}

impl RawSecretRef {
    pub(super) fn read(self, namespace: &str) -> SecretRef {
        let (group, kind) = (self.group.unwrap_or_default(), self.kind.unwrap_or_else(|| "Secret".to_owned()));
        let is_secret = group.is_empty() && kind == "Secret";
        SecretRef {
            namespace: self.namespace.unwrap_or_else(|| namespace.to_owned()),
            name: self.name,
            impossible: (!is_secret).then(|| format!("{kind} of {group:?} is no Secret")),
        }
    }
}

impl RawAllowedListeners {
    /// Nobody's where nothing is said.
    pub(super) fn read(self) -> Result<AllowedNamespaces, Flaw> {
        match self.namespaces {
            None | Some(RawNamespaces { from: None, .. }) => Ok(AllowedNamespaces::Nobody),
            Some(namespaces) => namespaces.read("spec.allowedListeners.namespaces"),
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
            (RawFrom::Selector, Some(selector)) => {
                Ok(AllowedNamespaces::Selected(selector.read(&format!("{field}.selector"))?))
            }
        }
    }
}
