//! Why a token is not believed.

/// Why a token is not believed. The texts are Envoy's, which people search for; nobody may retry with the same token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum TokenError {
    /// It is longer than [`crate::MAX_TOKEN`].
    #[error("Jwt is too long")]
    TooLong,
    /// It has not three parts.
    #[error("Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections")]
    Form,
    /// Its header is no Base64url.
    #[error("Jwt header is an invalid Base64url encoded")]
    HeaderEncoding,
    /// Its header is no JSON object.
    #[error("Jwt header is an invalid JSON")]
    HeaderJson,
    /// Its header says no algorithm.
    #[error("Jwt header [alg] field is required and must be a string")]
    NoAlgorithm,
    /// Its algorithm is none that proves anything to somebody with a public key.
    #[error("Jwt header [alg] is not supported")]
    Algorithm,
    /// The name of its key is no text.
    #[error("Jwt header [kid] field is not a string")]
    KeyName,
    /// It asks for an extension that has to be understood (RFC 7515, section 4.1.11).
    #[error("Jwt header [crit] is not supported")]
    Critical,
    /// Its claims are no Base64url.
    #[error("Jwt payload is an invalid Base64url encoded")]
    PayloadEncoding,
    /// Its claims are no JSON object.
    #[error("Jwt payload is an invalid JSON")]
    PayloadJson,
    /// Its issuer is no text.
    #[error("Jwt payload [iss] field is not a string")]
    IssuerForm,
    /// Its subject is no text.
    #[error("Jwt payload [sub] field is not a string")]
    SubjectForm,
    /// Its audiences are no texts.
    #[error("Jwt payload [aud] field is not a string or string list")]
    AudienceForm,
    /// The end of its time is no time.
    #[error("Jwt payload [exp] field is not a positive number")]
    ExpiryForm,
    /// The beginning of its time is no time.
    #[error("Jwt payload [nbf] field is not a positive number")]
    BeginningForm,
    /// Its signature is no Base64url.
    #[error("Jwt signature is an invalid Base64url encoded")]
    SignatureEncoding,
    /// No rule is about its issuer.
    #[error("Jwt issuer is not configured")]
    Issuer,
    /// Its time is over.
    #[error("Jwt is expired")]
    Expired,
    /// Its time has not begun.
    #[error("Jwt not yet valid")]
    NotYetValid,
    /// It is for somebody else.
    #[error("Audiences in Jwt are not allowed")]
    Audience,
    /// No key of the issuer can have made it.
    #[error("Jwks doesn't have key to match kid or alg from Jwt")]
    NoKey,
    /// The issuer's keys are not known.
    #[error("Jwks remote fetch is failed")]
    NoKeys,
    /// None of the issuer's keys made it.
    #[error("Jwt verification fails")]
    Signature,
}

impl TokenError {
    /// The status that its request is answered with: 401, and 403 for somebody else's token, as Envoy does.
    #[must_use]
    pub const fn status(self) -> u16 {
        if matches!(self, Self::Audience) { 403 } else { 401 }
    }

    /// A short name, of a closed set, to count by.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::TooLong => "too_long",
            Self::Form
            | Self::HeaderEncoding
            | Self::HeaderJson
            | Self::NoAlgorithm
            | Self::KeyName
            | Self::PayloadEncoding
            | Self::PayloadJson
            | Self::IssuerForm
            | Self::SubjectForm
            | Self::AudienceForm
            | Self::ExpiryForm
            | Self::BeginningForm
            | Self::SignatureEncoding => "malformed",
            Self::Algorithm | Self::Critical => "unsupported",
            Self::Issuer => "issuer",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::Audience => "audience",
            Self::NoKey => "no_key",
            Self::NoKeys => "no_keys",
            Self::Signature => "signature",
        }
    }
}
