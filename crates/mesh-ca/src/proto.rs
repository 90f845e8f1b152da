//! The messages on the wire, as protobuf.

use std::collections::HashMap;

/// The path of Istio's method for certificates (istio.io/api, security/v1alpha1/ca.proto).
pub(crate) const CREATE_CERTIFICATE: &str = "/istio.v1.auth.IstioCertificateService/CreateCertificate";
/// The path of our own method for trust bundles.
pub(crate) const WATCH_TRUST_BUNDLE: &str = "/mesh.identity.v1.TrustService/WatchTrustBundle";
/// The key in a request's metadata that says for whom the certificate is.
pub(crate) const IMPERSONATED_IDENTITY: &str = "ImpersonatedIdentity";

/// `istio.v1.auth.IstioCertificateRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CreateCertificateRequest {
    /// PKCS #10 in PEM.
    #[prost(string, tag = "1")]
    pub csr: String,
    /// How long the certificate shall live, in seconds; 0 for the CA's default.
    #[prost(int64, tag = "3")]
    pub validity_duration: i64,
    /// `ImpersonatedIdentity`, and what others put there.
    #[prost(message, optional, tag = "4")]
    pub metadata: Option<Struct>,
}

/// `istio.v1.auth.IstioCertificateResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CreateCertificateResponse {
    /// PEM: the leaf first, then intermediates, and all roots in the last one.
    #[prost(string, repeated, tag = "1")]
    pub cert_chain: Vec<String>,
}

/// `google.protobuf.Struct`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Struct {
    /// By name.
    #[prost(map = "string, message", tag = "1")]
    pub fields: HashMap<String, Value>,
}

/// `google.protobuf.Value`, of which only text matters here.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Value {
    /// Text; a value of another kind reads as none.
    #[prost(string, optional, tag = "3")]
    pub string_value: Option<String>,
}

impl CreateCertificateRequest {
    /// A request for `identity`.
    #[must_use]
    pub fn new(csr: String, identity: &str, seconds: i64) -> Self {
        let value = Value { string_value: Some(identity.to_owned()) };
        let metadata = Struct { fields: HashMap::from([(IMPERSONATED_IDENTITY.to_owned(), value)]) };
        Self { csr, validity_duration: seconds, metadata: Some(metadata) }
    }

    /// For whom the certificate shall be.
    #[must_use]
    pub fn impersonated(&self) -> Option<&str> {
        self.metadata.as_ref()?.fields.get(IMPERSONATED_IDENTITY)?.string_value.as_deref()
    }
}

/// `mesh.identity.v1.WatchTrustBundleRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct WatchTrustBundleRequest {}

/// `mesh.identity.v1.TrustBundle`, once at the beginning and again after each change.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct TrustBundleMessage {
    /// Trust anchors, DER.
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub(crate) roots: Vec<bytes::Bytes>,
    /// Revocation lists, DER.
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub(crate) crls: Vec<bytes::Bytes>,
    /// SHA-256 of the certificate that signs workloads now.
    #[prost(bytes = "bytes", tag = "3")]
    pub(crate) signer: bytes::Bytes,
}
