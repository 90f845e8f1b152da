//! `envoy.filters.http.local_ratelimit`, as it is written within an EnvoyFilter (Envoy's `LocalRateLimit`, version 3).

use mesh_core::l7::field_value::Message;
use mesh_core::l7::{FieldValue, HeaderEdits, Percent};
use mesh_core::rate_limit::{LimitAnswer, LimitKey, LimitRef, Only, RateLimit, TokenBucket};
use mesh_core::telemetry::Side;
use serde::Deserialize;
use serde_json::Value;

use super::super::{Flaw, Remark, check_header_field, duration};
use crate::code::Code;

/// The filter's name, by which settings of hosts and routes find it.
pub(super) const FILTER: &str = "envoy.filters.http.local_ratelimit";
/// The end of its type's name, whatever stands before it.
const TYPE: &str = "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit";
/// The type that wraps another one, which Istio's pages use.
const WRAPPER: &str = "udpa.type.v1.TypedStruct";
const WRAPPER_NOW: &str = "xds.type.v3.TypedStruct";
/// Says that the proxy limited the request.
const LIMITED: &str = "x-envoy-ratelimited";

/// The filter's settings.
#[derive(Debug, Deserialize)]
pub(super) struct RawConfig {
    token_bucket: Option<RawBucket>,
    filter_enabled: Option<RawFraction>,
    filter_enforced: Option<RawFraction>,
    status: Option<RawStatus>,
    #[serde(default)]
    response_headers_to_add: Vec<RawHeader>,
    #[serde(default)]
    disable_x_envoy_ratelimited_header: bool,
    #[serde(default)]
    rate_limited_as_resource_exhausted: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawBucket {
    max_tokens: u32,
    tokens_per_fill: Option<u32>,
    fill_interval: String,
}

#[derive(Debug, Deserialize)]
struct RawFraction {
    default_value: Option<RawPercent>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPercent {
    #[serde(default)]
    numerator: f64,
    denominator: Option<Denominator>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
enum Denominator {
    #[serde(rename = "HUNDRED")]
    Hundred,
    #[serde(rename = "TEN_THOUSAND")]
    TenThousand,
    #[serde(rename = "MILLION")]
    Million,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawStatus {
    code: Value,
}

#[derive(Debug, Deserialize)]
struct RawHeader {
    header: RawField,
    append: Option<bool>,
    append_action: Option<AppendAction>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawField {
    key: String,
    #[serde(default)]
    value: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
enum AppendAction {
    #[serde(rename = "APPEND_IF_EXISTS_OR_ADD")]
    Append,
    #[serde(rename = "ADD_IF_ABSENT")]
    IfAbsent,
    #[serde(rename = "OVERWRITE_IF_EXISTS_OR_ADD")]
    Overwrite,
    #[serde(rename = "OVERWRITE_IF_EXISTS")]
    IfThere,
}

/// Fields that are understood, or say nothing to us.
const KNOWN: [&str; 10] = [
    "@type",
    "stat_prefix",
    "token_bucket",
    "filter_enabled",
    "filter_enforced",
    "status",
    "response_headers_to_add",
    "disable_x_envoy_ratelimited_header",
    "rate_limited_as_resource_exhausted",
    "always_consume_default_token_bucket",
];

impl RawConfig {
    /// Reads the settings, wrapped or not; none where they have no bucket.
    pub(super) fn read(whole: &Value, field: &str, remarks: &mut Vec<Remark>) -> Result<Option<Self>, Flaw> {
        let text = |name: &str| whole.get(name).and_then(Value::as_str).unwrap_or_default();
        let (kind, inner) = match text("@type") {
            wrapped if wrapped.ends_with(WRAPPER) || wrapped.ends_with(WRAPPER_NOW) => {
                let kind = if text("type_url").is_empty() { text("typeUrl") } else { text("type_url") };
                (kind, whole.get("value").cloned().unwrap_or_default())
            }
            kind => (kind, whole.clone()),
        };
        if !kind.ends_with(TYPE) {
            return Err(Flaw::value(field, format!("{kind:?} is not the type {TYPE}")));
        }
        for name in inner.as_object().into_iter().flat_map(|object| object.keys()) {
            if !KNOWN.contains(&name.as_str()) {
                let message = format!("{name} has no effect: the limit is on all its requests together");
                remarks.push(Remark::new(Code::FieldNotHonoured, format!("{field}.{name}"), message));
            }
        }
        let config: Self = serde_path_to_error::deserialize(inner)
            .map_err(|error| Flaw::value(format!("{field}.{}", error.path()), error.inner().to_string()))?;
        Ok(config.token_bucket.is_some().then_some(config))
    }

    /// The limit that they set.
    pub(super) fn limit(
        self,
        at: LimitRef,
        side: Option<Side>,
        only: Only,
        field: &str,
        remarks: &mut Vec<Remark>,
    ) -> Result<RateLimit, Flaw> {
        let Some(bucket) = self.token_bucket else { return Err(Flaw::value(field, "it has no token_bucket")) };
        let interval = duration(&bucket.fill_interval, format!("{field}.token_bucket.fill_interval"))?;
        let bucket = TokenBucket::new(bucket.max_tokens, bucket.tokens_per_fill.unwrap_or(1), interval)
            .map_err(|error| Flaw::value(format!("{field}.token_bucket"), error.to_string()))?;
        let mut percent = |name: &str, fraction: Option<RawFraction>| {
            let field = format!("{field}.{name}");
            let read = fraction.map(|fraction| fraction.read(&field)).transpose()?;
            if read.is_none_or(|percent| percent == Percent::NONE) {
                let message = "it is absent or 0, and then Envoy refuses nobody; nor is anybody refused here";
                remarks.push(Remark::new(Code::LimitWithoutEffect, field, message));
            }
            Ok::<_, Flaw>(read.unwrap_or(Percent::NONE))
        };
        let enabled = percent("filter_enabled", self.filter_enabled)?;
        let enforced = percent("filter_enforced", self.filter_enforced)?;
        let mut headers = HeaderEdits::default();
        for (index, header) in self.response_headers_to_add.into_iter().enumerate() {
            header.read(&format!("{field}.response_headers_to_add[{index}]"), &mut headers, remarks)?;
        }
        if !self.disable_x_envoy_ratelimited_header {
            headers.set.push((LIMITED.into(), "true".into()));
        }
        let status = self.status.map_or(Ok(LimitAnswer::TOO_MANY_REQUESTS), |status| status.read(field))?;
        let grpc = if self.rate_limited_as_resource_exhausted {
            LimitAnswer::RESOURCE_EXHAUSTED
        } else {
            LimitAnswer::UNAVAILABLE
        };
        let answer = LimitAnswer { status, grpc, headers };
        Ok(RateLimit { at, side, only, enabled, enforced, key: LimitKey::Everybody, bucket, answer })
    }
}

impl RawFraction {
    fn read(self, field: &str) -> Result<Percent, Flaw> {
        let Some(RawPercent { numerator, denominator }) = self.default_value else { return Ok(Percent::NONE) };
        let of = match denominator.unwrap_or(Denominator::Hundred) {
            Denominator::Hundred => 100.0,
            Denominator::TenThousand => 10_000.0,
            Denominator::Million => 1_000_000.0,
        };
        // More than all is all, as Envoy has it.
        let percent = Percent::new((numerator * 100.0 / of).min(100.0));
        percent.ok_or_else(|| Flaw::value(format!("{field}.default_value"), "it is no share"))
    }
}

impl RawStatus {
    /// A number, or the name `TooManyRequests`; what is no error's status becomes 429, as in Envoy.
    fn read(self, field: &str) -> Result<u16, Flaw> {
        let status = match &self.code {
            Value::Number(number) => number.as_u64().and_then(|number| u16::try_from(number).ok()),
            Value::String(name) => match name.as_str() {
                "TooManyRequests" => Some(429),
                "ServiceUnavailable" => Some(503),
                "Forbidden" => Some(403),
                _ => None,
            },
            _ => None,
        };
        let status = status.filter(|status| (100..=599).contains(status));
        let wrong = || Flaw::value(format!("{field}.status.code"), format!("{} is no status known here", self.code));
        status.map(|status| if status < 400 { 429 } else { status }).ok_or_else(wrong)
    }
}

impl RawHeader {
    fn read(self, field: &str, edits: &mut HeaderEdits, remarks: &mut Vec<Remark>) -> Result<(), Flaw> {
        let RawField { key, value } = self.header;
        check_header_field(&key, &value, field)?;
        let Ok(value @ FieldValue::Text(_)) = FieldValue::parse(&value, Message::Response) else {
            let message =
                "the field is not sent: nothing is filled in for %...% in a limit's answer, and %% is the sign";
            remarks.push(Remark::new(Code::FieldNotHonoured, field, message));
            return Ok(());
        };
        let pair = (key.to_ascii_lowercase().into(), value);
        match (self.append_action, self.append) {
            (Some(AppendAction::Append), _) | (None, None | Some(true)) => edits.add.push(pair),
            (Some(AppendAction::Overwrite | AppendAction::IfAbsent), _) | (None, Some(false)) => edits.set.push(pair),
            // An answer of our own has no such field.
            (Some(AppendAction::IfThere), _) => {}
        }
        Ok(())
    }
}
