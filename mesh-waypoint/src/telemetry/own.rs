//! Metrics that are only ours.

use mesh_metrics::Registry;
use mesh_otlp::Fate;
use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts};

use crate::inbound::Lifeless;

/// What became of a copy of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MirrorOutcome {
    /// It was answered, and nobody looked how.
    Answered,
    /// It was not.
    Failed,
    /// It was not made: its body is too long, or too many are under way.
    Dropped,
}

/// What an authorizer said of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AuthorizerOutcome {
    /// It goes on.
    Allowed,
    /// It is refused.
    Denied,
    /// Nothing, and so it is refused.
    Failed,
    /// Nothing, and it goes on as the provider's `failOpen` has it.
    FailedOpen,
}

impl AuthorizerOutcome {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::Failed => "failed",
            Self::FailedOpen => "failed_open",
        }
    }
}

impl MirrorOutcome {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Failed => "failed",
            Self::Dropped => "dropped",
        }
    }
}

/// What a limit said of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LimitOutcome {
    /// It found a token.
    Passed,
    /// It is refused.
    Limited,
    /// It found no token, and goes on since not all are refused.
    NotEnforced,
}

/// What became of a fetch of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyFetch {
    /// There are keys.
    Fetched,
    /// The last ones stay.
    Failed,
}

impl KeyFetch {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Fetched => "fetched",
            Self::Failed => "failed",
        }
    }
}

/// Counters of what no request's own labels tell.
pub(crate) struct OwnMetrics {
    /// Requests that were sent again.
    pub(crate) retries: IntCounter,
    /// Retries that were wanted, and not made for want of budget.
    pub(crate) retries_refused: IntCounter,
    mirrors: IntCounterVec,
    authorizations: IntCounterVec,
    rate_limits: [IntCounter; 3],
    admin_requests: IntCounterVec,
    /// Spans by what became of them.
    pub(crate) spans: IntCounterVec,
    /// The same of lines for collectors.
    pub(crate) log_lines: IntCounterVec,
    tokens: IntCounterVec,
    lifeless: IntCounterVec,
    key_fetches: IntCounterVec,
    /// Questions to DNS without an answer.
    pub(crate) dns_failures: IntCounter,
    /// Endpoints that were left alone from then on.
    pub(crate) ejections: IntCounter,
    /// Endpoints that did not answer, and were passed by from then on.
    pub(crate) passed_by: IntCounter,
    /// Sets of labels that were too many to be kept apart.
    pub(crate) series_overflow: IntCounter,
    /// The configuration's generation, as this process counts.
    pub(crate) generation: IntGauge,
}

impl OwnMetrics {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let options = Opts::new("mesh_waypoint_admin_requests_total", "Requests to the admin API");
        let admin_requests = IntCounterVec::new(options, &["code"])?;
        registry.register(Box::new(admin_requests.clone()))?;
        let spans = by_fate(registry, "mesh_spans_total", "Spans by what became of them")?;
        let log_lines =
            by_fate(registry, "mesh_log_lines_total", "Lines of requests for collectors by what became of them")?;
        let by_outcome = |name: &str, help: &str| {
            let counters = IntCounterVec::new(Opts::new(name, help), &["outcome"])?;
            registry.register(Box::new(counters.clone()))?;
            Ok::<_, prometheus::Error>(counters)
        };
        let lifeless = clients_cut(registry)?;
        let limits = by_outcome("mesh_waypoint_rate_limits_total", "Requests by what a rate limit said of them")?;
        let generation = IntGauge::new("mesh_waypoint_config_generation", "Configurations that came into force")?;
        registry.register(Box::new(generation.clone()))?;
        Ok(Self {
            retries: counter("mesh_waypoint_retries_total", "Requests that were sent to an endpoint again")?,
            retries_refused: counter(
                "mesh_waypoint_retries_refused_total",
                "Retries not made since the budget for them was used up",
            )?,
            dns_failures: counter(
                "mesh_waypoint_dns_failures_total",
                "Names of endpoints of which DNS gave no address when it was asked",
            )?,
            ejections: counter("mesh_waypoint_ejections_total", "Endpoints ejected by outlier detection")?,
            passed_by: counter(
                "mesh_waypoint_endpoints_passed_by_total",
                "Endpoints passed by as they did not answer",
            )?,
            series_overflow: counter(
                "mesh_waypoint_series_overflow_total",
                "Sets of labels that were counted with unknown parties, since there were too many",
            )?,
            mirrors: by_outcome("mesh_waypoint_mirrors_total", "Copies of requests that rules asked for")?,
            authorizations: by_outcome(
                "mesh_waypoint_external_authorizations_total",
                "Requests about which an authorizer was asked",
            )?,
            tokens: by_outcome("mesh_waypoint_tokens_total", "Requests with tokens, by what was thought of them")?,
            key_fetches: by_outcome("mesh_waypoint_jwks_fetches_total", "Fetches of keys that verify tokens")?,
            rate_limits: ["passed", "limited", "not_enforced"].map(|outcome| limits.with_label_values(&[outcome])),
            admin_requests,
            lifeless,
            spans,
            log_lines,
            generation,
        })
    }

    /// One request to the admin API more, answered with that status.
    pub(crate) fn admin_request(&self, status: u16) {
        self.admin_requests.with_label_values(&[status.to_string()]).inc();
    }

    /// One question to an authorizer more.
    pub(crate) fn authorization(&self, outcome: AuthorizerOutcome) {
        self.authorizations.with_label_values(&[outcome.as_str()]).inc();
    }

    /// One request that a limit was asked about more.
    pub(crate) fn rate_limit(&self, outcome: LimitOutcome) {
        let [passed, limited, not_enforced] = &self.rate_limits;
        match outcome {
            LimitOutcome::Passed => passed.inc(),
            LimitOutcome::Limited => limited.inc(),
            LimitOutcome::NotEnforced => not_enforced.inc(),
        }
    }

    /// One copy of a request more.
    pub(crate) fn mirror(&self, outcome: MirrorOutcome) {
        self.mirrors.with_label_values(&[outcome.as_str()]).inc();
    }

    /// One request with tokens more: `verified`, or a reason of [`mesh_jwt::TokenError::reason`].
    pub(crate) fn token(&self, outcome: &'static str) {
        self.tokens.with_label_values(&[outcome]).inc();
    }

    /// One connection or request more that nobody kept alive.
    pub(crate) fn lifeless(&self, why: Lifeless) {
        self.lifeless.with_label_values(&[why.as_str()]).inc();
    }

    /// One fetch of keys more.
    pub(crate) fn key_fetch(&self, outcome: KeyFetch) {
        self.key_fetches.with_label_values(&[outcome.as_str()]).inc();
    }
}

fn clients_cut(registry: &Registry) -> Result<IntCounterVec, prometheus::Error> {
    let options = Opts::new(
        "mesh_waypoint_clients_cut_total",
        "Connections and requests that were ended since their client let them wait for too long",
    );
    let counters = IntCounterVec::new(options, &["reason"])?;
    registry.register(Box::new(counters.clone()))?;
    Ok(counters)
}

/// What became of what was put on its way to collectors.
fn by_fate(registry: &Registry, name: &str, help: &str) -> Result<IntCounterVec, prometheus::Error> {
    let counters = IntCounterVec::new(Opts::new(name, help), &["result"])?;
    registry.register(Box::new(counters.clone()))?;
    for fate in Fate::ALL {
        counters.with_label_values(&[fate.as_str()]);
    }
    Ok(counters)
}
