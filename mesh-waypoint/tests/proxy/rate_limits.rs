//! Limits on requests, over both threads of the waypoint. Intervals are so long that no token comes back meanwhile.

use std::time::Duration;

use http::Request;
use http_body_util::Full;

use crate::access_logs::line;
use crate::admin::get;
use crate::gateway::{self, GATEWAY, gateway};
use crate::metrics::value;
use crate::server::{Answer, Client, serve, serve_carts};
use crate::world::{CLIENT, OUTSIDE, OUTSIDE_SERVICE, STRANGER, World, authorization, run_as, run_with};

/// As Istio's page on local rate limits has it, on the Service of the cart.
fn envoy_filter(scope: &str, context: &str, max_tokens: u32, enforced: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {{name: filter-local-ratelimit-svc, namespace: shop}}
spec:
  {scope}
  configPatches:
  - applyTo: HTTP_FILTER
    match:
      context: {context}
      listener: {{filterChain: {{filter: {{name: envoy.filters.network.http_connection_manager}}}}}}
    patch:
      operation: INSERT_BEFORE
      value:
        name: envoy.filters.http.local_ratelimit
        typed_config:
          '@type': type.googleapis.com/udpa.type.v1.TypedStruct
          type_url: type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit
          value:
            stat_prefix: http_local_rate_limiter
            token_bucket: {{max_tokens: {max_tokens}, tokens_per_fill: {max_tokens}, fill_interval: 3600s}}
            filter_enabled: {{runtime_key: a, default_value: {{numerator: 100, denominator: HUNDRED}}}}
            {enforced}
            response_headers_to_add:
            - {{append: false, header: {{key: x-local-rate-limit, value: 'true'}}}}
"
    )
}

const ENFORCED: &str = "filter_enforced: {runtime_key: b, default_value: {numerator: 100, denominator: HUNDRED}}";

/// Limits on the outside Service.
fn limits(limits: &str) -> String {
    let target = "targetRefs: [{kind: Service, name: outside}]";
    format!(
        "apiVersion: policy.mesh.dev/v1alpha1\nkind: RateLimitPolicy\nmetadata: {{name: outside, namespace: shop}}\n\
         spec:\n  {target}\n  limits:\n{limits}\n"
    )
}

async fn ask(client: &mut Client, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = Request::builder().method(method).uri(path).header("host", "cart.shop");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    client.ask(request.body(Full::default()).expect("valid")).await
}

/// Of `count` requests, each by a connection of its own, those that were answered so.
async fn answered(world: &World, target: &str, count: usize, status: u16) -> usize {
    let mut found = 0;
    for _ in 0..count {
        let mut client = Client::http1(world.tunnel(target).await.expect("tunnel")).await;
        found += usize::from(client.get("/name").await.status == status);
    }
    found
}

#[test]
fn an_envoy_filter_of_istios_page_limits_over_all_threads() {
    let filter = envoy_filter("workloadSelector: {labels: {app: cart}}", "SIDECAR_INBOUND", 4, ENFORCED);
    run_with(&filter.clone(), async move |world| {
        serve_carts().await;
        assert_eq!(answered(&world, "10.96.0.1:80", 12, 200).await, 4);
        let mut client = Client::http1(world.tunnel("10.96.0.1:80").await.expect("tunnel")).await;
        let answer = ask(&mut client, "GET", "/one-more", &[]).await;
        assert_eq!((answer.status, &answer.body[..]), (429, &b"local_rate_limited"[..]));
        for name in ["x-local-rate-limit", "x-envoy-ratelimited"] {
            assert_eq!(answer.headers[name], "true", "{name}");
        }
        let said = line(&world, "/one-more").await;
        assert_eq!(said["response_flags"], "RL");
        assert_eq!(said["response_code_details"], "local_rate_limited");
        let answer = ask(&mut client, "POST", "/a.B/C", &[("content-type", "application/grpc")]).await;
        assert_eq!((answer.status, &answer.headers["grpc-status"]), (200, &"14".parse().expect("valid")));
        // What is not for the cart is none of its business.
        serve(OUTSIDE, 8080, false).await;
        assert_eq!(answered(&world, "10.96.0.2:80", 6, 200).await, 6);
        let counted = async |outcome: &str| value("mesh_waypoint_rate_limits_total", &[("outcome", outcome)]).await;
        assert!((counted("passed").await - 4.0).abs() < 0.1 && (counted("limited").await - 10.0).abs() < 0.1);
        let status: mesh_admin::WaypointStatus = get(&world, mesh_admin::path::WAYPOINT_STATUS).await;
        let [limit] = &status.rate_limits[..] else { panic!("{:?}", status.rate_limits) };
        assert_eq!((limit.passed, limit.limited, limit.not_enforced), (4, 10, 0));
        assert_eq!(limit.service, "cart.shop.svc.cluster.local");
        // Another change of the cluster fills no bucket, and a larger bucket is another one.
        world.configure(&(filter.clone() + "---\n" + &limits("  - {requests: 1, interval: 1h}")));
        while answered(&world, "10.96.0.2:80", 2, 429).await != 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(answered(&world, "10.96.0.1:80", 4, 429).await, 4);
        world.configure(&filter.replace("max_tokens: 4", "max_tokens: 5"));
        while answered(&world, "10.96.0.1:80", 1, 200).await != 1 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(answered(&world, "10.96.0.1:80", 12, 200).await, 4);
    });
}

