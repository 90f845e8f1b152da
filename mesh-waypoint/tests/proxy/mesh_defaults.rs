//! What the mesh configuration says of everything about which no object says anything nearer.

use std::process::Command;

use crate::access_logs::{line, lines};
use crate::collector::Collector;
use crate::server::{Client, serve};
use crate::traces::NONE_OF_OURS;
use crate::world::{CARTS, OUTSIDE, World, run_with, run_with_flags};

/// The mesh configuration.
pub(crate) fn mesh(fields: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-system}}\ndata:\n  mesh: |\n    \
         {}\n---\n",
        fields.replace('\n', "\n    ")
    )
}

const ENVOY: &str = "apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: outside, namespace: shop}
spec:
  targetRefs: [{kind: Service, name: outside}]
  accessLogging: [{providers: [{name: envoy}]}]
";

async fn client(world: &World, target: &str) -> Client {
    Client::http1(world.tunnel(target).await.expect("tunnel")).await
}

#[test]
fn there_are_no_lines_where_it_says_so_and_no_telemetry_asks_for_them() {
    run_with(&(mesh("accessLogFile: ''") + ENVOY), async |world| {
        serve(OUTSIDE, 8080, false).await;
        for cart in CARTS {
            serve(cart, 8080, false).await;
        }
        assert_eq!(client(&world, "10.96.0.1:80").await.get("/of-cart").await.status, 200);
        assert_eq!(client(&world, "10.96.0.2:80").await.get("/of-outside").await.status, 200);
        line(&world, "/of-outside").await;
        assert_eq!(lines(&world).len(), 1, "{:?}", lines(&world));
        // Said otherwise, there are lines of all.
        world.configure(&mesh("accessLogFile: /dev/stdout\naccessLogEncoding: JSON"));
        let mut cart = client(&world, "10.96.0.1:80").await;
        while lines(&world).iter().all(|line| line["path"] != "/again") {
            assert_eq!(cart.get("/again").await.status, 200);
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    });
}

#[test]
fn requests_of_which_no_rule_says_it_are_tried_again_as_it_has_them() {
    let retries = "defaultHttpRetryPolicy: {attempts: 2, retryOn: '503', backoff: 1ms}";
    run_with(&mesh(retries), async |world| {
        for cart in CARTS {
            let backend = serve(cart, 8080, false).await;
            backend.status.set(if cart == CARTS[2] { 200 } else { 503 });
        }
        let mut client = client(&world, "10.96.0.1:80").await;
        for _ in 0..30 {
            assert_eq!(client.get("/").await.status, 200);
        }
        world.configure(&mesh("defaultHttpRetryPolicy: {attempts: 0}"));
        while client.get("/").await.status == 200 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    });
}

#[test]
fn connections_are_probed_as_it_says() {
    run_with(&mesh("tcpKeepalive: {time: 60s, interval: 5s}"), async |world| {
        serve(OUTSIDE, 8080, false).await;
        let mut client = client(&world, "10.96.0.2:80").await;
        assert_eq!(client.get("/").await.status, 200);
        let arguments = ["-tno", "state", "established", "dst", OUTSIDE, "dport", "=", ":8080"];
        let listed = Command::new("ss").arg("--no-header").args(arguments).output().expect("ss");
        let listed = String::from_utf8(listed.stdout).expect("text");
        assert!(listed.contains("timer:(keepalive,"), "{listed}");
    });
}

#[test]
fn traces_are_recorded_as_it_says() {
    let tracing = "defaultConfig: {tracing: {sampling: 100, customTags: {stage: {literal: {value: test}}}}}";
    run_with_flags(NONE_OF_OURS, &mesh(tracing), async |world| {
        let collector = Collector::start().await;
        serve(OUTSIDE, 8080, false).await;
        assert_eq!(client(&world, "10.96.0.2:80").await.get("/").await.status, 200);
        let spans = collector.spans(2).await;
        let told = spans.iter().find_map(|span| crate::collector::attribute(span, "stage"));
        assert_eq!(told.as_deref(), Some("test"), "{spans:#?}");
    });
}
