//! BackendTLSPolicy of gateway.networking.k8s.io: TLS that gateways and waypoints begin to Services.

use std::sync::Arc;

use mesh_core::PolicyName;
use serde::Deserialize;
use serde_json::Value;

use crate::code::Code;
use crate::finding::ObjectName;
use crate::istio::{Age, Flaw, Remark, decode, policy_name};

/// References of one list; the API itself allows 16 targets, 8 authorities and 5 names.
const MAX_REFERENCES: usize = 16;
/// Octets of a name.
const MAX_NAME: usize = 253;

/// A BackendTLSPolicy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendTlsPolicy {
    /// Its namespace and name.
    pub name: Arc<PolicyName>,
    /// What it is about, as far as that is Services.
    pub(crate) targets: Vec<TargetPort>,
    /// The server's name in the handshake, and in its certificate where `names` is empty.
    pub hostname: Arc<str>,
    /// Of these names, hosts or URIs, the certificate has one.
    pub names: Vec<Arc<str>>,
    /// Who is believed.
    pub authorities: Authorities,
    /// When it was made.
    pub age: Age,
    /// The version of the object; none where it is not known.
    pub generation: Option<i64>,
    /// What is worth a finding.
    pub remarks: Vec<Remark>,
}

/// A Service of the policy's namespace, or one of its ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TargetPort {
    /// The Service.
    pub service: Arc<str>,
    /// The port's name; none for all ports.
    pub port: Option<Arc<str>>,
    /// The field.
    pub field: String,
}

