//! Why a tunnel could not be had.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use mesh_core::SpiffeId;

use crate::direct::TunnelError;
use crate::reject::RejectReason;
use crate::session::HandshakeError;
use crate::tls::TlsError;

/// Why there is no tunnel. Cheap to clone: everyone who waited for one dial gets its error.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ConnectError {
    /// The peer cannot be reached. A later try may succeed.
    #[error("cannot connect to {peer}: {source}")]
    Dial {
        /// Where the mesh listens at the far side.
        peer: SocketAddr,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// The handshake failed: the peer is not who it should be, or does not accept us.
    #[error("no mTLS with {peer} as {expected}: {source}")]
    Tls {
        /// Where the mesh listens at the far side.
        peer: SocketAddr,
        /// Who should be there.
        expected: SpiffeId,
        /// What rustls said.
        source: Arc<rustls::Error>,
    },
    /// Our own certificate cannot be used.
    #[error(transparent)]
    Identity(#[from] Arc<TlsError>),
    /// The peer speaks TLS, but carries no tunnels.
    #[error("{0} speaks no protocol of tunnels (neither ALPN mesh-tunnel/1 nor h2 was selected)")]
    Alpn(SocketAddr),
    /// No answer in time. A later try may succeed.
    #[error("{what} {peer} took longer than {limit:?}")]
    TimedOut {
        /// What was being waited for.
        what: &'static str,
        /// Where the mesh listens at the far side.
        peer: SocketAddr,
        /// How long.
        limit: Duration,
    },
    /// The peer answered with another status than 200: 400 target, 401 policy, 503 application unreachable.
    #[error("the far side refused the tunnel with status {0}")]
    Refused(StatusCode),
    /// The peer reset the stream or the connection before it answered. A later try may succeed.
    #[error("the tunnel's connection to {peer} broke before an answer: {source}")]
    Broken {
        /// Where the mesh listens at the far side.
        peer: SocketAddr,
        /// What broke it.
        source: Arc<Breakage>,
    },
    /// The request cannot be written as HTTP.
    #[error("the CONNECT cannot be written: {0}")]
    Request(Arc<http::Error>),
    /// The source's pod left while its tunnel was being made.
    #[error("the source workload has left the mesh")]
    SourceGone,
}

impl ConnectError {
    /// What a failed handshake with `peer`, who should be `expected`, means.
    pub(crate) fn of_handshake((peer, expected): (SocketAddr, &SpiffeId), error: HandshakeError) -> Self {
        match error {
            HandshakeError::Io(error) => Self::Dial { peer, source: Arc::new(error) },
            HandshakeError::Tls(error) => Self::Tls { peer, expected: expected.clone(), source: Arc::new(error) },
            HandshakeError::Record(error) => Self::Broken { peer, source: Arc::new(TunnelError::from(error).into()) },
        }
    }

    /// The handshake with `peer` took too long.
    pub(crate) const fn handshake_timeout(peer: SocketAddr, limit: Duration) -> Self {
        Self::TimedOut { what: HANDSHAKE, peer, limit }
    }

    /// The status of a refusal.
    #[must_use]
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Refused(status) => Some(*status),
            _ => None,
        }
    }

    /// Whether the far side's mesh was not there, or went away before it answered, as when its daemon is replaced: another
    /// try may succeed, and no byte of the application has gone out.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionRefused, ConnectionReset, UnexpectedEof};
        match self {
            Self::Dial { source, .. } => {
                let went = [ConnectionRefused, ConnectionReset, ConnectionAborted, BrokenPipe, UnexpectedEof];
                went.contains(&source.kind())
            }
            Self::Broken { source, .. } => source.is_departure(),
            _ => false,
        }
    }

    /// The reason for metrics, when it was a matter of who or what the peer is.
    #[must_use]
    pub fn reason(&self) -> Option<RejectReason> {
        match self {
            Self::Tls { source, .. } => Some(RejectReason::of_tls(source)),
            Self::Alpn(_) => Some(RejectReason::Alpn),
            Self::TimedOut { what: HANDSHAKE, .. } => Some(RejectReason::HandshakeTimeout),
            _ => None,
        }
    }
}

/// What a [`ConnectError::TimedOut`] waited for.
const HANDSHAKE: &str = "the handshake with";

/// What broke a connection that was open.
#[derive(Debug, thiserror::Error)]
pub enum Breakage {
    /// HTTP/2 or the connection below it.
    #[error(transparent)]
    Http2(#[from] h2::Error),
    /// A direct tunnel's connection.
    #[error(transparent)]
    Direct(#[from] TunnelError),
}

impl Breakage {
    /// Whether the peer went away, as opposed to having said something wrong.
    fn is_departure(&self) -> bool {
        match self {
            Self::Http2(error) => error.is_io() || (error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR)),
            Self::Direct(error) => matches!(error, TunnelError::Io(_) | TunnelError::Closed),
        }
    }
}
