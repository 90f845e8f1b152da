//! The client's end of a connection: dialled, authenticated, driven, and asked for tunnels.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use h2::client::{Connection, SendRequest};
use http::StatusCode;
use mesh_core::SpiffeId;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::buffer::Chunk;
use crate::hbone::keepalive::{until_idle, until_silent};
use crate::hbone::request::TunnelRequest;
use crate::hbone::tunnel::{H2Tunnel, Place, Places, Tunnel};
use crate::limits::Limits;
use crate::reject::RejectReason;
use crate::tls::{ALPN_H2, TlsError, TlsIdentity};

/// Why there is no tunnel. Cheap to clone: everyone who waited for one dial gets its error.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ConnectError {
    /// The peer's tunnel port cannot be reached. A later try may succeed.
    #[error("cannot connect to the tunnel port {peer}: {source}")]
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
    /// The peer speaks TLS, but not HBONE.
    #[error("{0} does not speak HTTP/2 on its tunnel port (ALPN h2 was not selected)")]
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
        /// What h2 said.
        source: Arc<h2::Error>,
    },
    /// The request cannot be written as HTTP.
    #[error("the CONNECT cannot be written: {0}")]
    Request(Arc<http::Error>),
    /// The source's pod left while its tunnel was being made.
    #[error("the source workload has left the mesh")]
    SourceGone,
}

impl ConnectError {
    /// The status of a refusal.
    #[must_use]
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Refused(status) => Some(*status),
            _ => None,
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

const HANDSHAKE: &str = "the handshake with";

/// Where a connection goes and how.
pub(super) struct Target<'a> {
    pub(super) peer: SocketAddr,
    pub(super) expected: &'a SpiffeId,
    pub(super) tls: &'a TlsIdentity,
}

/// Runs the caller's dial within the limits' time.
pub(super) async fn dialled(
    peer: SocketAddr,
    limits: &Limits,
    dial: impl AsyncFnOnce() -> io::Result<TcpStream>,
) -> Result<TcpStream, ConnectError> {
    let limit = limits.handshake_timeout;
    timeout(limit, dial())
        .await
        .map_err(|_| ConnectError::TimedOut { what: "connecting to", peer, limit })?
        .map_err(|e| ConnectError::Dial { peer, source: Arc::new(e) })
}

/// An authenticated connection that tunnels can be opened on.
pub(super) struct Link {
    sender: SendRequest<Chunk>,
    peer: SocketAddr,
    /// Which of our certificates it was made with, told by its end.
    pub(super) not_after: SystemTime,
    /// No new tunnels; those that are open go on.
    pub(super) retired: Cell<bool>,
    places: Places,
    cut: Rc<Notify>,
}

/// What became of asking a [`Link`] for a tunnel.
pub(super) enum OpenError {
    /// The peer has not processed the request: another connection may be asked.
    Unprocessed(ConnectError),
    /// It is settled.
    Settled(ConnectError),
}

impl Link {
    /// Shakes hands over a new connection, within the limits' time. The returned future drives it until its end.
    pub(super) async fn establish(
        target: &Target<'_>,
        limits: &Limits,
        stream: TcpStream,
    ) -> Result<(Rc<Self>, impl Future<Output = ()> + use<>), ConnectError> {
        let limit = limits.handshake_timeout;
        timeout(limit, Self::shake_hands(target, limits, stream)).await.map_err(|_| ConnectError::TimedOut {
            what: HANDSHAKE,
            peer: target.peer,
            limit,
        })?
    }

