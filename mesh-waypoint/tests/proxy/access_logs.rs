//! Lines of requests on standard output, by Telemetry.

use std::time::Duration;

use http::Request;
use http_body_util::Full;
use serde_json::Value;

use crate::metrics::scrape;
use crate::server::{Client, serve, serve_carts};
use crate::world::{OUTSIDE, World, run_with};

/// Lines of requests and of connections so far.
fn all_lines(world: &World) -> Vec<Value> {
    let log = world.log.lock().expect("log");
    let lines = log.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["target"] == "access" && line.get("reporter").is_some()).collect()
}

/// Lines of requests so far.
pub(crate) fn lines(world: &World) -> Vec<Value> {
    all_lines(world).into_iter().filter(|line| line.get("response_code").is_some()).collect()
}

/// The line of the connection that ended so, once it is there.
pub(crate) async fn connection_line(world: &World, end: &str) -> Value {
    loop {
        if let Some(found) = all_lines(world).into_iter().find(|line| line["end"] == end) {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The line of the request with that path, once it is there.
pub(crate) async fn line(world: &World, path: &str) -> Value {
    loop {
        if let Some(found) = lines(world).into_iter().find(|line| line["path"] == path) {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn ask(client: &mut Client, path: &str, headers: &[(&str, &str)]) -> u16 {
    let mut request = Request::get(path).header("host", "cart.shop:80");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    client.ask(request.body(Full::default()).expect("valid")).await.status
}

const DENY: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-admin, namespace: shop}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: waypoint}]
  action: DENY
  rules: [{to: [{operation: {paths: [/admin]}}]}]
";

#[test]
fn a_request_is_one_line_with_istios_names_and_who_it_was_between() {
    run_with(DENY, async |world| {
        serve_carts().await;
        let mut client = Client::http1(world.tunnel("10.96.0.1:80").await.expect("tunnel")).await;
        let headers = [("user-agent", "say \"hi\""), ("x-forwarded-for", "192.0.2.1"), ("x-request-id", "1-2")];
        assert_eq!(ask(&mut client, "/name?a=b", &headers).await, 200);
        let said = line(&world, "/name?a=b").await;
        for (field, value) in [
            ("method", "GET"),
            ("protocol", "HTTP/1.1"),
            ("response_flags", "-"),
            ("response_code_details", "via_upstream"),
            ("x_forwarded_for", "192.0.2.1"),
            ("user_agent", "say \"hi\""),
            ("request_id", "1-2"),
            ("authority", "cart.shop:80"),
            ("upstream_cluster", "cart.shop.svc.cluster.local:80"),
            ("downstream_remote_address", "10.1.0.1:40000"),
            ("source_workload", "client-1"),
            ("source_namespace", "shop"),
            ("source_principal", "spiffe://cluster.local/ns/shop/sa/client"),
            ("destination_namespace", "shop"),
            ("destination_principal", "spiffe://cluster.local/ns/shop/sa/cart"),
        ] {
            assert_eq!(said[field], value, "{field} of {said}");
        }
        assert_eq!((&said["response_code"], &said["bytes_received"]), (&200.into(), &0.into()));
        assert_eq!(said["bytes_sent"], said["upstream_host"].as_str().expect("an address").len() - ":8080".len());
        assert!(said["duration"].is_u64() && said["upstream_service_time"].is_u64(), "{said}");
        let start = said["start_time"].as_str().expect("a moment");
        assert!(start.len() == "2026-01-01T00:00:00.000Z".len() && start.ends_with('Z'), "{start}");
        assert!(said["policy"].is_null());

        assert_eq!(ask(&mut client, "/admin", &[]).await, 403);
        let said = line(&world, "/admin").await;
        assert_eq!((&said["response_code"], &said["response_flags"]), (&403.into(), &"RBAC".into()));
        assert!(said["policy"].as_str().is_some_and(|policy| policy.contains("shop/no-admin")), "{said}");
        assert!(said["upstream_host"].is_null() && said["upstream_service_time"].is_null(), "{said}");
    });
}

/// Holds a line against the labels of the only series of requests with that status.
pub(crate) async fn has_the_labels_of_its_metrics(line: &Value, status: &str) {
    let (_, series) = scrape("/metrics").await;
    let mut series = series.iter().filter(|series| {
        series.metric == "istio_requests_total" && series.labels.get("response_code").is_some_and(|code| code == status)
    });
    let (Some(series), None) = (series.next(), series.next()) else { panic!("not one series: {series:?}") };
    assert_eq!(series.labels.len(), 25, "{series:?}");
    for (label, value) in &series.labels {
        let field = &line[label.as_str()];
        let text = field.as_str().map_or_else(|| field.to_string(), str::to_owned);
        assert_eq!(&text, value, "{label} of {line}");
    }
}

#[test]
fn every_label_of_the_metrics_is_a_field_of_the_line() {
    run_with(DENY, async |world| {
        serve_carts().await;
        let mut client = Client::http1(world.tunnel("10.96.0.1:80").await.expect("tunnel")).await;
        assert_eq!(ask(&mut client, "/admin", &[]).await, 403);
        has_the_labels_of_its_metrics(&line(&world, "/admin").await, "403").await;
        assert_eq!(ask(&mut client, "/name", &[]).await, 200);
        has_the_labels_of_its_metrics(&line(&world, "/name").await, "200").await;
    });
}

fn telemetry(name: &str, spec: &str) -> String {
    format!("apiVersion: telemetry.istio.io/v1\nkind: Telemetry\nmetadata: {{{name}}}\nspec: {spec}\n---\n")
}

#[test]
fn a_share_has_lines_and_what_failed_has_one_in_any_case() {
    let half = telemetry(
        "name: mesh, namespace: istio-system, annotations: {mesh.dev/access-log-sampling: '50'}",
        "{accessLogging: [{providers: [{name: envoy}]}]}",
    );
    run_with(&half, async move |world| {
        serve(OUTSIDE, 8080, false).await;
        let mut client = Client::http1(world.tunnel("10.96.0.2:80").await.expect("tunnel")).await;
        let mut empty = Client::http1(world.tunnel("10.96.0.3:80").await.expect("tunnel")).await;
        for number in 0..400 {
            assert_eq!(ask(&mut client, &format!("/well/{number}"), &[]).await, 200);
            if number % 20 == 0 {
                assert_eq!(ask(&mut empty, &format!("/ill/{number}"), &[]).await, 503);
            }
        }
        assert_eq!(ask(&mut empty, "/last", &[]).await, 503);
        line(&world, "/last").await;
        let told = lines(&world);
        let of = |what: &str| {
            told.iter().filter(|line| line["path"].as_str().is_some_and(|path| path.starts_with(what))).count()
        };
        assert_eq!(of("/ill/"), 20);
        // Of 400 throws of a fair coin, fewer than 120 of one side come once in a million billion times.
        let share = of("/well/");
        assert!((120..=280).contains(&share), "{share}");
    });
}

#[test]
fn telemetry_says_which_requests_are_logged_and_may_change_its_mind() {
    let only_errors = telemetry(
        "name: mesh, namespace: istio-system",
        "{accessLogging: [{providers: [{name: envoy}], filter: {expression: \
         \"response.code >= 400 || request.headers['x-log'] == 'yes'\"}}]}",
    );
    run_with(&only_errors.clone(), async move |world| {
        serve(OUTSIDE, 8080, false).await;
        serve_carts().await;
        let mut client = Client::http1(world.tunnel("10.96.0.2:80").await.expect("tunnel")).await;
        let mut cart = Client::http1(world.tunnel("10.96.0.1:80").await.expect("tunnel")).await;
        let mut empty = Client::http1(world.tunnel("10.96.0.3:80").await.expect("tunnel")).await;
        ask(&mut client, "/quiet", &[]).await;
        ask(&mut client, "/asked", &[("x-log", "yes")]).await;
        assert_eq!(ask(&mut empty, "/failed", &[]).await, 503);
        line(&world, "/asked").await;
        line(&world, "/failed").await;
        // Off for the waypoint, and on again for one Service.
        let off = telemetry(
            "name: own, namespace: shop",
            "{targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: waypoint}], \
             accessLogging: [{disabled: true}]}",
        );
        let on = telemetry(
            "name: outside, namespace: shop",
            "{targetRefs: [{kind: Service, name: outside}], accessLogging: [{providers: [{name: envoy}]}]}",
        );
        world.configure(&(only_errors + &off + &on));
        for round in 0.. {
            let path = format!("/now/{round}");
            ask(&mut client, &path, &[]).await;
            tokio::time::sleep(Duration::from_millis(150)).await;
            if lines(&world).iter().any(|line| line["path"] == path) {
                break;
            }
        }
        ask(&mut cart, "/of-cart", &[("x-log", "yes")]).await;
        ask(&mut client, "/last", &[]).await;
        line(&world, "/last").await;
        let paths: Vec<_> = lines(&world).iter().map(|line| line["path"].to_string()).collect();
        for silent in ["\"/quiet\"", "\"/of-cart\""] {
            assert!(!paths.iter().any(|path| path == silent), "{paths:?}");
        }
    });
}
