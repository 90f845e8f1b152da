//! Spans of requests, as a collector gets them, and the context that goes on.

use http::Request;
use http_body_util::Full;
use mesh_core::TraceContext;
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind};

use crate::collector::{Collector, attribute, events};
use crate::server::{Client, serve, serve_carts};
use crate::world::{CARTS, OUTSIDE, run_with_flags};

pub(crate) const ALL: &[&str] = &["--otlp-endpoint", "http://127.0.0.1:4317", "--trace-sampling", "1"];
pub(crate) const NONE_OF_OURS: &[&str] = &["--otlp-endpoint", "http://127.0.0.1:4317", "--trace-sampling", "0"];
const ABOVE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn of_kind(spans: &[Span], kind: SpanKind) -> Vec<&Span> {
    spans.iter().filter(|span| span.kind == i32::from(kind)).collect()
}

fn one_of_each(spans: &[Span]) -> (&Span, &Span) {
    let (servers, clients) = (of_kind(spans, SpanKind::Server), of_kind(spans, SpanKind::Client));
    assert_eq!((servers.len(), clients.len()), (1, 1), "{spans:#?}");
    (servers[0], clients[0])
}

/// The context that a span is for those below it.
fn context(span: &Span) -> TraceContext {
    TraceContext {
        trace_id: span.trace_id[..].try_into().expect("16 bytes"),
        span_id: span.span_id[..].try_into().expect("8 bytes"),
        sampled: true,
    }
}

/// A request with these headers, to the one endpoint of the Service.
async fn ask(client: &mut Client, headers: &[(&str, &str)]) -> u16 {
    let mut request = Request::get("/name?secret=1").header("host", "outside.shop:80");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    client.ask(request.body(Full::default()).expect("valid")).await.status
}

#[test]
fn a_request_goes_on_with_the_trace_of_its_tunnel_or_its_own() {
    run_with_flags(ALL, "", async |world| {
        let collector = Collector::start().await;
        let backends = serve_carts().await;
        world.traceparent.replace(Some(ABOVE.to_owned()));
        let mut client = Client::http1(world.tunnel("10.96.0.1:80").await.expect("tunnel")).await;
        assert_eq!(client.get("/name").await.status, 200);
        let spans = collector.spans(2).await;
        let (server, attempt) = one_of_each(&spans);
        let above: TraceContext = ABOVE.parse().expect("valid");
        assert_eq!((&server.trace_id[..], &server.parent_span_id[..]), (&above.trace_id[..], &above.span_id[..]));
        assert_eq!((&attempt.trace_id, &attempt.parent_span_id), (&server.trace_id, &server.span_id));
        assert!(server.start_time_unix_nano <= attempt.start_time_unix_nano);
        assert!(attempt.end_time_unix_nano <= server.end_time_unix_nano);
        let seen = backends.iter().flat_map(|backend| backend.seen.borrow().clone()).next().expect("a request");
        let named = context(attempt).to_string();
        assert_eq!(seen.headers["traceparent"], named);
        assert_eq!(*world.traceparents.borrow(), [Some(named)], "the endpoint's node goes on with the attempt");
        // What comes after belongs to no tunnel's set-up, but is linked with it.
        collector.spans.borrow_mut().clear();
        assert_eq!(client.get("/name").await.status, 200);
        let spans = collector.spans(2).await;
        let (server, _) = one_of_each(&spans);
        assert_ne!(server.trace_id, above.trace_id);
        assert_eq!((server.parent_span_id.len(), &server.links[0].span_id[..]), (0, &above.span_id[..]));
    });
}

