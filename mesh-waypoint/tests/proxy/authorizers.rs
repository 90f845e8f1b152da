//! Authorizers outside the mesh's own programs, asked by gRPC and by HTTP.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::rc::Rc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::task::spawn_local;

use crate::gateway::{GATEWAY, gateway, get};
use crate::server::{Answer, Client, Local, serve};
use crate::world::{OUTSIDE, World, run_as, run_with};

/// The authorizers' Service, and a policy that has one asked about requests to `outside`, but for those to `/open`.
fn manifests(kind: &str, fields: &str) -> String {
    format!(
        "
apiVersion: v1
kind: ConfigMap
metadata: {{name: istio, namespace: istio-system}}
data:
  mesh: |
    extensionProviders:
    - name: judge
      {kind}:
        service: judge.shop.svc.cluster.local
        port: 80
{fields}
---
apiVersion: v1
kind: Service
metadata: {{name: judge, namespace: shop, labels: {{istio.io/use-waypoint: none}}}}
spec: {{clusterIP: 10.96.0.9, ports: [{{name: http, port: 80}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: judge, namespace: shop, labels: {{kubernetes.io/service-name: judge}}}}
addressType: IPv4
ports: [{{name: http, port: 9191}}]
endpoints: [{{addresses: [{OUTSIDE}]}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: asks, namespace: shop}}
spec:
  targetRefs: [{{kind: Service, group: '', name: outside}}]
  action: CUSTOM
  provider: {{name: judge}}
  rules: [{{to: [{{operation: {{notPaths: [/open]}}}}]}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: denies, namespace: shop}}
spec:
  targetRefs: [{{kind: Service, group: '', name: outside}}]
  action: DENY
  rules: [{{when: [{{key: 'request.headers[x-role]', values: [banned]}}]}}]
"
    )
}

#[derive(Clone, PartialEq, prost::Message)]
struct CheckRequest {
    #[prost(message, optional, tag = "1")]
    attributes: Option<Attributes>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Attributes {
    #[prost(message, optional, tag = "1")]
    source: Option<Peer>,
    #[prost(message, optional, tag = "4")]
    request: Option<Asked>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Peer {
    #[prost(string, tag = "4")]
    principal: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Asked {
    #[prost(message, optional, tag = "2")]
    http: Option<HttpRequest>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HttpRequest {
    #[prost(string, tag = "2")]
    method: String,
    #[prost(btree_map = "string, string", tag = "3")]
    headers: BTreeMap<String, String>,
    #[prost(string, tag = "4")]
    path: String,
    #[prost(string, tag = "5")]
    host: String,
    #[prost(string, tag = "10")]
    protocol: String,
    #[prost(string, tag = "11")]
    body: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Pair {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Field {
    #[prost(message, optional, tag = "1")]
    header: Option<Pair>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Code {
    #[prost(int32, tag = "1")]
    code: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Denied {
    #[prost(message, optional, tag = "1")]
    status: Option<Code>,
    #[prost(message, repeated, tag = "2")]
    headers: Vec<Field>,
    #[prost(string, tag = "3")]
    body: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Allowed {
    #[prost(message, repeated, tag = "2")]
    headers: Vec<Field>,
    #[prost(string, repeated, tag = "5")]
    removed: Vec<String>,
    #[prost(message, repeated, tag = "6")]
    added: Vec<Field>,
    #[prost(message, repeated, tag = "7")]
    query: Vec<Pair>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct CheckResponse {
    #[prost(message, optional, tag = "1")]
    status: Option<Code>,
    #[prost(message, optional, tag = "2")]
    denied: Option<Denied>,
    #[prost(message, optional, tag = "3")]
    allowed: Option<Allowed>,
}

fn pair(key: &str, value: &str) -> Pair {
    Pair { key: key.to_owned(), value: value.to_owned() }
}

fn field(key: &str, value: &str) -> Field {
    Field { header: Some(pair(key, value)) }
}

/// Does what the request's `x-do` says.
fn judged(asked: &HttpRequest) -> CheckResponse {
    match asked.headers.get("x-do").map(String::as_str) {
        Some("allow") => {
            let allowed = Allowed {
                headers: vec![field("x-user", "alice"), field("content-length", "999")],
                removed: vec!["x-secret".to_owned()],
                added: vec![field("x-checked", "yes")],
                query: vec![pair("tenant", "a b")],
            };
            CheckResponse { status: Some(Code { code: 0 }), denied: None, allowed: Some(allowed) }
        }
        Some("ban") => {
            let allowed = Allowed { headers: vec![field("x-role", "banned")], ..Allowed::default() };
            CheckResponse { status: Some(Code { code: 0 }), denied: None, allowed: Some(allowed) }
        }
        Some("silence") => CheckResponse::default(),
        _ => {
            let headers = vec![field("location", "/login"), field("content-type", "text/html")];
            let denied = Denied { status: Some(Code { code: 401 }), headers, body: "<p>who?</p>".to_owned() };
            CheckResponse { status: Some(Code { code: 16 }), denied: Some(denied), allowed: None }
        }
    }
}

type Asks = Rc<RefCell<Vec<CheckRequest>>>;
type Body = http_body_util::combinators::BoxBody<Bytes, Infallible>;

/// An authorizer that is asked by gRPC.
async fn by_grpc() -> Asks {
    let listener = TcpListener::bind((OUTSIDE, 9191)).await.expect("listen");
    let asks = Asks::default();
    let told = asks.clone();
    spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let asks = told.clone();
            spawn_local(async move {
                let service = service_fn(move |request| check(asks.clone(), request));
                let builder = hyper::server::conn::http2::Builder::new(Local);
                let _ = builder.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    asks
}

async fn check(asks: Asks, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    assert_eq!(request.uri().path(), "/envoy.service.auth.v3.Authorization/Check");
    let body = request.into_body().collect().await.expect("a body").to_bytes();
    let message = CheckRequest::decode(&body[5..]).expect("a CheckRequest");
    let asked = message.attributes.clone().and_then(|it| it.request).and_then(|it| it.http).expect("attributes");
    asks.borrow_mut().push(message);
    let framed: Vec<u8> = match asked.headers.get("x-do").map(String::as_str) {
        Some("slow") => std::future::pending().await,
        Some("garbage") => vec![0, 0, 0, 0, 3, 0xff, 0xff, 0xff],
        Some("long") => vec![0; 1 << 20],
        _ => {
            let message = judged(&asked).encode_to_vec();
            let length = u32::try_from(message.len()).expect("short").to_be_bytes();
            [&[0][..], &length, &message].concat()
        }
    };
    let trailers = HeaderMap::from_iter([("grpc-status".parse().expect("valid"), HeaderValue::from_static("0"))]);
    let body = Full::new(Bytes::from(framed)).with_trailers(async { Some(Ok(trailers)) }).boxed();
    Ok(Response::builder().header("content-type", "application/grpc").body(body).expect("valid"))
}

async fn ask(world: &World, path: &str, what: &str, body: &'static str) -> Answer {
    let mut client = Client::http1(world.tunnel("10.96.0.2:80").await.expect("tunnel")).await;
    let request = Request::post(path).header("host", "outside.shop").header("x-do", what).header("x-secret", "1");
    client.ask(request.header("x-user", "mallory").body(Full::from(body)).expect("valid")).await
}

#[test]
fn an_authorizer_asked_by_grpc_lets_on_with_changes_or_refuses_in_its_own_words() {
    run_with(&manifests("envoyExtAuthzGrpc", ""), async |world| {
        let (asks, backend) = (by_grpc().await, serve(OUTSIDE, 8080, false).await);
        let answer = ask(&world, "/echo?a=1", "allow", "hello").await;
        assert_eq!((answer.status, &answer.body[..]), (200, &b"hello"[..]));
        assert_eq!(answer.headers["x-checked"], "yes");
        {
            let seen = &backend.seen.borrow()[0];
            assert_eq!(seen.headers["x-user"], "alice");
            assert_eq!(seen.headers["content-length"], "5");
            assert!(!seen.headers.contains_key("x-secret"));
            assert_eq!(seen.uri, "/echo?a=1&tenant=a%20b");
            let attributes = asks.borrow()[0].attributes.clone().expect("attributes");
            assert!(attributes.source.expect("a source").principal.ends_with("/ns/shop/sa/client"));
            let asked = attributes.request.and_then(|it| it.http).expect("a request");
            assert_eq!((&*asked.method, &*asked.path, &*asked.host), ("POST", "/echo?a=1", "outside.shop"));
            assert_eq!((&*asked.protocol, &*asked.body), ("HTTP/1.1", ""));
            assert_eq!(asked.headers[":path"], "/echo?a=1");
        }
        let answer = ask(&world, "/echo", "deny", "hello").await;
        assert_eq!((answer.status, &answer.body[..]), (401, &b"<p>who?</p>"[..]));
        assert_eq!(
            (&answer.headers["location"], &answer.headers["content-type"]),
            (&"/login".parse().unwrap(), &"text/html".parse().unwrap())
        );
        assert_eq!(asks.borrow().len(), 2);
        assert_eq!(ask(&world, "/open", "deny", "").await.status, 200);
        assert_eq!(asks.borrow().len(), 2, "the policy's rules say what is asked");
        let answer = ask(&world, "/echo", "ban", "hello").await;
        assert_eq!((answer.status, &answer.body[..]), (403, &b"RBAC: access denied"[..]), "DENY sees the change");
        assert_eq!(backend.seen.borrow().len(), 2);
    });
}

#[test]
fn without_an_answer_a_request_is_refused_or_goes_on_as_the_provider_says() {
    let fields = "        timeout: 0.3s\n        statusOnError: '503'";
    run_with(&manifests("envoyExtAuthzGrpc", fields), async move |world| {
        let backend = serve(OUTSIDE, 8080, false).await;
        assert_eq!(ask(&world, "/x", "allow", "").await.status, 503, "nobody listens");
        let _asks = by_grpc().await;
        for what in ["slow", "garbage", "long", "silence"] {
            assert_eq!(ask(&world, "/x", what, "").await.status, 503, "{what}");
        }
        assert_eq!(ask(&world, "/x", "allow", "").await.status, 200);
        assert_eq!(backend.seen.borrow().len(), 1);
        world.configure(&manifests("envoyExtAuthzGrpc", &format!("{fields}\n        failOpen: true")));
        while ask(&world, "/x", "garbage", "").await.status != 200 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        for what in ["slow", "long", "silence"] {
            assert_eq!(ask(&world, "/x", what, "").await.status, 200, "{what}");
        }
        assert_eq!(ask(&world, "/x", "deny", "").await.status, 401, "a no is a no");
        world.configure(
            &manifests("envoyExtAuthzGrpc", "").replace("name: judge\n      envoy", "name: other\n      envoy"),
        );
        while ask(&world, "/x", "allow", "").await.status != 403 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    });
}

#[test]
fn an_authorizer_is_shown_as_much_of_a_body_as_it_asks_for() {
    let fields =
        |partial| format!("        includeRequestBodyInCheck: {{maxRequestBytes: 4, allowPartialMessage: {partial}}}");
    run_with(&manifests("envoyExtAuthzGrpc", &fields(true)), async move |world| {
        let (asks, backend) = (by_grpc().await, serve(OUTSIDE, 8080, false).await);
        let body_of = |index: usize| {
            let asked = asks.borrow()[index].attributes.clone().and_then(|it| it.request).and_then(|it| it.http);
            let asked = asked.expect("a request");
            (asked.body, asked.headers["x-envoy-auth-partial-body"].clone())
        };
        for (index, (body, shown, partial)) in
            [("", "", "false"), ("1234", "1234", "false"), ("123456789", "1234", "true")].into_iter().enumerate()
        {
            let answer = ask(&world, "/echo", "allow", body).await;
            assert_eq!((answer.status, &answer.body[..]), (200, body.as_bytes()));
            assert_eq!(body_of(index), (shown.to_owned(), partial.to_owned()));
        }
        world.configure(&manifests("envoyExtAuthzGrpc", &fields(false)));
        while ask(&world, "/echo", "allow", "123456789").await.status != 413 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        let before = (asks.borrow().len(), backend.seen.borrow().len());
        assert_eq!(ask(&world, "/echo", "allow", "123456789").await.status, 413);
        assert_eq!((asks.borrow().len(), backend.seen.borrow().len()), before);
        assert_eq!(&ask(&world, "/echo", "allow", "1234").await.body[..], b"1234");
    });
}

/// An authorizer that is asked by HTTP: heads as they came.
async fn by_http() -> Rc<RefCell<Vec<http::request::Parts>>> {
    let listener = TcpListener::bind((OUTSIDE, 9191)).await.expect("listen");
    let seen: Rc<RefCell<Vec<http::request::Parts>>> = Rc::default();
    let told = seen.clone();
    spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let told = told.clone();
            spawn_local(async move {
                let service = service_fn(move |request: Request<Incoming>| {
                    let (parts, _) = request.into_parts();
                    let what = parts.headers.get("x-do").cloned().unwrap_or(HeaderValue::from_static("deny"));
                    told.borrow_mut().push(parts);
                    async move {
                        let response = Response::builder().header("x-user", "alice").header("x-checked", "yes");
                        let (status, body) = match what.as_bytes() {
                            b"allow" => (200, ""),
                            b"fail" => (500, "out of order"),
                            _ => (401, "who?"),
                        };
                        let response = response.header("x-internal", "1").status(status);
                        Ok::<_, Infallible>(response.body(Full::<Bytes>::from(body)).expect("valid"))
                    }
                });
                let builder = hyper::server::conn::http1::Builder::new();
                let _ = builder.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    seen
}

#[test]
fn an_authorizer_asked_by_http_gets_the_same_path_and_the_fields_that_were_named() {
    let fields = "        pathPrefix: /check
        includeRequestHeadersInCheck: [x-do]
        includeAdditionalHeadersInCheck: {x-mesh: 'yes'}
        headersToUpstreamOnAllow: [x-user]
        headersToDownstreamOnAllow: [x-checked]
        headersToDownstreamOnDeny: [x-user]";
    run_with(&manifests("envoyExtAuthzHttp", fields), async |world| {
        let (asked, backend) = (by_http().await, serve(OUTSIDE, 8080, false).await);
        let answer = ask(&world, "/echo?a=1", "allow", "hello").await;
        assert_eq!((answer.status, &answer.body[..]), (200, &b"hello"[..]));
        assert_eq!(answer.headers["x-checked"], "yes");
        assert!(!answer.headers.contains_key("x-internal"));
        {
            let asked = &asked.borrow()[0];
            assert_eq!((asked.method.as_str(), asked.uri.to_string()), ("POST", "/check/echo?a=1".to_owned()));
            assert_eq!(
                (&asked.headers["host"], &asked.headers["x-mesh"]),
                (&"outside.shop".parse().unwrap(), &"yes".parse().unwrap())
            );
            assert!(!asked.headers.contains_key("x-secret"), "nobody named it");
            assert_eq!(backend.seen.borrow()[0].headers["x-user"], "alice");
        }
        let answer = ask(&world, "/echo", "deny", "").await;
        assert_eq!((answer.status, &answer.body[..]), (401, &b"who?"[..]));
        assert!(answer.headers.contains_key("x-user") && !answer.headers.contains_key("x-internal"));
        assert_eq!(ask(&world, "/echo", "fail", "").await.status, 403);
        assert_eq!(backend.seen.borrow().len(), 1);
    });
}

/// The gateway, and a policy about its pods that has a provider asked.
fn selecting(provider: &str) -> String {
    let judge = manifests("envoyExtAuthzGrpc", "");
    let judge = judge.replace("provider: {name: judge}", &format!("provider: {{name: {provider}}}"));
    let targets = "targetRefs: [{kind: Service, group: '', name: outside}]";
    let selected = judge.replace(targets, "selector: {matchLabels: {istio: ingressgateway}}");
    format!("{}{selected}", gateway("{name: http, port: 8000, protocol: HTTP}"))
}

#[test]
fn a_policy_that_selects_a_gateways_pods_has_its_requests_asked_about() {
    run_as(GATEWAY, &selecting("judge"), async |world| {
        let (asks, backend) = (by_grpc().await, serve(OUTSIDE, 8080, false).await);
        let ask = async |path: &str, what: &str| {
            get(&format!("http://a.example:8000{path}"), &["--header", &format!("x-do: {what}")]).await.0
        };
        assert_eq!(ask("/closed", "allow").await, "200");
        assert_eq!(ask("/closed", "deny").await, "401");
        assert_eq!(ask("/closed", "ban").await, "403", "what the authorizer adds is judged by the others");
        assert_eq!(asks.borrow().len(), 3);
        assert_eq!(ask("/open", "deny").await, "200", "a rule does not match");
        assert_eq!(asks.borrow().len(), 3);
        let reached = backend.seen.borrow().len();
        assert_eq!(reached, 2);
        // Nobody to ask is no yes.
        world.configure(&selecting("nobody"));
        while ask("/closed", "allow").await != "403" {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        assert_eq!(ask("/open", "allow").await, "200");
    });
}