    async fn shake_hands(
        target: &Target<'_>,
        limits: &Limits,
        stream: TcpStream,
    ) -> Result<(Rc<Self>, impl Future<Output = ()> + use<>), ConnectError> {
        let peer = target.peer;
        // Failing to turn Nagle's delay off costs latency only.
        let _ = stream.set_nodelay(true);
        let config = target.tls.client(target.expected).map_err(Arc::new)?;
        let stream = TlsConnector::from(config)
            .connect(ServerName::IpAddress(peer.ip().into()), stream)
            .await
            .map_err(|e| handshake_error(target, e))?;
        if stream.get_ref().1.alpn_protocol() != Some(ALPN_H2) {
            return Err(ConnectError::Alpn(peer));
        }
        let (sender, connection) = h2::client::Builder::new()
            .enable_push(false)
            .initial_window_size(limits.stream_window)
            .initial_connection_window_size(limits.connection_window)
            .max_frame_size(limits.max_frame_size)
            .max_header_list_size(limits.max_header_list)
            .max_send_buffer_size(limits.max_send_buffer)
            .handshake(stream)
            .await
            .map_err(|e| ConnectError::Broken { peer, source: Arc::new(e) })?;
        let link = Rc::new(Self {
            sender,
            peer,
            not_after: target.tls.not_after,
            retired: Cell::new(false),
            places: Places::default(),
            cut: Rc::new(Notify::new()),
        });
        let driver = drive(connection, link.places.clone(), link.cut.clone(), limits.clone());
        Ok((link, driver))
    }

    /// Tunnels open or being opened.
    pub(super) fn active(&self) -> usize {
        self.places.taken()
    }

    /// Ends the connection now; its tunnels are reset.
    pub(super) fn cut(&self) {
        self.retired.set(true);
        self.cut.notify_one();
    }

    /// Sends a CONNECT and waits for its answer.
    pub(super) async fn open(&self, request: &TunnelRequest, limits: &Limits) -> Result<Tunnel, OpenError> {
        let place = self.places.take();
        let limit = limits.response_timeout;
        timeout(limit, self.exchange(request, place)).await.unwrap_or_else(|_| {
            let what = "the answer to CONNECT from";
            Err(OpenError::Settled(ConnectError::TimedOut { what, peer: self.peer, limit }))
        })
    }

    async fn exchange(&self, request: &TunnelRequest, place: Place) -> Result<Tunnel, OpenError> {
        let request = request.to_http().map_err(|e| OpenError::Settled(ConnectError::Request(Arc::new(e))))?;
        let mut sender = self.sender.clone().ready().await.map_err(|e| self.unprocessed(e))?;
        let (response, send) = sender.send_request(request, false).map_err(|e| self.unprocessed(e))?;
        let response = match response.await {
            Ok(response) => response,
            Err(e) if is_unprocessed(&e) => return Err(self.unprocessed(e)),
            Err(e) => return Err(OpenError::Settled(self.broken(e))),
        };
        if response.status() != StatusCode::OK {
            return Err(OpenError::Settled(ConnectError::Refused(response.status())));
        }
        Ok(Tunnel::H2(H2Tunnel { send, recv: response.into_body(), place }))
    }

    fn broken(&self, error: h2::Error) -> ConnectError {
        ConnectError::Broken { peer: self.peer, source: Arc::new(error) }
    }

    fn unprocessed(&self, error: h2::Error) -> OpenError {
        OpenError::Unprocessed(self.broken(error))
    }
}

/// Whether a request may be sent again elsewhere: the peer says that it did not look at it (RFC 9113, sections 6.8 and
/// 8.7), or the connection is gone, which for a CONNECT without an answer means that no application byte went out.
fn is_unprocessed(error: &h2::Error) -> bool {
    error.is_io() || error.is_go_away() || error.reason() == Some(h2::Reason::REFUSED_STREAM)
}

fn handshake_error(target: &Target<'_>, error: io::Error) -> ConnectError {
    let (peer, expected) = (target.peer, target.expected.clone());
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(source) => ConnectError::Tls { peer, expected, source: Arc::new(source.clone()) },
        None => ConnectError::Dial { peer, source: Arc::new(error) },
    }
}

/// Drives a connection until it ends by itself, is cut, falls silent, or has been idle long enough.
async fn drive(
    mut connection: Connection<TlsStream<TcpStream>, Chunk>,
    places: Places,
    cut: Rc<Notify>,
    limits: Limits,
) {
    let ping = connection.ping_pong();
    let idle = until_idle(limits.idle_timeout, || places.taken());
    tokio::select! {
        result = poll_fn(|cx| std::pin::Pin::new(&mut connection).poll(cx)) => {
            if let Err(error) = result {
                tracing::debug!(%error, "tunnel connection ended");
            }
        }
        () = cut.notified() => {}
        () = until_silent(ping, &limits) => tracing::debug!("tunnel connection fell silent"),
        () = idle => {}
    }
}
