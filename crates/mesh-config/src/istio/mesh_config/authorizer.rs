//! `envoyExtAuthzHttp` and `envoyExtAuthzGrpc`: programs that decide on requests.

use std::collections::BTreeMap;
use std::time::Duration;

use mesh_core::policy::{Pattern, Patterns};
use mesh_core::provider::{AskedBy, Authorizer, BodyInCheck, HttpCheck};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::super::rule::pattern;
use super::super::{Flaw, check_header_field, duration};
use super::provider::address;
use crate::code::Code;

/// How long an answer may take where nothing is said: Istio's default.
const TIMEOUT: Duration = Duration::from_secs(600);
/// The status of a refusal without an answer, where nothing is said: Istio's default.
const STATUS_ON_ERROR: u16 = 403;
/// Most that may be held of a body. Every request that waits for its answer holds as much.
const MAX_BODY: usize = 4 << 20;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawHttp {
    service: String,
    port: Value,
    timeout: Option<String>,
    path_prefix: Option<String>,
    #[serde(default)]
    fail_open: bool,
    /// Always so.
    #[serde(rename = "clearRouteCache")]
    _clear_route_cache: Option<bool>,
    status_on_error: Option<Value>,
    /// The older name of the next.
    #[serde(default)]
    include_headers_in_check: Vec<String>,
    #[serde(default)]
    include_request_headers_in_check: Vec<String>,
    #[serde(default)]
    include_additional_headers_in_check: BTreeMap<String, String>,
    include_request_body_in_check: Option<RawBody>,
    #[serde(default)]
    headers_to_upstream_on_allow: Vec<String>,
    #[serde(default)]
    headers_to_downstream_on_deny: Vec<String>,
    #[serde(default)]
    headers_to_downstream_on_allow: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawGrpc {
    service: String,
    port: Value,
    timeout: Option<String>,
    #[serde(default)]
    fail_open: bool,
    /// Always so.
    #[serde(rename = "clearRouteCache")]
    _clear_route_cache: Option<bool>,
    status_on_error: Option<Value>,
    include_request_body_in_check: Option<RawBody>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawBody {
    max_request_bytes: u64,
    #[serde(default)]
    allow_partial_message: bool,
    #[serde(default)]
    pack_as_bytes: bool,
}

/// Reads one that is asked by HTTP.
pub(super) fn by_http(value: Value, field: &str) -> Result<Authorizer, Flaw> {
    let raw: RawHttp = decode(value, field)?;
    let prefix = raw.path_prefix.unwrap_or_default();
    let is_path = |prefix: &str| prefix.starts_with('/') && !prefix.contains(['?', '#', ' ']) && prefix.is_ascii();
    if !prefix.is_empty() && !is_path(&prefix) {
        let message = format!("{prefix:?} is no path with a slash at its beginning");
        return Err(Flaw::value(format!("{field}.pathPrefix"), message));
    }
    let mut additional_headers = Vec::new();
    for (name, value) in raw.include_additional_headers_in_check {
        check_header_field(&name, &value, &format!("{field}.includeAdditionalHeadersInCheck"))?;
        additional_headers.push((name.to_ascii_lowercase().into(), value.into()));
    }
    let headers = |list: &[String], name: &str| names(list, &format!("{field}.{name}"));
    let asked_for = [raw.include_headers_in_check, raw.include_request_headers_in_check].concat();
    let on_deny = raw.headers_to_downstream_on_deny;
    let check = HttpCheck {
        path_prefix: prefix.trim_end_matches('/').into(),
        request_headers: headers(&asked_for, "includeRequestHeadersInCheck")?,
        additional_headers,
        to_upstream_on_allow: headers(&raw.headers_to_upstream_on_allow, "headersToUpstreamOnAllow")?,
        to_downstream_on_allow: headers(&raw.headers_to_downstream_on_allow, "headersToDownstreamOnAllow")?,
        to_downstream_on_deny: match on_deny.is_empty() {
            true => None,
            false => Some(headers(&on_deny, "headersToDownstreamOnDeny")?),
        },
    };
    Ok(Authorizer {
        address: address(&raw.service, &raw.port, field)?,
        timeout: timeout(raw.timeout.as_deref(), field)?,
        fail_open: raw.fail_open,
        status_on_error: status(raw.status_on_error.as_ref(), field)?,
        body: raw.include_request_body_in_check.map(|body| body.read(field)).transpose()?,
        asked_by: AskedBy::Http(check),
    })
}

/// Reads one that is asked by gRPC.
pub(super) fn by_grpc(value: Value, field: &str) -> Result<Authorizer, Flaw> {
    let raw: RawGrpc = decode(value, field)?;
    Ok(Authorizer {
        address: address(&raw.service, &raw.port, field)?,
        timeout: timeout(raw.timeout.as_deref(), field)?,
        fail_open: raw.fail_open,
        status_on_error: status(raw.status_on_error.as_ref(), field)?,
        body: raw.include_request_body_in_check.map(|body| body.read(field)).transpose()?,
        asked_by: AskedBy::Grpc,
    })
}

impl RawBody {
    fn read(&self, field: &str) -> Result<BodyInCheck, Flaw> {
        let most = usize::try_from(self.max_request_bytes).ok().filter(|most| (1..=MAX_BODY).contains(most));
        let max_bytes = most.ok_or_else(|| {
            let message = format!("it is from 1 to {MAX_BODY} bytes: every request that is asked about holds as much");
            Flaw::value(format!("{field}.includeRequestBodyInCheck.maxRequestBytes"), message)
        })?;
        Ok(BodyInCheck { max_bytes, allow_partial: self.allow_partial_message, as_bytes: self.pack_as_bytes })
    }
}

fn decode<T: DeserializeOwned>(value: Value, field: &str) -> Result<T, Flaw> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let at = error.path().to_string();
        let field = if at == "." { field.to_owned() } else { format!("{field}.{at}") };
        Flaw { code: Code::WrongField, field, message: error.inner().to_string() }
    })
}

fn timeout(given: Option<&str>, field: &str) -> Result<Duration, Flaw> {
    let field = format!("{field}.timeout");
    match given {
        None => Ok(TIMEOUT),
        Some(text) => match duration(text, &field)? {
            Duration::ZERO => Err(Flaw::value(field, "an answer takes some time: write 1ms or more")),
            timeout => Ok(timeout),
        },
    }
}

fn status(given: Option<&Value>, field: &str) -> Result<u16, Flaw> {
    let number = match given {
        None => Some(STATUS_ON_ERROR),
        Some(Value::String(text)) if text.is_empty() => Some(STATUS_ON_ERROR),
        Some(Value::String(text)) => text.parse().ok(),
        Some(value) => value.as_u64().and_then(|number| u16::try_from(number).ok()),
    };
    // What refuses is an error or a redirect; less would tell the client to go on.
    let number = number.filter(|number| (300..=599).contains(number));
    number.ok_or_else(|| Flaw::value(format!("{field}.statusOnError"), "it is no status from 300 to 599"))
}

/// Names of fields, in lower case as HTTP compares them: exact, by prefix or by suffix.
fn names(list: &[String], field: &str) -> Result<Patterns, Flaw> {
    let read = |(index, name): (usize, &String)| -> Result<Pattern, Flaw> {
        pattern(&name.to_ascii_lowercase()).map_err(|message| Flaw::value(format!("{field}[{index}]"), message))
    };
    list.iter().enumerate().map(read).collect()
}
