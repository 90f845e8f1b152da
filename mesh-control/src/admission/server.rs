//! HTTPS for the API server.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use mesh_ca::ServerIdentity;
use mesh_transport::tls::provider;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::review;

/// Where reviews are asked for.
const PATH: &str = "/validate";
/// The longest question. The API server itself takes objects of 3 MiB, and sends the old one as well.
const MAX_BODY: usize = 8 << 20;
/// Connections at once; the API server keeps a few.
const MAX_CONNECTIONS: usize = 64;
/// From accept to the end of the handshake, and for the head of a request.
const PATIENCE: Duration = Duration::from_secs(5);
/// Pause after accept() failed for lack of memory or descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// TLS under the server's own name.
pub(super) fn acceptor(identity: Arc<ServerIdentity>) -> Result<TlsAcceptor, rustls::Error> {
    let config = rustls::ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let mut config = config.with_no_client_auth().with_cert_resolver(identity);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Answers until dropped.
pub(super) async fn serve(listener: TcpListener, acceptor: TlsAcceptor) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            connection(stream, acceptor).await;
            drop(place);
        });
    }
}

async fn connection(stream: TcpStream, acceptor: TlsAcceptor) {
    let stream = match timeout(PATIENCE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::info!(%error, "webhook: handshake failed"),
        Err(_) => return tracing::info!("webhook: no handshake within its time"),
    };
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE * 12)
        .serve_connection(TokioIo::new(stream), service_fn(async |request| Ok::<_, Infallible>(answer(request).await)));
    if let Err(error) = served.await {
        tracing::debug!(%error, "webhook: connection ended");
    }
}

async fn answer(request: Request<Incoming>) -> Response<Full<Bytes>> {
    let status = |status| {
        let mut response = Response::new(Full::default());
        *response.status_mut() = status;
        response
    };
    if request.uri().path() != PATH || request.method() != Method::POST {
        return status(StatusCode::NOT_FOUND);
    }
    let Ok(Ok(question)) = timeout(PATIENCE, Limited::new(request.into_body(), MAX_BODY).collect()).await else {
        return status(StatusCode::BAD_REQUEST);
    };
    let Some(answer) = review::answer(&question.to_bytes()) else { return status(StatusCode::BAD_REQUEST) };
    let mut response = Response::new(Full::from(answer));
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}
