//! Mutual TLS with a sidecar of Istio's: at the port of an application, its own or ours, with the application's bytes as they are.
//!
//! A sidecar takes what offers one of Istio's own names in ALPN for TLS that is meant for it, and any other for its
//! application's; so do we. It answers with a name of its own choice, or with none. It offers `istio-http/1.0`, `istio-http/1.1`
//! or `istio-h2` where it reads HTTP, `istio-peer-exchange` for a preamble in which both ends tell of themselves, and `istio` in
//! any case.

mod accepted;
mod opening;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use mesh_core::SpiffeId;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::hbone::ConnectError;
use crate::limits::Limits;
use crate::session::{Session, TlsStream};
use crate::tls::TlsIdentity;

pub use accepted::Sidecar;
pub use opening::{Opening, anew, opening};

/// What the bytes within TLS are, which a sidecar is told by ALPN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Content {
    /// Nobody's business.
    Bytes,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

impl Content {
    /// What is offered, in the order of preference: as Istio's own proxies do. `istio-peer-exchange` is not among it, as proxies
    /// that choose it talk to each other first.
    pub(crate) fn alpn(self) -> Vec<Vec<u8>> {
        let names: &[&str] = match self {
            Self::Bytes => &["istio"],
            Self::Http1 => &["istio-http/1.1", "istio", "http/1.1"],
            Self::Http2 => &["istio-h2", "istio", "h2"],
        };
        names.iter().map(|name| name.as_bytes().to_vec()).collect()
    }
}

/// A connection with a sidecar that has proven who it is.
pub struct SidecarTls {
    pub(crate) session: Box<Session>,
}

impl fmt::Debug for SidecarTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SidecarTls").finish_non_exhaustive()
    }
}

impl From<SidecarTls> for TlsStream {
    fn from(sidecar: SidecarTls) -> Self {
        sidecar.session.into()
    }
}

impl SidecarTls {
    /// Ends it with a reset.
    pub fn reset(self) {
        // Where that fails, the peer reads an end without close_notify, which is none.
        let _ = self.session.socket.set_zero_linger();
    }

    /// Shakes hands over a connection to `peer`, which has to be `expected`, within the limits' time.
    ///
    /// # Errors
    /// The peer is not who it should be, does not accept us, speaks no TLS 1.3, or takes too long.
    pub async fn connect(
        stream: TcpStream,
        tls: &TlsIdentity,
        (peer, expected): (SocketAddr, &SpiffeId),
        content: Content,
        limits: &Limits,
    ) -> Result<Self, ConnectError> {
        let config = tls.client_to_sidecar(expected, content).map_err(Arc::new)?;
        let limit = limits.handshake_timeout;
        let shaken = timeout(limit, Session::connect(stream, config, peer)).await;
        let session = shaken.map_err(|_| ConnectError::handshake_timeout(peer, limit))?;
        Ok(Self { session: session.map_err(|error| ConnectError::of_handshake((peer, expected), error))? })
    }
}
