//! What a DestinationRule says beside TLS: balancing, pools, outliers.

use mesh_core::l7::TrafficPolicy;
use mesh_core::l7::traffic::{Algorithm, ConnectionPool, HashKey, LoadBalancer, OutlierDetection};
use serde::Deserialize;
use serde_json::Value;

use super::super::duration::duration;
use super::super::{Flaw, Remark};
use super::remark_ignored;
use crate::code::Code;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct RawLoadBalancer {
    simple: Option<RawSimple>,
    consistent_hash: Option<RawHash>,
    locality_lb_setting: Option<Value>,
    warmup_duration_secs: Option<String>,
    warmup: Option<RawWarmup>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
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
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawHash {
    http_header_name: Option<String>,
    http_cookie: Option<RawCookie>,
    use_source_ip: Option<bool>,
    http_query_parameter_name: Option<String>,
    ring_hash: Option<Value>,
    maglev: Option<Value>,
    minimum_ring_size: Option<Value>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCookie {
    name: String,
    path: Option<String>,
    ttl: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawWarmup {
    duration: Option<String>,
    minimum_percent: Option<Value>,
    aggression: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPool {
    tcp: Option<RawTcp>,
    http: Option<RawHttp>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawTcp {
    max_connections: Option<u32>,
    connect_timeout: Option<String>,
    tcp_keepalive: Option<Value>,
    max_connection_duration: Option<Value>,
    idle_timeout: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawHttp {
    http1_max_pending_requests: Option<u32>,
    http2_max_requests: Option<u32>,
    max_requests_per_connection: Option<u32>,
    max_retries: Option<u32>,
    idle_timeout: Option<String>,
    h2_upgrade_policy: Option<RawUpgrade>,
    use_client_protocol: Option<Value>,
    max_concurrent_streams: Option<Value>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
enum RawUpgrade {
    #[serde(rename = "DEFAULT")]
    Default,
    #[serde(rename = "DO_NOT_UPGRADE")]
    DoNotUpgrade,
    #[serde(rename = "UPGRADE")]
    Upgrade,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct RawOutlier {
    consecutive_errors: Option<u32>,
    #[serde(rename = "consecutive5xxErrors")]
    consecutive_5xx: Option<u32>,
    consecutive_gateway_errors: Option<u32>,
    split_external_local_origin_errors: Option<Value>,
    consecutive_local_origin_failures: Option<Value>,
    interval: Option<String>,
    base_ejection_time: Option<String>,
    max_ejection_percent: Option<u32>,
    min_health_percent: Option<u32>,
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
        Ok(TrafficPolicy { load_balancer, pool, outlier: outlier.transpose()? })
    }
}

impl RawLoadBalancer {
    fn read(self, field: &str, remarks: &mut Vec<Remark>) -> Result<LoadBalancer, Flaw> {
        remark_ignored(&[("localityLbSetting", &self.locality_lb_setting)], field, remarks);
        let algorithm = match (self.simple, self.consistent_hash) {
            (Some(_), Some(_)) => {
                return Err(Flaw::value(field, "simple and consistentHash exclude each other"));
            }
            (None, Some(hash)) => Algorithm::ConsistentHash(hash.read(&format!("{field}.consistentHash"), remarks)?),
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
        let mut warmup = self.warmup_duration_secs.map(|text| (text, format!("{field}.warmupDurationSecs")));
        if let Some(raw) = self.warmup {
            let place = format!("{field}.warmup");
            let ignored = [("minimumPercent", &raw.minimum_percent), ("aggression", &raw.aggression)];
            remark_ignored(&ignored, &place, remarks);
            warmup = raw.duration.map(|text| (text, format!("{place}.duration")));
        }
        let warmup = warmup.map(|(text, field)| duration(&text, field)).transpose()?;
        Ok(LoadBalancer { algorithm, warmup })
    }
}

impl RawHash {
    fn read(self, field: &str, remarks: &mut Vec<Remark>) -> Result<HashKey, Flaw> {
        let ignored =
            [("ringHash", &self.ring_hash), ("maglev", &self.maglev), ("minimumRingSize", &self.minimum_ring_size)];
        remark_ignored(&ignored, field, remarks);
        let cookie = match self.http_cookie {
            Some(cookie) => {
                let ttl = cookie.ttl.map(|ttl| duration(&ttl, format!("{field}.httpCookie.ttl"))).transpose()?;
                Some(HashKey::Cookie { name: cookie.name.into(), path: cookie.path.map(Into::into), ttl })
            }
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

/// Istio: 0 is no bound of its own.
fn bound(value: Option<u32>) -> Option<u32> {
    value.filter(|value| *value > 0)
}

impl RawPool {
    fn read(self, field: &str, remarks: &mut Vec<Remark>) -> Result<ConnectionPool, Flaw> {
        let (tcp, http) = (self.tcp.unwrap_or_default(), self.http.unwrap_or_default());
        let ignored = [
            ("tcpKeepalive", &tcp.tcp_keepalive),
            ("maxConnectionDuration", &tcp.max_connection_duration),
            ("idleTimeout", &tcp.idle_timeout),
        ];
        remark_ignored(&ignored, &format!("{field}.tcp"), remarks);
        let ignored =
            [("useClientProtocol", &http.use_client_protocol), ("maxConcurrentStreams", &http.max_concurrent_streams)];
        remark_ignored(&ignored, &format!("{field}.http"), remarks);
        let connect = tcp.connect_timeout.map(|text| duration(&text, format!("{field}.tcp.connectTimeout")));
        let idle = http.idle_timeout.map(|text| duration(&text, format!("{field}.http.idleTimeout")));
        Ok(ConnectionPool {
            max_connections: bound(tcp.max_connections),
            connect_timeout: connect.transpose()?,
            max_pending_requests: bound(http.http1_max_pending_requests),
            max_requests: bound(http.http2_max_requests),
            max_requests_per_connection: bound(http.max_requests_per_connection),
            max_retries: bound(http.max_retries),
            idle_timeout: idle.transpose()?,
            http2: http.h2_upgrade_policy == Some(RawUpgrade::Upgrade),
        })
    }
}

impl RawOutlier {
    fn read(self, field: &str, remarks: &mut Vec<Remark>) -> Result<OutlierDetection, Flaw> {
        let ignored = [
            ("splitExternalLocalOriginErrors", &self.split_external_local_origin_errors),
            ("consecutiveLocalOriginFailures", &self.consecutive_local_origin_failures),
        ];
        remark_ignored(&ignored, field, remarks);
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
        let given = self.consecutive_5xx.or(self.consecutive_errors);
        let consecutive_5xx = match given {
            None => default.consecutive_5xx,
            Some(count) => bound(Some(count)),
        };
        Ok(OutlierDetection {
            consecutive_5xx,
            consecutive_gateway_errors: bound(self.consecutive_gateway_errors),
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
