//! What clients choose (methods, paths, header values, tokens' claims, traces) stays a value: of a label, of a line of the log, of a
//! span, and steers neither whoever parses them nor a terminal that shows them.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::collector::{Collector, attribute};
use crate::issuer::{Issuer, alice};
use crate::metrics::scrape_text;
use crate::server::serve_carts;
use crate::tokens::{ask_as, authentication, client, inline};
use crate::traces::ALL;
use crate::world::{World, run_with, run_with_flags};

const LABELS: &str = "apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: cart, namespace: shop}
spec:
  targetRefs: [{group: '', kind: Service, name: cart}]
  metrics:
  - providers: [{name: prometheus}]
    overrides:
    - match: {metric: REQUEST_COUNT, mode: SERVER}
      tagOverrides:
        request_method: {value: request.method}
        request_path: {value: request.url_path}
        tenant: {value: \"request.headers['x-tenant']\"}
        agent: {value: request.useragent}
";

/// Whatever a field of a header may hold that means something to somebody who reads it later.
const FIELD: &str = "a\"} 1\\n# HELP x\\u{\t'<script>alert(1)</script>${jndi:x}\\";
/// All that a token of RFC 9110 may hold beside letters.
const METHOD: &str = "!#$%&'*+-.^_`|~G9";
/// A path with all that servers take for one.
const PATH: &str = "/\"{}|[]^%3Cscript%3E";

/// A series of the text format, read as its grammar has it: labels are unescaped, and nothing may be left over.
fn series(line: &str) -> Option<(String, Vec<(String, String)>)> {
    let Some((metric, mut rest)) = line.split_once('{') else {
        return line.split_once(' ').map(|(metric, _)| (metric.to_owned(), Vec::new()));
    };
    let mut labels = Vec::new();
    while !rest.starts_with('}') {
        let (name, value) = rest.trim_start_matches(',').split_once("=\"")?;
        let (mut text, mut characters) = (String::new(), value.char_indices());
        let end = loop {
            match characters.next()? {
                (end, '"') => break end,
                (_, '\\') => text.push(match characters.next()?.1 {
                    'n' => '\n',
                    other => other,
                }),
                (_, other) => text.push(other),
            }
        };
        labels.push((name.to_owned(), text));
        rest = &value[end + 1..];
    }
    rest.strip_prefix("} ")?.trim().parse::<f64>().ok()?;
    Some((metric.to_owned(), labels))
}

/// The lines of requests, each of which has to be one object.
fn lines(world: &World) -> Vec<Value> {
    let log = world.log.lock().expect("log");
    for line in log.iter() {
        let line = line.trim_end_matches('\n');
        assert!(!line.chars().any(char::is_control), "{line:?} steers a terminal");
    }
    let lines = log.iter().map(|line| serde_json::from_str::<Value>(line).expect("each line is an object"));
    lines.filter(|line| line["target"] == "access" && line.get("response_code").is_some()).collect()
}

/// The only line of a request that is so, once it is there.
async fn line(world: &World, is_so: impl Fn(&Value) -> bool) -> Value {
    loop {
        let mut found: Vec<_> = lines(world).into_iter().filter(&is_so).collect();
        if let Some(line) = found.pop() {
            assert!(found.is_empty(), "{found:?} and {line}");
            return line;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The first line of the answer.
async fn send(world: &World, request: &str) -> String {
    let mut stream = world.tunnel("10.96.0.1:80").await.expect("tunnel");
    stream.write_all(request.as_bytes()).await.expect("write");
    let mut read = Vec::new();
    stream.read_to_end(&mut read).await.expect("read");
    String::from_utf8_lossy(&read).lines().next().unwrap_or_default().to_owned()
}

#[test]
fn what_a_request_says_is_one_value_of_a_label_of_a_line_and_of_a_span() {
    run_with_flags(ALL, LABELS, async |world: World| {
        let collector = Collector::start().await;
        serve_carts().await;
        // The query has a character of C1 that begins an escape sequence, and one that turns the line around.
        let request = format!(
            "{METHOD} {PATH}?q=\u{9b}31m\u{202e} HTTP/1.1\r\nhost: cart.shop\r\nuser-agent: {FIELD}\r\nx-tenant: {FIELD}\r\n\
             x-request-id: {FIELD}\r\ntraceparent: 00-{FIELD}-01\r\ntracestate: {FIELD}\r\nb3: {FIELD}\r\nconnection: close\r\n\r\n"
        );
        assert_eq!(send(&world, &request).await, "HTTP/1.1 200 OK");
        // What is no path is refused, whatever is in it.
        let request = "GET /%0 HTTP/1.1\r\nhost: cart.shop\r\nconnection: close\r\n\r\n";
        assert_eq!(send(&world, request).await, "HTTP/1.1 400 Bad Request");

        let text = scrape_text("/metrics").await;
        let told = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        let told: Vec<_> = told.map(|line| series(line).unwrap_or_else(|| panic!("{line:?} is no series"))).collect();
        let counted = |wanted: &[(&str, &str)]| {
            told.iter().any(|(metric, labels)| {
                metric == "istio_requests_total"
                    && wanted
                        .iter()
                        .all(|(name, value)| labels.iter().any(|(has, found)| has == name && found == value))
            })
        };
        let field = FIELD;
        assert!(counted(&[("tenant", field), ("agent", field), ("request_method", METHOD)]), "{text}");
        assert!(told.iter().all(|(metric, _)| metric.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')), "{text}");

        let said = line(&world, |line| line["method"] == METHOD).await;
        assert_eq!((&said["user_agent"], &said["request_id"]), (&field.into(), &field.into()), "{said}");
        assert!(said["path"].as_str().is_some_and(|path| path.ends_with("?q=\u{9b}31m\u{202e}")), "{said}");

        let spans = collector.spans(2).await;
        let of_agent = spans.iter().find_map(|span| attribute(span, "user_agent.original"));
        assert_eq!(of_agent.as_deref(), Some(field), "{spans:?}");
        assert!(spans.iter().all(|span| span.trace_id.len() == 16 && span.span_id.len() == 8), "{spans:?}");
    });
}

#[test]
fn a_claim_that_no_field_can_hold_is_shown_to_nobody_and_begins_no_line() {
    let issuer = Issuer::new("one");
    let shown = "    outputClaimToHeaders: [{header: x-user, claim: sub}]";
    run_with(&authentication(&inline(&issuer), shown), async move |world| {
        let carts = serve_carts().await;
        let mut client = client(&world).await;
        for subject in ["alice\r\nx-admin: yes", "a\nb", "\0", "\u{1b}[2J", "\u{9b}31m", "\"},{\"target\":\"access\""] {
            let mut claims = alice();
            claims["sub"] = json!(subject);
            assert_eq!(ask_as(&mut client, &issuer.token(&claims)).await.status, 200, "{subject:?}");
            let seen = carts.iter().flat_map(|cart| cart.seen.take()).next().expect("a request");
            assert!(!seen.headers.contains_key("x-admin"), "{subject:?}");
            let user = seen.headers.get("x-user").map(|user| user.as_bytes());
            assert!(user.is_none_or(|user| user == subject.as_bytes()), "{subject:?}: {user:?}");
            line(&world, |line| line["request_principal"].as_str().is_some_and(|who| who.ends_with(subject))).await;
        }
    });
}
