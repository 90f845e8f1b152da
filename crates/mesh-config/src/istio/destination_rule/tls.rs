//! What a DestinationRule says of TLS (`ClientTLSSettings`).

use std::sync::Arc;

use mesh_core::l7::traffic::{ClientCertificate, Origination, Roots, Tls};
use mesh_core::policy::ClientTls;
use serde::Deserialize;
use serde_json::Value;

use super::super::Remark;
use super::remark_ignored;
use crate::code::Code;

#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct RawTls {
    /// DISABLE, SIMPLE, MUTUAL or ISTIO_MUTUAL.
    #[serde(default)]
    mode: RawMode,
    /// With MUTUAL, the path of the certificate that is shown, at the waypoint or gateway.
    client_certificate: Option<String>,
    /// With MUTUAL, the path of its key.
    private_key: Option<String>,
    /// The path of the authorities that are believed; `system`, or nothing, for those of the system.
    ca_certificates: Option<String>,
    /// The Secret of the waypoint's or gateway's namespace that stands for the three: tls.crt, tls.key, ca.crt.
    credential_name: Option<String>,
    /// Names of which the server's certificate has one.
    #[serde(default)]
    subject_alt_names: Vec<String>,
    /// The server's name in the handshake.
    sni: Option<String>,
    /// Whether any certificate will do.
    insecure_skip_verify: Option<bool>,
    /// Read, and not honoured: a finding says so.
    ca_crl: Option<Value>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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

/// The part that the application layer has to know: of a whole rule, what is to be begun; of a subset, everything.
pub(super) fn begun(tls: &Option<(ClientTls, Tls)>, of_subset: bool) -> Option<Tls> {
    let (_, tls) = tls.as_ref()?;
    (of_subset || matches!(tls, Tls::Originate(_) | Tls::Impossible)).then(|| tls.clone())
}

impl RawTls {
    pub(super) fn read(&self, field: &str, remarks: &mut Vec<Remark>) -> (ClientTls, Tls) {
        remark_ignored(&[("caCrl", &self.ca_crl)], field, remarks);
        match self.mode {
            RawMode::Disable => (ClientTls::Disable, self.without(Tls::Disable, field, remarks)),
            RawMode::IstioMutual => (ClientTls::IstioMutual, self.without(Tls::IstioMutual, field, remarks)),
            RawMode::Simple => (ClientTls::Simple, self.origination(false, field, remarks)),
            RawMode::Mutual => (ClientTls::Mutual, self.origination(true, field, remarks)),
        }
    }

    /// What says nothing in a mode that begins no TLS.
    fn without(&self, mode: Tls, field: &str, remarks: &mut Vec<Remark>) -> Tls {
        let given = [
            ("clientCertificate", self.client_certificate.is_some()),
            ("privateKey", self.private_key.is_some()),
            ("caCertificates", self.ca_certificates.is_some()),
            ("credentialName", self.credential_name.is_some()),
            ("subjectAltNames", !self.subject_alt_names.is_empty()),
            ("sni", self.sni.is_some()),
            ("insecureSkipVerify", self.insecure_skip_verify.is_some()),
        ];
        for (name, _) in given.into_iter().filter(|(_, given)| *given) {
            let message = "it says nothing in this mode";
            remarks.push(Remark::new(Code::FieldNotHonoured, format!("{field}.{name}"), message));
        }
        mode
    }

    fn origination(&self, mutual: bool, field: &str, remarks: &mut Vec<Remark>) -> Tls {
        let given = |text: &Option<String>| text.as_deref().filter(|text| !text.is_empty()).map(Arc::<str>::from);
        let shown = [("clientCertificate", &self.client_certificate), ("privateKey", &self.private_key)];
        for (name, _) in shown.into_iter().filter(|(_, text)| !mutual && given(text).is_some()) {
            let message = "SIMPLE shows no certificate; MUTUAL does";
            remarks.push(Remark::new(Code::WithoutEffect, format!("{field}.{name}"), message));
        }
        let mut impossible = |name: &str, message: &str| {
            remarks.push(Remark::new(Code::TlsNotOriginated, format!("{field}.{name}"), message));
            Tls::Impossible
        };
        let secret = given(&self.credential_name);
        let files = [&self.client_certificate, &self.private_key, &self.ca_certificates];
        if secret.is_some() && files.into_iter().any(|text| given(text).is_some()) {
            return impossible(
                "credentialName",
                "it stands for the files, which are named beside it: name one or the other",
            );
        }
        let client = match (mutual, given(&self.client_certificate), given(&self.private_key)) {
            (false, ..) => None,
            _ if secret.is_some() => None,
            (true, Some(certificate), Some(key)) => Some(ClientCertificate::Files { certificate, key }),
            (true, ..) => return impossible("clientCertificate", "MUTUAL needs clientCertificate and privateKey"),
        };
        let roots = match given(&self.ca_certificates) {
            _ if self.insecure_skip_verify == Some(true) => Roots::Anybody,
            None => Roots::System,
            Some(path) if *path == *"system" => Roots::System,
            Some(path) => Roots::File(path),
        };
        let names = self.subject_alt_names.iter().map(|name| name.as_str().into()).collect();
        Tls::Originate(Arc::new(Origination { sni: given(&self.sni), roots, names, client, secret, mutual }))
    }
}
