//! Gateway of networking.istio.io.

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_core::PolicyName;
use mesh_core::policy::Selector;
use serde::Deserialize;
use serde_json::Value;

use super::{Age, Flaw, Remark, decode, policy_name};
use crate::code::Code;
use crate::finding::ObjectName;

/// Servers of one Gateway.
const MAX_SERVERS: usize = 256;

/// A Gateway of Istio's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IstioGateway {
    /// Its namespace and name.
    pub name: Arc<PolicyName>,
    /// The pods that it is for; none for all.
    pub selector: Option<Selector>,
    /// Its servers.
    pub servers: Vec<Server>,
    /// When it was made.
    pub age: Age,
    /// What is worth a finding.
    pub remarks: Vec<Remark>,
}

/// One server of a Gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Its place in the object, from 0.
    pub index: usize,
    /// Its name, or its port's.
    pub name: String,
    /// The port.
    pub port: u16,
    /// What it carries.
    pub carries: Carries,
    /// The hosts, each with the namespace of the VirtualServices that may say something of it; none for any.
    pub hosts: Vec<(Option<String>, String)>,
    /// What becomes of TLS.
    pub tls: ServerTls,
    /// Whether requests are redirected to https.
    pub to_https: bool,
}

/// What a server carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carries {
    /// Requests.
    Http,
    /// Bytes.
    Tcp,
}

/// What a server does with TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerTls {
    /// There is none.
    None,
    /// It goes on to the backend.
    Passthrough,
    /// It ends here.
    Terminate {
        /// The Secrets of the Gateway's pods' namespace, by name.
        credentials: Vec<String>,
        /// Whether clients need a certificate, or may show one.
        clients: Clients,
        /// Whether TLS 1.2 is refused.
        only_tls13: bool,
    },
}

