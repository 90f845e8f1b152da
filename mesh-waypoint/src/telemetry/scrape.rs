//! Where Prometheus asks.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, task::JoinSet, time::timeout};

use super::Telemetry;

/// Scrapes answered at once.
const MAX_SCRAPES: usize = 16;
/// How long one may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Content type of Prometheus' text format.
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// The listener for scrapes.
pub(crate) struct Scrape(TcpListener);

impl Scrape {
    /// Listens.
    ///
    /// # Errors
    /// The address cannot be had.
    pub(crate) async fn bind(address: SocketAddr) -> io::Result<Self> {
        TcpListener::bind(address).await.map(Self)
    }

    /// Answers for good.
    pub(crate) async fn serve(self, telemetry: Arc<Telemetry>) {
        let mut scrapes = JoinSet::new();
        loop {
            tokio::select! {
                accepted = self.0.accept(), if scrapes.len() < MAX_SCRAPES => match accepted {
                    Ok((stream, _)) => {
                        let telemetry = telemetry.clone();
                        let service = service_fn(move |request| {
                            let answer = answer(&telemetry, &request);
                            async move { Ok::<_, Infallible>(answer) }
                        });
                        let mut server = http1::Builder::new();
                        server.timer(TokioTimer::new()).header_read_timeout(PATIENCE).keep_alive(false);
                        scrapes.spawn_local(timeout(PATIENCE, server.serve_connection(TokioIo::new(stream), service)));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "scrape not accepted");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                },
                Some(_) = scrapes.join_next(), if !scrapes.is_empty() => {}
            }
        }
    }
}

fn answer(telemetry: &Telemetry, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics" | "/stats/prometheus") => {
            *response.body_mut() = Full::new(telemetry.encode().into());
            response.headers_mut().insert(CONTENT_TYPE, TEXT);
        }
        (&Method::GET, _) => *response.status_mut() = StatusCode::NOT_FOUND,
        _ => *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED,
    }
    response
}
