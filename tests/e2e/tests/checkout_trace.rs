//! A checkout of the shop in a real Jaeger: one trace over nodes, waypoint and services, with what went wrong on the way.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use mesh_e2e::{Jaeger, Mesh, NODES, PATIENCE, Shop, Verdict, Waypoint};
use mesh_lab::{Place as _, PodSpec, wait_until};
use serde_json::Value;

/// The cart takes its time, and one of three product servers always fails.
const RULES: &str = "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: cart, namespace: shop}
spec:
  hosts: [cart]
  http:
  - fault: {delay: {percentage: {value: 100}, fixedDelay: 50ms}}
    route: [{destination: {host: cart}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: product, namespace: shop}
spec:
  hosts: [product]
  http:
  - retries: {attempts: 3, retryOn: 5xx}
    route: [{destination: {host: product}}]
";

const CHECKOUT: &str = "http://frontend.shop:8080/checkout?user=ada&item=book&card=4000-0000&marker=m";

fn tag<'a>(span: &'a Value, key: &str) -> Option<&'a Value> {
    span["tags"].as_array()?.iter().find(|tag| tag["key"] == key).map(|tag| &tag["value"])
}

/// The span above it in its trace.
fn parent<'a>(spans: &'a [Value], span: &Value) -> Option<&'a Value> {
    let above = span["references"].as_array()?.iter().find(|reference| reference["refType"] == "CHILD_OF")?;
    spans.iter().find(|other| other["spanID"] == above["spanID"])
}

fn events(span: &Value) -> Vec<&str> {
    let logs = span["logs"].as_array().into_iter().flatten();
    let fields = logs.flat_map(|log| log["fields"].as_array().into_iter().flatten());
    fields.filter(|field| field["key"] == "event").filter_map(|field| field["value"].as_str()).collect()
}

/// Who made it, and what for.
fn name(span: &Value) -> &str {
    span["operationName"].as_str().unwrap_or_default()
}

/// Whether it is a waypoint's of a request to that Service of the shop.
fn is_request_to(span: &Value, service: &str) -> bool {
    tag(span, "mesh.server.service").is_some_and(|to| *to == format!("{service}.shop.svc.cluster.local"))
        && tag(span, "url.path").is_some()
}

/// The request's span of each Service that a checkout asks; none while some are missing.
fn requests(spans: &[Value]) -> Option<[&Value; 5]> {
    let find = |service| spans.iter().find(|span| is_request_to(span, service));
    Some([find("frontend")?, find("cart")?, find("product")?, find("order")?, find("payment")?])
}

/// Buys until a checkout's trace is complete and has a retry; its spans.
fn bought(mesh: &Mesh, shop: &Shop, jaeger: &Jaeger) -> Result<Vec<Value>> {
    let shopper = shop.pods.iter().find(|pod| pod.name() == "shopper").context("no shopper")?;
    let mut bought = 0;
    let found = wait_until("a checkout's trace with a retry", PATIENCE, || {
        bought += 1;
        let agent = format!("shopper-{bought}");
        shopper.exec(&["curl", "-sS", "--fail", "-m", "20", "-o", "/dev/null", "-A", &agent, CHECKOUT])?.success()?;
        let whole = wait_until("the checkout's spans", PATIENCE, || {
            let traces = jaeger.traces("waypoint.shop", ("user_agent.original", &agent))?;
            let whole = |spans: &Vec<Value>| {
                // The last to end are the requests above others, and the tunnel's set-up the first to be sent.
                requests(spans).is_some_and(|[frontend, ..]| parent(spans, frontend).is_some())
            };
            assert!(traces.len() <= 1, "a checkout is one trace, not {}", traces.len());
            Ok(traces.into_iter().find(whole))
        })?;
        Ok(whole.iter().any(|span| events(span).contains(&"retry")).then_some(whole))
    });
    found.with_context(|| mesh.daemon(NODES[0]).map(|daemon| daemon.logs()).unwrap_or_default())
}

#[test]
fn a_checkout_is_one_trace_in_jaeger_with_its_retry_and_its_fault() -> Verdict {
    let mut mesh = Mesh::without_daemons()?;
    let jaeger = Jaeger::start(&mesh, NODES[0])?;
    let flags = ["--otlp-endpoint", &jaeger.otlp(), "--trace-sampling", "1"];
    for node in NODES {
        mesh.start_daemon_with(node, &flags)?;
    }
    let shop = Shop::open(&mesh)?;
    let failing = ["mesh-traffic", "http", "--listen", "[::]:8080", "--name", "failing", "--status", "503"];
    let failing = PodSpec::new("shop", "product-v3").on(NODES[1]).service_account("product").command(failing);
    mesh.join(failing.label("app", "product").label("version", "v3").port("http", 8080))?;
    let waypoint = Waypoint::declare_in(&mesh, "shop", "waypoint")?;
    waypoint.replica_with(&mesh, "waypoint-1", NODES[1], &flags)?;
    mesh.lab.apply("rules.yaml", RULES)?;
    waypoint.serve_namespace(&mesh)?;
    mesh.settle()?;
    let spans = bought(&mesh, &shop, &jaeger)?;

    let traces: BTreeSet<_> = spans.iter().map(|span| span["traceID"].to_string()).collect();
    assert_eq!(traces.len(), 1);
    let [frontend, cart, product, order, payment] = requests(&spans).context("a service is missing")?;
    // It begins where the shopper's node connects to the waypoint.
    let begins = parent(&spans, frontend).context("nothing is above the frontend's request")?;
    assert_eq!((name(begins), tag(begins, "mesh.reporter")), ("connect", Some(&Value::from("source"))), "{begins:#}");
    assert!(parent(&spans, begins).is_none());
    // Each service's request is below the attempt that asked the one before, since the shop passes the context on.
    for (above, below) in [(frontend, cart), (frontend, product), (frontend, order), (order, payment)] {
        let attempt = parent(&spans, below).context("a request without an attempt above")?;
        assert_eq!(tag(attempt, "span.kind"), Some(&Value::from("client")), "{attempt:#}");
        assert_eq!(parent(&spans, attempt).map(|span| &span["spanID"]), Some(&above["spanID"]), "{below:#}");
    }
    assert_eq!(tag(payment, "rpc.grpc.status_code").map(ToString::to_string).as_deref(), Some("0"), "{payment:#}");
    assert_eq!(events(cart), ["fault.delay"]);
    // The nodes of the servers take part, below the attempts.
    let accepted = spans.iter().filter(|span| name(span) == "accept");
    let below_an_attempt = |span: &&Value| parent(&spans, span).is_some_and(|above| tag(above, "url.path").is_some());
    assert!(accepted.filter(below_an_attempt).count() > 0, "{spans:#?}");
    // The retry: one attempt more than answers, and the first of them failed.
    assert!(events(product).contains(&"retry"), "{product:#}");
    let mut attempts: Vec<_> = spans.iter().filter(|span| parent(&spans, span) == Some(product)).collect();
    attempts.retain(|span| tag(span, "span.kind") == Some(&Value::from("client")));
    attempts.sort_by_key(|span| span["startTime"].as_u64());
    let statuses: Vec<_> =
        attempts.iter().filter_map(|span| tag(span, "http.response.status_code")?.as_u64()).collect();
    assert_eq!((statuses.first(), statuses.last()), (Some(&503), Some(&200)), "{attempts:#?}");
    Ok(())
}