#[test]
fn spans_tell_of_the_request_by_the_conventions() {
    run_with_flags(ALL, "", async |world| {
        let collector = Collector::start().await;
        serve_carts().await;
        let mut client = Client::http1(world.tunnel("10.96.0.1:80").await.expect("tunnel")).await;
        let request = Request::get("/name?secret=1").header("host", "cart.shop:80").header("user-agent", "curl/9");
        assert_eq!(client.ask(request.body(Full::default()).expect("valid")).await.status, 200);
        let spans = collector.spans(2).await;
        let (server, attempt) = one_of_each(&spans);
        assert_eq!((server.name.as_str(), &attempt.name), ("GET cart.shop.svc.cluster.local:80", &server.name));
        for (key, value) in [
            ("http.request.method", "GET"),
            ("url.path", "/name"),
            ("url.scheme", "http"),
            ("server.address", "cart.shop"),
            ("server.port", "80"),
            ("network.protocol.version", "1.1"),
            ("user_agent.original", "curl/9"),
            ("http.response.status_code", "200"),
            ("client.address", "10.1.0.1"),
            ("mesh.client.namespace", "shop"),
            ("mesh.client.workload", "client-1"),
            ("mesh.client.principal", "spiffe://cluster.local/ns/shop/sa/client"),
            ("mesh.server.namespace", "shop"),
            ("mesh.server.principal", "spiffe://cluster.local/ns/shop/sa/cart"),
            ("istio.canonical_service", "cart"),
            ("response_flags", "-"),
            ("upstream_cluster", "cart.shop.svc.cluster.local:80"),
        ] {
            assert_eq!(attribute(server, key).as_deref(), Some(value), "{key} of {server:#?}");
        }
        assert!(attribute(server, "guid:x-request-id").is_some_and(|id| id.len() == 36));
        assert!(CARTS.contains(&attribute(attempt, "server.address").expect("an address").as_str()));
        assert!(!format!("{spans:?}").contains("secret"), "a query may hold what is nobody's business");
    });
}

#[test]
fn whoever_began_the_trace_decides_and_is_continued_in_its_own_form() {
    let (trace, span) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
    run_with_flags(NONE_OF_OURS, "", async move |world| {
        let collector = Collector::start().await;
        let backend = serve(OUTSIDE, 8080, false).await;
        let mut client = Client::http1(world.tunnel("10.96.0.2:80").await.expect("tunnel")).await;
        // Nobody has decided: we do, and those who come after heed it.
        ask(&mut client, &[]).await;
        // It was decided against.
        let unsampled = ABOVE.replace("-01", "-00");
        ask(&mut client, &[("traceparent", &unsampled), ("tracestate", "a=1")]).await;
        ask(&mut client, &[("b3", "0")]).await;
        assert!(collector.is_quiet().await, "{:?}", collector.spans.borrow());
        {
            let seen = backend.seen.borrow();
            assert!(seen[0].headers["traceparent"].to_str().expect("text").ends_with("-00"));
            assert_eq!(seen[1].headers["traceparent"], unsampled);
            assert_eq!(seen[1].headers["tracestate"], "a=1");
            assert_eq!(seen[2].headers["b3"], "0");
        }
        // It was decided for it, in three forms.
        let forms = [
            vec![("traceparent", ABOVE.to_owned()), ("tracestate", "a=1".to_owned())],
            vec![("b3", format!("{trace}-{span}-1"))],
            vec![
                ("x-b3-traceid", trace.to_owned()),
                ("x-b3-spanid", span.to_owned()),
                ("x-b3-parentspanid", "05e3ac9a4f6e3b90".to_owned()),
                ("x-b3-sampled", "1".to_owned()),
            ],
        ];
        for headers in forms {
            collector.spans.borrow_mut().clear();
            let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
            ask(&mut client, &headers).await;
            let spans = collector.spans(2).await;
            let (server, attempt) = one_of_each(&spans);
            let above: TraceContext = ABOVE.parse().expect("valid");
            assert_eq!(context(server).trace_id, above.trace_id, "{headers:?}");
            assert_eq!(server.parent_span_id, above.span_id, "{headers:?}");
            let attempt = context(attempt);
            let seen = backend.seen.borrow();
            let seen = &seen.last().expect("a request").headers;
            assert_eq!(seen["traceparent"], attempt.to_string());
            match headers[0].0 {
                "b3" => assert_eq!(seen["b3"], format!("{}-1", &attempt.to_string()[3..52])),
                "traceparent" => assert_eq!(seen["tracestate"], "a=1"),
                _ => {
                    assert_eq!(seen["x-b3-traceid"], trace);
                    assert_eq!(seen["x-b3-sampled"], "1");
                    assert_eq!(seen["x-b3-spanid"], attempt.to_string()[36..52]);
                    assert!(seen.get("x-b3-parentspanid").is_none());
                }
            }
        }
    });
}

pub(crate) const EVENTFUL: &str = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: outside, namespace: shop}
spec:
  hosts: [outside]
  http:
  - match: [{headers: {x-try: {exact: abort}}}]
    fault: {abort: {percentage: {value: 100}, httpStatus: 555}}
    route: [{destination: {host: outside}}]
  - match: [{headers: {x-try: {exact: delay}}}]
    fault: {delay: {percentage: {value: 100}, fixedDelay: 0.01s}}
    route: [{destination: {host: outside}}]
  - retries: {attempts: 2, retryOn: 5xx, backoff: 1ms}
    route: [{destination: {host: outside}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-admin, namespace: shop}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: waypoint}]
  action: DENY
  rules: [{when: [{key: 'request.headers[x-try]', values: [admin]}]}]
