//! A real Jaeger: what its query API shows of requests that went by the waypoint.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use http::Request;
use http_body_util::Full;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::server::{Client, read, serve};
use crate::traces::{ALL, EVENTFUL};
use crate::world::{OUTSIDE, run_with_flags};

/// As xtask builds it.
const VERSION: &str = "v1.76.0";
const QUERY: &str = "127.0.0.1:16686";
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const ABOVE: &str = "b7ad6b7169203331";

/// A running Jaeger, which keeps traces in memory.
struct Jaeger(Child);

fn program() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache")));
    let program = cache.expect("HOME").join("mesh/jaeger").join(VERSION).join("jaeger");
    assert!(program.exists(), "{} is missing: `cargo xtask go` builds it", program.display());
    program
}

impl Jaeger {
    async fn start() -> Self {
        let mut command = Command::new(program());
        command.env("COLLECTOR_OTLP_ENABLED", "true").stdout(Stdio::null()).stderr(Stdio::null());
        let jaeger = Self(command.spawn().expect("jaeger"));
        for port in ["127.0.0.1:4317", QUERY] {
            while TcpStream::connect(port).await.is_err() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        jaeger
    }

    /// The spans of the trace, once there are `count`.
    async fn spans(&self, count: usize) -> Vec<Value> {
        loop {
            let mut client = Client::http1(TcpStream::connect(QUERY).await.expect("the query port")).await;
            let request = Request::get(format!("/api/traces/{TRACE}")).header("host", QUERY).body(Full::default());
            let answer = read(client.send(request.expect("valid")).await.expect("an answer")).await.expect("a body");
            let whole: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            let spans = whole["data"][0]["spans"].as_array().cloned().unwrap_or_default();
            if spans.len() >= count {
                return spans;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

impl Drop for Jaeger {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn tag(span: &Value, key: &str) -> String {
    let tags = span["tags"].as_array().cloned().unwrap_or_default();
    let found = tags.into_iter().find(|tag| tag["key"] == key);
    found.map_or_else(String::new, |tag| tag["value"].as_str().map_or_else(|| tag["value"].to_string(), str::to_owned))
}

fn parent(span: &Value) -> &Value {
    &span["references"][0]["spanID"]
}

/// The names of what happened in a span.
fn events(span: &Value) -> Vec<String> {
    let logs = span["logs"].as_array().cloned().unwrap_or_default();
    let fields = logs.into_iter().flat_map(|log| log["fields"].as_array().cloned().unwrap_or_default());
    fields
        .filter(|field| field["key"] == "event")
        .map(|field| field["value"].as_str().unwrap_or_default().to_owned())
        .collect()
}

#[test]
fn jaeger_shows_one_trace_with_its_retries_and_faults() {
    run_with_flags(ALL, EVENTFUL, async |world| {
        let jaeger = Jaeger::start().await;
        let backend = serve(OUTSIDE, 8080, false).await;
        let traceparent = format!("00-{TRACE}-{ABOVE}-01");
        let mut client = Client::http1(world.tunnel("10.96.0.2:80").await.expect("tunnel")).await;
        let ask = |wanted: &str| {
            let request = Request::get("/name").header("host", "outside.shop").header("x-try", wanted);
            request.header("traceparent", &traceparent).body(Full::default()).expect("valid")
        };
        assert_eq!(client.ask(ask("abort")).await.status, 555);
        assert_eq!(client.ask(ask("delay")).await.status, 200);
        backend.status.set(503);
        assert_eq!(client.ask(ask("nothing")).await.status, 503);
        // An aborted request, a delayed one with its attempt, and one with three attempts.
        let spans = jaeger.spans(7).await;
        assert_eq!(spans.len(), 7, "{spans:#?}");
        let kind =
            |wanted: &str| -> Vec<&Value> { spans.iter().filter(|span| tag(span, "span.kind") == wanted).collect() };
        let (servers, attempts) = (kind("server"), kind("client"));
        assert_eq!((servers.len(), attempts.len()), (3, 4));
        assert!(servers.iter().all(|span| parent(span) == ABOVE), "all below the client's own span");
        let with = |event: &str| {
            let found = servers.iter().find(|span| events(span).iter().any(|name| name == event));
            found.unwrap_or_else(|| panic!("no {event} in {servers:#?}"))
        };
        assert_eq!(
            (tag(with("fault.abort"), "http.response.status_code"), tag(with("fault.abort"), "error")),
            ("555".into(), "true".into())
        );
        let below = |above: &Value| attempts.iter().filter(|span| *parent(span) == above["spanID"]).count();
        assert_eq!((below(with("fault.delay")), below(with("retry"))), (1, 3));
        assert_eq!(events(with("retry")), ["retry", "retry"]);
    });
}
