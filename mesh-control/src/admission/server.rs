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
use mesh_ca::{ConnectionPlace, ServerIdentity};
use mesh_transport::tls::provider;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::review;

/// Where reviews are asked for.
const PATH: &str = "/validate";
/// The longest question. The API server itself takes objects of 3 MiB, and sends the old one as well.
const MAX_BODY: usize = 8 << 20;
/// Connections at once; the API server keeps a few.
const MAX_CONNECTIONS: usize = 64;
/// How long the body of a question may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a connection may be without a question, or over the head of one.
const IDLE: Duration = Duration::from_secs(60);

/// TLS under the server's own name.
pub(super) fn acceptor(identity: Arc<ServerIdentity>) -> Result<TlsAcceptor, rustls::Error> {
    let config = rustls::ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let mut config = config.with_no_client_auth().with_cert_resolver(identity);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Answers until dropped.
pub(super) async fn serve(listener: TcpListener, acceptor: TlsAcceptor) {
    let carry = |stream, _peer, place| async move {
        connection(stream).await;
        drop::<ConnectionPlace>(place);
    };
    mesh_ca::accept(listener, acceptor, MAX_CONNECTIONS, carry).await;
}

async fn connection(stream: TlsStream<TcpStream>) {
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
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
