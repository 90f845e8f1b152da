//! How requests are spread over a destination's endpoints, and what is kept from them: a DestinationRule's traffic policy.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::gateway::Credential;
use super::resilience::Retry;
use crate::locality::LocalitySetting;
use crate::policy::Selector;

/// What a DestinationRule says beside TLS.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrafficRule {
    /// For all subsets and ports.
    pub policy: TrafficPolicy,
    /// For some ports; there, nothing of `policy` is left.
    pub ports: BTreeMap<u16, TrafficPolicy>,
    /// The subsets by name.
    pub subsets: BTreeMap<Arc<str>, Subset>,
}

/// Some endpoints of a host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subset {
    /// The labels of its endpoints; none for all.
    pub labels: Option<Selector>,
    /// What is said instead of the rule's.
    pub policy: TrafficPolicy,
    /// The same for some ports.
    pub ports: BTreeMap<u16, TrafficPolicy>,
}

impl TrafficRule {
    /// Whether anything is said beside TLS, and which localities are preferred: what only a waypoint does.
    #[must_use]
    pub fn asks_for_something(&self) -> bool {
        let is_of_localities = |balancer: &LoadBalancer| {
            let rest = LoadBalancer { locality: None, ..balancer.clone() };
            balancer.locality.is_some() && rest == LoadBalancer::default()
        };
        let says = |policy: &TrafficPolicy| {
            let balancer = policy.load_balancer.clone().filter(|balancer| !is_of_localities(balancer));
            TrafficPolicy { load_balancer: balancer, ..policy.clone() } != TrafficPolicy::default()
        };
        says(&self.policy) || self.ports.values().any(says) || !self.subsets.is_empty()
    }

    /// Whether TLS is to be begun at any port.
    #[must_use]
    pub fn begins_tls(&self) -> bool {
        let begins = |policy: &TrafficPolicy| matches!(policy.tls, Some(Tls::Originate(_) | Tls::Impossible));
        begins(&self.policy) || self.ports.values().any(begins)
    }

    /// What holds for a port, of no subset.
    #[must_use]
    pub fn of_port(&self, port: u16) -> &TrafficPolicy {
        self.ports.get(&port).unwrap_or(&self.policy)
    }

    /// What holds for a port of a subset: what the subset says of the port, else the subset, else the rule of the port, else
    /// the rule; group of settings by group.
    #[must_use]
    pub fn effective(&self, subset: Option<&str>, port: u16) -> TrafficPolicy {
        let of_rule = self.of_port(port);
        let Some(subset) = subset.and_then(|name| self.subsets.get(name)) else {
            return of_rule.clone();
        };
        let of_subset = subset.ports.get(&port).unwrap_or(&subset.policy);
        of_subset.clone().or(of_rule)
    }
}

/// Settings of one level; what is not given is taken from the level above, or a default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrafficPolicy {
    /// How an endpoint is picked.
    pub load_balancer: Option<LoadBalancer>,
    /// Bounds on connections and requests.
    pub pool: Option<ConnectionPool>,
    /// Which endpoints are left out for a time.
    pub outlier: Option<OutlierDetection>,
    /// TLS to the endpoints. Of a whole rule only what has to be begun: the rest of its modes, nodes do as well.
    pub tls: Option<Tls>,
    /// The header of the PROXY protocol that connections to the endpoints begin with.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// How many retries may be under way; `max_retries` of [`TrafficPolicy::pool`] says nothing where it is given.
    pub retries: Option<RetryBudget>,
}

/// Retries that may be under way at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryBudget {
    /// Of the requests under way, in thousandths of a percent.
    pub share: u32,
    /// However few these are.
    pub least: u32,
}

impl Default for RetryBudget {
    /// More would make an outage of a slowdown; where no more than the least are under way, rules act to the letter.
    fn default() -> Self {
        Self { share: 20_000, least: 64 }
    }
}

impl RetryBudget {
    /// How many, where so many requests are under way.
    #[must_use]
    pub fn of(&self, requests: u32) -> u32 {
        let share = u64::from(requests) * u64::from(self.share) / 100_000;
        u32::try_from(share).unwrap_or(u32::MAX).max(self.least)
    }
}

/// A version of the PROXY protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// Version 1.
    V1,
    /// Version 2.
    V2,
}

/// What is said of TLS to endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tls {
    /// None.
    Disable,
    /// The mesh's own.
    IstioMutual,
    /// It is begun here (modes `SIMPLE` and `MUTUAL`).
    Originate(Arc<Origination>),
    /// It is to be begun with what is not there: nothing is sent.
    Impossible,
}

