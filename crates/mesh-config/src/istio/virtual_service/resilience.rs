//! Retries and faults of a rule.

use mesh_core::l7::{Abort, Fault, Percent, Retry, RetryOn};
use serde::Deserialize;

use super::super::duration::duration;
use super::super::{Flaw, Remark};
use crate::code::Code;

/// How often a request may be tried again at most.
const MAX_ATTEMPTS: i64 = 100;

#[derive(Debug, Clone, Copy, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct RawPercent {
    /// From 0 to 100.
    #[serde(default)]
    value: f64,
}

impl RawPercent {
    pub(super) const fn of(value: f64) -> Self {
        Self { value }
    }

    pub(super) fn read(self, field: &str) -> Result<Percent, Flaw> {
        Percent::new(self.value)
            .ok_or_else(|| Flaw::value(format!("{field}.value"), format!("{} is no percentage", self.value)))
    }
}

#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(in crate::istio) struct RawRetries {
    /// How often it is tried again; 0 for never.
    attempts: Option<i64>,
    /// How long each attempt may take.
    per_try_timeout: Option<String>,
    /// What it is tried again after, by commas: 5xx, gateway-error, reset, connect-failure, statuses, names of gRPC.
    retry_on: Option<String>,
    /// Read, and not honoured: a finding says so.
    retry_remote_localities: Option<bool>,
    /// Whether it goes to endpoints that it was with already only where there is no other; true where nothing is said.
    retry_ignore_previous_hosts: Option<bool>,
    /// The least time between attempts; it doubles.
    backoff: Option<String>,
}

impl RawRetries {
    pub(in crate::istio) fn read(self, field: &str, remarks: &mut Vec<Remark>) -> Result<Retry, Flaw> {
        // Istio's default where retries are asked for without a number.
        let attempts = self.attempts.unwrap_or(2);
        if !(0..=MAX_ATTEMPTS).contains(&attempts) {
            let message = format!("{attempts} is not from 0 to {MAX_ATTEMPTS}");
            return Err(Flaw::value(format!("{field}.attempts"), message));
        }
        let per_try_timeout = self
            .per_try_timeout
            .map(|timeout| duration(&timeout, format!("{field}.perTryTimeout")))
            .transpose()?
            .filter(|timeout| !timeout.is_zero());
        if self.retry_remote_localities.is_some() {
            let message = "a retry goes to another locality where its own has no other endpoint, and not before";
            remarks.push(Remark::new(Code::FieldNotHonoured, format!("{field}.retryRemoteLocalities"), message));
        }
        let on = match self.retry_on.as_deref().map(str::trim) {
            None | Some("") => RetryOn { per_try_timeout: per_try_timeout.is_some(), ..RetryOn::istio_default() },
            Some(listed) => retry_on(listed, &format!("{field}.retryOn"))?,
        };
        let backoff = self.backoff.map(|backoff| duration(&backoff, format!("{field}.backoff"))).transpose()?;
        Ok(Retry {
            attempts: u32::try_from(attempts).unwrap_or_default(),
            per_try_timeout,
            on,
            backoff: backoff.unwrap_or(Retry::DEFAULT_BACKOFF),
            backoff_is_least: false,
            same_again: self.retry_ignore_previous_hosts == Some(false),
        })
    }
}

fn retry_on(listed: &str, field: &str) -> Result<RetryOn, Flaw> {
    let mut on = RetryOn::default();
    for word in listed.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        match word {
            "5xx" => (on.server_error, on.per_try_timeout) = (true, true),
            "gateway-error" => (on.gateway_error, on.per_try_timeout) = (true, true),
            "reset" => (on.reset, on.per_try_timeout) = (true, true),
            "reset-before-request" => on.reset_before_request = true,
            "connect-failure" => on.connect_failure = true,
            "refused-stream" => on.refused_stream = true,
            "retriable-4xx" => on.conflict = true,
            "cancelled" => on.grpc.push(1),
            "deadline-exceeded" => on.grpc.push(4),
            "resource-exhausted" => on.grpc.push(8),
            "internal" => on.grpc.push(13),
            "unavailable" => on.grpc.push(14),
            // Istio takes statuses beside the words; Envoy's own word for that says nothing without them.
            "retriable-status-codes" => {}
            number => match number.parse::<u16>() {
                Ok(status) if (100..=599).contains(&status) => on.statuses.push(status),
                _ => return Err(Flaw::value(field, format!("{word:?} is nothing to retry on"))),
            },
        }
    }
    Ok(on)
}