";

#[test]
fn retries_faults_and_the_policy_that_denied_are_told() {
    run_with_flags(ALL, EVENTFUL, async |world| {
        let collector = Collector::start().await;
        let backend = serve(OUTSIDE, 8080, false).await;
        let mut client = Client::http1(world.tunnel("10.96.0.2:80").await.expect("tunnel")).await;
        assert_eq!(ask(&mut client, &[("x-try", "abort")]).await, 555);
        let spans = collector.spans(1).await;
        assert_eq!(
            (events(&spans[0]), attribute(&spans[0], "error.type").as_deref()),
            (vec!["fault.abort"], Some("555"))
        );
        assert_eq!(attribute(&spans[0], "response_flags").as_deref(), Some("FI"));

        collector.spans.borrow_mut().clear();
        assert_eq!(ask(&mut client, &[("x-try", "delay")]).await, 200);
        let spans = collector.spans(2).await;
        assert_eq!(events(one_of_each(&spans).0), ["fault.delay"]);

        collector.spans.borrow_mut().clear();
        assert_eq!(ask(&mut client, &[("x-try", "admin")]).await, 403);
        let spans = collector.spans(1).await;
        assert_eq!(events(&spans[0]), ["denied"]);
        assert!(format!("{:?}", spans[0].events[0]).contains("shop/no-admin"), "{spans:?}");

        collector.spans.borrow_mut().clear();
        backend.status.set(503);
        assert_eq!(ask(&mut client, &[]).await, 503);
        let spans = collector.spans(4).await;
        let (servers, attempts) = (of_kind(&spans, SpanKind::Server), of_kind(&spans, SpanKind::Client));
        assert_eq!((servers.len(), attempts.len()), (1, 3), "one attempt and two retries");
        assert_eq!(events(servers[0]), ["retry", "retry"]);
        let mut again: Vec<_> =
            attempts.iter().map(|span| attribute(span, "http.request.resend_count").unwrap_or_default()).collect();
        again.sort();
        assert_eq!(again, ["", "1", "2"]);
        for attempt in attempts {
            assert_eq!(attempt.parent_span_id, servers[0].span_id);
            assert_eq!(attribute(attempt, "error.type").as_deref(), Some("503"));
        }
    });
}

#[test]
fn without_a_collector_there_requests_go_on_and_spans_are_counted_as_lost() {
    run_with_flags(ALL, "", async |world| {
        serve(OUTSIDE, 8080, false).await;
        let mut client = Client::http1(world.tunnel("10.96.0.2:80").await.expect("tunnel")).await;
        for _ in 0..50 {
            assert_eq!(ask(&mut client, &[]).await, 200);
        }
        while crate::metrics::value("mesh_spans_total", &[("result", "failed")]).await < 100.0 {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    });
}

const TELEMETRY: &str = "
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: mesh, namespace: istio-system}
spec:
  tracing:
  - randomSamplingPercentage: 100
    customTags:
      stage: {literal: {value: test}}
      user: {header: {name: X-User}}
      zone: {environment: {name: NO_SUCH_VARIABLE, defaultValue: nowhere}}
---
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: cart, namespace: shop}
spec:
  targetRefs: [{kind: Service, name: cart}]
  tracing: [{disableSpanReporting: true}]
";

#[test]
fn telemetry_says_which_traces_are_recorded_and_what_spans_tell_besides() {
    run_with_flags(NONE_OF_OURS, TELEMETRY, async |world| {
        let collector = Collector::start().await;
        serve(OUTSIDE, 8080, false).await;
        serve_carts().await;
        let mut cart = Client::http1(world.tunnel("10.96.0.1:80").await.expect("tunnel")).await;
        assert_eq!(cart.get("/name").await.status, 200);
        let mut client = Client::http1(world.tunnel("10.96.0.2:80").await.expect("tunnel")).await;
        ask(&mut client, &[("x-user", "jason")]).await;
        let spans = collector.spans(2).await;
        let (server, _) = one_of_each(&spans);
        for (tag, value) in [("stage", "test"), ("user", "jason"), ("zone", "nowhere")] {
            assert_eq!(attribute(server, tag).as_deref(), Some(value));
        }
        assert!(server.name.contains("outside"), "{}", server.name);
    });
}
