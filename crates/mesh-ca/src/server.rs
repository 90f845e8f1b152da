//! The server: TLS under the CA's own name, and bounds on what strangers can take.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, RwLock};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use mesh_core::lock::UnpoisonedRwLock as _;
use mesh_core::{SpiffeId, TrustDomain};
use mesh_transport::csr::{CertificateRequest, NewKey};
use mesh_transport::tls::provider;
use mesh_transport::{CaError, CertificateSource, LocalAuthority};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::PrivateKeyDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::transport::server::Connected;
use tower_service::Service;

/// Connections at once, those that shake hands included: two a node, and room.
const MAX_CONNECTIONS: usize = 16_384;
/// From accept to the end of the handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Requests of one connection that run at once; signing itself takes a fraction of a millisecond.
const REQUESTS_AT_ONCE: usize = 32;
/// Streams of one connection, the watch of the trust bundle among them.
const MAX_STREAMS: u32 = 128;
/// How long a request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Between pings, and how long one may stay unanswered.
const KEEPALIVE: Duration = Duration::from_secs(20);
/// How long the server's own certificate lives; it is made anew at half of that.
const LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// Pause after accept() failed for lack of memory or descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Why the server cannot start or ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// No certificate for the server itself.
    #[error("no certificate for the CA's own server: {0}")]
    Certificate(#[from] CaError),
    /// TLS cannot be set up with it.
    #[error("the CA's own certificate cannot be used for TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The server ended.
    #[error("the server ended: {0}")]
    Transport(#[from] tonic::transport::Error),
}

/// The server's own certificate, signed by the authority that it serves, and renewed with it.
#[derive(Debug)]
pub struct ServerIdentity {
    authority: Arc<LocalAuthority>,
    name: String,
    current: RwLock<Arc<CertifiedKey>>,
}

impl ServerIdentity {
    /// Makes a certificate for the DNS name `name`.
    ///
    /// # Errors
    /// When it cannot be signed or used.
    pub fn new(authority: Arc<LocalAuthority>, name: &str) -> Result<Arc<Self>, ServeError> {
        let current = RwLock::new(make(&authority, name)?);
        Ok(Arc::new(Self { authority, name: name.to_owned(), current }))
    }

    /// Makes the certificate anew in time, and when another certificate signs. Runs until dropped.
    pub async fn renew(&self) {
        let mut trust = self.authority.trust();
        loop {
            tokio::select! {
                () = tokio::time::sleep(LIFETIME / 2) => {}
                changed = trust.changed() => if changed.is_err() { std::future::pending().await },
            }
            match make(&self.authority, &self.name) {
                Ok(new) => *self.current.write_unpoisoned() = new,
                Err(error) => tracing::error!(%error, "the CA's own certificate was not renewed"),
            }
        }
    }
}

fn make(authority: &LocalAuthority, name: &str) -> Result<Arc<CertifiedKey>, ServeError> {
    // The request's name counts for nothing: the authority writes the DNS name.
    let nobody = SpiffeId::new(&TrustDomain::default(), "mesh-system", "mesh-control").map_err(CaError::from)?;
    let NewKey { key, request } = NewKey::generate(&nobody).map_err(|e| CaError::Sign("make a P-256 key", e))?;
    let request = CertificateRequest::from_pem(&request).map_err(CaError::from)?;
    let signed = authority.current().sign_server(&request, name, LIFETIME, SystemTime::now())?;
    Ok(Arc::new(CertifiedKey::from_der(signed.chain, PrivateKeyDer::Pkcs8(key), &provider())?))
}

impl ResolvesServerCert for ServerIdentity {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.read_unpoisoned().clone())
    }
}

/// Serves the CA's methods, and others that `service` has beside them, until dropped.
///
/// # Errors
/// See [`ServeError`].
pub async fn serve<S>(listener: TcpListener, identity: Arc<ServerIdentity>, service: S) -> Result<(), ServeError>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let mut config = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_cert_resolver(identity.clone());
    config.alpn_protocols = vec![b"h2".to_vec()];
    let (connections, incoming) = mpsc::channel(1);
    let carry = move |stream, peer, place| {
        let connections = connections.clone();
        async move { drop(connections.send(Ok::<_, io::Error>(Connection { stream, peer, _place: place })).await) }
    };
    let server = tonic::transport::Server::builder()
        .concurrency_limit_per_connection(REQUESTS_AT_ONCE)
        .max_concurrent_streams(MAX_STREAMS)
        .timeout(REQUEST_TIMEOUT)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .serve_with_incoming(service, ReceiverStream::new(incoming));
    tokio::select! {
        ended = server => Ok(ended?),
        () = accept(listener, TlsAcceptor::from(Arc::new(config)), MAX_CONNECTIONS, carry) => Ok(()),
        () = identity.renew() => Ok(()),
    }
}

/// A place among the connections that there may be at once; free again when it is dropped.
pub type ConnectionPlace = OwnedSemaphorePermit;

/// Accepts connections, `most` of them at once, and has each carried once TLS has begun. Runs until dropped.
pub async fn accept<F: Future<Output = ()> + Send + 'static>(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    most: usize,
    carry: impl Fn(TlsStream<TcpStream>, SocketAddr, ConnectionPlace) -> F + Clone + Send + Sync + 'static,
) {
    let places = Arc::new(Semaphore::new(most));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (acceptor, carry) = (acceptor.clone(), carry.clone());
        tokio::spawn(async move {
            match timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => carry(stream, peer, place).await,
                // Kubelet's probe connects and says nothing.
                Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    tracing::debug!(%peer, %error, "handshake broken off");
                }
                Ok(Err(error)) => tracing::info!(%peer, %error, "handshake failed"),
                Err(_) => tracing::info!(%peer, "no handshake within its time"),
            }
        });
    }
}

/// An accepted connection, which keeps its place until it ends.
struct Connection {
    stream: TlsStream<TcpStream>,
    peer: SocketAddr,
    _place: OwnedSemaphorePermit,
}

impl Connected for Connection {
    type ConnectInfo = SocketAddr;

    fn connect_info(&self) -> SocketAddr {
        self.peer
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
