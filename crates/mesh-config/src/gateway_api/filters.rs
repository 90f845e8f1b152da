//! Filters of a route's rule.

use std::sync::Arc;
use std::time::Duration;

use mesh_core::l7::rule::{Cors, PathRewrite, Redirect, RedirectPort, Rewrite};
use mesh_core::l7::{FieldValue, HeaderEdits, Percent, Regex, TextMatch};
use serde::Deserialize;
use serde_json::Value;

use super::reference::{BackendRef, RawBackendRef};
use crate::code::Code;
use crate::istio::{Flaw, Remark, check_header_field};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct RawFilter {
    #[serde(rename = "type")]
    kind: String,
    request_header_modifier: Option<RawModifier>,
    response_header_modifier: Option<RawModifier>,
    request_mirror: Option<RawMirror>,
    request_redirect: Option<RawRedirect>,
    url_rewrite: Option<RawRewrite>,
    cors: Option<RawCors>,
    extension_ref: Option<Value>,
    external_auth: Option<Value>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawModifier {
    #[serde(default)]
    set: Vec<RawField>,
    #[serde(default)]
    add: Vec<RawField>,
    #[serde(default)]
    remove: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawField {
    name: String,
    value: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawMirror {
    backend_ref: RawBackendRef,
    percent: Option<u8>,
    fraction: Option<RawFraction>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFraction {
    numerator: u32,
    denominator: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawRedirect {
    scheme: Option<String>,
    hostname: Option<String>,
    path: Option<RawPath>,
    port: Option<u16>,
    status_code: Option<u16>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRewrite {
    hostname: Option<String>,
    path: Option<RawPath>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawPath {
    #[serde(rename = "type")]
    kind: String,
    replace_full_path: Option<String>,
    replace_prefix_match: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawCors {
    #[serde(default)]
    allow_origins: Vec<String>,
    #[serde(default)]
    allow_methods: Vec<String>,
    #[serde(default)]
    allow_headers: Vec<String>,
    #[serde(default)]
    expose_headers: Vec<String>,
    allow_credentials: Option<bool>,
    max_age: Option<u32>,
}

/// What the filters of a rule, or of a backend, add up to.
#[derive(Debug, Default)]
pub(super) struct Edits {
    pub(super) request: HeaderEdits,
    pub(super) response: HeaderEdits,
    pub(super) rewrite: Rewrite,
    pub(super) redirect: Option<Redirect>,
    pub(super) mirrors: Vec<(BackendRef, Percent)>,
    pub(super) cors: Option<Cors>,
    /// A filter that is not understood: the rule's requests are answered with 500, as the Gateway API wants it.
    pub(super) unusable: bool,
}

impl RawFilter {
    pub(super) fn read(
        self,
        field: &str,
        namespace: &str,
        edits: &mut Edits,
        remarks: &mut Vec<Remark>,
    ) -> Result<(), Flaw> {
        let absent = |inner: &str| Flaw::value(format!("{field}.{inner}"), format!("a filter {} needs it", self.kind));
        match self.kind.as_str() {
            "RequestHeaderModifier" => {
                let raw = self.request_header_modifier.ok_or_else(|| absent("requestHeaderModifier"))?;
                edits.request = raw.read(&format!("{field}.requestHeaderModifier"))?;
            }
            "ResponseHeaderModifier" => {
                let raw = self.response_header_modifier.ok_or_else(|| absent("responseHeaderModifier"))?;
                edits.response = raw.read(&format!("{field}.responseHeaderModifier"))?;
            }
            "RequestMirror" => {
                let raw = self.request_mirror.ok_or_else(|| absent("requestMirror"))?;
                edits.mirrors.push(raw.read(&format!("{field}.requestMirror"), namespace, remarks)?);
            }
            "RequestRedirect" => {
                let raw = self.request_redirect.ok_or_else(|| absent("requestRedirect"))?;
                edits.redirect = Some(raw.read(&format!("{field}.requestRedirect"))?);
            }
            "URLRewrite" => {
                let raw = self.url_rewrite.ok_or_else(|| absent("urlRewrite"))?;
                let path = raw.path.map(|path| path.read(&format!("{field}.urlRewrite.path"))).transpose()?;
                edits.rewrite = Rewrite { authority: raw.hostname.map(Into::into), path };
            }
            "CORS" => {
                let raw = self.cors.ok_or_else(|| absent("cors"))?;
                edits.cors = Some(raw.read(&format!("{field}.cors"))?);
            }
            other => {
                let _ = (self.extension_ref, self.external_auth);
                let message = format!("a filter {other} is not read: requests of its rule are answered with 500");
                remarks.push(Remark::new(Code::FilterNotHonoured, format!("{field}.type"), message));
                edits.unusable = true;
            }
        }
        Ok(())
    }
}

impl RawModifier {
    fn read(self, field: &str) -> Result<HeaderEdits, Flaw> {
        let pairs = |fields: Vec<RawField>, name: &str| {
            let pairs = fields.into_iter().map(|given| {
                check_header_field(&given.name, &given.value, &format!("{field}.{name}"))?;
                Ok((given.name.to_ascii_lowercase().into(), given.value.into()))
            });
            pairs.collect::<Result<Vec<(Arc<str>, FieldValue)>, Flaw>>()
        };
        let (set, add) = (pairs(self.set, "set")?, pairs(self.add, "add")?);
        let mut remove = Vec::with_capacity(self.remove.len());
        for name in self.remove {
            check_header_field(&name, "", &format!("{field}.remove"))?;
            remove.push(name.to_ascii_lowercase().into());
        }
        Ok(HeaderEdits { remove, set, add })
    }
}

impl RawMirror {
    fn read(self, field: &str, namespace: &str, remarks: &mut Vec<Remark>) -> Result<(BackendRef, Percent), Flaw> {
        let percent = match (self.percent, self.fraction) {
            (None, None) => Some(Percent::ALL),
            (Some(percent), None) => Percent::new(f64::from(percent)),
            (None, Some(fraction)) => {
                let denominator = fraction.denominator.unwrap_or(100);
                Percent::new(f64::from(fraction.numerator) * 100.0 / f64::from(denominator))
            }
            (Some(_), Some(_)) => return Err(Flaw::value(field, "percent and fraction exclude each other")),
        };
        let percent = percent.ok_or_else(|| Flaw::value(field, "it is no share of the requests"))?;
        let (reference, _) = self.backend_ref.read(namespace, &format!("{field}.backendRef"), remarks)?;
        Ok((reference, percent))
    }
}

impl RawRedirect {
    fn read(self, field: &str) -> Result<Redirect, Flaw> {
        let status = self.status_code.unwrap_or(302);
        if !matches!(status, 301 | 302 | 303 | 307 | 308) {
            return Err(Flaw::value(format!("{field}.statusCode"), format!("{status} sends nobody elsewhere")));
        }
        match self.scheme.as_deref() {
            None | Some("http" | "https") => {}
            Some(other) => {
                return Err(Flaw::value(format!("{field}.scheme"), format!("{other:?} is neither http nor https")));
            }
        }
        Ok(Redirect {
            scheme: self.scheme.map(Into::into),
            host: self.hostname.map(Into::into),
            port: self.port.map_or(RedirectPort::Derived, RedirectPort::Number),
            path: self.path.map(|path| path.read(&format!("{field}.path"))).transpose()?,
            status,
        })
    }
}

impl RawPath {
    fn read(self, field: &str) -> Result<PathRewrite, Flaw> {
        match (self.kind.as_str(), self.replace_full_path, self.replace_prefix_match) {
            ("ReplaceFullPath", Some(path), None) => Ok(PathRewrite::Full(path.into())),
            ("ReplacePrefixMatch", None, Some(prefix)) => Ok(PathRewrite::MatchedElements(prefix.into())),
            _ => Err(Flaw::value(
                field,
                "write ReplaceFullPath with replaceFullPath, or ReplacePrefixMatch with replacePrefixMatch",
            )),
        }
    }
}

impl RawCors {
    fn read(self, field: &str) -> Result<Cors, Flaw> {
        let mut allow_origins = Vec::with_capacity(self.allow_origins.len());
        for (index, origin) in self.allow_origins.into_iter().enumerate() {
            allow_origins.push(match origin.split_once('*') {
                _ if origin == "*" => TextMatch::Present,
                None => TextMatch::Exact(origin.into()),
                Some((before, after)) => {
                    let source = format!("{}.*{}", Regex::escaped(before), Regex::escaped(after));
                    let read = Regex::new(&source);
                    let field = format!("{field}.allowOrigins[{index}]");
                    TextMatch::Regex(read.map_err(|error| Flaw::value(field, error.to_string()))?)
                }
            });
        }
        let texts = |texts: Vec<String>| texts.into_iter().map(Into::into).collect();
        Ok(Cors {
            allow_origins,
            allow_methods: texts(self.allow_methods),
            allow_headers: texts(self.allow_headers),
            expose_headers: texts(self.expose_headers),
            // The default of the field, in seconds.
            max_age: Some(Duration::from_secs(self.max_age.unwrap_or(5).into())),
            allow_credentials: self.allow_credentials.unwrap_or(false),
            forward_unmatched_preflights: false,
        })
    }
}
