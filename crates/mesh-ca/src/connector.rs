//! The way to the CA: TCP, and TLS to a server that has the CA's name from a root that we trust.

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use mesh_transport::TrustFeed;
use mesh_transport::tls::provider;
use rustls::{CertificateError, ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tower_service::Service;

use crate::wire;

/// From the first SYN to the end of the handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// The CA's certificate is not valid by this machine's clock. It may be the CA's clock that is wrong.
#[derive(Debug, thiserror::Error)]
#[error("its certificate is not valid by this node's clock, which is at least {behind} s behind (ahead, if negative)")]
pub(crate) struct ClockOff {
    /// By how many seconds at least.
    pub(crate) behind: i64,
}

impl ClockOff {
    /// The error, or this in its place where it is about time.
    fn or(error: io::Error) -> io::Error {
        let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
        let (earlier, later, sign) = match cause {
            Some(rustls::Error::InvalidCertificate(CertificateError::NotValidYetContext { time, not_before })) => {
                (time, not_before, 1)
            }
            Some(rustls::Error::InvalidCertificate(CertificateError::ExpiredContext { time, not_after })) => {
                (not_after, time, -1)
            }
            _ => return error,
        };
        let seconds = i64::try_from(later.as_secs().saturating_sub(earlier.as_secs())).unwrap_or(i64::MAX);
        io::Error::other(Self { behind: sign * seconds })
    }

    /// Finds it among an error's causes.
    pub(crate) fn among<'a>(mut cause: Option<&'a (dyn std::error::Error + 'static)>) -> Option<&'a Self> {
        while let Some(error) = cause {
            let inner = error.downcast_ref::<io::Error>().and_then(|error| error.get_ref());
            if let Some(found) = inner.and_then(|inner| inner.downcast_ref()) {
                return Some(found);
            }
            cause = error.source();
        }
        None
    }
}

/// Connects to the CA. What it trusts is read anew for each connection.
#[derive(Debug, Clone)]
pub(crate) struct Connector {
    /// `HOST:PORT`
    pub(crate) address: String,
    pub(crate) name: ServerName<'static>,
    pub(crate) root: PathBuf,
    /// Roots that the CA has told of, beside those of the file: a rotation may reach us before the file.
    pub(crate) trust: TrustFeed,
}

impl Connector {
    fn config(&self) -> io::Result<ClientConfig> {
        let text = std::fs::read_to_string(&self.root)
            .map_err(|error| io::Error::other(format!("cannot read {}: {error}", self.root.display())))?;
        let in_file = wire::certificates(&text)
            .map_err(|problem| io::Error::other(format!("{}: {problem}", self.root.display())))?;
        let mut roots = RootCertStore::empty();
        let told = self.trust.borrow().bundle().roots.clone();
        for root in in_file.iter().chain(told.iter()) {
            roots.add(root.clone()).map_err(io::Error::other)?;
        }
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(io::Error::other)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }

    async fn connect(self) -> io::Result<TokioIo<TlsStream<TcpStream>>> {
        let connector = TlsConnector::from(Arc::new(self.config()?));
        let stream = TcpStream::connect(&self.address).await?;
        stream.set_nodelay(true)?;
        let connected = connector.connect(self.name, stream).await;
        Ok(TokioIo::new(connected.map_err(ClockOff::or)?))
    }
}

impl Service<http::Uri> for Connector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Uri) -> Self::Future {
        let connect = self.clone().connect();
        Box::pin(async move {
            timeout(CONNECT_TIMEOUT, connect).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        })
    }
}
