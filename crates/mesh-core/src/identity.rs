//! SPIFFE identities in the form that Istio gives them: `spiffe://<trust-domain>/ns/<namespace>/sa/<service-account>`.
//!
//! Source: SPIFFE-ID.md, sections 2.1 to 2.4 (spiffe.io). Everything is parsed whole or rejected.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

const SCHEME: &str = "spiffe://";
const NAMESPACE: &str = "/ns/";
const ACCOUNT: &str = "/sa/";

/// The longest trust domain, in bytes (SPIFFE-ID, section 2.1).
pub const MAX_TRUST_DOMAIN: usize = 255;
/// The longest SPIFFE ID, in bytes (SPIFFE-ID, section 2.3).
pub const MAX_SPIFFE_ID: usize = 2048;

/// Why a text is no identity. Nobody may retry: the text itself has to change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The trust domain breaks the SPIFFE rules.
    #[error("trust domain {0:?} must be 1 to 255 of a-z, 0-9, '.', '-' and '_', such as cluster.local")]
    TrustDomain(String),
    /// A path segment (namespace or service account) breaks the SPIFFE rules.
    #[error("{part} {value:?} must be made of letters, digits, '.', '-' and '_', and not be '.' or '..'")]
    Segment {
        /// Which segment: `namespace` or `service account`.
        part: &'static str,
        /// The offending text.
        value: String,
    },
    /// The text is not of the form `spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/SERVICE-ACCOUNT`.
    #[error("{0:?} is not of the form spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/SERVICE-ACCOUNT")]
    Form(String),
    /// The whole URI is longer than [`MAX_SPIFFE_ID`] bytes.
    #[error("a SPIFFE ID of {0} bytes is longer than the {MAX_SPIFFE_ID} that are allowed")]
    TooLong(usize),
}

/// A SPIFFE trust domain, such as `cluster.local`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrustDomain(Arc<str>);

impl TrustDomain {
    /// The trust domain as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for TrustDomain {
    /// `cluster.local`, Istio's default.
    fn default() -> Self {
        Self(Arc::from("cluster.local"))
    }
}

impl FromStr for TrustDomain {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        check_trust_domain(text)?;
        Ok(Self(Arc::from(text)))
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TrustDomain({})", self.0)
    }
}

/// The identity of a workload. Cheap to clone; equal exactly when the URIs are equal byte for byte.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId {
    uri: Arc<str>,
    /// Where the trust domain ends in `uri`.
    trust_domain_end: usize,
    /// Where the namespace ends in `uri`.
    namespace_end: usize,
}

impl SpiffeId {
    /// The identity of a service account.
    ///
    /// # Errors
    /// When a part is empty, has a character that SPIFFE forbids in a path, or makes the whole too long.
    pub fn new(trust_domain: &TrustDomain, namespace: &str, service_account: &str) -> Result<Self, IdentityError> {
        check_segment("namespace", namespace)?;
        check_segment("service account", service_account)?;
        let uri = format!("{SCHEME}{trust_domain}{NAMESPACE}{namespace}{ACCOUNT}{service_account}");
        if uri.len() > MAX_SPIFFE_ID {
            return Err(IdentityError::TooLong(uri.len()));
        }
        let trust_domain_end = SCHEME.len() + trust_domain.as_str().len();
        Ok(Self {
            uri: Arc::from(uri),
            trust_domain_end,
            namespace_end: trust_domain_end + NAMESPACE.len() + namespace.len(),
        })
    }

    /// Reads a URI, strictly and whole: no other scheme or case, no port, user, query, fragment, escape, or trailing slash.
    ///
    /// # Errors
    /// When the text is anything but an identity in the canonical form that [`fmt::Display`] writes.
    pub fn parse(uri: &str) -> Result<Self, IdentityError> {
        if uri.len() > MAX_SPIFFE_ID {
            return Err(IdentityError::TooLong(uri.len()));
        }
        let form = || IdentityError::Form(uri.to_owned());
        let rest = uri.strip_prefix(SCHEME).ok_or_else(form)?;
        let mut parts = rest.split('/');
        let (Some(domain), Some("ns"), Some(namespace), Some("sa"), Some(account), None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(form());
        };
        check_trust_domain(domain)?;
        check_segment("namespace", namespace)?;
        check_segment("service account", account)?;
        let trust_domain_end = SCHEME.len() + domain.len();
        Ok(Self {
            uri: Arc::from(uri),
            trust_domain_end,
            namespace_end: trust_domain_end + NAMESPACE.len() + namespace.len(),
        })
    }

    /// The URI, as it stands in a certificate's SAN.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.uri
    }

    /// The trust domain, as text.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        &self.uri[SCHEME.len()..self.trust_domain_end]
    }

    /// The Kubernetes namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.uri[self.trust_domain_end + NAMESPACE.len()..self.namespace_end]
    }

    /// The Kubernetes service account.
    #[must_use]
    pub fn service_account(&self) -> &str {
        &self.uri[self.namespace_end + ACCOUNT.len()..]
    }

    /// The identity as Istio's policies and metrics write it: the URI without `spiffe://`.
    #[must_use]
    pub fn principal(&self) -> &str {
        &self.uri[SCHEME.len()..]
    }

    /// Whether the identity belongs to `trust_domain`.
    #[must_use]
    pub fn is_of(&self, trust_domain: &TrustDomain) -> bool {
        self.trust_domain() == trust_domain.as_str()
    }
}

impl FromStr for SpiffeId {
    type Err = IdentityError;

    fn from_str(uri: &str) -> Result<Self, IdentityError> {
        Self::parse(uri)
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.uri)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SpiffeId({})", self.uri)
    }
}

fn check_trust_domain(text: &str) -> Result<(), IdentityError> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_');
    if text.is_empty() || text.len() > MAX_TRUST_DOMAIN || !text.bytes().all(allowed) {
        return Err(IdentityError::TrustDomain(text.to_owned()));
    }
    Ok(())
}

fn check_segment(part: &'static str, value: &str) -> Result<(), IdentityError> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    if matches!(value, "" | "." | "..") || !value.bytes().all(allowed) {
        return Err(IdentityError::Segment { part, value: value.to_owned() });
    }
    Ok(())
}
