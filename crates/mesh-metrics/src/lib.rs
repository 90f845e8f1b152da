//! Istio's standard metrics of connections and requests (Istio "Standard Metrics"), as nodes and waypoints tell them: the same names,
//! labels and buckets, so that one query asks both.
#![forbid(unsafe_code)]

mod changed;
mod control;
mod registry;
mod tcp;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use mesh_core::lock::UnpoisonedMutex as _;
use mesh_core::{
    standard_labels::{BETWEEN, Between},
    telemetry::{MetricChange, MetricChanges},
};
use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts};

use self::changed::Family;
pub use self::control::{ControlMetrics, ControlStanding};
pub use self::registry::{Listed, Registry};
pub use self::tcp::{ConnectionLabels, TcpMetrics, TcpSeries, connection_labels};

/// Label names of connections, in the order of [`ConnectionLabels`].
pub const CONNECTION_LABELS: [&str; 23] =
    after_parties(["request_protocol", "response_flags", "connection_security_policy"]);

/// Label names of requests, in the order of [`RequestLabels`].
pub const REQUEST_LABELS: [&str; 25] = after_parties([
    "request_protocol",
    "response_code",
    "grpc_response_status",
    "response_flags",
    "connection_security_policy",
]);

/// These names behind those of the parties.
const fn after_parties<const ENDS: usize, const ALL: usize>(ends: [&'static str; ENDS]) -> [&'static str; ALL] {
    let mut all = [""; ALL];
    let mut index = 0;
    while index < ALL {
        all[index] = if index < BETWEEN.len() { BETWEEN[index] } else { ends[index - BETWEEN.len()] };
        index += 1;
    }
    all
}

/// Values of a request's labels.
pub type RequestLabels = [String; REQUEST_LABELS.len()];

/// How a request ended, as its labels tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestEnd<'a> {
    /// Whether it is gRPC's.
    pub is_grpc: bool,
    /// The status; 0 where there was no answer.
    pub status: u16,
    /// gRPC's status, where it is known.
    pub grpc: Option<u16>,
    /// The response flags.
    pub flags: &'a str,
    /// The connection's `connection_security_policy`.
    pub security: &'a str,
}

/// The values of a request's labels: whom it was between, and how it ended.
#[must_use]
pub fn request_labels(between: &Between<'_>, end: &RequestEnd<'_>) -> RequestLabels {
    let protocol = if end.is_grpc { "grpc" } else { "http" };
    let (status, grpc) = (end.status.to_string(), end.grpc.map_or_else(String::new, |status| status.to_string()));
    let ends = [protocol, &*status, &*grpc, end.flags, end.security];
    let mut all = between.values().into_iter().chain(ends);
    std::array::from_fn(|_| all.next().unwrap_or_default().to_owned())
}

/// Sets of labels that are kept apart; what comes after is counted with unknown parties. Clients choose what they are
/// answered; they must not choose our memory.
const MAX_SETS: usize = 2_000;
/// Milliseconds, as Istio has them.
const DURATIONS: [f64; 20] = [
    0.5, 1.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1e3, 2.5e3, 5e3, 1e4, 3e4, 6e4, 3e5, 6e5, 1.8e6, 3.6e6, 7.2e6,
];
/// Bytes.
const SIZES: [f64; 9] = [1.0, 10.0, 100.0, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8];

