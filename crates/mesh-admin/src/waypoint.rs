//! A waypoint or gateway: how it is, its routes, and where it sends requests.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::status::{CertificateError, Config};

/// Where a waypoint listens by custom, for those who ask it.
pub const WAYPOINT_SOCKET: &str = "/run/mesh/waypoint.sock";

/// A waypoint's state at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WaypointStatus {
    /// The program's version.
    pub version: String,
    /// The Gateway that it is a replica of, as `namespace/name`.
    pub gateway: String,
    /// The pod that it runs in, likewise, where it knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// Its process id, in its own pid namespace.
    pub pid: u32,
    /// Seconds since it was started.
    pub uptime_seconds: u64,
    /// Its own identity.
    pub identity: String,
    /// Seconds until its certificate's end; none while it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_expires_in_seconds: Option<u64>,
    /// Why it has no certificate, or no new one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_error: Option<CertificateError>,
    /// The configuration in force.
    pub config: Config,
    /// Ports at which a gateway takes clients from outside.
    pub ports: Vec<u16>,
    /// Connections that clients and their nodes have to it.
    pub connections: usize,
    /// What its threads do.
    pub threads: Vec<WaypointThread>,
    /// The limits on requests that were asked here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rate_limits: Vec<WaypointLimit>,
    /// Whether it takes nothing new any more.
    pub draining: bool,
}

/// A limit on requests, and what became of those that it is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WaypointLimit {
    /// Where it is written.
    pub limit: String,
    /// The host of the Service that it is kept for; empty at a gateway, where it is kept for all.
    pub service: String,
    /// How many may pass, and of which requests.
    pub rate: String,
    /// Requests that passed.
    pub passed: u64,
    /// Requests that were refused.
    pub limited: u64,
    /// Requests over the limit that passed, since not all are refused.
    pub not_enforced: u64,
    /// Keys that have a bucket of their own.
    pub keys: usize,
}

/// A thread that carries requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WaypointThread {
    /// Requests under way.
    pub active: u64,
    /// Requests that have ended.
    pub served: u64,
}

/// A rule that is in force at a waypoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WaypointRoute {
    /// What it is attached to: `host:port` of Services, listeners of gateways.
    pub parents: Vec<String>,
    /// The namespace of the object that has it.
    pub namespace: String,
    /// Where it is written.
    pub rule: String,
    /// The requests that it is about, any of these; none for all.
    pub matches: Vec<String>,
    /// What becomes of them.
    pub action: String,
    /// What happens besides.
    pub with: Vec<String>,
    /// Where they go.
    pub backends: Vec<RouteBackend>,
    /// Requests that belonged to it and have ended, since it is in force as it is.
    pub requests: u64,
    /// Those that were answered with a 5xx, or not at all.
    pub errors: u64,
}

/// Where some of a rule's requests go.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteBackend {
    /// Where.
    pub to: String,
    /// Its weight.
    pub weight: u32,
    /// The share of requests that it should get, in percent.
    pub wanted_percent: f64,
    /// The share that it got; none while there was no request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen_percent: Option<f64>,
    /// Requests that were sent there and have ended.
    pub requests: u64,
    /// Those that were answered with a 5xx, or not at all.
    pub errors: u64,
}

/// Where a waypoint sends requests: a port of a Service, some of its endpoints, or one workload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WaypointCluster {
    /// The namespace of what it is; empty where it is none's.
    pub namespace: String,
    /// What it is called.
    pub name: String,
    /// How an endpoint is picked.
    pub balancer: String,
    /// What tells endpoints apart by where they are, such as `trafficDistribution: PreferSameZone`; none where nothing does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preferred_by: Option<String>,
    /// Its endpoints.
    pub endpoints: Vec<ClusterEndpoint>,
    /// Its bounds, and what of them is in use.
    pub pool: ClusterPool,
    /// Endpoints that were left out ever, each time counted.
    pub ejections: u64,
    /// Why nothing is sent there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// An endpoint of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterEndpoint {
    /// Where it listens.
    pub address: SocketAddr,
    /// The pod, as `namespace/name`, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
    /// Where that is, as `region/zone/subzone`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locality: Option<String>,
    /// Which it is among those that stand in for each other: 0 for the first, which get all that they can carry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u32>,
    /// The share of its locality, in relation to those of others, where localities have shares.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<u32>,
    /// `healthy`, `ejected`, `passed by` while it does not answer, or `unused` while nothing was sent there.
    pub health: String,
    /// Requests under way.
    pub active: u32,
    /// Errors in a row.
    pub errors_in_a_row: u32,
    /// How often it was ejected.
    pub ejections: u32,
    /// Why it was left out last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ejected_for: Option<String>,
    /// Seconds until it gets requests again, rounded up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub returns_in_seconds: Option<u64>,
}

/// Bounds of a cluster; none for no bound of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterPool {
    /// Connections.
    pub connections: Bound,
    /// Requests that wait for a connection.
    pub pending: Bound,
    /// Requests under way.
    pub requests: Bound,
    /// Retries under way.
    pub retries: Bound,
}

/// One bound.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bound {
    /// How many there are.
    pub used: u32,
    /// How many there may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub most: Option<u32>,
    /// How many were refused for it, ever.
    pub overflows: u64,
}
