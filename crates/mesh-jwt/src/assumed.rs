//! A token that a request would carry, for questions about requests that nobody sends.

use std::sync::Arc;

use mesh_core::policy::TokenRule;
use mesh_core::policy::request::Token;
use mesh_core::why::{Failure, Tokens};

use crate::claims::{Claims, Moment};
use crate::compact::Compact;
use crate::error::TokenError;

/// Claims that somebody says a token has. Whether an issuer has signed them nobody asks; all else that rules ask of a token is.
#[derive(Debug)]
pub struct AssumedClaims {
    claims: Claims,
    now: Moment,
}

impl AssumedClaims {
    /// Reads claims as a JSON object, or a token in its compact form, of which the signature is not looked at.
    ///
    /// # Errors
    /// It is neither, or a claim has a form that no token's has.
    pub fn parse(text: &str, now: Moment) -> Result<Self, TokenError> {
        let text = text.trim();
        let claims = if text.starts_with('{') {
            Claims::of(serde_json::from_str(text).map_err(|_| TokenError::PayloadJson)?)?
        } else {
            Compact::parse(text)?.into_claims()
        };
        Ok(Self { claims, now })
    }
}

impl Tokens for AssumedClaims {
    fn believed(&self, rules: &[&Arc<TokenRule>]) -> Result<Option<Token>, Failure> {
        let of_rule =
            |rule: &&Arc<TokenRule>| self.claims.check(rule, self.now).map(|()| Some(self.claims.token(rule)));
        let believed =
            settled(rules.iter().map(of_rule)).map_err(|error| Failure::new(error.status(), error.to_string()))?;
        Ok(believed.into_iter().next())
    }
}

/// What comes of a request's tokens by all rules, each of which believes one, refuses one or finds none: those that are believed,
/// of which the first counts.
///
/// # Errors
/// None is believed, and one is refused. That a rule is about another issuer says less than anything else.
pub fn settled<T>(outcomes: impl IntoIterator<Item = Result<Option<T>, TokenError>>) -> Result<Vec<T>, TokenError> {
    let (mut believed, mut refused) = (Vec::new(), None);
    for outcome in outcomes {
        match outcome {
            Ok(found) => believed.extend(found),
            Err(error) => refused = refused.filter(|error| *error != TokenError::Issuer).or(Some(error)),
        }
    }
    match refused {
        Some(error) if believed.is_empty() => Err(error),
        _ => Ok(believed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(issuer: &str, audiences: &[&str]) -> Arc<TokenRule> {
        let audiences = audiences.iter().map(|text| (*text).into()).collect();
        Arc::new(TokenRule { issuer: issuer.into(), audiences, ..TokenRule::of_nobody() })
    }

    #[test]
    fn claims_are_asked_for_all_but_a_signature() {
        let now = Moment(1_000.0);
        let text = r#"{"iss":"a","sub":"s","aud":["x"],"exp":2000,"groups":["g"]}"#;
        let assumed = AssumedClaims::parse(text, now).unwrap();
        let ask = |rules: &[Arc<TokenRule>]| assumed.believed(&rules.iter().collect::<Vec<_>>());
        let token = ask(&[rule("b", &[]), rule("a", &["x"])]).unwrap().unwrap();
        assert_eq!(token.principal.as_deref(), Some("a/s"));
        assert_eq!(token.claim(&["groups".into()]), ["g"]);
        assert_eq!(ask(&[]), Ok(None));
        assert_eq!(ask(&[rule("b", &[])]).unwrap_err().status, 401);
        assert_eq!(ask(&[rule("b", &[]), rule("a", &["y"])]).unwrap_err().status, 403);
        let late = AssumedClaims::parse(text, Moment(3_000.0)).unwrap();
        assert_eq!(late.believed(&[&rule("a", &[])]).unwrap_err(), Failure::new(401, TokenError::Expired.to_string()));
        assert_eq!(AssumedClaims::parse("{", now).unwrap_err(), TokenError::PayloadJson);
        assert_eq!(AssumedClaims::parse("token", now).unwrap_err(), TokenError::Form);
    }
}
