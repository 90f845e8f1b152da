//! Rates of Services between two readings. No clock, no I/O.

use std::collections::BTreeMap;

use mesh_admin::{Bucket, ServiceTraffic, Traffic};
use serde::Serialize;

/// What went on at a Service in an interval.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Rates {
    pub(crate) namespace: String,
    pub(crate) service: String,
    pub(crate) requests_per_second: f64,
    /// The share of requests that failed or, where there was none, of connections; none where there was neither.
    pub(super) error_ratio: Option<f64>,
    pub(super) p50_milliseconds: Option<f64>,
    pub(super) p99_milliseconds: Option<f64>,
    pub(super) connections_per_second: f64,
    /// Connections that are open at the end of it.
    pub(super) open_connections: u64,
    pub(super) bytes_per_second: f64,
    /// Of the connections that were open at some time of it, the share in mutual TLS; none where there was none.
    pub(super) mutual_tls_ratio: Option<f64>,
}

/// What one program told at two moments, and the seconds between.
pub(crate) type Sample<'a> = (&'a Traffic, &'a Traffic, f64);

/// Between what each program told. One that began anew meanwhile counts from nothing.
pub(crate) fn between<'a>(told: impl IntoIterator<Item = Sample<'a>>) -> Vec<Rates> {
    let mut sums: BTreeMap<(&str, &str), Change> = BTreeMap::new();
    for (before, after, seconds) in told {
        let then: BTreeMap<_, _> =
            before.services.iter().map(|service| ((&*service.namespace, &*service.name), service)).collect();
        let nothing = ServiceTraffic::default();
        for now in &after.services {
            let name = (&*now.namespace, &*now.name);
            let then = then.get(&name).copied().filter(|then| !began_anew(then, now)).unwrap_or(&nothing);
            sums.entry(name).or_default().add(then, now, seconds);
        }
    }
    sums.into_iter().map(|((namespace, service), change)| change.rates(namespace, service)).collect()
}

fn began_anew(then: &ServiceTraffic, now: &ServiceTraffic) -> bool {
    now.requests < then.requests || now.connections < then.connections || now.bytes < then.bytes
}

/// What has changed, over all programs.
#[derive(Debug, Default)]
struct Change {
    requests: u64,
    requests_per_second: f64,
    request_errors: u64,
    durations: Vec<Bucket>,
    connections: u64,
    connections_per_second: f64,
    connection_errors: u64,
    open: u64,
    /// Connections that were open at some time, and those of them in mutual TLS.
    alive: u64,
    alive_in_tls: u64,
    bytes_per_second: f64,
}

impl Change {
    fn add(&mut self, then: &ServiceTraffic, now: &ServiceTraffic, seconds: f64) {
        let per_second = |count: u64| if seconds > 0.0 { count as f64 / seconds } else { 0.0 };
        self.requests += now.requests - then.requests;
        self.requests_per_second += per_second(now.requests - then.requests);
        self.request_errors += now.request_errors.saturating_sub(then.request_errors);
        self.connections += now.connections - then.connections;
        self.connections_per_second += per_second(now.connections - then.connections);
        self.connection_errors += now.connection_errors.saturating_sub(then.connection_errors);
        self.open += now.connections.saturating_sub(now.connections_closed);
        self.alive += now.connections.saturating_sub(then.connections_closed);
        self.alive_in_tls += now.mutual_tls.saturating_sub(then.mutual_tls_closed);
        self.bytes_per_second += per_second(now.bytes - then.bytes);
        for (index, bucket) in now.durations.iter().enumerate() {
            let before = then.durations.get(index).map_or(0, |before| before.requests);
            let requests = bucket.requests.saturating_sub(before);
            match self.durations.get_mut(index) {
                Some(sum) => sum.requests += requests,
                None => self.durations.push(Bucket { requests, ..*bucket }),
            }
        }
    }

    fn rates(&self, namespace: &str, service: &str) -> Rates {
        let ratio = |part: u64, all: u64| (all > 0).then(|| part as f64 / all as f64);
        Rates {
            namespace: namespace.to_owned(),
            service: service.to_owned(),
            requests_per_second: self.requests_per_second,
            error_ratio: ratio(self.request_errors, self.requests)
                .or_else(|| ratio(self.connection_errors, self.connections)),
            p50_milliseconds: quantile(0.5, &self.durations, self.requests),
            p99_milliseconds: quantile(0.99, &self.durations, self.requests),
            connections_per_second: self.connections_per_second,
            open_connections: self.open,
            bytes_per_second: self.bytes_per_second,
            mutual_tls_ratio: ratio(self.alive_in_tls, self.alive),
        }
    }
}

