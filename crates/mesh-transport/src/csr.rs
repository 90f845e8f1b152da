//! Certificate signing requests (PKCS #10, RFC 2986): made by whoever holds the key, read and checked by an authority.

use mesh_core::SpiffeId;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PublicKeyData, SanType, SignatureAlgorithm};
use rustls_pki_types::PrivatePkcs8KeyDer;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_PKCS1_RSAENCRYPTION};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

/// The longest request that is looked at, in bytes of PEM. One with an RSA key of 8192 bits has 3,000.
pub const MAX_REQUEST: usize = 16 << 10;
/// The sizes of RSA keys that are signed, in bits.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;
/// What PEM calls a request; the second is older and still seen.
const LABELS: [&str; 2] = ["CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"];

/// Why a request is not signed. Nobody may retry: another request has to be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CsrError {
    /// Longer than [`MAX_REQUEST`].
    #[error("the certificate signing request has {0} bytes; no more than {MAX_REQUEST} are read")]
    TooLong(usize),
    /// Not one PEM block of the right kind.
    #[error("the certificate signing request is not one PEM block CERTIFICATE REQUEST: {0}")]
    Pem(String),
    /// Not PKCS #10.
    #[error("the certificate signing request cannot be read: {0}")]
    Malformed(String),
    /// A key that is not signed here.
    #[error("the key in the certificate signing request is {0}; use EC P-256 (or P-384, or RSA of 2048 to 8192 bits)")]
    Key(String),
    /// Not signed by the key that is in it.
    #[error("the certificate signing request is not signed by its own key: {0}")]
    Signature(String),
    /// A name that the caller did not ask for, or may not have.
    #[error("the certificate signing request names {found}, but the certificate is for {identity} alone")]
    Name {
        /// The name in the request.
        found: String,
        /// Who the certificate is for.
        identity: SpiffeId,
    },
}

/// A request that was read and whose signature proves that its sender has the key.
///
/// Only the key is taken from it. Its names count for nothing but [`CertificateRequest::check_names`].
#[derive(Debug, Clone)]
pub struct CertificateRequest {
    key: RequestedKey,
    names: Vec<String>,
}

/// A public key as it goes into a certificate.
#[derive(Debug, Clone)]
pub(crate) struct RequestedKey {
    octets: Vec<u8>,
    algorithm: &'static SignatureAlgorithm,
}

impl PublicKeyData for RequestedKey {
    fn der_bytes(&self) -> &[u8] {
        &self.octets
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.algorithm
    }
}

impl CertificateRequest {
    /// Reads one PEM block.
    ///
    /// # Errors
    /// See [`CsrError`].
    pub fn from_pem(text: &str) -> Result<Self, CsrError> {
        if text.len() > MAX_REQUEST {
            return Err(CsrError::TooLong(text.len()));
        }
        let mut blocks = pem::parse_many(text).map_err(|error| CsrError::Pem(error.to_string()))?;
        let (Some(block), true) = (blocks.pop(), blocks.is_empty()) else {
            return Err(CsrError::Pem(format!("there are {} blocks", blocks.len())));
        };
        if !LABELS.contains(&block.tag()) {
            return Err(CsrError::Pem(format!("it is a {:?}", block.tag())));
        }
        Self::from_der(block.contents())
    }

    /// Reads DER.
    ///
    /// # Errors
    /// See [`CsrError`].
    pub fn from_der(der: &[u8]) -> Result<Self, CsrError> {
        if der.len() > MAX_REQUEST {
            return Err(CsrError::TooLong(der.len()));
        }
        let (rest, request) =
            X509CertificationRequest::from_der(der).map_err(|error| CsrError::Malformed(error.to_string()))?;
        if !rest.is_empty() {
            return Err(CsrError::Malformed(format!("{} bytes follow it", rest.len())));
        }
        let key = key_of(&request.certification_request_info.subject_pki)?;
        request.verify_signature().map_err(|error| CsrError::Signature(error.to_string()))?;
        let mut names = Vec::new();
        for attribute in request.certification_request_info.iter_attributes() {
            use x509_parser::cri_attributes::ParsedCriAttribute as Attribute;
            if let Attribute::ExtensionRequest(requested) = attribute.parsed_attribute() {
                for extension in &requested.extensions {
                    names.extend(names_in(extension.parsed_extension())?);
                }
            }
        }
        Ok(Self { key, names })
    }

    /// Whether the request names nobody, or `identity` and nobody else.
    ///
    /// # Errors
    /// [`CsrError::Name`] with the first name that is another one.
    pub fn check_names(&self, identity: &SpiffeId) -> Result<(), CsrError> {
        match self.names.iter().find(|name| *name != identity.as_str()) {
            None => Ok(()),
            Some(found) => Err(CsrError::Name { found: found.clone(), identity: identity.clone() }),
        }
    }

    pub(crate) fn key(&self) -> &RequestedKey {
        &self.key
    }
}

fn key_of(info: &SubjectPublicKeyInfo<'_>) -> Result<RequestedKey, CsrError> {
    let kind = &info.algorithm.algorithm;
    let algorithm = if *kind == OID_KEY_TYPE_EC_PUBLIC_KEY {
        let curve = info.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
        match curve {
            Some(curve) if curve == OID_EC_P256 => &rcgen::PKCS_ECDSA_P256_SHA256,
            Some(curve) if curve == OID_NIST_EC_P384 => &rcgen::PKCS_ECDSA_P384_SHA384,
            Some(curve) => return Err(CsrError::Key(format!("of curve {curve}"))),
            None => return Err(CsrError::Key("of a curve without a name".to_owned())),
        }
    } else if *kind == OID_PKCS1_RSAENCRYPTION {
        match info.parsed() {
            Ok(PublicKey::RSA(key)) if RSA_BITS.contains(&key.key_size()) => &rcgen::PKCS_RSA_SHA256,
            Ok(PublicKey::RSA(key)) => return Err(CsrError::Key(format!("RSA of {} bits", key.key_size()))),
            _ => return Err(CsrError::Key("a broken RSA key".to_owned())),
        }
    } else {
        return Err(CsrError::Key(format!("of type {kind}")));
    };
    Ok(RequestedKey { octets: info.subject_public_key.data.to_vec(), algorithm })
}

/// The names that a requested extension would put into the certificate. A URI is given as it is, others by their kind.
fn names_in(extension: &ParsedExtension<'_>) -> Result<Vec<String>, CsrError> {
    match extension {
        ParsedExtension::SubjectAlternativeName(names) => Ok(names
            .general_names
            .iter()
            .map(|name| match name {
                GeneralName::URI(uri) => (*uri).to_owned(),
                other => format!("{other:?}").chars().take(200).collect(),
            })
            .collect()),
        ParsedExtension::ParseError { error } => Err(CsrError::Malformed(error.to_string())),
        _ => Ok(Vec::new()),
    }
}

/// A new P-256 key, in memory only, and the request that proves it.
pub struct NewKey {
    /// The private key.
    pub key: PrivatePkcs8KeyDer<'static>,
    /// The request in PEM.
    pub request: String,
}

impl NewKey {
    /// Makes a key and a request for `identity`.
    ///
    /// # Errors
    /// When the cryptographic library fails.
    pub fn generate(identity: &SpiffeId) -> Result<Self, rcgen::Error> {
        let pair = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(identity.as_str().try_into()?)];
        let request = params.serialize_request(&pair)?.pem()?;
        Ok(Self { key: PrivatePkcs8KeyDer::from(pair), request })
    }
}

#[cfg(test)]
mod tests;