#[test]
fn what_is_not_enforced_is_counted_and_passes() {
    let scope = "targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: waypoint}]";
    run_with(&envoy_filter(scope, "WAYPOINT", 1, ""), async |world| {
        serve(OUTSIDE, 8080, false).await;
        assert_eq!(answered(&world, "10.96.0.2:80", 5, 200).await, 5);
        let spared = value("mesh_waypoint_rate_limits_total", &[("outcome", "not_enforced")]).await;
        assert!((spared - 4.0).abs() < 0.1, "{spared}");
    });
}

#[test]
fn each_key_has_a_bucket_of_its_own_and_each_limit_its_requests() {
    let of_ours = limits(
        "  - {requests: 2, interval: 1h, matches: [{path: {value: /by-user}}], key: {header: X-User}}
  - {requests: 1, interval: 1h, matches: [{path: {value: /by-caller}}], key: {source: Principal}}
  - {requests: 1, burst: 3, interval: 1h, matches: [{method: DELETE}],
     response: {status: 503, headers: {Retry-After: '3600'}}}",
    );
    run_with(&of_ours, async |world| {
        serve(OUTSIDE, 8080, false).await;
        let target = "10.96.0.2:80";
        let mut client = Client::http1(world.tunnel(target).await.expect("tunnel")).await;
        for (user, status) in [("ann", 200), ("ann", 200), ("ann", 429), ("bob", 200), ("bob", 200), ("bob", 429)] {
            assert_eq!(ask(&mut client, "GET", "/by-user/x", &[("x-user", user)]).await.status, status, "{user}");
        }
        for status in [200, 200, 429] {
            assert_eq!(ask(&mut client, "GET", "/by-user", &[]).await.status, status, "those without the field");
        }
        for pod in [(CLIENT, "client"), (STRANGER, "stranger")] {
            for status in [200, 429] {
                let tunnel = world.tunnel_from(pod.0, pod.1, target).await.expect("tunnel");
                let mut client = Client::http1(tunnel).await;
                assert_eq!(client.get("/by-caller").await.status, status, "{pod:?}");
            }
        }
        for status in [200, 200, 200, 503] {
            let answer = ask(&mut client, "DELETE", "/any", &[]).await;
            assert_eq!(answer.status, status);
            assert_eq!(answer.headers.contains_key("retry-after"), status == 503);
            assert!(!answer.headers.contains_key("x-envoy-ratelimited"));
        }
        assert_eq!(client.get("/any").await.status, 200, "no limit is about it");
    });
}

#[test]
fn what_a_policy_refuses_takes_no_token() {
    let deny = authorization(OUTSIDE_SERVICE, "DENY", "{to: [{operation: {paths: [/no]}}]}");
    run_with(&(limits("  - {requests: 1, interval: 1h}") + "---\n" + &deny), async |world| {
        serve(OUTSIDE, 8080, false).await;
        let mut client = Client::http1(world.tunnel("10.96.0.2:80").await.expect("tunnel")).await;
        for (path, status) in [("/no", 403), ("/no", 403), ("/yes", 200), ("/no", 403), ("/yes", 429)] {
            assert_eq!(client.get(path).await.status, status, "{path}");
        }
    });
}

#[test]
fn a_gateway_limits_by_route_and_by_address() {
    let route = |name: &str, host: &str, rules: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: {name}, namespace: shop}}\n\
             spec:\n  parentRefs: [{{name: edge}}]\n  hostnames: [{host}]\n  rules: [{rules}]\n---\n"
        )
    };
    let backend = "backendRefs: [{name: outside, port: 80}]";
    let rules = format!("{{name: buy, matches: [{{path: {{value: /buy}}}}], {backend}}}, {{name: look, {backend}}}");
    let policy = "apiVersion: policy.mesh.dev/v1alpha1
kind: RateLimitPolicy
metadata: {name: buying, namespace: shop}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: shop, sectionName: buy}]
  limits: [{requests: 2, interval: 1h, key: {source: Address}}]
---
";
    let listeners = "{name: http, port: 8000, protocol: HTTP}";
    let filter = envoy_filter("workloadSelector: {labels: {istio: ingressgateway}}", "GATEWAY", 6, ENFORCED);
    let manifests = gateway(listeners) + &route("shop", "shop.example.com", &rules) + policy + &filter;
    run_as(GATEWAY, &manifests, async |_world| {
        serve(OUTSIDE, 8080, false).await;
        let get = async |path: &str| gateway::get(&format!("http://shop.example.com:8000{path}"), &[]).await.0;
        for (path, status) in [("/buy", "200"), ("/buy/x", "200"), ("/buy", "429"), ("/look", "200"), ("/look", "200")]
        {
            assert_eq!(get(path).await, status, "{path}");
        }
        // Who was refused by the route's limit took none of the gateway's tokens, of which there are two left.
        for status in ["200", "200", "429"] {
            assert_eq!(get("/look").await, status);
        }
    });
}
