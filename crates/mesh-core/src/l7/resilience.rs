//! Faults, timeouts and retries.

use std::time::Duration;

/// A share of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Percent(u32);

impl Percent {
    /// All of them.
    pub const ALL: Self = Self(1_000_000);

    /// None of them.
    pub const NONE: Self = Self(0);

    /// `percent` hundredths; none where it is no number from 0 to 100. Kept to a ten-thousandth of a percent.
    #[must_use]
    pub fn new(percent: f64) -> Option<Self> {
        if !(0.0..=100.0).contains(&percent) {
            return None;
        }
        // In range by the line above.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        Some(Self((percent * 10_000.0).round() as u32))
    }

    /// Whether one request is among them, by `random`, which is uniform over `u64`.
    #[must_use]
    pub fn includes(self, random: u64) -> bool {
        ((u128::from(random) * 1_000_000) >> 64) < u128::from(self.0)
    }

    /// As a number from 0 to 100.
    #[must_use]
    pub fn as_f64(self) -> f64 {
        f64::from(self.0) / 10_000.0
    }
}

/// Faults to inject; an aborted request may be delayed first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fault {
    /// How many wait, and how long, before anything else becomes of them.
    pub delay: Option<(Percent, Duration)>,
    /// How many are answered at once, and with what.
    pub abort: Option<(Percent, Abort)>,
}

/// The answer of an aborted request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Abort {
    /// A status of HTTP.
    Http(u16),
    /// A status of gRPC, by its number.
    Grpc(u32),
}

/// Limits of time; none for no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// From the whole request's arrival to the end of the response, over all attempts.
    pub request: Option<Duration>,
    /// Of one attempt.
    pub backend_request: Option<Duration>,
    /// Without an octet in either direction.
    pub idle: Option<Duration>,
}

/// When and how a request is tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// How often at most, beside the first attempt.
    pub attempts: u32,
    /// How long one attempt may take.
    pub per_try_timeout: Option<Duration>,
    /// What is tried again.
    pub on: RetryOn,
    /// The pause before the first retry; it doubles, with jitter, up to ten times itself.
    pub backoff: Duration,
    /// Whether no pause is shorter than that, as the Gateway API has it; else it is anything below, as Envoy's.
    pub backoff_is_least: bool,
    /// Whether it goes to endpoints that have had it already as soon as to others.
    pub same_again: bool,
}

impl Retry {
    /// Envoy's pause, which Istio keeps.
    pub const DEFAULT_BACKOFF: Duration = Duration::from_millis(25);
}

/// What is tried again. With the names of Envoy's `x-envoy-retry-on` and `x-envoy-retry-grpc-on`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RetryOn {
    /// Any 5xx, and an upstream that did not answer (`5xx`).
    pub server_error: bool,
    /// 502, 503 and 504 (`gateway-error`).
    pub gateway_error: bool,
    /// No connection was made (`connect-failure`).
    pub connect_failure: bool,
    /// HTTP/2's `REFUSED_STREAM` (`refused-stream`).
    pub refused_stream: bool,
    /// The upstream went away without an answer (`reset`).
    pub reset: bool,
    /// The same, and no octet of the request had been sent (`reset-before-request`).
    pub reset_before_request: bool,
    /// An attempt took longer than it may.
    pub per_try_timeout: bool,
    /// 409 (`retriable-4xx`).
    pub conflict: bool,
    /// Statuses by number (`retriable-status-codes`).
    pub statuses: Vec<u16>,
    /// Statuses of gRPC by number.
    pub grpc: Vec<u32>,
}

impl RetryOn {
    /// What is tried again where retries are asked for without a word on what: Istio's default up to 1.23. Later ones leave 503
    /// out; with a budget on retries, it does more good than harm.
    #[must_use]
    pub fn istio_default() -> Self {
        Self {
            connect_failure: true,
            refused_stream: true,
            reset_before_request: true,
            statuses: vec![503],
            // CANCELLED and UNAVAILABLE.
            grpc: vec![1, 14],
            ..Self::default()
        }
    }

    /// Whether a response with that status is tried again.
    #[must_use]
    pub fn status(&self, status: u16) -> bool {
        (self.server_error && (500..600).contains(&status))
            || (self.gateway_error && matches!(status, 502..=504))
            || (self.conflict && status == 409)
            || self.statuses.contains(&status)
    }
}
