//! RequestAuthentications: which tokens (RFC 7519) requests may carry, who vouches for them, and what becomes of them.
//!
//! Semantics: istio.io, reference/config/security/{request_authentication,jwt}. A request without a token passes, and is
//! nobody's; one whose tokens are all refused does not. To ask for a token is an AuthorizationPolicy's business.

use std::sync::Arc;
use std::time::Duration;

use super::index::Scoped;
use super::{PolicyName, Selector};

/// A RequestAuthentication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestAuthentication {
    /// Its namespace and name.
    pub name: Arc<PolicyName>,
    /// The workloads that it is about; none for all in its namespace, or from the root namespace in the mesh.
    pub selector: Option<Selector>,
    /// Its rules, of which any may vouch for a request.
    pub rules: Vec<Arc<TokenRule>>,
}

impl Scoped for RequestAuthentication {
    fn namespace(&self) -> &Arc<str> {
        &self.name.namespace
    }

    fn selector(&self) -> Option<&Selector> {
        self.selector.as_ref()
    }
}

/// Whose tokens are believed, where they are found, and what goes on of them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TokenRule {
    /// The issuer, which a token has to name (`iss`).
    pub issuer: Arc<str>,
    /// Of which a token has to name one (`aud`); none for any.
    pub audiences: Box<[Box<str>]>,
    /// The issuer's public keys.
    pub keys: KeySource,
    /// How long it may take to fetch them; none for the usual time.
    pub timeout: Option<Duration>,
    /// Where tokens are looked for.
    pub places: Box<[TokenPlace]>,
    /// Whether the token goes on to the destination.
    pub forwards_token: bool,
    /// The header field, in lower case, that shows the destination a token's claims, as Base64url.
    pub payload_field: Option<Arc<str>>,
    /// Header fields that show it one claim each.
    pub claim_fields: Box<[ClaimField]>,
    /// Claims that are lists, written as text with spaces.
    pub spaced_claims: Box<[Box<str>]>,
}

/// Where the public keys of an issuer are.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum KeySource {
    /// They are this JSON Web Key Set (RFC 7517).
    Inline(Arc<str>),
    /// The key set is at that address.
    Url(Arc<str>),
    /// The issuer, which is an address, says where (OpenID Connect Discovery 1.0, section 4).
    Issuer(Arc<str>),
}

/// Where in a request a token may be.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TokenPlace {
    /// In a header field, after a prefix.
    Header {
        /// Its name, in lower case.
        name: Arc<str>,
        /// What stands before the token.
        prefix: Arc<str>,
    },
    /// In a parameter of the query.
    Parameter(Arc<str>),
    /// In a cookie.
    Cookie(Arc<str>),
}

/// A header field that shows one claim.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ClaimField {
    /// The field's name, in lower case.
    pub field: Arc<str>,
    /// The names that lead to the claim.
    pub claim: Box<[Box<str>]>,
}

impl TokenRule {
    /// A rule that finds tokens in the usual places and believes none of them.
    #[must_use]
    pub fn of_nobody() -> Self {
        Self {
            issuer: "".into(),
            audiences: Box::default(),
            keys: KeySource::Inline(r#"{"keys":[]}"#.into()),
            timeout: None,
            places: Self::usual_places(),
            forwards_token: false,
            payload_field: None,
            claim_fields: Box::default(),
            spaced_claims: Box::default(),
        }
    }

    /// Where tokens are looked for if a rule says nothing of it: RFC 6750, sections 2.1 and 2.3.
    #[must_use]
    pub fn usual_places() -> Box<[TokenPlace]> {
        let header = TokenPlace::Header { name: "authorization".into(), prefix: "Bearer ".into() };
        [header, TokenPlace::Parameter("access_token".into())].into()
    }
}
