//! A token's compact form (RFC 7515, section 7.1).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use crate::algorithm::Algorithm;
use crate::claims::Claims;
use crate::error::TokenError;

/// Octets that a token may have. Those with hundreds of groups come to about ten thousand.
pub const MAX_TOKEN: usize = 32 << 10;

/// A token that was read, and that nobody has verified.
#[derive(Debug)]
pub struct Compact<'a> {
    /// By what it says it was signed.
    pub(crate) algorithm: Algorithm,
    /// The key that it says it was signed with.
    pub(crate) key_name: Option<String>,
    /// What the signature is about.
    pub(crate) signed: &'a [u8],
    pub(crate) signature: Vec<u8>,
    payload: &'a str,
    claims: Claims,
}

impl<'a> Compact<'a> {
    /// Reads a token.
    ///
    /// # Errors
    /// What of its form is wrong, or not known here.
    pub fn parse(text: &'a str) -> Result<Self, TokenError> {
        if text.len() > MAX_TOKEN {
            return Err(TokenError::TooLong);
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(TokenError::Form)?;
        let (header, payload) = signed.split_once('.').ok_or(TokenError::Form)?;
        if payload.contains('.') {
            return Err(TokenError::Form);
        }
        let (algorithm, key_name) = read_header(header)?;
        let octets = URL_SAFE_NO_PAD.decode(payload).map_err(|_| TokenError::PayloadEncoding)?;
        let claims: Map<String, Value> = serde_json::from_slice(&octets).map_err(|_| TokenError::PayloadJson)?;
        let claims = Claims::of(claims)?;
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| TokenError::SignatureEncoding)?;
        Ok(Self { algorithm, key_name, signed: signed.as_bytes(), signature, payload, claims })
    }

    /// What it claims.
    #[must_use]
    pub const fn claims(&self) -> &Claims {
        &self.claims
    }

    /// What it claims.
    #[must_use]
    pub fn into_claims(self) -> Claims {
        self.claims
    }

    /// Its claims as it has them, in Base64url.
    #[must_use]
    pub const fn payload(&self) -> &'a str {
        self.payload
    }
}

fn read_header(text: &str) -> Result<(Algorithm, Option<String>), TokenError> {
    let octets = URL_SAFE_NO_PAD.decode(text).map_err(|_| TokenError::HeaderEncoding)?;
    let mut header: Map<String, Value> = serde_json::from_slice(&octets).map_err(|_| TokenError::HeaderJson)?;
    let algorithm = header.get("alg").and_then(Value::as_str).ok_or(TokenError::NoAlgorithm)?;
    let algorithm = Algorithm::named(algorithm).ok_or(TokenError::Algorithm)?;
    if header.contains_key("crit") {
        return Err(TokenError::Critical);
    }
    let key_name = match header.remove("kid") {
        None => None,
        Some(Value::String(name)) => Some(name),
        Some(_) => return Err(TokenError::KeyName),
    };
    Ok((algorithm, key_name.filter(|name| !name.is_empty())))
}
