//! A Gateway's TLS beyond its listeners' certificates (`spec.tls`): which certificates its clients show, and which it shows itself.

use serde::Deserialize;

use super::listener::{RawSecretRef, SecretRef};
use crate::config::NamedKind;
use crate::istio::Flaw;

/// References of one validation; the API itself allows 16.
const MAX_REFERENCES: usize = 16;

/// Which certificates clients have to show (`FrontendTLSValidation`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientValidation {
    /// Where the roots are.
    pub roots: Vec<RootsRef>,
    /// Whether who shows none, or one of another authority, is let in all the same (`AllowInsecureFallback`).
    pub lets_others_in: bool,
    /// The field.
    pub field: String,
}

/// An object with certificates of authorities, as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootsRef {
    /// Its kind; none where there are no roots in that kind.
    pub kind: Option<NamedKind>,
    /// The kind as it is written.
    pub written: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawGatewayTls {
    backend: Option<RawBackend>,
    frontend: Option<RawFrontend>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawBackend {
    client_certificate_ref: Option<RawSecretRef>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawFrontend {
    default: RawFrontendTls,
    #[serde(default)]
    per_port: Vec<RawPortTls>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPortTls {
    port: u16,
    tls: RawFrontendTls,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFrontendTls {
    validation: Option<RawValidation>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawValidation {
    ca_certificate_refs: Vec<RawRootsRef>,
    #[serde(default)]
    mode: RawMode,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
enum RawMode {
    #[default]
    AllowValidOnly,
    AllowInsecureFallback,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRootsRef {
    #[serde(default)]
    group: String,
    kind: String,
    name: String,
    namespace: Option<String>,
}

/// What a Gateway says of certificates beyond those of its listeners.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GatewayTls {
    default: Option<ClientValidation>,
    per_port: Vec<(u16, Option<ClientValidation>)>,
    /// The certificate that backends are shown (`spec.tls.backend`).
    pub(crate) shown: Option<SecretRef>,
}

impl GatewayTls {
    /// Whether some port lets in clients whose certificates nobody vouches for.
    pub(crate) fn lets_others_in(&self) -> bool {
        let of_ports = self.per_port.iter().filter_map(|(_, validation)| validation.as_ref());
        self.default.iter().chain(of_ports).any(|validation| validation.lets_others_in)
    }

    /// Which certificates the clients of a port show; none where they are not asked.
    pub(crate) fn of_port(&self, port: u16) -> Option<&ClientValidation> {
        let own = self.per_port.iter().find(|(known, _)| *known == port);
        own.map_or(self.default.as_ref(), |(_, validation)| validation.as_ref())
    }
}

impl RawGatewayTls {
    pub(super) fn read(self, namespace: &str) -> Result<GatewayTls, Flaw> {
        let shown = self.backend.and_then(|backend| backend.client_certificate_ref);
        let mut read = GatewayTls { shown: shown.map(|reference| reference.read(namespace)), ..GatewayTls::default() };
        let Some(frontend) = self.frontend else { return Ok(read) };
        let validation = |raw: RawFrontendTls, field: String| {
            raw.validation.map(|validation| validation.read(field, namespace)).transpose()
        };
        read.default = validation(frontend.default, "spec.tls.frontend.default.validation".to_owned())?;
        for (index, RawPortTls { port, tls }) in frontend.per_port.into_iter().enumerate() {
            let field = format!("spec.tls.frontend.perPort[{index}]");
            if read.per_port.iter().any(|(known, _)| *known == port) {
                return Err(Flaw::value(format!("{field}.port"), format!("port {port} is there twice")));
            }
            read.per_port.push((port, validation(tls, format!("{field}.tls.validation"))?));
        }
        Ok(read)
    }
}

impl RawValidation {
    fn read(self, field: String, namespace: &str) -> Result<ClientValidation, Flaw> {
        if self.ca_certificate_refs.is_empty() || self.ca_certificate_refs.len() > MAX_REFERENCES {
            let message = format!("it takes 1 to {MAX_REFERENCES} references");
            return Err(Flaw::value(format!("{field}.caCertificateRefs"), message));
        }
        Ok(ClientValidation {
            roots: self.ca_certificate_refs.into_iter().map(|reference| reference.read(namespace)).collect(),
            lets_others_in: self.mode == RawMode::AllowInsecureFallback,
            field: format!("{field}.caCertificateRefs"),
        })
    }
}

impl RawRootsRef {
    pub(super) fn read(self, namespace: &str) -> RootsRef {
        let kind = match (&*self.group, &*self.kind) {
            ("" | "core", "ConfigMap") => Some(NamedKind::ConfigMap),
            ("" | "core", "Secret") => Some(NamedKind::Secret),
            _ => None,
        };
        let namespace = self.namespace.unwrap_or_else(|| namespace.to_owned());
        RootsRef { kind, written: self.kind, namespace, name: self.name }
    }
}