/// Whose word counts for a server's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authorities {
    /// Those that the system knows.
    System,
    /// Those of ConfigMaps of the policy's namespace, by name; of another kind there are none.
    Of(Vec<Result<Arc<str>, String>>),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Spec {
    target_refs: Vec<RawTarget>,
    validation: RawValidation,
    options: Option<Value>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawTarget {
    #[serde(default)]
    group: String,
    kind: String,
    name: String,
    section_name: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawValidation {
    #[serde(default)]
    ca_certificate_refs: Vec<RawReference>,
    well_known_c_a_certificates: Option<String>,
    hostname: String,
    #[serde(default)]
    subject_alt_names: Vec<RawName>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawReference {
    #[serde(default)]
    group: String,
    kind: String,
    name: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawName {
    #[serde(rename = "type")]
    kind: NameKind,
    hostname: Option<String>,
    uri: Option<String>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
enum NameKind {
    Hostname,
    #[serde(rename = "URI")]
    Uri,
}

impl BackendTlsPolicy {
    pub(crate) fn read(value: &Value, name: &ObjectName) -> Result<Self, Flaw> {
        let resource = decode::<Spec>(value)?;
        let (age, generation) = (Age::of(&resource.metadata), resource.metadata.generation);
        let Some(Spec { target_refs, validation, options }) = resource.spec else {
            return Err(Flaw::value("spec.validation", "it says nothing of TLS"));
        };
        let mut remarks = Vec::new();
        if options.is_some() {
            remarks.push(Remark::new(Code::FieldNotHonoured, "spec.options", "no option is known here"));
        }
        if target_refs.is_empty() || target_refs.len() > MAX_REFERENCES {
            return Err(Flaw::value("spec.targetRefs", format!("it takes 1 to {MAX_REFERENCES} targets")));
        }
        let mut targets = Vec::new();
        for (index, target) in target_refs.into_iter().enumerate() {
            let field = format!("spec.targetRefs[{index}]");
            match (&*target.group, &*target.kind) {
                ("" | "core", "Service") => {
                    let (service, port) = (target.name.into(), target.section_name.map(Into::into));
                    targets.push(TargetPort { service, port, field });
                }
                (group, kind) => {
                    let message = format!("{kind} of group {group:?} is no Service: nothing is begun to it");
                    remarks.push(Remark::new(Code::FieldNotHonoured, format!("{field}.kind"), message));
                }
            }
        }
        let (hostname, names, authorities) = validation.read()?;
        Ok(Self { name: policy_name(name), targets, hostname, names, authorities, age, generation, remarks })
    }

    /// What stands in for one that is broken, as far as its `targetRefs` can be read: nobody is believed.
    pub(crate) fn believing_nobody(target_refs: Option<&Value>, name: &ObjectName) -> Self {
        let text = |target: &Value, field: &str| target.get(field).and_then(Value::as_str).map(Arc::<str>::from);
        let listed = target_refs.and_then(Value::as_array).into_iter().flatten().take(MAX_REFERENCES).enumerate();
        let services = listed.filter(|(_, target)| text(target, "kind").as_deref() == Some("Service"));
        let targets = services.filter_map(|(index, target)| {
            let (service, port) = (text(target, "name")?, text(target, "sectionName"));
            Some(TargetPort { service, port, field: format!("spec.targetRefs[{index}]") })
        });
        Self {
            name: policy_name(name),
            targets: targets.collect(),
            hostname: "".into(),
            names: Vec::new(),
            authorities: Authorities::Of(Vec::new()),
            age: Age::unknown(),
            generation: None,
            remarks: Vec::new(),
        }
    }
}

/// The server's name, the names of which its certificate has one, and who is believed.
type Validation = (Arc<str>, Vec<Arc<str>>, Authorities);

impl RawValidation {
    fn read(self) -> Result<Validation, Flaw> {
        let field = |name: &str| format!("spec.validation.{name}");
        if !is_host(&self.hostname) {
            return Err(Flaw::value(field("hostname"), format!("{:?} is no host's name", self.hostname)));
        }
        let authorities = match (self.ca_certificate_refs, self.well_known_c_a_certificates.as_deref()) {
            (references, None | Some("")) if (1..=MAX_REFERENCES).contains(&references.len()) => {
                Authorities::Of(references.into_iter().map(RawReference::read).collect())
            }
            (references, Some("System")) if references.is_empty() => Authorities::System,
            (references, Some(other)) if references.is_empty() => {
                let message = format!("{other:?} is not known here; System is");
                return Err(Flaw::value(field("wellKnownCACertificates"), message));
            }
            _ => {
                let message = "one of caCertificateRefs and wellKnownCACertificates says who is believed";
                return Err(Flaw::value(field("caCertificateRefs"), message));
            }
        };
        let names = self.subject_alt_names.into_iter().enumerate();
        let names = names.map(|(index, name)| name.read(&field(&format!("subjectAltNames[{index}]"))));
        Ok((self.hostname.into(), names.collect::<Result<_, _>>()?, authorities))
    }
}

impl RawReference {
    fn read(self) -> Result<Arc<str>, String> {
        match (&*self.group, &*self.kind) {
            ("" | "core", "ConfigMap") => Ok(self.name.into()),
            (group, kind) => Err(format!("{kind} of group {group:?} is no ConfigMap, of which authorities are read")),
        }
    }
}

impl RawName {
    fn read(self, field: &str) -> Result<Arc<str>, Flaw> {
        match (self.kind, self.hostname, self.uri) {
            (NameKind::Hostname, Some(host), None) if is_host(host.strip_prefix("*.").unwrap_or(&host)) => {
                Ok(host.into())
            }
            (NameKind::Uri, None, Some(uri)) if uri.contains("://") && uri.len() <= MAX_NAME => Ok(uri.into()),
            _ => Err(Flaw::value(field, "it is a hostname of type Hostname, or a uri of type URI")),
        }
    }
}

/// A name of the DNS, which is no address.
fn is_host(name: &str) -> bool {
    let label = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !label.is_empty() && label.len() <= 63 && label.bytes().all(inner) && !label.starts_with('-')
    };
    name.len() <= MAX_NAME && name.split('.').all(label) && name.parse::<std::net::IpAddr>().is_err()
}
