//! Istio's standard metrics of connections. One set of labels is four counters, found once and kept together.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use mesh_core::lock::UnpoisonedMutex as _;
use mesh_core::standard_labels::Between;
use prometheus::{IntCounter, IntCounterVec, Opts};

use crate::{CONNECTION_LABELS, MAX_SETS, Registry};

/// Between the labels of a key; no label has it, as names, identities and addresses are printable.
const SEPARATOR: char = '\0';

/// Values of a connection's labels, in the order of [`CONNECTION_LABELS`].
pub type ConnectionLabels<T> = [T; CONNECTION_LABELS.len()];

/// The values of a connection's labels: whom it is between, its response flags, and its `connection_security_policy`.
#[must_use]
pub fn connection_labels<'a>(between: &Between<'a>, flags: &'a str, security: &'a str) -> ConnectionLabels<&'a str> {
    let mut all = between.values().into_iter().chain(["tcp", flags, security]);
    std::array::from_fn(|_| all.next().unwrap_or_default())
}

/// The counters of one set of labels.
pub struct TcpSeries {
    /// Connections that were opened, or refused.
    pub opened: IntCounter,
    /// Those of them that are over.
    pub closed: IntCounter,
    /// Bytes from the server to the client.
    sent: IntCounter,
    /// Bytes from the client to the server.
    received: IntCounter,
}

impl TcpSeries {
    /// More bytes of the client.
    pub fn from_client(&self, bytes: u64) {
        self.received.inc_by(bytes);
    }

    /// More bytes of the server.
    pub fn to_client(&self, bytes: u64) {
        self.sent.inc_by(bytes);
    }
}

/// Every set of labels that was seen.
pub struct TcpMetrics {
    opened: IntCounterVec,
    closed: IntCounterVec,
    sent: IntCounterVec,
    received: IntCounterVec,
    known: Mutex<HashMap<String, Arc<TcpSeries>>>,
}

impl TcpMetrics {
    /// Registers the metrics.
    ///
    /// # Errors
    /// Another metric has one of the names.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let tcp = |name: &str, help: &str| {
            let metric = IntCounterVec::new(Opts::new(name, help), &CONNECTION_LABELS)?;
            registry.register(Box::new(metric.clone()))?;
            Ok::<_, prometheus::Error>(metric)
        };
        Ok(Self {
            opened: tcp("istio_tcp_connections_opened_total", "Connections opened")?,
            closed: tcp("istio_tcp_connections_closed_total", "Connections closed")?,
            sent: tcp("istio_tcp_sent_bytes_total", "Bytes sent to clients")?,
            received: tcp("istio_tcp_received_bytes_total", "Bytes received from clients")?,
            known: Mutex::default(),
        })
    }

    /// The counters of these labels; where there are too many, those of `unknown`, which are of closed sets.
    pub fn of<T: AsRef<str>, U: AsRef<str>>(
        &self,
        labels: &ConnectionLabels<T>,
        unknown: impl FnOnce() -> ConnectionLabels<U>,
    ) -> Arc<TcpSeries> {
        let values = labels.each_ref().map(AsRef::as_ref);
        let key = key(&values);
        let mut known = self.known.lock_unpoisoned();
        if let Some(series) = known.get(&key) {
            return series.clone();
        }
        if known.len() < MAX_SETS {
            let series = Arc::new(self.make(&values));
            known.insert(key, series.clone());
            return series;
        }
        drop(known);
        Arc::new(self.make(&unknown().each_ref().map(AsRef::as_ref)))
    }

    fn make(&self, values: &ConnectionLabels<&str>) -> TcpSeries {
        TcpSeries {
            opened: self.opened.with_label_values(values),
            closed: self.closed.with_label_values(values),
            sent: self.sent.with_label_values(values),
            received: self.received.with_label_values(values),
        }
    }
}

fn key(values: &ConnectionLabels<&str>) -> String {
    let mut key = String::with_capacity(512);
    for value in values {
        key.push_str(value);
        key.push(SEPARATOR);
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The labels of a connection from an account.
    fn from(account: &str) -> ConnectionLabels<&str> {
        let mut labels = ["unknown"; CONNECTION_LABELS.len()];
        labels[3] = account;
        labels
    }

    #[test]
    fn ever_new_identities_fill_no_memory_and_are_still_counted() {
        let registry = Registry::new();
        let metrics = TcpMetrics::register(&registry).expect("registered");
        let mut crowded_out = 0;
        for number in 0..MAX_SETS + 50 {
            let account = format!("account-{number}");
            let series = metrics.of(&from(&account), || {
                crowded_out += 1;
                from("unknown")
            });
            series.opened.inc();
        }
        assert_eq!(crowded_out, 50);
        let families = registry.gather();
        let opened = families.iter().find(|family| family.name() == "istio_tcp_connections_opened_total");
        let series = opened.expect("there").get_metric();
        assert_eq!(series.len(), MAX_SETS + 1);
        let total: f64 = series.iter().map(|metric| metric.get_counter().get_value()).sum();
        assert_eq!(total, (MAX_SETS + 50) as f64);
        // Those that were there before are told apart still.
        let again = || metrics.of(&from("account-1"), || from("unknown")).opened.clone();
        again().inc();
        assert_eq!(again().get(), 2);
    }
}
