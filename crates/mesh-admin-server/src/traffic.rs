//! Traffic of Services, read from the metrics that a program has anyway: nothing is counted for it.

use std::collections::BTreeMap;

use mesh_admin::{Bucket, ServiceTraffic, Traffic};
use prometheus::proto::{Metric, MetricFamily};

/// Statuses of gRPC that are the server's fault (OpenTelemetry, semantic conventions for RPC).
const GRPC_FAULTS: [&str; 6] = ["2", "4", "12", "13", "14", "15"];

/// What Istio's metrics among `families` say of Services.
#[must_use]
pub fn traffic(families: &[MetricFamily]) -> Traffic {
    let mut services = BTreeMap::new();
    for family in families {
        for metric in family.get_metric() {
            let of = Of(metric);
            let (namespace, name) = (of.label("destination_service_namespace"), of.label("destination_service_name"));
            let known = |text: &str| !text.is_empty() && text != "unknown";
            if known(name) && known(namespace) {
                let service = services.entry((namespace, name)).or_insert_with(ServiceTraffic::default);
                of.count(family.name(), service);
            }
        }
    }
    let named = |((namespace, name), traffic): ((&str, &str), ServiceTraffic)| ServiceTraffic {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        ..traffic
    };
    let services = services.into_iter().map(named);
    // What is told by others alone was begun above, and has nothing.
    Traffic { services: services.filter(|service| service.requests + service.connections > 0).collect() }
}

/// A series.
#[derive(Clone, Copy)]
struct Of<'a>(&'a Metric);

impl<'a> Of<'a> {
    fn label(self, name: &str) -> &'a str {
        self.0.get_label().iter().find(|label| label.name() == name).map_or("", |label| label.value())
    }

    /// Whether this end is the one that counts a connection: the server's, or the client's where no server's node tells of it.
    fn counts_connections(self) -> bool {
        match self.label("reporter") {
            "destination" => true,
            "source" => self.label("destination_workload") == "unknown",
            _ => false,
        }
    }

    /// What a gateway tells is told by a node or a waypoint, too.
    fn counts_requests(self) -> bool {
        matches!(self.label("reporter"), "waypoint" | "node")
    }

    fn count(self, metric: &str, into: &mut ServiceTraffic) {
        // Counters of whole numbers.
        let value = self.0.get_counter().get_value() as u64;
        let in_tls = self.label("connection_security_policy") == "mutual_tls";
        match metric {
            "istio_requests_total" if self.counts_requests() => {
                into.requests += value;
                into.request_errors += if self.is_failed_request() { value } else { 0 };
            }
            "istio_request_duration_milliseconds" if self.counts_requests() => self.add_durations(&mut into.durations),
            "istio_tcp_connections_opened_total" if self.counts_connections() => {
                into.connections += value;
                into.mutual_tls += if in_tls { value } else { 0 };
                let is_error = matches!(self.label("response_flags"), "UF" | "UH" | "NR");
                into.connection_errors += if is_error { value } else { 0 };
            }
            "istio_tcp_connections_closed_total" if self.counts_connections() => {
                into.connections_closed += value;
                into.mutual_tls_closed += if in_tls { value } else { 0 };
            }
            "istio_tcp_sent_bytes_total" | "istio_tcp_received_bytes_total" if self.counts_connections() => {
                into.bytes += value;
            }
            _ => {}
        }
    }

    fn is_failed_request(self) -> bool {
        let code = self.label("response_code");
        code.starts_with('5')
            || (code == "0" && self.label("response_flags") != "DC")
            || GRPC_FAULTS.contains(&self.label("grpc_response_status"))
    }

    fn add_durations(self, sums: &mut Vec<Bucket>) {
        // All series of the metric have the same buckets.
        for (index, bucket) in self.0.get_histogram().get_bucket().iter().enumerate() {
            match sums.get_mut(index) {
                Some(sum) => sum.requests += bucket.cumulative_count(),
                None => sums
                    .push(Bucket { at_most_milliseconds: bucket.upper_bound(), requests: bucket.cumulative_count() }),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};

    use super::*;

    const LABELS: [&str; 8] = [
        "reporter",
        "destination_service_namespace",
        "destination_service_name",
        "destination_workload",
        "response_code",
        "grpc_response_status",
        "response_flags",
        "connection_security_policy",
    ];

    #[test]
    fn each_connection_and_request_is_counted_by_one_of_those_who_tell_of_it() {
        let registry = Registry::new();
        let counters = |name: &str| {
            let counters = IntCounterVec::new(Opts::new(name, "h"), &LABELS).expect("valid");
            registry.register(Box::new(counters.clone())).expect("registered");
            counters
        };
        let (opened, closed) =
            (counters("istio_tcp_connections_opened_total"), counters("istio_tcp_connections_closed_total"));
        let requests = counters("istio_requests_total");
        let options = HistogramOpts::new("istio_request_duration_milliseconds", "h").buckets(vec![1.0, 10.0]);
        let durations = HistogramVec::new(options, &LABELS).expect("valid");
        registry.register(Box::new(durations.clone())).expect("registered");
        let add = |to: &IntCounterVec, labels: [&str; 8], count| to.with_label_values(&labels).inc_by(count);
        add(&opened, ["source", "shop", "cart", "cart-v1", "", "", "-", "mutual_tls"], 100);
        add(&opened, ["destination", "shop", "cart", "cart-v1", "", "", "-", "mutual_tls"], 7);
        add(&opened, ["destination", "shop", "cart", "cart-v1", "", "", "-", "none"], 3);
        add(&opened, ["source", "shop", "cart", "unknown", "", "", "UH", "none"], 2);
        add(&closed, ["destination", "shop", "cart", "cart-v1", "", "", "-", "mutual_tls"], 4);
        add(&opened, ["source", "unknown", "unknown", "unknown", "", "", "-", "none"], 9);
        for (labels, count) in [
            (["waypoint", "shop", "cart", "cart-v1", "200", "0", "-", "mutual_tls"], 10),
            (["waypoint", "shop", "cart", "cart-v1", "200", "14", "-", "mutual_tls"], 1),
            (["node", "shop", "cart", "cart-v1", "503", "", "-", "mutual_tls"], 2),
            (["node", "shop", "cart", "cart-v1", "0", "", "DC", "mutual_tls"], 5),
            (["source", "shop", "cart", "cart-v1", "503", "", "-", "mutual_tls"], 50),
        ] {
            add(&requests, labels, count);
            durations.with_label_values(&labels).observe(5.0);
        }
        let told = traffic(&registry.gather());
        let [cart] = &told.services[..] else { panic!("one service: {told:?}") };
        assert_eq!((&*cart.namespace, &*cart.name), ("shop", "cart"));
        assert_eq!((cart.connections, cart.connection_errors, cart.connections_closed), (12, 2, 4));
        assert_eq!((cart.mutual_tls, cart.mutual_tls_closed), (7, 4));
        assert_eq!((cart.requests, cart.request_errors), (18, 3));
        assert_eq!(cart.durations.iter().map(|bucket| bucket.requests).collect::<Vec<_>>(), [0, 4]);
    }
}
