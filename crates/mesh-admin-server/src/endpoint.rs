//! Small HTTP endpoints for machines that watch a program: metrics, readiness. Everybody may ask, and nobody keeps others from it.

use std::{collections::VecDeque, convert::Infallible, fmt, io, net::SocketAddr, time::Duration};

use http::{HeaderValue, Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::Full;
use hyper::{
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, task::AbortHandle};

/// Clients served at once, each endpoint. One more takes the place of the oldest: a kubelet that waited behind idle
/// connections would take the program for dead.
const MAX_CLIENTS: usize = 32;
/// Pause after accept() failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long a request's head may take.
const HEAD: Duration = Duration::from_secs(30);
/// Content type of Prometheus' text format.
const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What is served, and by which flag of every program its address is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoint {
    what: &'static str,
    flag: &'static str,
}

/// Where Prometheus asks.
pub const METRICS: Endpoint = Endpoint { what: "metrics", flag: "--metrics-addr" };
/// Where kubelet does.
pub const READINESS: Endpoint = Endpoint { what: "readiness", flag: "--readiness-addr" };

/// An endpoint could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot serve {what} on {address}: {source}; pass another address with {flag}")]
pub struct EndpointError {
    what: &'static str,
    flag: &'static str,
    address: SocketAddr,
    source: io::Error,
}

impl Endpoint {
    /// Listens there, or takes a listener that is open there already.
    ///
    /// # Errors
    /// The address is taken, or none of this machine.
    pub async fn open(
        self,
        address: SocketAddr,
        opened: Option<std::net::TcpListener>,
    ) -> Result<TcpListener, EndpointError> {
        let opened = match opened {
            Some(listener) => TcpListener::from_std(listener),
            None => TcpListener::bind(address).await,
        };
        let Self { what, flag } = self;
        opened.map_err(|source| EndpointError { what, flag, address, source })
    }
}

/// Serves metrics until dropped: `encode` gives them in Prometheus' text format.
pub async fn serve_metrics<E: fmt::Display>(
    listener: TcpListener,
    encode: impl Fn() -> Result<String, E> + Clone + Send + 'static,
) {
    let handler = move |path: &str| match path {
        "/metrics" | "/stats/prometheus" => match encode() {
            Ok(text) => EndpointAnswer::metrics(text),
            Err(error) => EndpointAnswer::text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        },
        _ => EndpointAnswer::text(StatusCode::NOT_FOUND, "try /metrics\n"),
    };
    serve_endpoint(listener, handler).await;
}

/// Serves readiness until dropped: `unready` says why the program is not ready, where it is not.
pub async fn serve_readiness(
    listener: TcpListener,
    unready: impl Fn() -> Option<&'static str> + Clone + Send + 'static,
) {
    let handler = move |path: &str| match path {
        "/healthz/ready" => match unready() {
            None => EndpointAnswer::text(StatusCode::OK, "ready\n"),
            Some(why) => EndpointAnswer::text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")),
        },
        "/healthz/live" => EndpointAnswer::text(StatusCode::OK, "live\n"),
        _ => EndpointAnswer::text(StatusCode::NOT_FOUND, "try /healthz/ready\n"),
    };
    serve_endpoint(listener, handler).await;
}

/// What a client is answered.
pub struct EndpointAnswer(Response<Full<Bytes>>);

impl EndpointAnswer {
    /// A text with that status.
    #[must_use]
    pub fn new(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        let mut response = Response::new(Full::new(body.into()));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        Self(response)
    }

    /// Plain text with that status.
    #[must_use]
    pub fn text(status: StatusCode, body: impl Into<Bytes>) -> Self {
        Self::new(status, "text/plain", body)
    }

    /// Metrics in Prometheus' text format.
    #[must_use]
    pub fn metrics(text: impl Into<Bytes>) -> Self {
        Self::new(StatusCode::OK, PROMETHEUS_TEXT, text)
    }
}

/// Serves until dropped: `handler` answers a GET by its path.
pub async fn serve_endpoint(listener: TcpListener, handler: impl Fn(&str) -> EndpointAnswer + Clone + Send + 'static) {
    let mut clients = Clients::default();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors or memory: not at once again.
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let handler = handler.clone();
        clients.add(|| {
            tokio::spawn(async move {
                let service = service_fn(move |request: Request<Incoming>| {
                    let answer = if request.method() == Method::GET {
                        handler(request.uri().path())
                    } else {
                        EndpointAnswer::text(StatusCode::METHOD_NOT_ALLOWED, "GET only\n")
                    };
                    async move { Ok::<_, Infallible>(answer.0) }
                });
                let mut server = http1::Builder::new();
                server.timer(TokioTimer::new()).header_read_timeout(HEAD);
                // A client that breaks off is no news.
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            })
            .abort_handle()
        });
    }
}

/// Those that are served, the oldest first; they end with this.
#[derive(Default)]
struct Clients(VecDeque<AbortHandle>);

impl Clients {
    fn add(&mut self, spawn: impl FnOnce() -> AbortHandle) {
        self.0.retain(|client| !client.is_finished());
        if self.0.len() >= MAX_CLIENTS
            && let Some(oldest) = self.0.pop_front()
        {
            oldest.abort();
        }
        self.0.push_back(spawn());
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.0.iter().for_each(AbortHandle::abort);
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn clients_that_say_nothing_keep_nobody_from_an_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let handler = |path: &str| match path {
            "/known" => EndpointAnswer::metrics("told\n"),
            _ => EndpointAnswer::text(StatusCode::NOT_FOUND, "try /known\n"),
        };
        let serving = tokio::spawn(serve_endpoint(listener, handler));
        let mut idle = Vec::new();
        for _ in 0..4 * MAX_CLIENTS {
            idle.push(TcpStream::connect(address).await.expect("connected"));
        }
        for (request, status, body) in [
            ("GET /known", "200 OK", "told\n"),
            ("GET /other", "404 Not Found", "try /known\n"),
            ("POST /known", "405 Method Not Allowed", "GET only\n"),
        ] {
            let mut stream = TcpStream::connect(address).await.expect("connected");
            let request = format!("{request} HTTP/1.1\r\nhost: it\r\nconnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.expect("asked");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.expect("an answer");
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")) && answer.ends_with(body), "{answer}");
        }
        // The oldest made room, and were told so.
        assert_eq!(idle[0].read(&mut [0]).await.expect("the end"), 0);
        serving.abort();
    }
}
