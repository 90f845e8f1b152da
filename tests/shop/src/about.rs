//! Who a program is, and what it saw of a request.

use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use std::io::Write as _;

use crate::tracing_headers::TracingHeaders;

/// A running program of the shop, as it names itself in answers and logs.
#[derive(Debug, Clone)]
pub struct About {
    /// The service, for example `cart`.
    pub service: &'static str,
    /// The version, for example `v1`.
    pub version: String,
    /// The node, from the environment variable `NODE_NAME`; `unknown` without it.
    pub node: String,
}

/// One program's part in a checkout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hop {
    /// The service that answered.
    pub service: String,
    /// Its version.
    pub version: String,
    /// The node that it runs on.
    pub node: String,
    /// The client's address, as `accept()` returned it; an IPv4 address in IPv6 form is shown as IPv4.
    pub peer: String,
    /// The address that the client reached, from `getsockname()`.
    pub local: String,
    /// The `traceparent` header of the request, where the protocol carries headers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
}

/// Both ends of an accepted connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ends {
    pub(crate) peer: SocketAddr,
    pub(crate) local: SocketAddr,
}

impl Ends {
    /// Takes both addresses, IPv4 in IPv6 form turned into plain IPv4.
    pub(crate) fn new(peer: SocketAddr, local: SocketAddr) -> Self {
        let canonical = |a: SocketAddr| SocketAddr::new(a.ip().to_canonical(), a.port());
        Self { peer: canonical(peer), local: canonical(local) }
    }
}

impl About {
    /// This program's part in the request that came over `ends`.
    pub(crate) fn hop(&self, ends: Ends, headers: &TracingHeaders) -> Hop {
        Hop {
            service: self.service.to_owned(),
            version: self.version.clone(),
            node: self.node.clone(),
            peer: ends.peer.to_string(),
            local: ends.local.to_string(),
            traceparent: headers.get("traceparent").map(str::to_owned),
        }
    }

    /// Writes the log line of one request. A closed stdout is no reason to stop serving.
    pub(crate) fn log(&self, line: &LogLine<'_>) {
        let millis = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
        let text = serde_json::json!({
            "time_unix_ms": u64::try_from(millis).unwrap_or(u64::MAX),
            "service": self.service, "version": self.version, "node": self.node,
            "peer": line.ends.peer.to_string(), "request": line.request, "outcome": line.outcome,
            "marker": line.marker, "duration_us": u64::try_from(line.took.as_micros()).unwrap_or(u64::MAX),
        });
        let _ = writeln!(std::io::stdout().lock(), "{text}");
    }
}

/// What a program logs of one request. The card number is never among it.
pub(crate) struct LogLine<'a> {
    pub(crate) ends: Ends,
    pub(crate) request: &'a str,
    pub(crate) outcome: &'a str,
    pub(crate) marker: &'a str,
    pub(crate) took: std::time::Duration,
}
