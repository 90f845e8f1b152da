//! Istio's standard TCP metrics. One set of labels is four counters, found once and kept together.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use mesh_metrics::{CONNECTION_LABELS, Registry};
use prometheus::{IntCounter, IntCounterVec, Opts};

use super::{
    labels::{self, Values},
    report::{Bytes, Report},
};

/// Sets of labels that are kept apart. What comes after is counted with unknown parties: a scrape stays below ten
/// thousand series, and a peer that comes under ever new identities fills no memory.
const MAX_SETS: usize = 2000;
/// Between the labels of a key; no label has it, as names, identities and addresses are printable.
const SEPARATOR: char = '\0';

/// The counters of one set of labels.
pub(super) struct TcpSeries {
    pub(super) opened: IntCounter,
    pub(super) closed: IntCounter,
    /// Bytes from the server to the client.
    sent: IntCounter,
    /// Bytes from the client to the server.
    received: IntCounter,
}

impl TcpSeries {
    /// More bytes.
    pub(super) fn carried(&self, bytes: Bytes) {
        self.sent.inc_by(bytes.to_client);
        self.received.inc_by(bytes.from_client);
    }
}

/// Every set of labels that was seen.
pub(super) struct TcpMetrics {
    opened: IntCounterVec,
    closed: IntCounterVec,
    sent: IntCounterVec,
    received: IntCounterVec,
    crowded_out: IntCounter,
    known: Mutex<HashMap<String, Arc<TcpSeries>>>,
}

impl TcpMetrics {
    /// Registers the metrics.
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let tcp = |name: &str, help: &str| {
            let metric = IntCounterVec::new(Opts::new(name, help), &CONNECTION_LABELS)?;
            registry.register(Box::new(metric.clone()))?;
            Ok::<_, prometheus::Error>(metric)
        };
        let crowded_out = IntCounter::new(
            "mesh_metrics_crowded_out_total",
            "Updates of istio_tcp_* and istio_request* that were counted with unknown parties, as there are too many sets of labels",
        )?;
        registry.register(Box::new(crowded_out.clone()))?;
        Ok(Self {
            opened: tcp("istio_tcp_connections_opened_total", "Connections opened")?,
            closed: tcp("istio_tcp_connections_closed_total", "Connections closed")?,
            sent: tcp("istio_tcp_sent_bytes_total", "Bytes sent to clients")?,
            received: tcp("istio_tcp_received_bytes_total", "Bytes received from clients")?,
            crowded_out,
            known: Mutex::default(),
        })
    }

    /// The counters for a connection. `cluster` is the name of the cluster, `flags` the response flags.
    pub(super) fn of(&self, report: &Report, cluster: &str, flags: &str) -> Arc<TcpSeries> {
        let values = labels::values(report, cluster, flags);
        let key = key(&values);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(series) = known.get(&key) {
            return series.clone();
        }
        if known.len() < MAX_SETS {
            let series = Arc::new(self.make(&values));
            known.insert(key, series.clone());
            return series;
        }
        drop(known);
        self.crowd_out();
        // The labels that are left are closed sets: as many more as these have members.
        Arc::new(self.make(&labels::of_unknown_parties(report, flags)))
    }

    /// Something was counted with unknown parties.
    pub(super) fn crowd_out(&self) {
        self.crowded_out.inc();
    }

    fn make(&self, values: &Values<'_>) -> TcpSeries {
        TcpSeries {
            opened: self.opened.with_label_values(values),
            closed: self.closed.with_label_values(values),
            sent: self.sent.with_label_values(values),
            received: self.received.with_label_values(values),
        }
    }
}

fn key(values: &Values<'_>) -> String {
    let mut key = String::with_capacity(512);
    for value in values {
        key.push_str(value);
        key.push(SEPARATOR);
    }
    key
}

#[cfg(test)]
mod tests {
    use mesh_core::{SpiffeId, TrustDomain};

    use super::*;
    use crate::telemetry::{Party, Reporter};

    /// The report of a connection from a service account.
    fn from(account: &str) -> Report {
        let principal = SpiffeId::new(&TrustDomain::default(), "app", account).expect("an identity");
        Report::begin(Reporter::Destination, Party { principal: Some(principal), ..Party::default() })
    }

    #[test]
    fn ever_new_identities_fill_no_memory_and_are_still_counted() {
        let registry = Registry::new();
        let metrics = TcpMetrics::register(&registry).expect("registered");
        for number in 0..MAX_SETS + 50 {
            metrics.of(&from(&format!("account-{number}")), "c", "-").opened.inc();
        }
        assert_eq!(metrics.crowded_out.get(), 50);
        let families = registry.gather();
        let opened = families.iter().find(|family| family.name() == "istio_tcp_connections_opened_total");
        let series = opened.expect("there").get_metric();
        assert_eq!(series.len(), MAX_SETS + 1);
        let total: f64 = series.iter().map(|metric| metric.get_counter().get_value()).sum();
        assert_eq!(total, (MAX_SETS + 50) as f64);
        // Those that were there before are told apart still.
        metrics.of(&from("account-1"), "c", "-").opened.inc();
        assert_eq!(metrics.of(&from("account-1"), "c", "-").opened.get(), 2);
    }
}
