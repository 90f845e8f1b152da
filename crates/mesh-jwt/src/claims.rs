//! What a token claims (RFC 7519, section 4), and whether that holds for us now.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mesh_core::policy::TokenRule;
use mesh_core::policy::request::{Claim, Token};
use serde_json::{Map, Value};

use crate::error::TokenError;

/// How far clocks may be apart, in seconds: Envoy's default.
const SKEW: f64 = 60.0;

/// A time, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Moment(pub f64);

/// A token's claims.
#[derive(Debug)]
pub struct Claims {
    all: Map<String, Value>,
    expiry: Option<Moment>,
    beginning: Option<Moment>,
}

impl Claims {
    pub(crate) fn of(all: Map<String, Value>) -> Result<Self, TokenError> {
        let is_text = |name| all.get(name).is_none_or(Value::is_string);
        if !is_text("iss") {
            return Err(TokenError::IssuerForm);
        }
        if !is_text("sub") {
            return Err(TokenError::SubjectForm);
        }
        let are_texts = |audiences: &Value| match audiences {
            Value::String(_) => true,
            Value::Array(several) => several.iter().all(Value::is_string),
            _ => false,
        };
        if !all.get("aud").is_none_or(are_texts) {
            return Err(TokenError::AudienceForm);
        }
        let moment = |name, error| match all.get(name) {
            None => Ok(None),
            Some(value) => value.as_f64().filter(|time| *time >= 0.0).map(|time| Some(Moment(time))).ok_or(error),
        };
        let expiry = moment("exp", TokenError::ExpiryForm)?;
        let beginning = moment("nbf", TokenError::BeginningForm)?;
        Ok(Self { expiry, beginning, all })
    }

    /// Whether its time is now, give or take a minute.
    ///
    /// # Errors
    /// It is over, or has not begun.
    pub fn check_time(&self, now: Moment) -> Result<(), TokenError> {
        if self.beginning.is_some_and(|beginning| now.0 + SKEW < beginning.0) {
            return Err(TokenError::NotYetValid);
        }
        if self.expiry.is_some_and(|expiry| now.0 > expiry.0 + SKEW) {
            return Err(TokenError::Expired);
        }
        Ok(())
    }

    /// Whether a rule is about it, now; all that is to be asked before its signature is.
    ///
    /// # Errors
    /// The first thing that does not hold, in Envoy's order.
    pub fn check(&self, rule: &TokenRule, now: Moment) -> Result<(), TokenError> {
        let issuer = self.text("iss").unwrap_or_default();
        if issuer.is_empty() || *issuer != *rule.issuer {
            return Err(TokenError::Issuer);
        }
        self.check_time(now)?;
        let is_for_us = |audience: &str| rule.audiences.iter().any(|own| bare(own) == bare(audience));
        if rule.audiences.is_empty() || self.audiences().any(is_for_us) {
            return Ok(());
        }
        Err(TokenError::Audience)
    }

    /// What policies may ask of it.
    #[must_use]
    pub fn token(&self, rule: &TokenRule) -> Token {
        let principal = self.text("iss").zip(self.text("sub"));
        let principal = principal.filter(|(issuer, subject)| !issuer.is_empty() && !subject.is_empty());
        Token {
            principal: principal.map(|(issuer, subject)| format!("{issuer}/{subject}")),
            audiences: self.audiences().map(str::to_owned).collect(),
            presenter: self.text("azp").map(str::to_owned),
            claims: claims(&self.all, &rule.spaced_claims),
        }
    }

    /// A claim as a header field shows it: text, numbers and booleans as they are, and others as Base64 of their JSON.
    #[must_use]
    pub fn shown(&self, names: &[Box<str>]) -> Option<String> {
        let (last, way) = names.split_last()?;
        let mut claims = &self.all;
        for name in way {
            claims = claims.get(&**name)?.as_object()?;
        }
        match claims.get(&**last)? {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            Value::Bool(value) => Some(value.to_string()),
            Value::Number(number) => Some(number.to_string()),
            several => Some(STANDARD.encode(several.to_string())),
        }
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.all.get(name).and_then(Value::as_str)
    }

    fn audiences(&self) -> impl Iterator<Item = &str> {
        let (one, several) = match self.all.get("aud") {
            Some(Value::Array(several)) => (None, several.as_slice()),
            one => (one, &[][..]),
        };
        one.into_iter().chain(several).filter_map(Value::as_str)
    }
}

/// Istio compares audiences without scheme and closing slash.
fn bare(audience: &str) -> &str {
    let rest = audience.strip_prefix("https://").or_else(|| audience.strip_prefix("http://")).unwrap_or(audience);
    rest.strip_suffix('/').unwrap_or(rest)
}

/// Texts and lists of texts, which are all that policies compare.
fn claims(all: &Map<String, Value>, spaced: &[Box<str>]) -> BTreeMap<String, Claim> {
    let read = |(name, value): (&String, &Value)| {
        let claim = match value {
            Value::String(text) if spaced.iter().any(|own| **own == **name) => {
                Claim::Texts(text.split(' ').filter(|text| !text.is_empty()).map(str::to_owned).collect())
            }
            Value::String(text) => Claim::Texts(vec![text.clone()]),
            Value::Array(several) => {
                Claim::Texts(several.iter().filter_map(Value::as_str).map(str::to_owned).collect())
            }
            Value::Object(inner) => Claim::Nested(claims(inner, spaced)),
            Value::Null | Value::Bool(_) | Value::Number(_) => return None,
        };
        Some((name.clone(), claim))
    };
    all.iter().filter_map(read).collect()
}