/// Whether clients show certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clients {
    /// They are not asked (SIMPLE).
    NotAsked,
    /// They need one (MUTUAL).
    Required,
    /// They may show one (OPTIONAL_MUTUAL).
    Optional,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct Spec {
    /// Labels of the pods that it is for; without it, all gateways.
    #[serde(default)]
    selector: BTreeMap<String, String>,
    /// What is opened.
    #[serde(default)]
    servers: Vec<RawServer>,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawServer {
    /// The port.
    port: RawPort,
    /// The hosts that it is for, as NAMESPACE/HOST or HOST.
    #[serde(default)]
    hosts: Vec<String>,
    /// What becomes of TLS.
    tls: Option<RawTls>,
    /// What it is called.
    name: Option<String>,
    /// Read, and not honoured: a finding says so.
    bind: Option<Value>,
    /// Read, and not honoured: a finding says so.
    default_endpoint: Option<Value>,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawPort {
    /// The number.
    number: u16,
    /// HTTP, HTTPS, HTTP2, GRPC, TLS or TCP.
    protocol: String,
    /// What it is called.
    #[serde(default)]
    name: String,
    /// Read, and not honoured: a finding says so.
    target_port: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawTls {
    /// Whether requests are redirected to https.
    https_redirect: Option<bool>,
    /// What becomes of TLS.
    mode: Option<RawMode>,
    /// The Secret with the certificate.
    credential_name: Option<String>,
    /// The Secrets with the certificates.
    credential_names: Option<Vec<String>>,
    /// The oldest version of TLS that is taken.
    min_protocol_version: Option<RawVersion>,
    /// Read, and not honoured: a finding says so, and where clients are asked for certificates the server is not opened.
    subject_alt_names: Option<Value>,
    /// As subjectAltNames.
    verify_certificate_spki: Option<Value>,
    /// As subjectAltNames.
    verify_certificate_hash: Option<Value>,
    /// As subjectAltNames.
    ca_crl: Option<Value>,
    /// Read, and not honoured: a finding says so.
    max_protocol_version: Option<Value>,
    /// Read, and not honoured: a finding says so.
    cipher_suites: Option<Value>,
    /// Read, and not honoured: certificates come from Secrets.
    server_certificate: Option<Value>,
    /// Read, and not honoured: certificates come from Secrets.
    private_key: Option<Value>,
    /// Read, and not honoured: authorities of clients come from Secrets.
    ca_certificates: Option<Value>,
    /// Read, and not honoured: a finding says so.
    ca_cert_credential_name: Option<Value>,
    /// Read, and not honoured: a finding says so.
    tls_certificates: Option<Value>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum RawMode {
    Passthrough,
    Simple,
    Mutual,
    OptionalMutual,
    AutoPassthrough,
    IstioMutual,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
enum RawVersion {
    #[serde(rename = "TLS_AUTO")]
    Auto,
    #[serde(rename = "TLSV1_0")]
    V10,
    #[serde(rename = "TLSV1_1")]
    V11,
    #[serde(rename = "TLSV1_2")]
    V12,
    #[serde(rename = "TLSV1_3")]
    V13,
}

impl IstioGateway {
    pub(crate) fn read(value: &Value, name: &ObjectName) -> Result<Self, Flaw> {
        let resource = decode::<Spec>(value)?;
        let age = Age::of(&resource.metadata);
        let Some(spec) = resource.spec else {
            return Err(Flaw::value("spec.servers", "the Gateway has no servers"));
        };
        if spec.servers.len() > MAX_SERVERS {
            let message = format!("{} servers are more than {MAX_SERVERS}", spec.servers.len());
            return Err(Flaw::value("spec.servers", message));
        }
        let mut remarks = Vec::new();
        let mut servers = Vec::with_capacity(spec.servers.len());
        for (index, raw) in spec.servers.into_iter().enumerate() {
            servers.extend(raw.read(index, &mut remarks)?);
        }
        Ok(Self { name: policy_name(name), selector: Selector::new(spec.selector), servers, age, remarks })
    }
}

impl RawServer {
    fn read(self, index: usize, remarks: &mut Vec<Remark>) -> Result<Option<Server>, Flaw> {
        let field = format!("spec.servers[{index}]");
        let others = [
            ("bind", self.bind.is_some()),
            ("defaultEndpoint", self.default_endpoint.is_some()),
            ("port.targetPort", self.port.target_port.is_some()),
        ];
        for (name, _) in others.iter().filter(|(_, given)| *given) {
            remarks.push(Remark::new(Code::FieldNotHonoured, format!("{field}.{name}"), "it is not honoured"));
        }
        if self.port.number == 0 {
            return Err(Flaw::value(format!("{field}.port.number"), "0 is no port number"));
        }
        if self.hosts.is_empty() {
            return Err(Flaw::value(format!("{field}.hosts"), "it is for no host: write \"*\" for all"));
        }
        let tls = self.tls.unwrap_or_default();
        let to_https = tls.https_redirect.unwrap_or(false);
        let (carries, wants_tls) = match self.port.protocol.to_ascii_uppercase().as_str() {
            "HTTP" | "HTTP2" | "GRPC" | "GRPC-WEB" => (Carries::Http, false),
            "HTTPS" => (Carries::Http, true),
            "TCP" | "MONGO" | "MYSQL" | "REDIS" => (Carries::Tcp, tls.mode.is_some()),
            "TLS" => (Carries::Tcp, true),
            other => return Err(Flaw::value(format!("{field}.port.protocol"), format!("{other:?} is no protocol"))),
        };
        if !wants_tls && tls.says_of_tls() {
            let message = format!("{} is no protocol of TLS: write HTTPS or TLS, or take tls out", self.port.protocol);
            remarks.push(Remark::new(Code::ListenerNotOpened, format!("{field}.tls"), message));
            return Ok(None);
        }
        let carries = if tls.mode == Some(RawMode::Passthrough) { Carries::Tcp } else { carries };
        let tls = match wants_tls {
            true => match tls.read(&format!("{field}.tls"), remarks)? {
                Some(tls) => tls,
                None => return Ok(None),
            },
            false => ServerTls::None,
        };
        let hosts = self.hosts.iter().map(|host| split_host(host)).collect();
        let name = self.name.filter(|name| !name.is_empty()).unwrap_or(self.port.name);
        Ok(Some(Server { index, name, port: self.port.number, carries, hosts, tls, to_https }))
    }
}

impl RawTls {
    /// Whether it says anything beside that requests are redirected to https.
    fn says_of_tls(&self) -> bool {
        let certificates = self.credential_name.is_some() || self.credential_names.is_some();
        self.mode.is_some() || certificates || !self.narrowing().is_empty() || !self.ignored().is_empty()
    }

    /// What is given of the fields by which fewer clients are let in than have a certificate of the authority.
    fn narrowing(&self) -> Vec<&'static str> {
        given([
            ("subjectAltNames", &self.subject_alt_names),
            ("verifyCertificateSpki", &self.verify_certificate_spki),
            ("verifyCertificateHash", &self.verify_certificate_hash),
            ("caCrl", &self.ca_crl),
        ])
    }

    /// What is given of the others that are not honoured.
    fn ignored(&self) -> Vec<&'static str> {
        given([
            ("maxProtocolVersion", &self.max_protocol_version),
            ("cipherSuites", &self.cipher_suites),
            ("serverCertificate", &self.server_certificate),
            ("privateKey", &self.private_key),
            ("caCertificates", &self.ca_certificates),
            ("caCertCredentialName", &self.ca_cert_credential_name),
            ("tlsCertificates", &self.tls_certificates),
        ])
    }

    /// None where a server of that mode cannot be.
    fn read(self, field: &str, remarks: &mut Vec<Remark>) -> Result<Option<ServerTls>, Flaw> {
        let asks_clients = matches!(self.mode, Some(RawMode::Mutual | RawMode::OptionalMutual));
        if let Some(name) = self.narrowing().first().filter(|_| asks_clients) {
            // Open without it, the server would let in whom it was meant to keep out.
            let message = "clients are let in by their authority alone: a server that asks for more is not opened";
            remarks.push(Remark::new(Code::ListenerNotOpened, format!("{field}.{name}"), message));
            return Ok(None);
        }
        if matches!(self.min_protocol_version, Some(RawVersion::V10 | RawVersion::V11)) {
            let message = "1.2 is the oldest version of TLS that is taken";
            remarks.push(Remark::new(Code::FieldNotHonoured, format!("{field}.minProtocolVersion"), message));
        }
        for name in self.narrowing().into_iter().chain(self.ignored()) {
            let message = "it is not honoured; certificates come from Secrets (credentialName)";
            remarks.push(Remark::new(Code::FieldNotHonoured, format!("{field}.{name}"), message));
        }
        let clients = match self.mode {
            Some(RawMode::Passthrough) => return Ok(Some(ServerTls::Passthrough)),
            Some(RawMode::AutoPassthrough | RawMode::IstioMutual) => {
                let message = "servers of this mode are not opened";
                remarks.push(Remark::new(Code::FieldNotHonoured, format!("{field}.mode"), message));
                return Ok(None);
            }
            None | Some(RawMode::Simple) => Clients::NotAsked,
            Some(RawMode::Mutual) => Clients::Required,
            Some(RawMode::OptionalMutual) => Clients::Optional,
        };
        let credentials: Vec<String> =
            self.credential_names.unwrap_or_default().into_iter().chain(self.credential_name).collect();
        if credentials.is_empty() {
            return Err(Flaw::value(format!("{field}.credentialName"), "TLS cannot end here without a certificate"));
        }
        let only_tls13 = self.min_protocol_version == Some(RawVersion::V13);
        Ok(Some(ServerTls::Terminate { credentials, clients, only_tls13 }))
    }
}

/// The names of those that have a value.
fn given<const N: usize>(fields: [(&'static str, &Option<Value>); N]) -> Vec<&'static str> {
    fields.into_iter().filter(|(_, value)| value.is_some()).map(|(name, _)| name).collect()
}

/// `namespace/host`, where `*` stands for any namespace and `.` for the Gateway's own.
fn split_host(written: &str) -> (Option<String>, String) {
    let (namespace, host) = match written.split_once('/') {
        None | Some(("*", _)) => (None, written.rsplit('/').next().unwrap_or(written)),
        Some((namespace, host)) => (Some(namespace.to_owned()), host),
    };
    (namespace, host.to_ascii_lowercase())
}
