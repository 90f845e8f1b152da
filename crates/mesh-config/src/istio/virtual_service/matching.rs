//! Matches of a rule.

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_core::l7::{ClientMatch, FieldMatch, PathMatch, Regex, RequestMatch, TextMatch};
use mesh_core::policy::Selector;
use serde::Deserialize;

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
            host: text(self.authority, "authority")?,
            headers: fields(self.headers, &format!("{field}.headers"), true)?,
            without_headers: fields(self.without_headers, &format!("{field}.withoutHeaders"), true)?,
            query: fields(self.query_params, &format!("{field}.queryParams"), false)?,
            port: self.port,
            client: ClientMatch {
                namespace: self.source_namespace.map(Into::into),
                labels: Selector::new(self.source_labels),
            },
        })
    }
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

fn fields(given: BTreeMap<String, Option<RawText>>, field: &str, lower_case: bool) -> Result<Vec<FieldMatch>, Flaw> {
    let mut fields = Vec::with_capacity(given.len());
    for (name, value) in given {
        let value = value.unwrap_or_default().read(&format!("{field}[{name:?}]"))?.unwrap_or(TextMatch::Present);
        let name: Arc<str> = if lower_case { name.to_ascii_lowercase().into() } else { name.into() };
        fields.push(FieldMatch { name, value });
    }
    Ok(fields)
}
