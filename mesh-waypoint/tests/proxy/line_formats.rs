//! Lines as the mesh configuration's `accessLogFormat` and `accessLogEncoding` have them.

use http::Request;
use http_body_util::Full;
use serde_json::{Value, json};

use crate::mesh_defaults::mesh;
use crate::server::{Client, serve_carts};
use crate::world::{World, run_with};

async fn ask(world: &World, path: &str) {
    let mut client = Client::http1(world.tunnel("10.96.0.1:80").await.expect("tunnel")).await;
    let request =
        Request::get(path).header("host", "cart.shop").header("user-agent", "curl \"8\"").header("x-user", "ann");
    assert_eq!(client.ask(request.body(Full::default()).expect("valid")).await.status, 200);
}

/// The first line that begins so.
async fn line(world: &World, begins: &str) -> String {
    world.logged(begins).await;
    let log = world.log.lock().expect("log");
    log.iter().find(|line| line.starts_with(begins)).expect("a line that begins so").clone()
}

#[test]
fn a_format_is_text_with_what_envoy_fills_in() {
    let format = "accessLogFormat: |\n  said %REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL% %RESPONSE_CODE% \
                  %RESPONSE_FLAGS% %BYTES_SENT% %REQ(X-USER):2% %REQ(X-NONE)% %RESP(X-BACKEND)% %UPSTREAM_HOST% \
                  %UPSTREAM_CLUSTER% %FILTER_STATE(a)% \"%REQ(USER-AGENT)%\" %START_TIME(%Y)%\n";
    run_with(&mesh(format), async |world| {
        serve_carts().await;
        ask(&world, "/a?b=c").await;
        let line = line(&world, "said GET /a?b=c").await;
        let words: Vec<_> = line.split(' ').collect();
        assert_eq!(words[3..9], ["HTTP/1.1", "200", "-", words[6], "an", "-"], "{line}");
        assert!(words[6].parse::<u64>().is_ok_and(|octets| octets > 0), "{line}");
        assert_eq!(words[10], format!("{}:8080", words[9]), "{line}");
        assert_eq!(words[11..15], ["cart.shop.svc.cluster.local:80", "-", "\"curl", "\"8\"\""], "{line}");
        assert!(words[15].parse::<u32>().is_ok_and(|year| year >= 2024), "{line}");
        // Where no format is asked for any more, lines are as usual.
        world.configure(&mesh("accessLogFile: /dev/stdout"));
        while crate::access_logs::lines(&world).is_empty() {
            ask(&world, "/again").await;
        }
    });
}

#[test]
fn istios_own_text_is_what_the_encoding_asks_for() {
    run_with(&mesh("accessLogEncoding: TEXT"), async |world| {
        serve_carts().await;
        ask(&world, "/text").await;
        world.logged("\"GET /text HTTP/1.1\" 200 - via_upstream - \"-\" 0 ").await;
    });
}

#[test]
fn a_format_of_json_keeps_types_and_a_connection_has_what_it_can() {
    let format = "accessLogEncoding: JSON\naccessLogFormat: |\n  {\"code\": \"%RESPONSE_CODE%\", \"of\": {\"path\": \"%REQ(:PATH)%\"}, \
                  \"user\": \"<%REQ(X-USER)%>\", \"octets\": \"%BYTES_RECEIVED%\", \"why\": \"%CONNECTION_TERMINATION_DETAILS%\", \
                  \"flags\": \"%RESPONSE_FLAGS%\"}";
    run_with(&mesh(format), async |world| {
        serve_carts().await;
        ask(&world, "/json").await;
        let said: Value = serde_json::from_str(&line(&world, "{\"code\":200").await).expect("JSON");
        let expected = json!({
            "code": 200, "of": {"path": "/json"}, "user": "<ann>", "octets": 0, "why": null, "flags": "-",
        });
        assert_eq!(said, expected);
        // Nobody listens at that port, which is declared to be TCP.
        assert!(world.tunnel("10.96.0.1:90").await.is_err());
        let said: Value = serde_json::from_str(&line(&world, "{\"code\":0").await).expect("JSON");
        assert_eq!((&said["of"]["path"], &said["user"], &said["flags"]), (&Value::Null, &json!("<->"), &json!("UF")));
        assert!(said["why"].as_str().is_some_and(|why| why.starts_with("upstream connection failure")), "{said}");
    });
}

#[test]
fn a_provider_has_lines_in_its_own_format_beside_the_usual_ones() {
    let mine = "extensionProviders:\n- name: mine\n  envoyFileAccessLog: {path: /dev/stdout, logFormat: {labels: {said: '%REQ(:PATH)%'}}}";
    let both = "apiVersion: telemetry.istio.io/v1\nkind: Telemetry\nmetadata: {name: mesh, namespace: istio-system}\nspec:\n  \
                accessLogging:\n  - providers: [{name: envoy}]\n  - providers: [{name: mine}]\n    \
                filter: {expression: \"request.url_path != '/quiet'\"}\n";
    run_with(&(mesh(mine) + both), async |world| {
        serve_carts().await;
        ask(&world, "/quiet").await;
        ask(&world, "/loud").await;
        assert_eq!(line(&world, "{\"said\"").await, "{\"said\":\"/loud\"}");
        for path in ["/quiet", "/loud"] {
            crate::access_logs::line(&world, path).await;
        }
    });
}