/// A metric's name and what it counts.
const REQUESTS: (&str, &str) = ("istio_requests_total", "Requests");
/// The same of a histogram, with its buckets.
type Shape = (&'static str, &'static str, &'static [f64]);
const DURATION: Shape =
    ("istio_request_duration_milliseconds", "Time from a request's head to its response's end", &DURATIONS);
const REQUEST_BYTES: Shape = ("istio_request_bytes", "Bytes of requests' bodies", &SIZES);
const RESPONSE_BYTES: Shape = ("istio_response_bytes", "Bytes of responses' bodies", &SIZES);

fn options((name, help, buckets): Shape) -> HistogramOpts {
    HistogramOpts::new(name, help).buckets(buckets.to_vec())
}

/// The series of one set of labels; none of a metric that is not told.
pub struct RequestSeries {
    requests: Option<IntCounter>,
    duration: Option<Histogram>,
    request_bytes: Option<Histogram>,
    response_bytes: Option<Histogram>,
}

impl RequestSeries {
    /// One more request, with the bytes of its body and of its response's.
    pub fn count(&self, duration: Duration, request_bytes: u64, response_bytes: u64) {
        if let Some(requests) = &self.requests {
            requests.inc();
        }
        let observe = |histogram: &Option<Histogram>, value| {
            if let Some(histogram) = histogram {
                histogram.observe(value);
            }
        };
        observe(&self.duration, duration.as_secs_f64() * 1e3);
        observe(&self.request_bytes, request_bytes as f64);
        observe(&self.response_bytes, response_bytes as f64);
    }
}

/// All of them. One set of labels is four series.
pub struct RequestMetrics {
    requests: Family<IntCounterVec, IntCounter>,
    duration: Family<HistogramVec, Histogram>,
    request_bytes: Family<HistogramVec, Histogram>,
    response_bytes: Family<HistogramVec, Histogram>,
    known: Mutex<HashMap<RequestLabels, Arc<RequestSeries>>>,
}

impl RequestMetrics {
    /// Registers the metrics.
    ///
    /// # Errors
    /// Another metric has one of the names.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let requests = IntCounterVec::new(Opts::new(REQUESTS.0, REQUESTS.1), &REQUEST_LABELS)?;
        let requests = Family::new(requests);
        registry.register(Box::new(requests.clone()))?;
        let histogram = |shape| {
            let metric = Family::new(HistogramVec::new(options(shape), &REQUEST_LABELS)?);
            registry.register(Box::new(metric.clone()))?;
            Ok::<_, prometheus::Error>(metric)
        };
        Ok(Self {
            requests,
            duration: histogram(DURATION)?,
            request_bytes: histogram(REQUEST_BYTES)?,
            response_bytes: histogram(RESPONSE_BYTES)?,
            known: Mutex::default(),
        })
    }

    /// The series of these labels; where there are too many, those of `unknown`, which are of closed sets.
    pub fn of(&self, labels: RequestLabels, unknown: impl FnOnce() -> RequestLabels) -> Arc<RequestSeries> {
        let mut known = self.known.lock_unpoisoned();
        if let Some(series) = known.get(&labels) {
            return series.clone();
        }
        let labels = if known.len() < MAX_SETS { labels } else { unknown() };
        let series = {
            let values = labels.each_ref().map(String::as_str);
            Arc::new(RequestSeries {
                requests: Some(self.requests.plain.with_label_values(&values)),
                duration: Some(self.duration.plain.with_label_values(&values)),
                request_bytes: Some(self.request_bytes.plain.with_label_values(&values)),
                response_bytes: Some(self.response_bytes.plain.with_label_values(&values)),
            })
        };
        known.entry(labels).or_insert(series).clone()
    }

    /// The series of these labels as a Telemetry changes them. Where there are too many of a metric, those of `unknown`, in which no
    /// label that is changed has a value.
    pub fn changed(
        &self,
        labels: &RequestLabels,
        changes: &MetricChanges,
        unknown: &dyn Fn() -> RequestLabels,
    ) -> Arc<RequestSeries> {
        let [requests, duration, request_bytes, response_bytes] = changes;
        let histogram = |family: &Family<HistogramVec, Histogram>, change: &MetricChange, shape| {
            let plain = |all: &HistogramVec, values: &[&str]| all.with_label_values(values);
            family.changed(labels, change, unknown, plain, || Histogram::with_opts(options(shape)).ok())
        };
        let plain = |all: &IntCounterVec, values: &[&str]| all.with_label_values(values);
        let counter = || IntCounter::new(REQUESTS.0, REQUESTS.1).ok();
        Arc::new(RequestSeries {
            requests: self.requests.changed(labels, requests, unknown, plain, counter),
            duration: histogram(&self.duration, duration, DURATION),
            request_bytes: histogram(&self.request_bytes, request_bytes, REQUEST_BYTES),
            response_bytes: histogram(&self.response_bytes, response_bytes, RESPONSE_BYTES),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ever_new_labels_fill_no_memory_and_are_still_counted() {
        let registry = Registry::new();
        let metrics = RequestMetrics::register(&registry).expect("registered");
        let labels =
            |number: usize| std::array::from_fn(|index| if index == 1 { number.to_string() } else { String::new() });
        let mut crowded_out = 0;
        for number in 0..MAX_SETS + 50 {
            let series = metrics.of(labels(number), || {
                crowded_out += 1;
                labels(usize::MAX)
            });
            series.count(Duration::from_millis(3), 0, 10);
        }
        assert_eq!(crowded_out, 50);
        let families = registry.gather();
        let requests = families.iter().find(|family| family.name() == "istio_requests_total").expect("there");
        assert_eq!(requests.get_metric().len(), MAX_SETS + 1);
        let total: f64 = requests.get_metric().iter().map(|metric| metric.get_counter().get_value()).sum();
        assert_eq!(total, (MAX_SETS + 50) as f64);
    }
}
