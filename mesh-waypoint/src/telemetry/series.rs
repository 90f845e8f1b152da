//! Istio's standard metrics of requests. One set of labels is four series.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry};

use super::{
    labels::{NAMES, Parties},
    own::OwnMetrics,
};

/// Sets of labels that are kept apart; what comes after is counted with unknown parties. Clients choose what they are
/// answered; they must not choose the waypoint's memory.
const MAX_SETS: usize = 2_000;
/// Milliseconds, as Istio has them.
const DURATIONS: [f64; 20] = [
    0.5, 1.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1e3, 2.5e3, 5e3, 1e4, 3e4, 6e4, 3e5, 6e5, 1.8e6, 3.6e6, 7.2e6,
];
/// Bytes.
const SIZES: [f64; 9] = [1.0, 10.0, 100.0, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8];

/// The series of one set of labels.
pub(crate) struct RequestSeries {
    requests: IntCounter,
    duration: Histogram,
    request_bytes: Histogram,
    response_bytes: Histogram,
}

impl RequestSeries {
    /// One more request, with the bytes of its body and of its response's.
    pub(crate) fn count(&self, duration: Duration, request_bytes: u64, response_bytes: u64) {
        self.requests.inc();
        self.duration.observe(duration.as_secs_f64() * 1e3);
        self.request_bytes.observe(request_bytes as f64);
        self.response_bytes.observe(response_bytes as f64);
    }
}

/// All of them.
pub(crate) struct RequestMetrics {
    cluster: String,
    requests: IntCounterVec,
    duration: HistogramVec,
    request_bytes: HistogramVec,
    response_bytes: HistogramVec,
    known: Mutex<HashMap<[String; NAMES.len()], Arc<RequestSeries>>>,
}

impl RequestMetrics {
    pub(super) fn new(cluster: String, registry: &Registry) -> Result<Self, prometheus::Error> {
        let requests = IntCounterVec::new(Opts::new("istio_requests_total", "Requests"), &NAMES)?;
        registry.register(Box::new(requests.clone()))?;
        let histogram = |name: &str, help: &str, buckets: &[f64]| {
            let metric = HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), &NAMES)?;
            registry.register(Box::new(metric.clone()))?;
            Ok::<_, prometheus::Error>(metric)
        };
        let name = "istio_request_duration_milliseconds";
        Ok(Self {
            requests,
            duration: histogram(name, "Time from a request's head to its response's end", &DURATIONS)?,
            request_bytes: histogram("istio_request_bytes", "Bytes of requests' bodies", &SIZES)?,
            response_bytes: histogram("istio_response_bytes", "Bytes of responses' bodies", &SIZES)?,
            cluster,
            known: Mutex::default(),
        })
    }

    /// The name of the cluster.
    pub(crate) fn cluster(&self) -> &str {
        &self.cluster
    }

    /// The series of a request's labels.
    pub(super) fn of(&self, parties: &Parties<'_>, own: &OwnMetrics) -> Arc<RequestSeries> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let values = parties.values(&self.cluster, true);
        if let Some(series) = known.get(&values) {
            return series.clone();
        }
        let values = if known.len() < MAX_SETS {
            values
        } else {
            own.series_overflow.inc();
            parties.values(&self.cluster, false)
        };
        let series = {
            let labels = values.each_ref().map(String::as_str);
            Arc::new(RequestSeries {
                requests: self.requests.with_label_values(&labels),
                duration: self.duration.with_label_values(&labels),
                request_bytes: self.request_bytes.with_label_values(&labels),
                response_bytes: self.response_bytes.with_label_values(&labels),
            })
        };
        known.entry(values).or_insert(series).clone()
    }
}