/// A quantile as Prometheus' `histogram_quantile` estimates it: evenly spread within a bucket, and no more than the last bound.
fn quantile(share: f64, buckets: &[Bucket], all: u64) -> Option<f64> {
    if all == 0 {
        return None;
    }
    let rank = share * all as f64;
    let (mut from, mut below) = (0.0, 0.0);
    for bucket in buckets {
        let within = bucket.requests as f64;
        if within >= rank && within > below {
            return Some(from + (bucket.at_most_milliseconds - from) * (rank - below) / (within - below));
        }
        (from, below) = (bucket.at_most_milliseconds, within);
    }
    Some(from)
}

impl Rates {
    /// As a row under the headings.
    pub(super) fn row(&self) -> Vec<String> {
        let known = |value: Option<f64>, show: fn(f64) -> String| value.map_or_else(|| "-".to_owned(), show);
        // Exact as far as it is short.
        let percent = |ratio: f64| match ratio * 100.0 {
            percent if percent < 99.95 => format!("{percent:.1}%"),
            _ => "100%".to_owned(),
        };
        let number = |value: f64| if value < 999.95 { format!("{value:.1}") } else { format!("{value:.0}") };
        vec![
            self.namespace.clone(),
            self.service.clone(),
            number(self.requests_per_second),
            known(self.error_ratio, percent),
            known(self.p50_milliseconds, number),
            known(self.p99_milliseconds, number),
            number(self.connections_per_second),
            self.open_connections.to_string(),
            bytes(self.bytes_per_second),
            known(self.mutual_tls_ratio, percent),
        ]
    }
}

/// Bytes with the unit in which they are short.
fn bytes(bytes: f64) -> String {
    let units = [("G", 1e9), ("M", 1e6), ("k", 1e3)];
    match units.into_iter().find(|(_, size)| bytes >= *size) {
        Some((unit, size)) => format!("{:.1}{unit}", bytes / size),
        None => format!("{bytes:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cart(requests: u64, connections: u64, closed: u64, bytes: u64) -> ServiceTraffic {
        let bucket = |at_most_milliseconds, requests| Bucket { at_most_milliseconds, requests };
        ServiceTraffic {
            namespace: "shop".into(),
            name: "cart".into(),
            requests,
            request_errors: requests / 10,
            durations: vec![bucket(1.0, requests / 2), bucket(10.0, requests)],
            connections,
            connections_closed: closed,
            mutual_tls: connections,
            mutual_tls_closed: closed,
            bytes,
            ..ServiceTraffic::default()
        }
    }

    fn told(service: ServiceTraffic) -> Traffic {
        Traffic { services: vec![service] }
    }

    #[test]
    fn rates_are_of_what_has_changed_at_all_programs_together() {
        let before = [told(cart(100, 10, 4, 1_000)), Traffic::default()];
        let after = [told(cart(200, 12, 6, 5_000)), told(cart(20, 0, 0, 0))];
        let told = before.iter().zip(&after).map(|(before, after)| (before, after, 2.0));
        let [rates] = &between(told)[..] else { panic!("one Service") };
        assert_eq!((rates.requests_per_second, rates.error_ratio), (60.0, Some(0.1)));
        assert_eq!((rates.connections_per_second, rates.open_connections), (1.0, 6));
        assert_eq!((rates.bytes_per_second, rates.mutual_tls_ratio), (2_000.0, Some(1.0)));
        assert_eq!(rates.p50_milliseconds, Some(1.0));
        assert!(rates.p99_milliseconds.is_some_and(|p99| (p99 - 9.82).abs() < 1e-9), "{rates:?}");
        let row = rates.row();
        assert_eq!(row[2..], ["60.0", "10.0%", "1.0", "9.8", "1.0", "6", "2.0k", "100%"]);
    }

    #[test]
    fn a_program_that_began_anew_counts_from_nothing_and_what_is_idle_has_no_ratios() {
        let (before, after) = (told(cart(100, 10, 4, 1_000)), told(cart(30, 1, 0, 10)));
        let rates = between([(&before, &after, 1.0)]);
        assert_eq!((rates[0].requests_per_second, rates[0].bytes_per_second), (30.0, 10.0));
        let idle = told(cart(100, 4, 4, 1_000));
        let rates = between([(&idle, &idle, 1.0)]);
        assert_eq!((rates[0].error_ratio, rates[0].p99_milliseconds, rates[0].mutual_tls_ratio), (None, None, None));
        assert_eq!(rates[0].row()[3..6], ["-", "-", "-"]);
    }

    #[test]
    fn what_is_slower_than_the_last_bucket_is_told_as_its_bound() {
        let buckets =
            [Bucket { at_most_milliseconds: 1.0, requests: 1 }, Bucket { at_most_milliseconds: 5.0, requests: 1 }];
        assert_eq!(quantile(0.99, &buckets, 10), Some(5.0));
    }
}
