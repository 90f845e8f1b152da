//! One rule of a RequestAuthentication (`jwtRules`).

use mesh_core::policy::{ClaimField, KeySource, TokenPlace, TokenRule};
use serde::Deserialize;
use serde_json::Value;

use super::{Flaw, check_header_field, duration};

/// Fields by which a message is framed or routed: a claim in one of them would make another message of it.
const NOT_FOR_CLAIMS: [&str; 10] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
/// Claims that are lists written as text, whatever a rule says (RFC 8693, section 4.2; and as Istio has it).
const SPACED: [&str; 2] = ["permission", "scope"];

#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct RawTokenRule {
    /// Who issues the tokens (iss).
    issuer: Option<String>,
    /// Of which a token has to name one (aud); without any, it may be for anybody.
    audiences: Option<Vec<String>>,
    /// Where the issuer's keys are; without it and jwks, the issuer itself says where.
    jwks_uri: Option<String>,
    /// The issuer's keys themselves, as a JSON Web Key Set.
    jwks: Option<String>,
    /// Header fields in which tokens are looked for; without any place, in Authorization after Bearer.
    from_headers: Option<Vec<RawHeader>>,
    /// Parameters of the query in which tokens are looked for; without any place, in access_token.
    from_params: Option<Vec<String>>,
    /// Cookies in which tokens are looked for.
    from_cookies: Option<Vec<String>>,
    /// The header field that shows the destination a token's claims, as Base64url.
    output_payload_to_header: Option<String>,
    /// Header fields that show the destination one claim each.
    output_claim_to_headers: Option<Vec<RawClaimField>>,
    /// Whether the token goes on to the destination.
    forward_original_token: Option<bool>,
    /// How long it may take to fetch the keys.
    timeout: Option<String>,
    /// Claims that are lists written as text with spaces, beside scope and permission.
    space_delimited_claims: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct RawHeader {
    /// The field's name.
    name: String,
    /// What stands before the token.
    prefix: Option<String>,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct RawClaimField {
    /// The field's name.
    header: String,
    /// The claim, with dots between the names that lead to it.
    claim: String,
}

/// Reads a rule.
pub(super) fn token_rule(raw: RawTokenRule, field: &str) -> Result<TokenRule, Flaw> {
    let issuer = raw.issuer.filter(|issuer| !issuer.is_empty());
    let issuer = issuer.ok_or_else(|| Flaw::value(format!("{field}.issuer"), "whose tokens these are is not said"))?;
    let keys = keys(raw.jwks_uri, raw.jwks, &issuer, field)?;
    let audiences = texts(raw.audiences, &format!("{field}.audiences"))?;
    let places = places(raw.from_headers, raw.from_params, raw.from_cookies, field)?;
    let payload_field = raw.output_payload_to_header.filter(|name| !name.is_empty());
    let payload_field = payload_field.map(|name| claims_field(&name, &format!("{field}.outputPayloadToHeader")));
    let mut claim_fields = Vec::new();
    for (index, shown) in raw.output_claim_to_headers.unwrap_or_default().into_iter().enumerate() {
        let field = format!("{field}.outputClaimToHeaders[{index}]");
        let claim = names(&shown.claim, &format!("{field}.claim"))?;
        claim_fields.push(ClaimField { field: claims_field(&shown.header, &format!("{field}.header"))?.into(), claim });
    }
    let timeout = raw.timeout.map(|text| duration(&text, format!("{field}.timeout")));
    let mut spaced_claims = texts(raw.space_delimited_claims, &format!("{field}.spaceDelimitedClaims"))?.into_vec();
    spaced_claims.extend(SPACED.map(Into::into));
    Ok(TokenRule {
        issuer: issuer.into(),
        audiences,
        keys,
        timeout: timeout.transpose()?,
        places,
        forwards_token: raw.forward_original_token.unwrap_or_default(),
        payload_field: payload_field.transpose()?.map(Into::into),
        claim_fields: claim_fields.into(),
        spaced_claims: spaced_claims.into(),
    })
}

fn keys(url: Option<String>, set: Option<String>, issuer: &str, field: &str) -> Result<KeySource, Flaw> {
    let (url, set) = (url.filter(|url| !url.is_empty()), set.filter(|set| !set.is_empty()));
    match (url, set) {
        (Some(_), Some(_)) => Err(Flaw::value(format!("{field}.jwks"), "a rule has jwksUri or jwks, not both")),
        (Some(url), None) => {
            address(&url).map_err(|why| Flaw::value(format!("{field}.jwksUri"), why))?;
            Ok(KeySource::Url(url.into()))
        }
        (None, Some(set)) => {
            key_set(&set).map_err(|why| Flaw::value(format!("{field}.jwks"), why))?;
            Ok(KeySource::Inline(set.into()))
        }
        (None, None) => {
            let why = |why| format!("without jwksUri or jwks the issuer has to say where its keys are: {why}");
            address(issuer).map_err(|error| Flaw::value(format!("{field}.issuer"), why(error)))?;
            Ok(KeySource::Issuer(issuer.into()))
        }
    }
}

/// Whether something may be fetched there.
fn address(url: &str) -> Result<(), String> {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let rest = rest.ok_or_else(|| format!("{url:?} does not begin with https:// or http://"))?;
    let host = rest.split(['/', '?']).next().unwrap_or_default();
    if host.is_empty() || host.starts_with(':') || host.contains('@') || !url.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(format!("{url:?} is no address of a server"));
    }
    Ok(())
}

