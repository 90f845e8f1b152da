//! Calls to the shop's HTTP/1.1 services.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::connections::{Connection, Connections};
use crate::failure::{Failure, chain};
use crate::peers::Address;
use crate::tracing_headers::TracingHeaders;

/// Bound on name resolution and connecting together.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Bound on a call that needs no further call, retry included.
pub(crate) const LEAF_TIMEOUT: Duration = Duration::from_secs(4);
/// Bound on a call to a service that makes two calls itself: longer than both, so that the real culprit is named.
pub(crate) const BRANCH_TIMEOUT: Duration = Duration::from_secs(10);
/// Bound on a whole checkout, for its client.
pub(crate) const CHECKOUT_TIMEOUT: Duration = Duration::from_secs(30);
/// Bound on a reply's body, bytes.
const MOST_BODY: usize = 1 << 20;

/// Why an exchange with an upstream failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpstreamError {
    #[error("connecting to {address} failed: {source}")]
    Connect { address: Address, source: std::io::Error },
    #[error("connecting to {address} took more than {} s", CONNECT_TIMEOUT.as_secs())]
    ConnectTimeout { address: Address },
    #[error("no answer from {address} within {} s", limit.as_secs())]
    Timeout { address: Address, limit: Duration },
    #[error("the connection to {address} broke: {}", chain(source))]
    Broken { address: Address, source: hyper::Error },
    #[error("the request could not be written: {0}")]
    Request(#[from] http::Error),
    #[error("the answer of {address} could not be read: {reason}")]
    Answer { address: Address, reason: String },
}

/// Resolves the name anew and connects to its first address that answers.
pub(crate) async fn connect(address: &Address) -> Result<TcpStream, UpstreamError> {
    let connecting = TcpStream::connect((address.host.as_str(), address.port));
    let stream = match timeout(CONNECT_TIMEOUT, connecting).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(source)) => {
            let address = address.clone();
            return Err(UpstreamError::Connect { address, source });
        }
        Err(_) => {
            let address = address.clone();
            return Err(UpstreamError::ConnectTimeout { address });
        }
    };
    stream.set_nodelay(true).ok();
    Ok(stream)
}

/// What to ask of an upstream.
pub(crate) struct Call<'a> {
    pub(crate) method: Method,
    pub(crate) target: &'a str,
    pub(crate) headers: &'a TracingHeaders,
    pub(crate) body: Bytes,
}

impl<'a> Call<'a> {
    pub(crate) fn get(target: &'a str, headers: &'a TracingHeaders) -> Self {
        Self { method: Method::GET, target, headers, body: Bytes::new() }
    }

    pub(crate) fn post(
        target: &'a str,
        headers: &'a TracingHeaders,
        body: &impl Serialize,
    ) -> serde_json::Result<Self> {
        Ok(Self { method: Method::POST, target, headers, body: serde_json::to_vec(body)?.into() })
    }
}

type Http1 = SendRequest<Full<Bytes>>;

/// One HTTP/1.1 service that this program calls.
pub(crate) struct Upstream {
    caller: &'static str,
    service: &'static str,
    address: Address,
    limit: Duration,
    connections: Connections<Http1>,
}

impl Upstream {
    pub(crate) fn new(
        caller: &'static str,
        service: &'static str,
        address: Address,
        limit: Duration,
        max_age: Duration,
    ) -> Self {
        Self { caller, service, address, limit, connections: Connections::new(max_age) }
    }

    /// Makes a call whose answer is JSON with a 2xx status.
    pub(crate) async fn json(&self, call: &Call<'_>) -> Result<Value, Failure> {
        let (status, body) = self.exchange(call).await.map_err(|error| self.failure(error.to_string()))?;
        if status.is_success() {
            return serde_json::from_slice(&body)
                .map_err(|error| self.failure(format!("its answer is not JSON: {error}")));
        }
        if status == StatusCode::BAD_GATEWAY
            && let Ok(failure) = serde_json::from_slice::<Failure>(&body)
        {
            return Err(failure);
        }
        let said: String = String::from_utf8_lossy(&body).trim().chars().take(200).collect();
        Err(self.failure(format!("{} answered {status}: {said}", self.address)))
    }

    /// Makes a call, whatever its answer; a kept connection that proves dead is replaced once.
    ///
    /// A POST may so be sent twice. The shop's are idempotent: an order is known by its id.
    pub(crate) async fn exchange(&self, call: &Call<'_>) -> Result<(StatusCode, Bytes), UpstreamError> {
        timeout(self.limit, async {
            if let Some(kept) = self.connections.take()
                && let Ok(answer) = self.exchange_over(kept, call).await
            {
                return Ok(answer);
            }
            let opened = Instant::now();
            let inner = self.open().await?;
            self.exchange_over(Connection { opened, inner }, call).await
        })
        .await
        .unwrap_or_else(|_| Err(UpstreamError::Timeout { address: self.address.clone(), limit: self.limit }))
    }

    pub(crate) fn failure(&self, reason: String) -> Failure {
        Failure { failed: self.service.to_owned(), reason, reported_by: self.caller.to_owned() }
    }

    fn broken(&self, source: hyper::Error) -> UpstreamError {
        UpstreamError::Broken { address: self.address.clone(), source }
    }

    async fn open(&self) -> Result<Http1, UpstreamError> {
        let stream = TokioIo::new(connect(&self.address).await?);
        let (sender, connection) = handshake(stream).await.map_err(|e| self.broken(e))?;
        // Its errors reach the request that it carries.
        tokio::spawn(connection);
        Ok(sender)
    }

    async fn exchange_over(
        &self,
        mut connection: Connection<Http1>,
        call: &Call<'_>,
    ) -> Result<(StatusCode, Bytes), UpstreamError> {
        let sender = &mut connection.inner;
        sender.ready().await.map_err(|e| self.broken(e))?;
        let answer = sender.send_request(self.request(call)?).await.map_err(|e| self.broken(e))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MOST_BODY).collect().await;
        let body =
            body.map_err(|error| UpstreamError::Answer { address: self.address.clone(), reason: error.to_string() })?;
        self.connections.keep(connection);
        Ok((status, body.to_bytes()))
    }

    fn request(&self, call: &Call<'_>) -> Result<Request<Full<Bytes>>, http::Error> {
        let mut request = Request::builder()
            .method(call.method.clone())
            .uri(call.target)
            .header(header::HOST, self.address.to_string())
            .header(header::USER_AGENT, concat!("mesh-shop/", env!("CARGO_PKG_VERSION")));
        if !call.body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let mut request = request.body(Full::new(call.body.clone()))?;
        call.headers.copy_to(request.headers_mut());
        Ok(request)
    }
}