/// TLS that is begun to endpoints (`ClientTLSSettings`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Origination {
    /// The server's name in the handshake; the host's where none is given.
    pub sni: Option<Arc<str>>,
    /// Who is believed.
    pub roots: Roots,
    /// Of these names, hosts or URIs, the certificate has one; where there are none, the server's.
    pub names: Vec<Arc<str>>,
    /// The certificate that is shown.
    pub client: Option<ClientCertificate>,
    /// The Secret, of the proxy's own namespace, that stands for the files (`credentialName`).
    pub secret: Option<Arc<str>>,
    /// Whether a certificate has to be shown.
    pub mutual: bool,
}

/// A certificate that is shown to a server, and its key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ClientCertificate {
    /// In files (PEM), by their paths.
    Files {
        /// The chain.
        certificate: Arc<str>,
        /// The key.
        key: Arc<str>,
    },
    /// In a Secret.
    Held(Arc<Credential>),
}

/// What a Secret has for TLS to endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OriginSecret {
    /// The certificate that may be shown.
    pub client: Option<Arc<Credential>>,
    /// The authorities that are believed (DER); the system's where there are none.
    pub roots: Arc<[Arc<[u8]>]>,
}

/// Whose word counts for a server's certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub enum Roots {
    /// That of the authorities that the system knows.
    #[default]
    System,
    /// That of the authorities in a file (PEM).
    File(Arc<str>),
    /// That of these authorities (certificates in DER).
    Held(Arc<[Arc<[u8]>]>),
    /// Nobody's is asked for (`insecureSkipVerify`).
    Anybody,
}

impl TrafficPolicy {
    /// What is said here, and what is not from `above`.
    #[must_use]
    pub fn or(self, above: &Self) -> Self {
        Self {
            load_balancer: self.load_balancer.or_else(|| above.load_balancer.clone()),
            pool: self.pool.or_else(|| above.pool.clone()),
            outlier: self.outlier.or_else(|| above.outlier.clone()),
            tls: self.tls.or_else(|| above.tls.clone()),
            proxy_protocol: self.proxy_protocol.or(above.proxy_protocol),
            retries: self.retries.or(above.retries),
        }
    }
}

/// What the mesh configuration asks for where nothing nearer does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Defaults {
    /// When requests are tried again of which no rule says it (`defaultHttpRetryPolicy`).
    pub retry: Option<Retry>,
    /// Probes of silent connections (`tcpKeepalive`).
    pub keepalive: Option<Keepalive>,
    /// How long a connection may take to be made (`connectTimeout`).
    pub connect_timeout: Option<Duration>,
}

impl Defaults {
    /// Adds to a policy what it does not say.
    pub fn fill(&self, policy: &mut TrafficPolicy) {
        if self.keepalive.is_some() || self.connect_timeout.is_some() {
            let pool = policy.pool.get_or_insert_default();
            pool.keepalive = pool.keepalive.or(self.keepalive);
            pool.connect_timeout = pool.connect_timeout.or(self.connect_timeout);
        }
    }
}

/// How an endpoint is picked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadBalancer {
    /// The algorithm.
    pub algorithm: Algorithm,
    /// How a new endpoint's share grows to that of the others.
    pub warmup: Option<Warmup>,
    /// Which localities are preferred; the mesh's own setting where nothing is said.
    pub locality: Option<Arc<LocalitySetting>>,
}

/// How a new endpoint's share grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Warmup {
    /// Over how long.
    pub duration: Duration,
    /// The least of it, in percent of an old one's.
    pub minimum_percent: u32,
    /// How much faster it grows at first than later, in thousandths: evenly at 1,000.
    pub aggression: u32,
}

impl Warmup {
    /// Istio's defaults.
    #[must_use]
    pub const fn over(duration: Duration) -> Self {
        Self { duration, minimum_percent: 10, aggression: 1_000 }
    }

    /// The share of one that is so old, from 0 to 1 (Envoy's slow start).
    #[must_use]
    pub fn share(&self, age: Duration) -> f64 {
        let least = f64::from(self.minimum_percent) / 100.0;
        if age >= self.duration {
            return 1.0;
        }
        let grown = age.as_secs_f64() / self.duration.as_secs_f64();
        grown.powf(1_000.0 / f64::from(self.aggression.max(1))).clamp(least, 1.0)
    }
}

/// An algorithm of balancing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Algorithm {
    /// Of two at random the one with fewer requests under way.
    #[default]
    LeastRequest,
    /// One after the other.
    RoundRobin,
    /// Any.
    Random,
    /// The address that the client asked for.
    Passthrough,
    /// The same for the same key, as long as endpoints stay.
    ConsistentHash(HashKey),
}

