//! Istio's standard metrics of requests (Istio "Standard Metrics"), as nodes and waypoints tell them: the same names, labels and
//! buckets, so that one query asks both.
#![forbid(unsafe_code)]

mod registry;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use mesh_core::standard_labels::{BETWEEN, Between};
use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts};

pub use self::registry::{Listed, Registry};

/// Label names of connections.
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

/// The series of one set of labels.
pub struct RequestSeries {
    requests: IntCounter,
    duration: Histogram,
    request_bytes: Histogram,
    response_bytes: Histogram,
}

impl RequestSeries {
    /// One more request, with the bytes of its body and of its response's.
    pub fn count(&self, duration: Duration, request_bytes: u64, response_bytes: u64) {
        self.requests.inc();
        self.duration.observe(duration.as_secs_f64() * 1e3);
        self.request_bytes.observe(request_bytes as f64);
        self.response_bytes.observe(response_bytes as f64);
    }
}

/// All of them. One set of labels is four series.
pub struct RequestMetrics {
    requests: IntCounterVec,
    duration: HistogramVec,
    request_bytes: HistogramVec,
    response_bytes: HistogramVec,
    known: Mutex<HashMap<RequestLabels, Arc<RequestSeries>>>,
}

impl RequestMetrics {
    /// Registers the metrics.
    ///
    /// # Errors
    /// Another metric has one of the names.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let requests = IntCounterVec::new(Opts::new("istio_requests_total", "Requests"), &REQUEST_LABELS)?;
        registry.register(Box::new(requests.clone()))?;
        let histogram = |name: &str, help: &str, buckets: &[f64]| {
            let metric = HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), &REQUEST_LABELS)?;
            registry.register(Box::new(metric.clone()))?;
            Ok::<_, prometheus::Error>(metric)
        };
        let name = "istio_request_duration_milliseconds";
        Ok(Self {
            requests,
            duration: histogram(name, "Time from a request's head to its response's end", &DURATIONS)?,
            request_bytes: histogram("istio_request_bytes", "Bytes of requests' bodies", &SIZES)?,
            response_bytes: histogram("istio_response_bytes", "Bytes of responses' bodies", &SIZES)?,
            known: Mutex::default(),
        })
    }

    /// The series of these labels; where there are too many, those of `unknown`, which are of closed sets.
    pub fn of(&self, labels: RequestLabels, unknown: impl FnOnce() -> RequestLabels) -> Arc<RequestSeries> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(series) = known.get(&labels) {
            return series.clone();
        }
        let labels = if known.len() < MAX_SETS { labels } else { unknown() };
        let series = {
            let values = labels.each_ref().map(String::as_str);
            Arc::new(RequestSeries {
                requests: self.requests.with_label_values(&values),
                duration: self.duration.with_label_values(&values),
                request_bytes: self.request_bytes.with_label_values(&values),
                response_bytes: self.response_bytes.with_label_values(&values),
            })
        };
        known.entry(labels).or_insert(series).clone()
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
