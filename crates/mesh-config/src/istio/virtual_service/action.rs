//! What becomes of a request: destinations, redirects, answers, and changes to header and path.

use std::collections::BTreeMap;

use mesh_core::l7::field_value::Message;
use mesh_core::l7::rule::{DirectResponse, Mirror, PathRewrite, Redirect, RedirectPort, Rewrite};
use mesh_core::l7::{Action, Backend, BackendTarget, FieldValue, HeaderEdits, Percent, Regex};
use serde::Deserialize;

use super::super::{Flaw, Remark, check_header_field};
use super::resilience::RawPercent;
use crate::code::Code;

/// Octets of an answer that a rule gives itself; Envoy has the same bound.
const MAX_BODY: usize = 4_096;

#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct RawDestination {
    /// The Service, by its DNS name or, in the same namespace, its short one.
    host: String,
    /// A subset of its DestinationRule.
    subset: Option<String>,
    /// The port; the one that was asked where nothing is said.
    port: Option<RawPort>,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct RawPort {
    /// The number.
    number: u16,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct RawRoute {
    /// The Service.
    destination: RawDestination,
    /// Its share, against those of the others.
    weight: Option<i64>,
    /// Changes of header fields of what goes there.
    headers: Option<RawHeaders>,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct RawMirror {
    /// Where copies go.
    destination: RawDestination,
    /// Share of requests that are copied.
    percentage: Option<RawPercent>,
}

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct RawHeaders {
    /// Of the request.
    request: Option<RawEdits>,
    /// Of the response.
    response: Option<RawEdits>,
}

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct RawEdits {
    /// Fields that are replaced.
    #[serde(default)]
    set: BTreeMap<String, String>,
    /// Fields that are added.
    #[serde(default)]
    add: BTreeMap<String, String>,
    /// Fields that are taken out.
    #[serde(default)]
    remove: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct RawRedirect {
    /// The path to go to.
    uri: Option<String>,
    /// The host to go to.
    authority: Option<String>,
    /// The port to go to.
    port: Option<u16>,
    /// Which port it is where none is written.
    derive_port: Option<RawDerivePort>,
    /// http or https.
    scheme: Option<String>,
    /// 301, 302, 303, 307 or 308; 301 where nothing is said.
    redirect_code: Option<u16>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
enum RawDerivePort {
    #[serde(rename = "FROM_PROTOCOL_DEFAULT")]
    ProtocolDefault,
    #[serde(rename = "FROM_REQUEST_PORT")]
    RequestPort,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct RawDirectResponse {
    /// The status of the answer.
    status: u16,
    /// Its body.
    body: Option<RawBody>,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct RawBody {
    /// As text.
    string: Option<String>,
    /// In base64; refused: write string.
    bytes: Option<String>,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct RawRewrite {
    /// The path, or what stands in place of the prefix that was matched.
    uri: Option<String>,
    /// The host.
    authority: Option<String>,
    /// Changes the path by a regular expression.
    uri_regex_rewrite: Option<RawRegexRewrite>,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct RawRegexRewrite {
    /// A regular expression.
    #[serde(rename = "match")]
    pattern: String,
    /// What stands in its place; \\1 is its first group.
    rewrite: String,
}

impl RawDestination {
    fn read(self, field: &str) -> Result<BackendTarget, Flaw> {
        if self.host.is_empty() || self.host.starts_with('*') {
            return Err(Flaw::value(format!("{field}.host"), format!("{:?} is no host to send to", self.host)));
        }
        let port = match self.port {
            Some(RawPort { number: 0 }) => return Err(Flaw::value(format!("{field}.port.number"), "0 is no port")),
            port => port.map(|port| port.number),
        };
        let subset = self.subset.filter(|subset| !subset.is_empty());
        Ok(BackendTarget::Service { hostname: self.host.into(), port, subset: subset.map(Into::into) })
    }
}

pub(super) fn forward(routes: Vec<RawRoute>, field: &str, remarks: &mut Vec<Remark>) -> Result<Action, Flaw> {
    let only = routes.len() == 1;
    let mut backends = Vec::with_capacity(routes.len());
    for (index, route) in routes.into_iter().enumerate() {
        let field = format!("{field}[{index}]");
        let weight = match route.weight {
            // Istio: a single destination has all, whatever is written.
            None | Some(0) if only => 100,
            None => 0,
            Some(weight) => u32::try_from(weight)
                .ok()
                .filter(|weight| *weight <= 1_000_000)
                .ok_or_else(|| Flaw::value(format!("{field}.weight"), format!("{weight} is no weight")))?,
        };
        let (request_headers, response_headers) =
            route.headers.unwrap_or_default().read(&format!("{field}.headers"), remarks)?;
        let target = route.destination.read(&format!("{field}.destination"))?;
        backends.push(Backend { target, weight, request_headers, response_headers, rewrite: Rewrite::default() });
    }
    if backends.iter().all(|backend| backend.weight == 0) {
        return Err(Flaw::value(field, "no destination has a weight: nobody would get a request"));
    }
    Ok(Action::Forward(backends))
}

pub(super) fn mirrors(
    (one, several): (Option<RawDestination>, Option<Vec<RawMirror>>),
    (percentage, percent): (Option<RawPercent>, Option<f64>),
    field: &str,
    remarks: &mut Vec<Remark>,
) -> Result<Vec<Mirror>, Flaw> {
    if one.is_none() && (percentage.is_some() || percent.is_some()) {
        let message = "it is the share of mirror, and there is none; each of mirrors has its own percentage";
        remarks.push(Remark::new(Code::WithoutEffect, format!("{field}.mirrorPercentage"), message));
    }
    let share = |percentage: Option<RawPercent>, field: &str| {
        percentage.map_or(Ok(Percent::ALL), |percentage| percentage.read(field))
    };
    let mut mirrors = Vec::new();
    if let Some(destination) = one {
        let given = percentage.or_else(|| percent.map(RawPercent::of));
        let percent = share(given, &format!("{field}.mirrorPercentage"))?;
        mirrors.push(Mirror { target: destination.read(&format!("{field}.mirror"))?, percent });
    }
    for (index, raw) in several.into_iter().flatten().enumerate() {
        let field = format!("{field}.mirrors[{index}]");
        let percent = share(raw.percentage, &format!("{field}.percentage"))?;
        mirrors.push(Mirror { target: raw.destination.read(&format!("{field}.destination"))?, percent });
    }
    Ok(mirrors)
}

impl RawHeaders {
    /// Changes to requests and to responses.
    pub(super) fn read(self, field: &str, remarks: &mut Vec<Remark>) -> Result<(HeaderEdits, HeaderEdits), Flaw> {
        let mut edits = |edits: Option<RawEdits>, of: Message, name: &str| {
            edits.unwrap_or_default().read(of, &format!("{field}.{name}"), remarks)
        };
        let request = edits(self.request, Message::Request, "request")?;
        Ok((request, edits(self.response, Message::Response, "response")?))
    }
}

impl RawEdits {
    fn read(self, of: Message, field: &str, remarks: &mut Vec<Remark>) -> Result<HeaderEdits, Flaw> {
        let mut edits = HeaderEdits::default();
        for key in self.remove {
            check_header_field(&key, "", &format!("{field}.remove"))?;
            edits.remove.push(key.to_ascii_lowercase().into());
        }
        for (key, value) in self.set {
            match header_value((&key, &value), of, &format!("{field}.set"), remarks)? {
                Some(value) => edits.set.push((key.to_ascii_lowercase().into(), value)),
                // What somebody else has put there is not what was to be there.
                None => edits.remove.push(key.to_ascii_lowercase().into()),
            }
        }
        for (key, value) in self.add {
            if let Some(value) = header_value((&key, &value), of, &format!("{field}.add"), remarks)? {
                edits.add.push((key.to_ascii_lowercase().into(), value));
            }
        }
        Ok(edits)
    }
}

/// A value, perhaps with operators of Envoy's; none where one of them cannot be filled in.
fn header_value(
    (key, value): (&str, &str),
    of: Message,
    field: &str,
    remarks: &mut Vec<Remark>,
) -> Result<Option<FieldValue>, Flaw> {
    check_header_field(key, value, field)?;
    match FieldValue::parse(value, of) {
        Ok(value) => Ok(Some(value)),
        Err(error) => {
            let message = format!("the field is not sent: {error}");
            remarks.push(Remark::new(Code::FieldNotHonoured, format!("{field}[{key:?}]"), message));
            Ok(None)
        }
    }
}

impl RawRedirect {
    pub(super) fn read(self, field: &str) -> Result<Action, Flaw> {
        let status = self.redirect_code.unwrap_or(301);
        if !matches!(status, 301 | 302 | 303 | 307 | 308) {
            let message = format!("{status} sends nobody elsewhere; write 301, 302, 303, 307 or 308");
            return Err(Flaw::value(format!("{field}.redirectCode"), message));
        }
        let scheme = match self.scheme.as_deref() {
            None | Some("http" | "https") => self.scheme,
            Some(other) => {
                return Err(Flaw::value(format!("{field}.scheme"), format!("{other:?} is neither http nor https")));
            }
        };
        let port = match (self.port, self.derive_port) {
            (Some(0), _) => return Err(Flaw::value(format!("{field}.port"), "0 is no port")),
            (Some(port), None) => RedirectPort::Number(port),
            (None, Some(RawDerivePort::RequestPort)) => RedirectPort::Requested,
            (None, Some(RawDerivePort::ProtocolDefault)) => RedirectPort::OfScheme,
            (None, None) => RedirectPort::Derived,
            (Some(_), Some(_)) => {
                return Err(Flaw::value(format!("{field}.derivePort"), "port and derivePort exclude each other"));
            }
        };
        Ok(Action::Redirect(Redirect {
            scheme: scheme.map(Into::into),
            host: self.authority.map(Into::into),
            port,
            path: self.uri.map(|uri| PathRewrite::Full(uri.into())),
            status,
        }))
    }
}

impl RawDirectResponse {
    pub(super) fn read(self, field: &str) -> Result<Action, Flaw> {
        if !(200..=599).contains(&self.status) {
            return Err(Flaw::value(format!("{field}.status"), format!("{} is no final status", self.status)));
        }
        let body = match self.body {
            Some(RawBody { string: Some(text), bytes: None }) => Some(text.into_bytes()),
            Some(RawBody { string: None, bytes: Some(_) }) => {
                return Err(Flaw::value(format!("{field}.body.bytes"), "write the text as body.string"));
            }
            Some(_) => return Err(Flaw::value(format!("{field}.body"), "write body.string")),
            None => None,
        };
        if body.as_ref().is_some_and(|body| body.len() > MAX_BODY) {
            return Err(Flaw::value(format!("{field}.body"), format!("more than {MAX_BODY} octets")));
        }
        Ok(Action::Respond(DirectResponse { status: self.status, body: body.map(Into::into) }))
    }
}

impl RawRewrite {
    pub(super) fn read(self, field: &str) -> Result<Rewrite, Flaw> {
        let path = match (self.uri, self.uri_regex_rewrite) {
            (Some(_), Some(_)) => {
                return Err(Flaw::value(
                    format!("{field}.uriRegexRewrite"),
                    "uri and uriRegexRewrite exclude each other",
                ));
            }
            (Some(uri), None) => Some(PathRewrite::Matched(uri.into())),
            (None, Some(raw)) => {
                let pattern = Regex::anywhere(&raw.pattern)
                    .map_err(|error| Flaw::value(format!("{field}.uriRegexRewrite.match"), error.to_string()))?;
                Some(PathRewrite::Regex { pattern, substitution: raw.rewrite.into() })
            }
            (None, None) => None,
        };
        Ok(Rewrite { authority: self.authority.map(Into::into), path })
    }
}
