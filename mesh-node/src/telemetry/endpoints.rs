//! The HTTP endpoints for people and machines that watch the daemon: metrics and readiness.

use std::{
    collections::VecDeque,
    convert::Infallible,
    io,
    net::SocketAddr,
    os::fd::{AsFd as _, OwnedFd},
    sync::Arc,
    time::Duration,
};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::CONTENT_TYPE,
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, sync::watch, task::AbortHandle};

use super::Metrics;

/// Clients served at once, each endpoint. One more takes the place of the oldest: a kubelet that waited behind idle
/// connections would take the daemon for dead.
const MAX_CLIENTS: usize = 32;
/// Pause after accept() failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Content type of Prometheus' text format.
const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// An endpoint could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot serve {what} on {address}: {source}; pass another address with {flag}")]
pub struct EndpointsError {
    what: &'static str,
    flag: &'static str,
    address: SocketAddr,
    source: io::Error,
}

/// The opened endpoints.
pub struct Endpoints {
    metrics: TcpListener,
    readiness: TcpListener,
}

impl Endpoints {
    /// Opens both listeners in the node's own namespace, or takes them from those that an earlier daemon `lent`.
    ///
    /// # Errors
    /// An address is taken or not the node's.
    pub async fn open(
        metrics: SocketAddr,
        readiness: SocketAddr,
        mut lent: Vec<std::net::TcpListener>,
    ) -> Result<Self, EndpointsError> {
        Ok(Self {
            metrics: open("metrics", "--metrics-addr", metrics, &mut lent).await?,
            readiness: open("readiness", "--readiness-addr", readiness, &mut lent).await?,
        })
    }

    /// Duplicates of both, for a successor.
    ///
    /// # Errors
    /// There are no descriptors left.
    pub fn duplicates(&self) -> io::Result<[OwnedFd; 2]> {
        Ok([self.metrics.as_fd().try_clone_to_owned()?, self.readiness.as_fd().try_clone_to_owned()?])
    }

    /// Serves until dropped.
    pub async fn serve(self, metrics: Arc<Metrics>, ready: watch::Receiver<bool>) {
        let on_metrics = move |request: &Request<Incoming>| match request.uri().path() {
            "/metrics" | "/stats/prometheus" => match metrics.encode() {
                Ok(text) => answer(StatusCode::OK, PROMETHEUS_TEXT, text),
                Err(error) => answer(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", format!("{error}\n")),
            },
            _ => not_found("try /metrics\n"),
        };
        let on_readiness = move |request: &Request<Incoming>| match request.uri().path() {
            "/healthz/ready" if *ready.borrow() => answer(StatusCode::OK, "text/plain", "ready\n".into()),
            "/healthz/ready" => answer(
                StatusCode::SERVICE_UNAVAILABLE,
                "text/plain",
                "not ready: pods have not been compared with the configuration yet\n".into(),
            ),
            "/healthz/live" => answer(StatusCode::OK, "text/plain", "live\n".into()),
            _ => not_found("try /healthz/ready\n"),
        };
        tokio::join!(accept(self.metrics, on_metrics), accept(self.readiness, on_readiness));
    }
}

async fn open(
    what: &'static str,
    flag: &'static str,
    address: SocketAddr,
    lent: &mut Vec<std::net::TcpListener>,
) -> Result<TcpListener, EndpointsError> {
    let found = lent.iter().position(|listener| listener.local_addr().is_ok_and(|known| known == address));
    let opened = match found.map(|place| lent.swap_remove(place)) {
        Some(listener) => TcpListener::from_std(listener),
        None => TcpListener::bind(address).await,
    };
    opened.map_err(|source| EndpointsError { what, flag, address, source })
}

type Answer = Response<Full<Bytes>>;

async fn accept(listener: TcpListener, handler: impl Fn(&Request<Incoming>) -> Answer + Clone + Send + 'static) {
    let mut clients: VecDeque<AbortHandle> = VecDeque::with_capacity(MAX_CLIENTS);
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors or memory: not at once again.
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        clients.retain(|client| !client.is_finished());
        if clients.len() >= MAX_CLIENTS
            && let Some(oldest) = clients.pop_front()
        {
            oldest.abort();
        }
        let handler = handler.clone();
        let client = tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let answer = if request.method() == Method::GET {
                    handler(&request)
                } else {
                    answer(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "GET only\n".into())
                };
                async move { Ok::<_, Infallible>(answer) }
            });
            // A client that breaks off is no news. The timer bounds how long headers may take (30 s).
            let _ =
                http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service).await;
        });
        clients.push_back(client.abort_handle());
    }
}

fn answer(status: StatusCode, content_type: &'static str, body: String) -> Answer {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(content_type));
    response
}

fn not_found(hint: &str) -> Answer {
    answer(StatusCode::NOT_FOUND, "text/plain", hint.to_owned())
}
