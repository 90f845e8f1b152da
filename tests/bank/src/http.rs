//! JSON over HTTP/1.1, a connection for each request: so a change of policy concerns the very next call.

use std::convert::Infallible;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::handshake;
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// Bound on a call that may need further calls.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);
/// Bound on a body, bytes.
const MOST_BODY: usize = 64 << 10;
/// Pause after a failed accept, which mostly means that descriptors ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Why a call brought no answer. Its text names the address.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No connection, or it broke before the answer: who refuses a caller resets its connection.
    #[error("{address} cannot be used: {reason}")]
    Broken {
        /// Who was called.
        address: String,
        /// What happened.
        reason: String,
    },
    /// An answer other than 2xx.
    #[error("{address} answered {status}: {body}")]
    Refused {
        /// Who was called.
        address: String,
        /// The status.
        status: StatusCode,
        /// What it said.
        body: Value,
    },
}

/// A request that is refused, and why.
pub(crate) type Refusal = (StatusCode, String);

/// What a service does with a request: its path, its body and the answer's.
pub(crate) trait Desk: Send + Sync + 'static {
    /// Answers a POST to a path that is not `/healthz`.
    fn answer(&self, path: &str, body: Value) -> impl Future<Output = Result<Value, Refusal>> + Send;
}

/// A text of a request's body.
pub(crate) fn text<'a>(body: &'a Value, field: &str) -> Result<&'a str, Refusal> {
    body[field].as_str().ok_or_else(|| (StatusCode::BAD_REQUEST, format!("{field} is missing or is no text")))
}

/// An amount of a request's body, in cents.
pub(crate) fn cents(body: &Value) -> Result<u64, Refusal> {
    let cents = body["cents"].as_u64().filter(|cents| *cents > 0);
    cents.ok_or_else(|| (StatusCode::BAD_REQUEST, "cents is missing or is no whole number above 0".to_owned()))
}

/// The refusal of a path that is not served.
pub(crate) fn no_such_path(path: &str) -> Refusal {
    (StatusCode::NOT_FOUND, format!("{path} does not exist"))
}

/// Serves for ever. `GET /healthz` names the service.
pub(crate) async fn serve(listener: TcpListener, service: &'static str, desk: impl Desk) {
    let desk = std::sync::Arc::new(desk);
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let desk = desk.clone();
        let respond = service_fn(move |request| {
            let desk = desk.clone();
            async move { Ok::<_, Infallible>(respond(service, &*desk, request).await) }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .serve_connection(TokioIo::new(stream), respond);
        // A broken connection concerns its client alone.
        tokio::spawn(connection);
    }
}

async fn respond(service: &'static str, desk: &impl Desk, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let path = head.uri.path();
    let answered = match (&head.method, path) {
        (_, "/healthz") => Ok(json!({ "service": service })),
        (&Method::POST, path) => match read(body).await {
            Ok(body) => desk.answer(path, body).await,
            Err(reason) => Err((StatusCode::BAD_REQUEST, reason)),
        },
        _ => Err(no_such_path(path)),
    };
    let (status, body) = match answered {
        Ok(body) => (StatusCode::OK, body),
        Err((status, error)) => (status, json!({ "service": service, "error": error })),
    };
    let mut response = Response::new(Full::new(format!("{body}\n").into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

async fn read(body: Incoming) -> Result<Value, String> {
    let body = Limited::new(body, MOST_BODY).collect().await.map_err(|error| error.to_string())?.to_bytes();
    serde_json::from_slice(&body).map_err(|error| format!("the body is no JSON: {error}"))
}

/// GETs a path of `address`, a host and port.
///
/// # Errors
/// No answer, or one that is no success.
pub async fn get(address: &str, path: &str) -> Result<Value, CallError> {
    call(address, Method::GET, path, Bytes::new()).await
}

/// POSTs JSON to a path of `address`, a host and port.
///
/// # Errors
/// No answer, or one that is no success.
pub async fn post(address: &str, path: &str, body: &Value) -> Result<Value, CallError> {
    call(address, Method::POST, path, body.to_string().into()).await
}

async fn call(address: &str, method: Method, path: &str, body: Bytes) -> Result<Value, CallError> {
    let broken = |reason: String| CallError::Broken { address: address.to_owned(), reason };
    let exchanged = timeout(CALL_TIMEOUT, exchange(address, method, path, body)).await;
    let late = || broken(format!("no answer within {} s", CALL_TIMEOUT.as_secs()));
    let (status, body) = exchanged.map_err(|_| late())?.map_err(broken)?;
    if status.is_success() { Ok(body) } else { Err(CallError::Refused { address: address.to_owned(), status, body }) }
}

async fn exchange(address: &str, method: Method, path: &str, body: Bytes) -> Result<(StatusCode, Value), String> {
    let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|error| chain(&error))?;
    // Its errors reach the request that it carries.
    tokio::spawn(connection);
    let request = Request::builder().method(method).uri(path).header(HOST, address).body(Full::new(body));
    let request = request.map_err(|error| error.to_string())?;
    let response = sender.send_request(request).await.map_err(|error| chain(&error))?;
    let status = response.status();
    Ok((status, read(response.into_body()).await?))
}

/// An error with its causes: hyper's own text names none.
fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {}", chain(cause)),
        None => error.to_string(),
    }
}