/// What consistent hashing is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashKey {
    /// A header field, by its name in lower case.
    Header(Arc<str>),
    /// A cookie. Where it is not there, one is made that lives so long; none where nothing is to be made.
    Cookie {
        /// Its name.
        name: Arc<str>,
        /// Its path.
        path: Option<Arc<str>>,
        /// Its life; zero for the browser's session.
        ttl: Option<Duration>,
        /// Its further attributes, each with `; ` before it.
        attributes: Arc<str>,
    },
    /// The client's address.
    SourceAddress,
    /// A parameter of the query.
    QueryParameter(Arc<str>),
}

/// Bounds on connections and requests to one destination; none for no bound of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConnectionPool {
    /// Connections to all endpoints together.
    pub max_connections: Option<u32>,
    /// How long a connection may take to be made.
    pub connect_timeout: Option<Duration>,
    /// How long a connection that nobody looks into may be silent.
    pub tcp_idle_timeout: Option<Duration>,
    /// How old a connection may become.
    pub max_connection_duration: Option<Duration>,
    /// Probes that the kernel sends where a connection is silent; none for no probes.
    pub keepalive: Option<Keepalive>,
    /// Requests that wait for a connection.
    pub max_pending_requests: Option<u32>,
    /// Requests under way.
    pub max_requests: Option<u32>,
    /// Requests that a connection serves before it is closed.
    pub max_requests_per_connection: Option<u32>,
    /// Requests that share an HTTP/2 connection at a time.
    pub max_streams: Option<u32>,
    /// Retries under way.
    pub max_retries: Option<u32>,
    /// How long a connection without a request is kept.
    pub idle_timeout: Option<Duration>,
    /// Whether the upstream is spoken to by HTTP/2, whatever the client speaks.
    pub http2: bool,
    /// Whether it is spoken to by the version of HTTP that the client speaks, whatever it is declared to speak.
    pub as_client: bool,
}

/// Probes of a silent TCP connection (RFC 9293, section 3.8.4); what is not given is the system's default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Keepalive {
    /// Probes without an answer after which the connection is dead.
    pub probes: Option<u32>,
    /// How long it is silent before the first one, in whole seconds.
    pub time: Option<Duration>,
    /// How long after one the next is sent, in whole seconds.
    pub interval: Option<Duration>,
}

impl Keepalive {
    /// The most probes that Linux takes.
    pub const MOST_PROBES: u32 = 127;
    /// The longest times that Linux takes.
    pub const LONGEST: Duration = Duration::from_secs(32_767);
}

/// Which endpoints are left out for a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutlierDetection {
    /// After so many 5xx in a row; none for never.
    pub consecutive_5xx: Option<u32>,
    /// After so many 502, 503 and 504, and failures to connect, in a row.
    pub consecutive_gateway_errors: Option<u32>,
    /// After so many failures in a row to have an answer, 0 for never; where it is given these count here and for no other bound.
    pub consecutive_local_failures: Option<u32>,
    /// How long an endpoint has to be in use again for its next ejection to be one time the first's shorter.
    pub interval: Duration,
    /// How long the first ejection lasts; the n-th lasts n times as long, less what [`OutlierDetection::interval`] takes off.
    pub base_ejection: Duration,
    /// How many of the endpoints may be out at once, in percent; one may always.
    pub max_ejection_percent: u32,
    /// Below that share of healthy endpoints, in percent, all are used again; 0 for never.
    pub min_health_percent: u32,
}

impl Default for OutlierDetection {
    /// Istio's defaults.
    fn default() -> Self {
        Self {
            consecutive_5xx: Some(5),
            consecutive_gateway_errors: None,
            consecutive_local_failures: None,
            interval: Duration::from_secs(10),
            base_ejection: Duration::from_secs(30),
            max_ejection_percent: 10,
            min_health_percent: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_endpoints_share_grows_to_that_of_an_old_one() {
        let evenly = Warmup::over(Duration::from_secs(100));
        let soon = Warmup { minimum_percent: 0, aggression: 2_000, ..evenly };
        for (warmup, age, share) in
            [(evenly, 0, 0.1), (evenly, 5, 0.1), (evenly, 25, 0.25), (evenly, 100, 1.0), (evenly, 1_000, 1.0)]
                .into_iter()
                .chain([(soon, 0, 0.0), (soon, 25, 0.5), (soon, 81, 0.9), (soon, 100, 1.0)])
        {
            let found = warmup.share(Duration::from_secs(age));
            assert!((found - share).abs() < 1e-9, "{warmup:?} after {age} s: {found}");
        }
        let none = Warmup::over(Duration::ZERO);
        assert!((none.share(Duration::ZERO) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn a_budget_is_a_share_and_no_less_than_the_least() {
        let budget = RetryBudget { share: 20_000, least: 3 };
        for (requests, retries) in [(0, 3), (15, 3), (20, 4), (u32::MAX, 858_993_459)] {
            assert_eq!(budget.of(requests), retries);
        }
    }
}
