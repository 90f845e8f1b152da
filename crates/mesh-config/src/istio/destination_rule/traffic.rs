//! What a DestinationRule says beside TLS: balancing, pools, outliers.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use mesh_core::l7::TrafficPolicy;
use mesh_core::l7::traffic::{
    Algorithm, ConnectionPool, HashKey, Keepalive, LoadBalancer, OutlierDetection, RetryBudget, Warmup,
};
use serde::Deserialize;

use super::super::duration::duration;
use super::super::locality::RawLocality;
use super::super::{Flaw, Remark, check_header_field};
use crate::code::Code;

#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct RawLoadBalancer {
    /// LEAST_REQUEST where nothing is said.
    simple: Option<RawSimple>,
    /// Requests that are alike go to one endpoint.
    consistent_hash: Option<RawHash>,
    /// Which localities are preferred.
    locality_lb_setting: Option<RawLocality>,
    /// How long a new endpoint gets less; warmup is its newer form.
    warmup_duration_secs: Option<String>,
    /// How a new endpoint gets less at first.
    warmup: Option<RawWarmup>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
enum RawSimple {
    #[serde(rename = "UNSPECIFIED")]
    Unspecified,
    #[serde(rename = "LEAST_REQUEST")]
    LeastRequest,
    #[serde(rename = "LEAST_CONN")]
    LeastConn,
    #[serde(rename = "ROUND_ROBIN")]
    RoundRobin,
    #[serde(rename = "RANDOM")]
    Random,
    #[serde(rename = "PASSTHROUGH")]
    Passthrough,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawHash {
    /// Alike by a header field.
    http_header_name: Option<String>,
    /// Alike by a cookie, which is given to clients that have none.
    http_cookie: Option<RawCookie>,
    /// Alike by the client's address.
    use_source_ip: Option<bool>,
    /// Alike by a parameter of the query.
    http_query_parameter_name: Option<String>,
    /// Endpoints share keys evenly, and only those of one that goes move: there is no ring that would have to be large for that.
    ring_hash: Option<RawRing>,
    /// The same; there is no table.
    maglev: Option<RawTable>,
    /// An older name of ringHash's.
    #[serde(rename = "minimumRingSize")]
    _minimum_ring_size: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct RawRing {
    /// Has no effect: what a larger ring is for holds in any case.
    #[serde(rename = "minimumRingSize")]
    _minimum_ring_size: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct RawTable {
    /// Has no effect: what a larger table is for holds in any case.
    #[serde(rename = "tableSize")]
    _table_size: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct RawCookie {
    /// Its name.
    name: String,
    /// Its path.
    path: Option<String>,
    /// How long it lives; 0s for the session.
    ttl: Option<String>,
    /// Further attributes, such as `SameSite` and `Secure`.
    #[serde(default)]
    attributes: Vec<RawAttribute>,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct RawAttribute {
    /// Its name.
    name: String,
    /// Its value; none for one that has only a name.
    value: Option<String>,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawWarmup {
    /// How long it takes.
    duration: Option<String>,
    /// The least share of a new endpoint, in percent of an old one's; 10 where nothing is said.
    minimum_percent: Option<f64>,
    /// How much faster the share grows at first than later; 1, which is evenly, where nothing is said.
    aggression: Option<f64>,
}

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct RawPool {
    /// Of connections.
    tcp: Option<RawTcp>,
    /// Of requests.
    http: Option<RawHttp>,
}

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawTcp {
    /// Connections at most.
    max_connections: Option<u32>,
    /// How long connecting may take.
    connect_timeout: Option<String>,
    /// Probes of connections that are silent, by which the kernel finds out whose other end is gone.
    tcp_keepalive: Option<RawKeepalive>,
    /// How old a connection may become; 0s, or nothing, is no limit.
    max_connection_duration: Option<String>,
    /// How long a connection may be silent of which nobody reads requests; 0s, or nothing, is no limit. Of others it is what http's
    /// idleTimeout is where that is not given.
    idle_timeout: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(in crate::istio) struct RawKeepalive {
    /// Probes without an answer after which a connection is dead; the system's default (9) where nothing, or 0, is given.
    probes: Option<u32>,
    /// How long a connection is silent before the first probe; the system's default (2h) where nothing, or 0s, is given.
    time: Option<String>,
    /// How long after a probe the next is sent; the system's default (75s) where nothing, or 0s, is given.
    interval: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawHttp {
    /// Requests that may wait for a connection.
    http1_max_pending_requests: Option<u32>,
    /// Requests under way at most.
    http2_max_requests: Option<u32>,
    /// After how many requests a connection is closed.
    max_requests_per_connection: Option<u32>,
    /// Retries under way at most.
    max_retries: Option<u32>,
    /// How long a connection without a request is kept.
    idle_timeout: Option<String>,
    /// Whether HTTP/2 is spoken to the endpoints.
    h2_upgrade_policy: Option<RawUpgrade>,
    /// Whether endpoints are spoken to by the version of HTTP that the client speaks; h2UpgradePolicy says nothing then.
    use_client_protocol: Option<bool>,
    /// Requests that share an HTTP/2 connection at a time; there are never more than 100.
    max_concurrent_streams: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
enum RawUpgrade {
    #[serde(rename = "DEFAULT")]
    Default,
    #[serde(rename = "DO_NOT_UPGRADE")]
    DoNotUpgrade,
    #[serde(rename = "UPGRADE")]
    Upgrade,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct RawOutlier {
    /// Answers in a row of 502, 503 or 504; an older name of consecutiveGatewayErrors.
    consecutive_errors: Option<u32>,
    /// Answers in a row of 5xx after which it is left out.
    #[serde(rename = "consecutive5xxErrors")]
    consecutive_5xx: Option<u32>,
    /// Answers in a row of 502, 503 or 504 after which it is left out.
    consecutive_gateway_errors: Option<u32>,
    /// Whether what fails before there is an answer is counted by consecutiveLocalOriginFailures, and not as a 503.
    split_external_local_origin_errors: Option<bool>,
    /// Failures in a row to have an answer after which it is left out, where they are counted apart; 5 where nothing is said.
    consecutive_local_origin_failures: Option<u32>,
    /// How often it is looked.
    interval: Option<String>,
    /// How long it is left out, times how often it was.
    base_ejection_time: Option<String>,
    /// Share of endpoints that may be left out.
    max_ejection_percent: Option<u32>,
    /// Share of endpoints below which nobody is left out.
    min_health_percent: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct RawRetryBudget {
    /// Retries under way at most, in percent of the requests under way; 20 where nothing is said.
    percent: Option<f64>,
    /// Retries that may be under way however few requests are; 3 where nothing is said.
    min_retry_concurrency: Option<u32>,
}

/// The three groups of settings, of a rule, a subset or a port.
#[derive(Debug, Default)]
pub(super) struct RawTraffic {
    pub(super) load_balancer: Option<RawLoadBalancer>,
    pub(super) connection_pool: Option<RawPool>,
    pub(super) outlier_detection: Option<RawOutlier>,
}

impl RawTraffic {
    pub(super) fn read(self, field: &str, remarks: &mut Vec<Remark>) -> Result<TrafficPolicy, Flaw> {
        let load_balancer = self.load_balancer.map(|raw| raw.read(&format!("{field}.loadBalancer"), remarks));
        let load_balancer = load_balancer.transpose()?;
        let pool = self.connection_pool.map(|raw| raw.read(&format!("{field}.connectionPool"), remarks)).transpose()?;
        let outlier = self.outlier_detection.map(|raw| raw.read(&format!("{field}.outlierDetection"), remarks));
        Ok(TrafficPolicy { load_balancer, pool, outlier: outlier.transpose()?, ..TrafficPolicy::default() })
    }
}

impl RawLoadBalancer {
    fn read(self, field: &str, remarks: &mut Vec<Remark>) -> Result<LoadBalancer, Flaw> {
        let locality = self.locality_lb_setting.map(|raw| raw.read(&format!("{field}.localityLbSetting")));
        let locality = locality.transpose()?.map(Arc::new);
        let algorithm = match (self.simple, self.consistent_hash) {
            (Some(_), Some(_)) => {
                return Err(Flaw::value(field, "simple and consistentHash exclude each other"));
            }
            (None, Some(hash)) => Algorithm::ConsistentHash(hash.read(&format!("{field}.consistentHash"))?),
            (None | Some(RawSimple::Unspecified | RawSimple::LeastRequest | RawSimple::LeastConn), None) => {
                Algorithm::LeastRequest
            }
            (Some(RawSimple::RoundRobin), None) => Algorithm::RoundRobin,
            (Some(RawSimple::Random), None) => Algorithm::Random,
            (Some(RawSimple::Passthrough), None) => {
                let message = "a Service's address is nobody's own: an endpoint is chosen at random";
                remarks.push(Remark::new(Code::FieldNotHonoured, format!("{field}.simple"), message));
                Algorithm::Passthrough
            }
        };
        let warmup = match (self.warmup, self.warmup_duration_secs) {
            (Some(raw), _) => Some(raw.read(&format!("{field}.warmup"))?),
            (None, Some(text)) => Some(Warmup::over(duration(&text, format!("{field}.warmupDurationSecs"))?)),
            (None, None) => None,
        };
        Ok(LoadBalancer { algorithm, warmup, locality })
    }
}

/// The value of a field of that name, in thousandths.
fn thousandths(value: f64, bounds: RangeInclusive<f64>, field: String) -> Result<u32, Flaw> {
    if !bounds.contains(&value) {
        let (least, most) = bounds.into_inner();
        return Err(Flaw::value(field, format!("{value} is not from {least} to {most}")));
    }
    // No bound is out of range.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    Ok((value * 1_000.0).round() as u32)
}

impl RawRetryBudget {
    pub(super) fn read(self, field: &str) -> Result<RetryBudget, Flaw> {
        let default = RetryBudget::default();
        let percent = |percent| thousandths(percent, 0.0..=100.0, format!("{field}.percent"));
        Ok(RetryBudget {
            share: self.percent.map(percent).transpose()?.unwrap_or(default.share),
            // Envoy's default.
            least: self.min_retry_concurrency.unwrap_or(3),
        })
    }
}

impl RawWarmup {
    fn read(self, field: &str) -> Result<Warmup, Flaw> {
        let Some(text) = self.duration else {
            return Err(Flaw::value(format!("{field}.duration"), "it does not say how long it takes"));
        };
        let mut warmup = Warmup::over(duration(&text, format!("{field}.duration"))?);
        if let Some(percent) = self.minimum_percent {
            warmup.minimum_percent = thousandths(percent, 0.0..=100.0, format!("{field}.minimumPercent"))? / 1_000;
        }
        if let Some(aggression) = self.aggression {
            warmup.aggression = thousandths(aggression, 1.0..=1_000.0, format!("{field}.aggression"))?;
        }
        Ok(warmup)
    }
}

impl RawHash {
    fn read(self, field: &str) -> Result<HashKey, Flaw> {
        if self.ring_hash.is_some() && self.maglev.is_some() {
            return Err(Flaw::value(field, "ringHash and maglev exclude each other"));
        }
        let cookie = match self.http_cookie {
            Some(cookie) => Some(cookie.read(&format!("{field}.httpCookie"))?),
            None => None,
        };
        let keys = [
            self.http_header_name.map(|name| HashKey::Header(name.to_ascii_lowercase().into())),
            cookie,
            (self.use_source_ip == Some(true)).then_some(HashKey::SourceAddress),
            self.http_query_parameter_name.map(|name| HashKey::QueryParameter(name.into())),
        ];
        let mut keys = keys.into_iter().flatten();
        match (keys.next(), keys.next()) {
            (Some(key), None) => Ok(key),
            (None, _) => Err(Flaw::value(field, "it does not say what to hash")),
            (Some(_), Some(_)) => Err(Flaw::value(field, "what to hash is given more than once")),
        }
    }
}

impl RawCookie {
    fn read(self, field: &str) -> Result<HashKey, Flaw> {
        let ttl = self.ttl.map(|ttl| duration(&ttl, format!("{field}.ttl"))).transpose()?;
        let mut attributes = String::new();
        for (index, RawAttribute { name, value }) in self.attributes.into_iter().enumerate() {
            let field = format!("{field}.attributes[{index}]");
            // An attribute's name is a token too (RFC 6265, section 4.1.1), and a semicolon would begin another one.
            check_header_field(&name, value.as_deref().unwrap_or_default(), &field)?;
            if value.as_ref().is_some_and(|value| !value.is_ascii() || value.contains(';')) {
                return Err(Flaw::value(format!("{field}.value"), "it is one value of ASCII, without a semicolon"));
            }
            attributes.extend(["; ", &name]);
            attributes.extend(value.iter().filter(|value| !value.is_empty()).flat_map(|value| ["=", value]));
        }
        let (name, path) = (self.name.into(), self.path.map(Into::into));
        Ok(HashKey::Cookie { name, path, ttl, attributes: attributes.into() })
    }
}

/// Istio: 0 is no bound of its own.
fn bound(value: Option<u32>) -> Option<u32> {
    value.filter(|value| *value > 0)
}

impl RawPool {
    fn read(self, field: &str, remarks: &mut Vec<Remark>) -> Result<ConnectionPool, Flaw> {
        let (tcp, http) = (self.tcp.unwrap_or_default(), self.http.unwrap_or_default());
        let time =
            |text: Option<String>, name: &str| text.map(|text| duration(&text, format!("{field}.{name}"))).transpose();
        let silent = time(tcp.idle_timeout, "tcp.idleTimeout")?;
        let oldest = time(tcp.max_connection_duration, "tcp.maxConnectionDuration")?;
        let keepalive = tcp.tcp_keepalive.map(|raw| raw.read(&format!("{field}.tcp.tcpKeepalive"), remarks));
        let idle = time(http.idle_timeout, "http.idleTimeout")?.or(silent);
        Ok(ConnectionPool {
            max_connections: bound(tcp.max_connections),
            connect_timeout: time(tcp.connect_timeout, "tcp.connectTimeout")?,
            tcp_idle_timeout: silent.filter(|silent| !silent.is_zero()),
            max_connection_duration: oldest.filter(|oldest| !oldest.is_zero()),
            keepalive: keepalive.transpose()?,
            max_pending_requests: bound(http.http1_max_pending_requests),
            max_requests: bound(http.http2_max_requests),
            max_requests_per_connection: bound(http.max_requests_per_connection),
            max_streams: bound(http.max_concurrent_streams),
            max_retries: bound(http.max_retries),
            // Envoy: 0s is no limit.
            idle_timeout: idle.map(|idle| if idle.is_zero() { Duration::MAX } else { idle }),
            http2: http.h2_upgrade_policy == Some(RawUpgrade::Upgrade),
            as_client: http.use_client_protocol == Some(true),
        })
    }
}

impl RawKeepalive {
    pub(in crate::istio) fn read(self, field: &str, remarks: &mut Vec<Remark>) -> Result<Keepalive, Flaw> {
        let mut too_much = |name: &str, most: String| {
            let message = format!("the kernel takes no more than {most}, which is in force");
            remarks.push(Remark::new(Code::FieldNotHonoured, format!("{field}.{name}"), message));
        };
        let probes = bound(self.probes);
        if probes.is_some_and(|probes| probes > Keepalive::MOST_PROBES) {
            too_much("probes", Keepalive::MOST_PROBES.to_string());
        }
        let mut time = |text: Option<String>, name: &str| {
            let given = text.map(|text| duration(&text, format!("{field}.{name}"))).transpose()?;
            if given.is_some_and(|given| given > Keepalive::LONGEST) {
                too_much(name, format!("{}s", Keepalive::LONGEST.as_secs()));
            }
            // The kernel counts seconds.
            let whole = |given: Duration| Duration::from_secs(given.as_secs() + u64::from(given.subsec_nanos() > 0));
            Ok(given.filter(|given| !given.is_zero()).map(|given| whole(given).min(Keepalive::LONGEST)))
        };
        let (time, interval) = (time(self.time, "time")?, time(self.interval, "interval")?);
        Ok(Keepalive { probes: probes.map(|probes| probes.min(Keepalive::MOST_PROBES)), time, interval })
    }
}

impl RawOutlier {
    fn read(self, field: &str, remarks: &mut Vec<Remark>) -> Result<OutlierDetection, Flaw> {
        let is_split = self.split_external_local_origin_errors == Some(true);
        if !is_split && self.consecutive_local_origin_failures.is_some() {
            let message = "it takes splitExternalLocalOriginErrors: failures to have an answer count as 503";
            remarks.push(Remark::new(Code::WithoutEffect, format!("{field}.consecutiveLocalOriginFailures"), message));
        }
        let default = OutlierDetection::default();
        let time = |text: Option<String>, name: &str, default| {
            text.map_or(Ok(default), |text| duration(&text, format!("{field}.{name}")))
        };
        let percent = |value: Option<u32>, name: &str, default| match value {
            Some(value) if value > 100 => {
                Err(Flaw::value(format!("{field}.{name}"), format!("{value} is no percentage")))
            }
            value => Ok(value.unwrap_or(default)),
        };
        let consecutive_5xx = match (self.consecutive_5xx, self.consecutive_errors) {
            (None, None) => default.consecutive_5xx,
            // Istio: what consecutiveErrors counts is 502, 503 and 504.
            (given, _) => bound(given),
        };
        Ok(OutlierDetection {
            consecutive_5xx,
            consecutive_gateway_errors: bound(self.consecutive_gateway_errors.or(self.consecutive_errors)),
            // Envoy's default.
            consecutive_local_failures: is_split.then(|| self.consecutive_local_origin_failures.unwrap_or(5)),
            interval: time(self.interval, "interval", default.interval)?,
            base_ejection: time(self.base_ejection_time, "baseEjectionTime", default.base_ejection)?,
            max_ejection_percent: percent(
                self.max_ejection_percent,
                "maxEjectionPercent",
                default.max_ejection_percent,
            )?,
            min_health_percent: percent(self.min_health_percent, "minHealthPercent", default.min_health_percent)?,
        })
    }
}
