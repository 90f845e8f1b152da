//! The page's server: files of the page for anybody, everything else by token, nothing but GET.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use form_urlencoded::parse;
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use mesh_admin::RequestQuestion;
use serde::Serialize;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};

use super::nodes::Nodes;
use crate::route::tell::for_people;

/// Connections of browsers at once; each viewer holds one open.
const MAX_CLIENTS: usize = 256;
/// How long a request's head may take.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// How often a stream says that it is alive, so that a browser that is gone is noticed.
const ALIVE: Duration = Duration::from_secs(15);
/// Pause after accept() failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Scripts and styles of the page's own files alone, and nothing from or to elsewhere.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The page: path, type, content.
const FILES: [(&str, &str, &str); 11] = [
    ("/", "text/html; charset=utf-8", include_str!("page/index.html")),
    ("/page.css", "text/css; charset=utf-8", include_str!("page/page.css")),
    ("/app.js", "text/javascript; charset=utf-8", include_str!("page/app.js")),
    ("/stream.js", "text/javascript; charset=utf-8", include_str!("page/stream.js")),
    ("/graph.js", "text/javascript; charset=utf-8", include_str!("page/graph.js")),
    ("/layout.js", "text/javascript; charset=utf-8", include_str!("page/layout.js")),
    ("/services.js", "text/javascript; charset=utf-8", include_str!("page/services.js")),
    ("/element.js", "text/javascript; charset=utf-8", include_str!("page/element.js")),
    ("/links.js", "text/javascript; charset=utf-8", include_str!("page/links.js")),
    ("/nodes.js", "text/javascript; charset=utf-8", include_str!("page/nodes.js")),
    ("/details.js", "text/javascript; charset=utf-8", include_str!("page/details.js")),
];

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// Who is let in.
pub(super) struct Door {
    /// What a request for anything but the page's files has to show.
    pub(super) token: String,
    /// Names by which the page may be asked for, besides those of loopback.
    pub(super) hosts: Vec<String>,
}

/// Serves until dropped.
pub(super) async fn serve(listener: TcpListener, nodes: Arc<Nodes>, door: Arc<Door>) {
    let places = Arc::new(Semaphore::new(MAX_CLIENTS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let (nodes, door) = (nodes.clone(), door.clone());
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let (nodes, door) = (nodes.clone(), door.clone());
                async move { Ok::<_, Infallible>(answer(&request, nodes, &door).await) }
            });
            let mut server = http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME);
            // A browser that goes away is no news.
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
            drop(place);
        });
    }
}

async fn answer(request: &Request<Incoming>, nodes: Arc<Nodes>, door: &Door) -> Answer {
    if !is_asked_by_name(request.headers(), &door.hosts) {
        // A name of somebody else's that was made to mean this address (DNS rebinding).
        return refuse(StatusCode::FORBIDDEN, "the page is at 127.0.0.1, [::1], localhost and what --host says alone");
    }
    if request.method() != Method::GET {
        return refuse(StatusCode::METHOD_NOT_ALLOWED, "GET only: the page reads");
    }
    let path = request.uri().path();
    if let Some((_, kind, text)) = FILES.iter().find(|(name, ..)| *name == path) {
        return whole(StatusCode::OK, kind, Bytes::from_static(text.as_bytes()));
    }
    if !is_allowed(request.headers(), &door.token) {
        let mut refusal = refuse(
            StatusCode::UNAUTHORIZED,
            "the token is missing or wrong: open the whole address that mesh-ctl printed",
        );
        refusal.headers_mut().insert(http::header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        return refusal;
    }
    let query: Vec<(String, String)> =
        parse(request.uri().query().unwrap_or_default().as_bytes()).into_owned().collect();
    let value = |name: &str| query.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value);
    match path {
        "/api/stream" => stream(&nodes),
        "/api/edge" => json_of(&nodes.flows_of(value("from"), value("to")).await),
        "/api/request" => {
            let question = RequestQuestion {
                source: Some(value("src")).filter(|source| !source.is_empty()).map(str::to_owned),
                gateway: Some(value("gateway")).filter(|gateway| !gateway.is_empty()).map(str::to_owned),
                method: value("method").to_owned(),
                url: value("url").to_owned(),
                ..RequestQuestion::default()
            };
            match nodes.why_request(&question).await {
                Ok(why) => json_of(&json!({"served": why.served, "text": for_people(&why)})),
                Err(error) => refuse(StatusCode::BAD_GATEWAY, &error),
            }
        }
        "/api/why" => match nodes.why(value("src"), value("dst")).await {
            Ok(why) => json_of(&why),
            Err(error) => refuse(StatusCode::BAD_GATEWAY, &error),
        },
        _ => refuse(StatusCode::NOT_FOUND, "nothing is here"),
    }
}

/// Whether the browser was led here by one of loopback's names, or of those that are the page's own.
fn is_asked_by_name(headers: &HeaderMap, hosts: &[String]) -> bool {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = host.rsplit_once(':').filter(|(_, port)| !port.contains(']')).map_or(host, |(name, _)| name);
    ["127.0.0.1", "[::1]", "localhost"].contains(&name) || hosts.iter().any(|own| own.eq_ignore_ascii_case(name))
}

/// Compares all of it, whatever differs first.
fn is_allowed(headers: &HeaderMap, token: &str) -> bool {
    let given = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let given = given.unwrap_or_default().as_bytes();
    let differing = given.iter().zip(token.as_bytes()).fold(0, |differing, (one, other)| differing | (one ^ other));
    given.len() == token.len() && differing == 0
}

/// Server-sent events (HTML, section 9.2): `graph`, `services` and `mesh`, each when it has changed.
fn stream(nodes: &Nodes) -> Answer {
    let (mut graphs, mut services, mut meshes) = (nodes.graphs(), nodes.services(), nodes.meshes());
    graphs.mark_changed();
    services.mark_changed();
    meshes.mark_changed();
    let (events, body) = mpsc::channel(1);
    tokio::spawn(async move {
        loop {
            let event = tokio::select! {
                Ok(()) = graphs.changed() => event("graph", &graphs.borrow_and_update()),
                Ok(()) = services.changed() => event("services", &services.borrow_and_update()),
                Ok(()) = meshes.changed() => event("mesh", &meshes.borrow_and_update()),
                () = tokio::time::sleep(ALIVE) => Bytes::from_static(b":\n\n"),
                () = events.closed() => return,
            };
            // A slow viewer holds up nobody: what it has not read is replaced by the newest.
            if events.send(event).await.is_err() {
                return;
            }
        }
    });
    let events = ReceiverStream::new(body).map(|event| Ok(Frame::data(event)));
    let mut answer = Response::new(StreamBody::new(events).boxed_unsync());
    secure(answer.headers_mut(), "text/event-stream");
    answer
}

fn event(name: &str, data: &str) -> Bytes {
    let data = if data.is_empty() { "null" } else { data };
    Bytes::from(format!("event: {name}\ndata: {data}\n\n"))
}

fn json_of<T: Serialize>(value: &T) -> Answer {
    match serde_json::to_vec(value) {
        Ok(text) => whole(StatusCode::OK, "application/json", text.into()),
        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

fn refuse(status: StatusCode, error: &str) -> Answer {
    whole(status, "application/json", json!({"error": error}).to_string().into())
}

fn whole(status: StatusCode, kind: &'static str, content: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(content).boxed_unsync());
    *answer.status_mut() = status;
    secure(answer.headers_mut(), kind);
    answer
}

fn secure(headers: &mut HeaderMap, kind: &'static str) {
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    headers.insert("referrer-policy", HeaderValue::from_static("no-referrer"));
}
