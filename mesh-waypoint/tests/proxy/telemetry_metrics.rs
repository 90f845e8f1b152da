//! Istio's standard metrics as a Telemetry changes them: what Prometheus scrapes after real requests.

use http::Request;
use http_body_util::Full;

use crate::metrics::{scrape, value};
use crate::server::{Client, serve_carts};
use crate::world::{World, run_with};

fn telemetry(overrides: &str) -> String {
    format!(
        "apiVersion: telemetry.istio.io/v1\nkind: Telemetry\nmetadata: {{name: cart, namespace: shop}}\n\
         spec:\n  targetRefs: [{{group: '', kind: Service, name: cart}}]\n  metrics:\n  - providers: [{{name: prometheus}}]\n\
         \x20   overrides:\n{overrides}\n"
    )
}

async fn client(world: &World) -> Client {
    serve_carts().await;
    Client::http1(world.tunnel("10.96.0.1:80").await.expect("tunnel")).await
}

async fn ask(client: &mut Client, path: &str, tenant: Option<&str>) {
    let mut request = Request::get(path).header("host", "cart.shop");
    if let Some(tenant) = tenant {
        request = request.header("x-tenant", tenant);
    }
    assert_eq!(client.ask(request.body(Full::default()).expect("valid")).await.status, 200);
}

const REQUESTS: &str = "istio_requests_total";
const DURATION: &str = "istio_request_duration_milliseconds_count";

#[test]
fn labels_come_change_and_go_as_the_telemetry_says() {
    let overrides = "
    - match: {metric: REQUEST_COUNT, mode: SERVER}
      tagOverrides:
        request_method: {value: request.method}
        request_path: {value: request.url_path}
        tenant: {value: \"request.headers['X-Tenant']\"}
        cell: {value: \"'blue'\"}
        class: {value: \"response.code >= 500 ? 'bad' : 'good'\"}
        asked_for: {value: request.host}
        on_port: {value: string(destination.port)}
        server: {value: \"upstream_peer.labels['version']\"}
        client: {value: downstream_peer.workload}
        destination_version: {operation: REMOVE}
        source_app: {operation: UPSERT, value: \"'hidden'\"}
    - match: {metric: REQUEST_SIZE}
      disabled: true
    - match: {metric: REQUEST_COUNT, mode: CLIENT}
      disabled: true";
    run_with(&telemetry(overrides), async |world: World| {
        let mut client = client(&world).await;
        for _ in 0..3 {
            ask(&mut client, "/a", Some("acme")).await;
        }
        ask(&mut client, "/b", None).await;
        let told = [
            ("request_method", "GET"),
            ("request_path", "/a"),
            ("tenant", "acme"),
            ("cell", "blue"),
            ("class", "good"),
            ("asked_for", "cart.shop"),
            ("on_port", "80"),
            ("client", "client-1"),
            ("source_app", "hidden"),
            ("response_code", "200"),
        ];
        assert_eq!(value(REQUESTS, &told).await, 3.0);
        let without = [("request_path", "/b"), ("tenant", "unknown")];
        assert_eq!(value(REQUESTS, &without).await, 1.0);
        let versions = [value(REQUESTS, &[("server", "v1")]).await, value(REQUESTS, &[("server", "v2")]).await];
        assert_eq!(versions.iter().sum::<f64>(), 4.0, "{versions:?}");
        // No series of the labels that are gone, and none twice.
        let (_, lines) = scrape("/metrics").await;
        let of_requests: Vec<_> = lines.iter().filter(|line| line.metric == REQUESTS).collect();
        assert_eq!(of_requests.iter().map(|line| line.value).sum::<f64>(), 4.0, "{of_requests:?}");
        assert!(of_requests.iter().all(|line| !line.labels.contains_key("destination_version")), "{of_requests:?}");
        // What is said of one metric is not said of others.
        assert_eq!(value(DURATION, &[("source_app", "client")]).await, 4.0);
        assert_eq!(value("istio_request_bytes_count", &[]).await, 0.0);
        assert_eq!(value("istio_response_bytes_count", &[]).await, 4.0);
        // Where it no longer says anything, all is as by default.
        world.configure("");
        while value("istio_request_bytes_count", &[]).await == 0.0 {
            ask(&mut client, "/c", None).await;
        }
        assert!(value(REQUESTS, &[("source_app", "client")]).await >= 1.0);
    });
}

#[test]
fn a_label_that_clients_choose_fills_no_memory() {
    const TENANTS: usize = 2_100;
    let overrides = "    - tagOverrides: {tenant: {value: \"request.headers['x-tenant']\"}}";
    run_with(&telemetry(overrides), async |world: World| {
        let mut client = client(&world).await;
        for tenant in 0..TENANTS {
            ask(&mut client, "/", Some(&format!("{tenant}{}", "x".repeat(400)))).await;
        }
        let (_, lines) = scrape("/metrics").await;
        let of_requests: Vec<_> = lines.iter().filter(|line| line.metric == REQUESTS).collect();
        assert!(of_requests.len() <= 2_010, "{}", of_requests.len());
        assert_eq!(of_requests.iter().map(|line| line.value).sum::<f64>(), TENANTS as f64, "each is counted");
        assert!(of_requests.iter().all(|line| line.labels["tenant"].len() <= 256));
        assert!(value(REQUESTS, &[("tenant", "unknown"), ("source_workload", "unknown")]).await > 0.0);
        assert!(value("mesh_waypoint_series_overflow_total", &[]).await > 0.0);
    });
}
