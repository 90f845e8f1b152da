//! HTTPRoute of gateway.networking.k8s.io.

use std::collections::HashSet;

use mesh_core::l7::{FieldMatch, PathMatch, Regex, RequestMatch, Retry, RetryOn, TextMatch, Timeouts};
use serde::Deserialize;
use serde_json::Value;

use super::filters::RawFilter;
use super::reference::RawBackendRef;
use super::route::{RawParts, RawRule, Route, Unread};
use super::session_persistence::RawSession;
use crate::finding::ObjectName;
use crate::istio::{Flaw, duration};

const KIND: &str = "HTTPRoute";

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct HttpRouteRule {
    name: Option<String>,
    #[serde(default)]
    matches: Vec<RawMatch>,
    #[serde(default)]
    filters: Vec<RawFilter>,
    #[serde(default)]
    backend_refs: Vec<RawBackendRef>,
    timeouts: Option<RawTimeouts>,
    retry: Option<RawRetry>,
    session_persistence: Option<RawSession>,
}

/// A match on a request.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct RawMatch {
    /// The path; every path without it.
    path: Option<RawPath>,
    /// Header fields that it has to have.
    #[serde(default)]
    headers: Vec<RawField>,
    /// Parameters of the query that it has to have.
    #[serde(default)]
    query_params: Vec<RawField>,
    /// The method.
    method: Option<String>,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct RawPath {
    /// How it is compared; PathPrefix without it.
    #[serde(rename = "type")]
    kind: Option<RawPathKind>,
    /// The path, its beginning by whole elements, or a pattern.
    value: Option<String>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
enum RawPathKind {
    Exact,
    PathPrefix,
    RegularExpression,
}

/// A match on a field by its name.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct RawField {
    /// How it is compared; Exact without it.
    #[serde(rename = "type")]
    kind: Option<RawFieldKind>,
    /// Its name.
    name: String,
    /// Its value, or a pattern of it.
    value: String,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(super) enum RawFieldKind {
    Exact,
    RegularExpression,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawTimeouts {
    request: Option<String>,
    backend_request: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRetry {
    #[serde(default)]
    codes: Vec<u16>,
    attempts: Option<u32>,
    backoff: Option<String>,
}

impl RawRule for HttpRouteRule {
    /// The default of the API: one rule for every request.
    fn unwritten() -> Vec<Self> {
        vec![Self::default()]
    }
}

pub(crate) fn read(value: &Value, name: &ObjectName) -> Result<Route, Flaw> {
    Unread::<HttpRouteRule>::of(value, name)?.read(KIND, HttpRouteRule::parts)
}

impl HttpRouteRule {
    fn parts(self, field: &str) -> Result<RawParts, Flaw> {
        let mut matches = Vec::with_capacity(self.matches.len());
        for (index, raw) in self.matches.into_iter().enumerate() {
            matches.push(raw.read(&format!("{field}.matches[{index}]"))?);
        }
        let timeouts = self.timeouts.map(|timeouts| timeouts.read(&format!("{field}.timeouts")));
        let retry = self.retry.map(|retry| retry.read(&format!("{field}.retry")));
        Ok(RawParts {
            name: self.name,
            matches,
            filters: self.filters,
            backend_refs: self.backend_refs,
            timeouts: timeouts.transpose()?.unwrap_or_default(),
            retry: retry.transpose()?,
            session: self.session_persistence,
        })
    }
}

impl RawMatch {
    pub(crate) fn read(self, field: &str) -> Result<RequestMatch, Flaw> {
        let path = self.path.map(|path| path.read(&format!("{field}.path"))).transpose()?;
        Ok(RequestMatch {
            path: path.unwrap_or(PathMatch::ElementPrefix("/".into())),
            method: self.method.map(|method| TextMatch::Exact(method.into())),
            headers: fields(self.headers, &format!("{field}.headers"), true)?,
            query: fields(self.query_params, &format!("{field}.queryParams"), false)?,
            ..RequestMatch::default()
        })
    }
}

impl RawPath {
    fn read(self, field: &str) -> Result<PathMatch, Flaw> {
        let value = self.value.unwrap_or_else(|| "/".to_owned());
        let absolute = || {
            let whole = value.starts_with('/') && !value.contains("//") && !value.contains(['?', '#']);
            let message = format!("{value:?} is no path: it begins with one slash and has no query");
            whole.then_some(()).ok_or_else(|| Flaw::value(format!("{field}.value"), message))
        };
        Ok(match self.kind.unwrap_or(RawPathKind::PathPrefix) {
            RawPathKind::Exact => {
                absolute()?;
                PathMatch::Exact(value.into())
            }
            RawPathKind::PathPrefix => {
                absolute()?;
                let trimmed = value.trim_end_matches('/');
                PathMatch::ElementPrefix(if trimmed.is_empty() { "/" } else { trimmed }.into())
            }
            RawPathKind::RegularExpression => PathMatch::Regex(regex(&value, &format!("{field}.value"))?),
        })
    }
}

pub(super) fn regex(source: &str, field: &str) -> Result<Regex, Flaw> {
    Regex::new(source).map_err(|error| Flaw::value(field, error.to_string()))
}

/// Matches on fields. Of several for one name, the first counts (HTTPHeaderMatch, `name`).
pub(super) fn fields(given: Vec<RawField>, field: &str, lower_case: bool) -> Result<Vec<FieldMatch>, Flaw> {
    let mut named = HashSet::new();
    let mut fields = Vec::with_capacity(given.len());
    for (index, raw) in given.into_iter().enumerate() {
        let name = if lower_case { raw.name.to_ascii_lowercase() } else { raw.name };
        if !named.insert(name.clone()) {
            continue;
        }
        let value = match raw.kind.unwrap_or(RawFieldKind::Exact) {
            RawFieldKind::Exact => TextMatch::Exact(raw.value.into()),
            RawFieldKind::RegularExpression => TextMatch::Regex(regex(&raw.value, &format!("{field}[{index}].value"))?),
        };
        fields.push(FieldMatch { name: name.into(), claim: None, value });
    }
    Ok(fields)
}

impl RawTimeouts {
    fn read(self, field: &str) -> Result<Timeouts, Flaw> {
        // 0s is no limit.
        let time = |text: Option<String>, name: &str| {
            let read = text.map(|text| duration(&text, format!("{field}.{name}"))).transpose();
            read.map(|time| time.filter(|time| !time.is_zero()))
        };
        let (request, backend_request) =
            (time(self.request, "request")?, time(self.backend_request, "backendRequest")?);
        if let (Some(whole), Some(attempt)) = (request, backend_request)
            && attempt > whole
        {
            return Err(Flaw::value(format!("{field}.backendRequest"), "it is longer than request"));
        }
        Ok(Timeouts { request, backend_request, idle: None })
    }
}

impl RawRetry {
    fn read(self, field: &str) -> Result<Retry, Flaw> {
        if let Some(status) = self.codes.iter().find(|status| !(400..=599).contains(*status)) {
            return Err(Flaw::value(format!("{field}.codes"), format!("{status} is not from 400 to 599")));
        }
        let backoff = self.backoff.map(|backoff| duration(&backoff, format!("{field}.backoff"))).transpose()?;
        Ok(Retry {
            attempts: self.attempts.unwrap_or(2).min(100),
            per_try_timeout: None,
            // What the API wants retried wherever retries are asked for (HTTPRouteRetry).
            on: RetryOn {
                connect_failure: true,
                reset: true,
                refused_stream: true,
                per_try_timeout: true,
                statuses: self.codes,
                ..RetryOn::default()
            },
            backoff_is_least: backoff.is_some(),
            same_again: false,
            backoff: backoff.unwrap_or(Retry::DEFAULT_BACKOFF),
        })
    }
}
