//! DestinationRule of networking.istio.io, as far as it says how a connection is protected.

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_core::PolicyName;
use mesh_core::policy::{ClientTls, ClientTlsRule, HostPattern, Selector};
use serde::Deserialize;
use serde_json::Value;

use super::{Age, Flaw, Remark, WorkloadSelector, decode, policy_name, selector};
use crate::code::Code;
use crate::finding::ObjectName;

/// Fields of one object that get a finding each; there is no end to what an object may hold.
const MAX_REMARKS: usize = 64;

/// A DestinationRule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DestinationRule {
    /// Its namespace and name.
    pub name: Arc<PolicyName>,
    /// The host as it is written.
    pub host: String,
    /// The namespaces whose clients it is for; none for all.
    pub exported_to: Option<Vec<Arc<str>>>,
    /// The clients that it is for.
    pub clients: Option<Selector>,
    /// For all ports.
    pub tls: Option<ClientTls>,
    /// For some ports.
    pub ports: BTreeMap<u16, Option<ClientTls>>,
    /// When it was made.
    pub age: Age,
    /// What is worth a finding.
    pub remarks: Vec<Remark>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Spec {
    host: String,
    traffic_policy: Option<RawPolicy>,
    subsets: Option<Vec<Value>>,
    export_to: Option<Vec<String>>,
    workload_selector: Option<WorkloadSelector>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawPolicy {
    tls: Option<RawTls>,
    port_level_settings: Option<Vec<RawPortPolicy>>,
    load_balancer: Option<Value>,
    connection_pool: Option<Value>,
    outlier_detection: Option<Value>,
    tunnel: Option<Value>,
    proxy_protocol: Option<Value>,
    retry_budget: Option<Value>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawPortPolicy {
    port: PortSelector,
    tls: Option<RawTls>,
    load_balancer: Option<Value>,
    connection_pool: Option<Value>,
    outlier_detection: Option<Value>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PortSelector {
    number: u16,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawTls {
    #[serde(default)]
    mode: RawMode,
    client_certificate: Option<Value>,
    private_key: Option<Value>,
    ca_certificates: Option<Value>,
    credential_name: Option<Value>,
    subject_alt_names: Option<Value>,
    sni: Option<Value>,
    insecure_skip_verify: Option<Value>,
    ca_crl: Option<Value>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
enum RawMode {
    /// What the protobuf's zero value stands for.
    #[default]
    #[serde(rename = "DISABLE")]
    Disable,
    #[serde(rename = "SIMPLE")]
    Simple,
    #[serde(rename = "MUTUAL")]
    Mutual,
    #[serde(rename = "ISTIO_MUTUAL")]
    IstioMutual,
}

impl DestinationRule {
    pub(crate) fn read(value: Value, name: &ObjectName) -> Result<Self, Flaw> {
        let resource = decode::<Spec>(value)?;
        let age = Age::of(&resource.metadata);
        let Some(spec) = resource.spec else {
            return Err(Flaw::value("spec.host", "the rule is about no host"));
        };
        let mut remarks = Vec::new();
        check_host(&spec.host)?;
        let name = policy_name(name);
        let exported_to = exported_to(spec.export_to, &name.namespace)?;
        let clients = selector(spec.workload_selector, "spec.workloadSelector")?;
        let policy = spec.traffic_policy.unwrap_or_default();
        let tls = policy.tls.as_ref().map(|tls| tls.read("spec.trafficPolicy.tls", &mut remarks));
        let mut ports = BTreeMap::new();
        for (index, port) in policy.port_level_settings.iter().flatten().enumerate() {
            let field = format!("spec.trafficPolicy.portLevelSettings[{index}]");
            if port.port.number == 0 {
                return Err(Flaw::value(format!("{field}.port.number"), "0 is no port"));
            }
            let tls = port.tls.as_ref().map(|tls| tls.read(&format!("{field}.tls"), &mut remarks));
            if ports.insert(port.port.number, tls).is_some() {
                let message = format!("port {} is there before", port.port.number);
                return Err(Flaw::value(format!("{field}.port.number"), message));
            }
            let ignored = [
                ("loadBalancer", &port.load_balancer),
                ("connectionPool", &port.connection_pool),
                ("outlierDetection", &port.outlier_detection),
            ];
            remark_ignored(&ignored, &field, &mut remarks);
        }
        let ignored = [
            ("loadBalancer", &policy.load_balancer),
            ("connectionPool", &policy.connection_pool),
            ("outlierDetection", &policy.outlier_detection),
            ("tunnel", &policy.tunnel),
            ("proxyProtocol", &policy.proxy_protocol),
            ("retryBudget", &policy.retry_budget),
        ];
        remark_ignored(&ignored, "spec.trafficPolicy", &mut remarks);
        let subsets = spec.subsets.map(Value::Array);
        remark_ignored(&[("subsets", &subsets)], "spec", &mut remarks);
        Ok(Self { name, host: spec.host, exported_to, clients, tls, ports, age, remarks })
    }

    /// The rule, with the host in full.
    pub(crate) fn rule(&self, cluster_domain: &str) -> ClientTlsRule {
        let host = match self.host.strip_prefix('*') {
            Some(end) => HostPattern::Suffix(end.into()),
            None if self.host.contains('.') => HostPattern::Exact(self.host.as_str().into()),
            None => HostPattern::Exact(format!("{}.{}.svc.{cluster_domain}", self.host, self.name.namespace).into()),
        };
        ClientTlsRule {
            name: Arc::clone(&self.name),
            host,
            exported_to: self.exported_to.clone(),
            clients: self.clients.clone(),
            tls: self.tls,
            ports: self.ports.clone(),
            traffic: Arc::default(),
        }
    }
}

impl RawTls {
    fn read(&self, field: &str, remarks: &mut Vec<Remark>) -> ClientTls {
        let mode = match self.mode {
            RawMode::Disable => ClientTls::Disable,
            RawMode::IstioMutual => ClientTls::IstioMutual,
            RawMode::Simple => ClientTls::Simple,
            RawMode::Mutual => ClientTls::Mutual,
        };
        if matches!(mode, ClientTls::Simple | ClientTls::Mutual) {
            let message = format!("TLS of mode {} is not originated: connections are refused", mode.as_str());
            remarks.push(Remark::new(Code::TlsNotOriginated, format!("{field}.mode"), message));
        }
        let ignored = [
            ("clientCertificate", &self.client_certificate),
            ("privateKey", &self.private_key),
            ("caCertificates", &self.ca_certificates),
            ("credentialName", &self.credential_name),
            ("subjectAltNames", &self.subject_alt_names),
            ("sni", &self.sni),
            ("insecureSkipVerify", &self.insecure_skip_verify),
            ("caCrl", &self.ca_crl),
        ];
        remark_ignored(&ignored, field, remarks);
        mode
    }
}

fn check_host(host: &str) -> Result<(), Flaw> {
    let name = host.strip_prefix("*.").unwrap_or(host);
    let label =
        |label: &str| !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    if host == "*" || name.split('.').all(label) {
        return Ok(());
    }
    Err(Flaw::value("spec.host", format!("{host:?} is no host name")))
}

/// The namespaces of `exportTo`: `.` is the rule's own, `*` are all, `~` is none.
fn exported_to(listed: Option<Vec<String>>, own: &str) -> Result<Option<Vec<Arc<str>>>, Flaw> {
    let listed = listed.unwrap_or_default();
    if listed.is_empty() || listed.iter().any(|namespace| namespace == "*") {
        return Ok(None);
    }
    let mut namespaces = Vec::new();
    for (index, namespace) in listed.iter().enumerate() {
        match namespace.as_str() {
            "." => namespaces.push(own.into()),
            "~" => {}
            "" => return Err(Flaw::value(format!("spec.exportTo[{index}]"), "it is empty")),
            other => namespaces.push(other.into()),
        }
    }
    Ok(Some(namespaces))
}

fn remark_ignored(fields: &[(&str, &Option<Value>)], place: &str, remarks: &mut Vec<Remark>) {
    for (name, value) in fields {
        if let Some(value) = value {
            remark_leaves(value, &format!("{place}.{name}"), remarks);
        }
    }
}

/// A remark for each field that holds a value.
fn remark_leaves(value: &Value, field: &str, remarks: &mut Vec<Remark>) {
    match value {
        _ if remarks.len() >= MAX_REMARKS => {}
        Value::Null => {}
        Value::Object(fields) => {
            fields.iter().for_each(|(name, value)| remark_leaves(value, &format!("{field}.{name}"), remarks));
        }
        Value::Array(items) => {
            let numbered = items.iter().enumerate();
            numbered.for_each(|(index, value)| remark_leaves(value, &format!("{field}[{index}]"), remarks));
        }
        value => remarks.push(Remark::new(Code::FieldNotHonoured, field, format!("{value} has no effect"))),
    }
}