#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct RawFault {
    /// Makes requests wait.
    delay: Option<RawDelay>,
    /// Answers requests with an error.
    abort: Option<RawAbort>,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawDelay {
    /// Share of requests.
    percentage: Option<RawPercent>,
    /// Share of requests; percentage is its newer form.
    percent: Option<f64>,
    /// How long they wait, such as 5s.
    fixed_delay: Option<String>,
    /// Refused: write fixedDelay.
    exponential_delay: Option<String>,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawAbort {
    /// Share of requests.
    percentage: Option<RawPercent>,
    /// Share of requests; percentage is its newer form.
    percent: Option<f64>,
    /// The status of the answer.
    http_status: Option<u16>,
    /// gRPC's status, by name or number.
    grpc_status: Option<String>,
    /// Refused: write httpStatus or grpcStatus.
    http2_error: Option<String>,
}

impl RawFault {
    pub(super) fn read(self, field: &str, remarks: &mut Vec<Remark>) -> Result<Fault, Flaw> {
        let delay = self.delay.map(|delay| delay.read(&format!("{field}.delay"), remarks)).transpose()?;
        let abort = self.abort.map(|abort| abort.read(&format!("{field}.abort"), remarks)).transpose()?;
        Ok(Fault { delay, abort })
    }
}

/// The share of requests that a fault is for. Istio: without a percentage, none.
fn share(
    percentage: Option<RawPercent>,
    percent: Option<f64>,
    field: &str,
    remarks: &mut Vec<Remark>,
) -> Result<Percent, Flaw> {
    if let Some(given) = percentage.or(percent.map(RawPercent::of)) {
        return given.read(&format!("{field}.percentage"));
    }
    let message = "without a percentage the fault is for no request; 100 is for all";
    remarks.push(Remark::new(Code::WithoutEffect, field, message));
    Ok(Percent::NONE)
}

impl RawDelay {
    fn read(self, field: &str, remarks: &mut Vec<Remark>) -> Result<(Percent, std::time::Duration), Flaw> {
        if self.exponential_delay.is_some() {
            return Err(Flaw::value(format!("{field}.exponentialDelay"), "write fixedDelay"));
        }
        let Some(fixed) = self.fixed_delay else {
            return Err(Flaw::value(format!("{field}.fixedDelay"), "it does not say how long"));
        };
        let fixed = duration(&fixed, format!("{field}.fixedDelay"))?;
        Ok((share(self.percentage, self.percent, field, remarks)?, fixed))
    }
}

impl RawAbort {
    fn read(self, field: &str, remarks: &mut Vec<Remark>) -> Result<(Percent, Abort), Flaw> {
        if self.http2_error.is_some() {
            return Err(Flaw::value(format!("{field}.http2Error"), "write httpStatus or grpcStatus"));
        }
        let abort =
            match (self.http_status, self.grpc_status) {
                (Some(status), None) if (200..=599).contains(&status) => Abort::Http(status),
                (Some(status), None) => {
                    return Err(Flaw::value(format!("{field}.httpStatus"), format!("{status} is no final status")));
                }
                (None, Some(name)) => Abort::Grpc(grpc_status(&name).ok_or_else(|| {
                    Flaw::value(format!("{field}.grpcStatus"), format!("{name:?} is no status of gRPC"))
                })?),
                _ => return Err(Flaw::value(field, "write one of httpStatus and grpcStatus")),
            };
        Ok((share(self.percentage, self.percent, field, remarks)?, abort))
    }
}

/// By its name or number (gRPC's statuscodes.md).
fn grpc_status(text: &str) -> Option<u32> {
    const NAMES: [&str; 17] = [
        "OK",
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    ];
    let by_name = NAMES.iter().position(|name| *name == text).and_then(|index| u32::try_from(index).ok());
    by_name.or_else(|| text.parse().ok().filter(|number| *number <= 16))
}