/// Whether a text is a key set (RFC 7517) with a public key. The keys themselves are read where tokens are verified.
fn key_set(text: &str) -> Result<(), String> {
    let set: Value = serde_json::from_str(text).map_err(|error| format!("it is no JSON: {error}"))?;
    let keys = set.get("keys").and_then(Value::as_array).ok_or("it has no list \"keys\"")?;
    let is_public = |key: &Value| {
        let has = |name| key.get(name).is_some_and(Value::is_string);
        match key.get("kty").and_then(Value::as_str) {
            Some("RSA") => has("n") && has("e"),
            Some("EC") => has("crv") && has("x") && has("y"),
            Some("OKP") => has("crv") && has("x"),
            _ => false,
        }
    };
    match keys.iter().any(is_public) {
        true => Ok(()),
        false => Err("it has no public key of type RSA, EC or OKP; shared secrets are not taken".to_owned()),
    }
}

fn places(
    headers: Option<Vec<RawHeader>>,
    parameters: Option<Vec<String>>,
    cookies: Option<Vec<String>>,
    field: &str,
) -> Result<Box<[TokenPlace]>, Flaw> {
    let mut places = Vec::new();
    for (index, header) in headers.unwrap_or_default().into_iter().enumerate() {
        let prefix = header.prefix.unwrap_or_default();
        check_header_field(&header.name, &prefix, &format!("{field}.fromHeaders[{index}]"))?;
        places.push(TokenPlace::Header { name: header.name.to_ascii_lowercase().into(), prefix: prefix.into() });
    }
    let parameters = texts(parameters, &format!("{field}.fromParams"))?;
    places.extend(parameters.into_iter().map(|name| TokenPlace::Parameter(name.into())));
    let cookies = texts(cookies, &format!("{field}.fromCookies"))?;
    places.extend(cookies.into_iter().map(|name| TokenPlace::Cookie(name.into())));
    Ok(if places.is_empty() { TokenRule::usual_places() } else { places.into() })
}

/// Texts of which none is empty.
fn texts(given: Option<Vec<String>>, field: &str) -> Result<Box<[Box<str>]>, Flaw> {
    let given = given.unwrap_or_default();
    match given.iter().position(String::is_empty) {
        Some(index) => Err(Flaw::value(format!("{field}[{index}]"), "it is empty")),
        None => Ok(given.into_iter().map(Into::into).collect()),
    }
}

/// The names that lead to a claim, written with dots between them.
fn names(text: &str, field: &str) -> Result<Box<[Box<str>]>, Flaw> {
    match text.split('.').any(str::is_empty) {
        true => Err(Flaw::value(field, format!("{text:?} leads to no claim"))),
        false => Ok(text.split('.').map(Into::into).collect()),
    }
}

/// A field in which a claim may go on, in lower case.
fn claims_field(name: &str, field: &str) -> Result<String, Flaw> {
    check_header_field(name, "", field)?;
    let name = name.to_ascii_lowercase();
    match NOT_FOR_CLAIMS.contains(&name.as_str()) {
        true => Err(Flaw::value(field, format!("{name} belongs to the message itself, and can show no claim"))),
        false => Ok(name),
    }
}
