//! Matches of a rule.

use std::collections::BTreeMap;

use mesh_core::l7::{ClientMatch, FieldMatch, PathMatch, Regex, RequestMatch, TextMatch};
use mesh_core::policy::Selector;
use serde::Deserialize;

use super::super::request_rule::bracketed;
use super::super::{Flaw, Remark};
use crate::code::Code;

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct RawText {
    /// This and nothing else.
    exact: Option<String>,
    /// Whatever begins so.
    prefix: Option<String>,
    /// A regular expression (RE2) for the whole of it.
    regex: Option<String>,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct RawMatch {
    /// What the match is called.
    #[serde(rename = "name")]
    _name: Option<String>,
    /// The path.
    uri: Option<RawText>,
    /// http or https.
    scheme: Option<RawText>,
    /// The method.
    method: Option<RawText>,
    /// The host that is asked.
    authority: Option<RawText>,
    /// Header fields, by name; one without a condition has to be there.
    #[serde(default)]
    headers: BTreeMap<String, Option<RawText>>,
    /// Header fields that may not be so.
    #[serde(default)]
    without_headers: BTreeMap<String, Option<RawText>>,
    /// Parameters of the query, by name.
    #[serde(default)]
    query_params: BTreeMap<String, Option<RawText>>,
    /// The port that is asked.
    port: Option<u16>,
    /// Labels of the client's pod.
    #[serde(default)]
    source_labels: BTreeMap<String, String>,
    /// The client's namespace.
    source_namespace: Option<String>,
    /// The gateways that the match is for.
    gateways: Option<Vec<String>>,
    /// Whether the case of the path does not matter; of exact and prefix.
    #[serde(default)]
    ignore_uri_case: bool,
    /// Read, and not honoured: a finding says so.
    stat_prefix: Option<String>,
}

impl RawText {
    /// The match; none where nothing is given, which matches what is there.
    pub(super) fn read(self, field: &str) -> Result<Option<TextMatch>, Flaw> {
        match (self.exact, self.prefix, self.regex) {
            (None, None, None) => Ok(None),
            // Istio's own word for whatever is there; as a pattern it is none.
            (None, None, Some(source)) if source == "*" => Ok(None),
            (Some(exact), None, None) => Ok(Some(TextMatch::Exact(exact.into()))),
            (None, Some(prefix), None) => Ok(Some(TextMatch::Prefix(prefix.into()))),
            (None, None, Some(source)) => Ok(Some(TextMatch::Regex(regex(&source, &format!("{field}.regex"))?))),
            _ => Err(Flaw::value(field, "exact, prefix and regex exclude each other")),
        }
    }
}

fn regex(source: &str, field: &str) -> Result<Regex, Flaw> {
    Regex::new(source).map_err(|error| Flaw::value(field, error.to_string()))
}

impl RawMatch {
    /// The gateways that the match is for, where it names any.
    pub(super) fn gateways(&self) -> Option<&[String]> {
        self.gateways.as_deref().filter(|gateways| !gateways.is_empty())
    }

    pub(super) fn read(self, field: &str, remarks: &mut Vec<Remark>) -> Result<RequestMatch, Flaw> {
        if self.stat_prefix.is_some() {
            let message = "metrics have no names of their own for a match";
            remarks.push(Remark::new(Code::FieldNotHonoured, format!("{field}.statPrefix"), message));
        }
        let text =
            |given: Option<RawText>, name: &str| given.map_or(Ok(None), |given| given.read(&format!("{field}.{name}")));
        Ok(RequestMatch {
            path: path(self.uri, self.ignore_uri_case, &format!("{field}.uri"))?,
            method: text(self.method, "method")?,
            scheme: text(self.scheme, "scheme")?,
            host: authority(self.authority, &format!("{field}.authority"))?,
            headers: headers(self.headers, &format!("{field}.headers"), remarks)?,
            without_headers: headers(self.without_headers, &format!("{field}.withoutHeaders"), remarks)?,
            query: parameters(self.query_params, &format!("{field}.queryParams"))?,
            port: self.port,
            client: ClientMatch {
                namespace: self.source_namespace.map(Into::into),
                labels: Selector::new(self.source_labels),
            },
        })
    }
}

/// A match on the host, which is compared in lower case: hosts have none (RFC 9110, section 4.2.3).
fn authority(given: Option<RawText>, field: &str) -> Result<Option<TextMatch>, Flaw> {
    let given = given.map(|raw| RawText {
        exact: raw.exact.map(|text| text.to_ascii_lowercase()),
        prefix: raw.prefix.map(|text| text.to_ascii_lowercase()),
        regex: raw.regex.map(|source| format!("(?i:{source})")),
    });
    given.map_or(Ok(None), |given| given.read(field))
}

fn path(given: Option<RawText>, ignoring_case: bool, field: &str) -> Result<PathMatch, Flaw> {
    let Some(given) = given.map_or(Ok(None), |given| given.read(field))? else {
        return Ok(PathMatch::Any);
    };
    Ok(match (given, ignoring_case) {
        (TextMatch::Exact(path), false) => PathMatch::Exact(path),
        (TextMatch::Exact(path), true) => PathMatch::ExactIgnoringCase(path),
        (TextMatch::Prefix(path), false) => PathMatch::Prefix(path),
        (TextMatch::Prefix(path), true) => PathMatch::PrefixIgnoringCase(path),
        // Istio: the case of a pattern is the pattern's own affair.
        (TextMatch::Regex(regex), _) => PathMatch::Regex(regex),
        (TextMatch::Present, _) => PathMatch::Any,
    })
}

/// What a match has a field of its own for, and Istio's reference has ignored among the header fields.
const BESIDE_HEADERS: [&str; 4] = ["uri", "scheme", "method", "authority"];

/// Matches on header fields, and on claims of the verified token by names that no field has.
fn headers(
    given: BTreeMap<String, Option<RawText>>,
    field: &str,
    remarks: &mut Vec<Remark>,
) -> Result<Vec<FieldMatch>, Flaw> {
    let mut matches = Vec::with_capacity(given.len());
    for (name, value) in given {
        let field = format!("{field}[{name:?}]");
        let value = value.unwrap_or_default().read(&field)?.unwrap_or(TextMatch::Present);
        let lower = name.to_ascii_lowercase();
        if BESIDE_HEADERS.contains(&&*lower) {
            let message =
                format!("it is ignored, and the match holds without it: write {lower} beside headers instead");
            remarks.push(Remark::new(Code::WithoutEffect, field, message));
            continue;
        }
        matches.push(if name.starts_with('@') {
            let claim = claim(&name).ok_or_else(|| {
                let message = format!("{name:?} is not of the form {CLAIMS}.NAME or {CLAIMS}[NAME]");
                Flaw::value(field, message)
            })?;
            FieldMatch { name: name.into(), claim: Some(claim), value }
        } else {
            FieldMatch { name: lower.into(), claim: None, value }
        });
    }
    Ok(matches)
}

/// What is in front of the names that lead to a claim.
const CLAIMS: &str = "@request.auth.claims";

/// The names that lead to a claim: each after a dot, or each in brackets.
fn claim(name: &str) -> Option<Box<[Box<str>]>> {
    let rest = name.strip_prefix(CLAIMS)?;
    match rest.strip_prefix('.') {
        Some(rest) if rest.split('.').all(|name| !name.is_empty()) => Some(rest.split('.').map(Into::into).collect()),
        Some(_) => None,
        None => bracketed(rest).map(|names| names.into_iter().map(Into::into).collect()),
    }
}

fn parameters(given: BTreeMap<String, Option<RawText>>, field: &str) -> Result<Vec<FieldMatch>, Flaw> {
    let read = |(name, value): (String, Option<RawText>)| {
        let value = value.unwrap_or_default().read(&format!("{field}[{name:?}]"))?.unwrap_or(TextMatch::Present);
        Ok(FieldMatch { name: name.into(), claim: None, value })
    };
    given.into_iter().map(read).collect()
}
