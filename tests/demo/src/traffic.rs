//! Who talked to whom under which identity, by the daemons' metrics.

use std::collections::BTreeMap;

use anyhow::Result;
use mesh_lab::{Daemon, Metrics, Sample};

use crate::stage::TRUST_DOMAIN;

/// Connections that were opened.
pub const OPENED: &str = "istio_tcp_connections_opened_total";
const CLOSED: &str = "istio_tcp_connections_closed_total";
/// Both directions of a connection.
const BYTES: [&str; 2] = ["istio_tcp_sent_bytes_total", "istio_tcp_received_bytes_total"];

/// A principal that was not proven.
pub const UNKNOWN: &str = "unknown";
/// The protection of connections that do not leave their node.
pub const BY_KERNEL: &str = "one kernel";

/// Who talked to whom, and how.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Edge {
    /// The client's identity; `unknown` where it showed none.
    pub source: String,
    /// The server's.
    pub destination: String,
    /// `mutual_tls` or `none`.
    pub security: String,
}

impl Edge {
    fn of(sample: &Sample) -> Self {
        let label = |name: &str| sample.labels.get(name).cloned().unwrap_or_default();
        Self {
            source: label("source_principal"),
            destination: label("destination_principal"),
            security: label("connection_security_policy"),
        }
    }

    /// What proves who is at the ends, and protects what goes between them.
    pub fn protection(&self) -> &str {
        match &*self.security {
            "mutual_tls" => "mTLS",
            // Never left its node, whose kernel knows whose sockets they are.
            "none" if self.source != UNKNOWN && self.destination != UNKNOWN => BY_KERNEL,
            "none" => "plaintext",
            other => other,
        }
    }
}

/// How much went over an edge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Volume {
    /// Connections that were opened.
    pub opened: u64,
    /// Those that have ended.
    pub closed: u64,
    /// Bytes of both directions of those that have ended.
    pub bytes: u64,
}

/// All edges that the daemons report from one side of the connection: `source` or `destination`.
pub fn edges(daemons: &[&Daemon], reporter: &str) -> Result<BTreeMap<Edge, Volume>> {
    let metrics = daemons.iter().map(|daemon| daemon.metrics()).collect::<Result<Vec<_>>>()?;
    Ok(edges_of(&metrics, reporter))
}

/// The same of metrics that were read otherwise.
pub fn edges_of(metrics: &[Metrics], reporter: &str) -> BTreeMap<Edge, Volume> {
    let mut all = BTreeMap::new();
    for metrics in metrics {
        add(&mut all, metrics, reporter);
    }
    all
}

fn add(all: &mut BTreeMap<Edge, Volume>, metrics: &Metrics, reporter: &str) {
    // Refused connections have a flag; these carried something.
    let labels = [("reporter", reporter), ("response_flags", "-")];
    for name in [OPENED, CLOSED, BYTES[0], BYTES[1]] {
        for sample in metrics.of(name, &labels) {
            let volume: &mut Volume = all.entry(Edge::of(sample)).or_default();
            let value = sample.value as u64;
            match name {
                OPENED => volume.opened += value,
                CLOSED => volume.closed += value,
                _ => volume.bytes += value,
            }
        }
    }
}

/// The connections that came to a daemon's pods in plaintext: by the server's workload, how many.
pub fn plaintext(daemon: &Daemon) -> Result<BTreeMap<String, u64>> {
    let mut all = BTreeMap::new();
    let labels = [("reporter", "destination"), ("response_flags", "-"), ("source_principal", UNKNOWN)];
    for sample in daemon.metrics()?.of(OPENED, &labels) {
        let workload = sample.labels.get("destination_workload").cloned().unwrap_or_default();
        *all.entry(workload).or_default() += sample.value as u64;
    }
    Ok(all)
}

/// A principal without what all have in common: `ns/shop/sa/cart`.
pub fn short(principal: &str) -> &str {
    let rest = principal.strip_prefix("spiffe://").unwrap_or(principal);
    rest.strip_prefix(TRUST_DOMAIN).and_then(|rest| rest.strip_prefix('/')).unwrap_or(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_of_one_pair_are_added_and_the_other_reporter_is_left_out() {
        let line = |name: &str, reporter: &str, version: &str, value: u32| {
            format!(
                "{name}{{reporter=\"{reporter}\",source_principal=\"spiffe://cluster.local/ns/shop/sa/a\",\
                 destination_principal=\"spiffe://cluster.local/ns/shop/sa/b\",destination_version=\"{version}\",\
                 connection_security_policy=\"mutual_tls\",response_flags=\"-\"}} {value}\n"
            )
        };
        let text = [
            line(OPENED, "source", "v1", 2),
            line(OPENED, "source", "v2", 3),
            line(CLOSED, "source", "v1", 2),
            line(BYTES[0], "source", "v1", 100),
            line(BYTES[1], "source", "v1", 11),
            line(OPENED, "destination", "v1", 9),
        ]
        .concat();
        let mut all = BTreeMap::new();
        add(&mut all, &Metrics::parse(&text), "source");
        let (edge, volume) = all.pop_first().unwrap();
        assert_eq!((short(&edge.source), short(&edge.destination)), ("ns/shop/sa/a", "ns/shop/sa/b"));
        assert_eq!(edge.protection(), "mTLS");
        assert_eq!(volume, Volume { opened: 5, closed: 2, bytes: 111 });
        assert!(all.is_empty());
    }
}
