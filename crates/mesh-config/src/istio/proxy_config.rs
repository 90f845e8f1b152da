//! How a proxy is set up, as Istio's users write it (ProxyConfig of istio.mesh.v1alpha1): in the mesh configuration, or in an
//! annotation of a Gateway or a pod. What stands before a gateway is all of it that means something here.

use mesh_core::l7::topology::{CertificateForwarding, TopologyPart};
use serde_json::{Map, Value};

use super::{Flaw, Remark};
use crate::code::Code;
use crate::document::{Format, documents};
use crate::limits::Limits;

/// The annotation.
pub(crate) const ANNOTATION: &str = "proxy.istio.io/config";
/// Proxies of which one stands behind the other; a header field has no room for many more addresses.
const MAX_PROXIES: u64 = 1_000;

/// What a ProxyConfig asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProxyConfig {
    /// What stands before a gateway (`gatewayTopology`).
    pub topology: TopologyPart,
    /// What is worth a finding.
    pub remarks: Vec<Remark>,
}

impl ProxyConfig {
    /// Reads an annotation's text. `field` is where it stands.
    pub(crate) fn of_text(text: &str, field: &str) -> Result<Self, Flaw> {
        let limits = Limits::default();
        let mut all = documents(text, Format::Yaml);
        let Some(first) = all.next() else { return Ok(Self::default()) };
        let value = first.value(&limits).map_err(|broken| Flaw {
            code: Code::Syntax,
            field: field.to_owned(),
            message: broken.message,
        })?;
        if all.next().is_some() {
            return Err(Flaw::value(field, "the text is of several documents; it is read where it is one"));
        }
        Self::of(value, field)
    }

    /// Reads what is written at a field.
    pub(crate) fn of(value: Value, field: &str) -> Result<Self, Flaw> {
        let mut read = Self::default();
        for (name, value) in mapping(value, field)? {
            let field = format!("{field}.{name}");
            match name.as_str() {
                "gatewayTopology" => read.topology(value, &field)?,
                _ => read.remarks.push(Remark::new(Code::FieldNotHonoured, field, "it has no effect")),
            }
        }
        Ok(read)
    }

    fn topology(&mut self, value: Value, field: &str) -> Result<(), Flaw> {
        for (name, value) in mapping(value, field)? {
            let field = format!("{field}.{name}");
            match name.as_str() {
                "numTrustedProxies" => self.topology.trusted_proxies = Some(proxies(&value, &field)?),
                "forwardClientCertDetails" => self.topology.certificates = certificates(&value, &field)?,
                "proxyProtocol" => {
                    // Its being there asks for it (`{}`); it has no fields.
                    let asked = !value.is_null();
                    if let Some(further) = mapping(value, &field)?.keys().next() {
                        return Err(Flaw::value(format!("{field}.{further}"), "proxyProtocol has no fields: write {}"));
                    }
                    self.topology.proxy_protocol = asked.then_some(true);
                }
                _ => return Err(Flaw::value(field, "gatewayTopology has no such field")),
            }
        }
        Ok(())
    }
}

fn mapping(value: Value, field: &str) -> Result<Map<String, Value>, Flaw> {
    match value {
        Value::Object(fields) => Ok(fields),
        Value::Null => Ok(Map::new()),
        _ => Err(Flaw { code: Code::WrongField, field: field.to_owned(), message: "it is no mapping".to_owned() }),
    }
}

fn proxies(value: &Value, field: &str) -> Result<u32, Flaw> {
    let number = value.as_u64().filter(|number| *number <= MAX_PROXIES).and_then(|number| u32::try_from(number).ok());
    number.ok_or_else(|| Flaw::value(field, format!("{value} is no number of proxies from 0 to {MAX_PROXIES}")))
}

/// None where the word says that nothing is said.
fn certificates(value: &Value, field: &str) -> Result<Option<CertificateForwarding>, Flaw> {
    let forwarding = match value.as_str() {
        Some("UNDEFINED") => return Ok(None),
        Some("SANITIZE") => CertificateForwarding::Sanitize,
        Some("FORWARD_ONLY") => CertificateForwarding::ForwardOnly,
        Some("APPEND_FORWARD") => CertificateForwarding::AppendForward,
        Some("SANITIZE_SET") => CertificateForwarding::SanitizeSet,
        Some("ALWAYS_FORWARD_ONLY") => CertificateForwarding::AlwaysForwardOnly,
        _ => {
            let message = format!(
                "{value} is none of SANITIZE, FORWARD_ONLY, APPEND_FORWARD, SANITIZE_SET and ALWAYS_FORWARD_ONLY"
            );
            return Err(Flaw::value(field, message));
        }
    };
    Ok(Some(forwarding))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_before_a_gateway_is_read_and_the_rest_is_told_of() {
        let text = "concurrency: 2\ngatewayTopology: {numTrustedProxies: 2, proxyProtocol: {}, forwardClientCertDetails: APPEND_FORWARD}";
        let read = ProxyConfig::of_text(text, "at").unwrap();
        let expected = TopologyPart {
            proxy_protocol: Some(true),
            trusted_proxies: Some(2),
            certificates: Some(CertificateForwarding::AppendForward),
        };
        assert_eq!(read.topology, expected);
        let fields: Vec<_> = read.remarks.iter().map(|remark| &*remark.field).collect();
        assert_eq!(fields, ["at.concurrency"]);
        assert_eq!(ProxyConfig::of_text("", "at").unwrap(), ProxyConfig::default());
        let unsaid =
            ProxyConfig::of_text("gatewayTopology: {proxyProtocol: null, forwardClientCertDetails: UNDEFINED}", "at");
        assert_eq!(unsaid.unwrap(), ProxyConfig::default());
    }

    #[test]
    fn what_cannot_be_meant_is_told_by_its_field() {
        for (text, field) in [
            ("gatewayTopology: {numTrustedProxies: -1}", "at.gatewayTopology.numTrustedProxies"),
            ("gatewayTopology: {numTrustedProxies: '1'}", "at.gatewayTopology.numTrustedProxies"),
            ("gatewayTopology: {proxyProtocol: true}", "at.gatewayTopology.proxyProtocol"),
            ("gatewayTopology: {proxyProtocol: {version: 2}}", "at.gatewayTopology.proxyProtocol.version"),
            ("gatewayTopology: {numTrustedProxy: 1}", "at.gatewayTopology.numTrustedProxy"),
            ("gatewayTopology: {forwardClientCertDetails: SET}", "at.gatewayTopology.forwardClientCertDetails"),
            ("gatewayTopology: 1", "at.gatewayTopology"),
            ("gatewayTopology: {", "at"),
            ("[]", "at"),
        ] {
            assert_eq!(ProxyConfig::of_text(text, "at").unwrap_err().field, field, "{text}");
        }
    }
}
