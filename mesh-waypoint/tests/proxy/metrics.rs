//! What Prometheus is told of requests.

use std::collections::BTreeMap;

use http::Request;
use http_body_util::Full;

use crate::server::{Client, read, serve};
use crate::world::{CARTS, OUTSIDE, WAYPOINT, World, run_with};

/// A line of Prometheus' text format: the metric, its labels, and the value.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) metric: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) value: f64,
}

fn line(text: &str) -> Option<Line> {
    let (series, value) = text.rsplit_once(' ')?;
    let (metric, labels) = series.split_once('{').unwrap_or((series, "}"));
    let pairs = labels.trim_end_matches('}').split("\",").filter_map(|pair| pair.split_once("=\""));
    let labels = pairs.map(|(name, value)| (name.to_owned(), value.trim_end_matches('"').to_owned())).collect();
    Some(Line { metric: metric.to_owned(), labels, value: value.parse().ok()? })
}

pub(crate) async fn scrape(path: &str) -> (u16, Vec<Line>) {
    let (status, text) = ask(path).await;
    (status, text.lines().filter(|text| !text.starts_with('#')).filter_map(line).collect())
}

/// The text as it is.
pub(crate) async fn scrape_text(path: &str) -> String {
    ask(path).await.1
}

async fn ask(path: &str) -> (u16, String) {
    let stream = tokio::net::TcpStream::connect((WAYPOINT, 15_020)).await.expect("the port for metrics");
    let mut client = Client::http1(stream).await;
    let request = Request::get(path).header("host", "waypoint").body(Full::default()).expect("valid");
    let answer = read(client.send(request).await.expect("an answer")).await.expect("a whole body");
    (answer.status, String::from_utf8(answer.body.to_vec()).expect("text"))
}

/// The sum of a metric's series with these labels, as it is now.
pub(crate) async fn value(metric: &str, labels: &[(&str, &str)]) -> f64 {
    let (_, lines) = scrape("/metrics").await;
    let with = |line: &&Line| {
        line.metric == metric
            && labels.iter().all(|(name, value)| line.labels.get(*name).is_some_and(|found| found == value))
    };
    lines.iter().filter(with).map(|line| line.value).sum()
}

/// The requests with these labels.
fn requests(lines: &[Line], labels: &[(&str, &str)]) -> f64 {
    let with = |line: &&Line| {
        line.metric == "istio_requests_total"
            && labels.iter().all(|(name, value)| line.labels.get(*name).is_some_and(|found| found == value))
    };
    lines.iter().filter(with).map(|line| line.value).sum()
}

/// Istio's labels of requests ("Standard Metrics"), and the cluster's, as Kiali reads them.
pub(crate) const LABELS: [&str; 25] = [
    "connection_security_policy",
    "destination_app",
    "destination_canonical_revision",
    "destination_canonical_service",
    "destination_cluster",
    "destination_principal",
    "destination_service",
    "destination_service_name",
    "destination_service_namespace",
    "destination_version",
    "destination_workload",
    "destination_workload_namespace",
    "grpc_response_status",
    "reporter",
    "request_protocol",
    "response_code",
    "response_flags",
    "source_app",
    "source_canonical_revision",
    "source_canonical_service",
    "source_cluster",
    "source_principal",
    "source_version",
    "source_workload",
    "source_workload_namespace",
];

#[test]
fn requests_are_counted_under_istios_names_and_labels() {
    run_with("", async |world: World| {
        serve(CARTS[0], 8080, false).await;
        serve(CARTS[1], 8080, false).await;
        serve(CARTS[2], 8080, false).await;
        serve(OUTSIDE, 8080, false).await;
        let mut client = Client::http1(world.tunnel("10.96.0.1:80").await.expect("tunnel")).await;
        for _ in 0..20 {
            assert_eq!(client.get("/name").await.status, 200);
        }
        let mut nobody = Client::http1(world.tunnel("10.96.0.3:80").await.expect("tunnel")).await;
        assert_eq!(nobody.get("/").await.status, 503);
        let (status, lines) = scrape("/metrics").await;
        assert_eq!(status, 200);
        let cart = [
            ("reporter", "waypoint"),
            ("source_workload", "client-1"),
            ("source_workload_namespace", "shop"),
            ("source_principal", "spiffe://cluster.local/ns/shop/sa/client"),
            ("source_app", "client"),
            ("destination_service", "cart.shop.svc.cluster.local"),
            ("destination_service_name", "cart"),
            ("destination_service_namespace", "shop"),
            ("destination_principal", "spiffe://cluster.local/ns/shop/sa/cart"),
            ("destination_app", "cart"),
            ("request_protocol", "http"),
            ("response_code", "200"),
            ("response_flags", "-"),
            ("connection_security_policy", "mutual_tls"),
        ];
        assert_eq!(requests(&lines, &cart), 20.0, "{lines:?}");
        let by_version = |version| requests(&lines, &[&cart[..], &[("destination_version", version)]].concat());
        assert!(by_version("v1") > 0.0 && by_version("v1") + by_version("v2") == 20.0, "{lines:?}");
        let empty = [("destination_service_name", "empty"), ("response_code", "503"), ("response_flags", "UH")];
        assert_eq!(requests(&lines, &empty), 1.0);
        for line in lines.iter().filter(|line| line.metric == "istio_requests_total") {
            assert_eq!(line.labels.keys().map(String::as_str).collect::<Vec<_>>(), LABELS);
        }
        for metric in ["istio_request_duration_milliseconds", "istio_request_bytes", "istio_response_bytes"] {
            let count = lines.iter().filter(|line| line.metric == format!("{metric}_count")).map(|line| line.value);
            assert_eq!(count.sum::<f64>(), 21.0, "{metric}");
        }
        assert_eq!(scrape("/stats/prometheus").await.0, 200);
        assert_eq!(scrape("/else").await.0, 404);
    });
}

#[test]
fn grpcs_status_is_a_label() {
    run_with("", async |world: World| {
        for cart in CARTS {
            serve(cart, 9595, true).await;
        }
        let mut client = Client::http2(world.tunnel("10.96.0.1:95").await.expect("tunnel")).await;
        let request = Request::post("/trailers").header("host", "cart.shop").header("content-type", "application/grpc");
        let answer = client.ask(request.body(Full::default()).expect("valid")).await;
        assert_eq!(answer.status, 200);
        let (_, lines) = scrape("/metrics").await;
        assert_eq!(requests(&lines, &[("request_protocol", "grpc"), ("grpc_response_status", "0")]), 1.0, "{lines:?}");
    });
}

/// What broke HTTP's rules in this way.
pub(crate) fn bad_input(lines: &[Line], sender: &str, reason: &str) -> f64 {
    let labels = [("sender", sender), ("reason", reason)];
    let with = |line: &&Line| {
        line.metric == "mesh_waypoint_bad_input_total"
            && labels.iter().all(|(name, value)| line.labels.get(*name).is_some_and(|found| found == value))
    };
    lines.iter().filter(with).map(|line| line.value).sum()
}
