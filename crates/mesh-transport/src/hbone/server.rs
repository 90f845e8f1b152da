//! The server's end: authenticates a connection and hands each CONNECT to the caller.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use h2::server::{Connection, SendResponse};
use h2::{Reason, RecvStream};
use http::{Method, Request, StatusCode};
use mesh_core::SpiffeId;
use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::spawn_local;
use tokio::time::timeout;

use crate::buffer::Chunk;
use crate::direct::{self, Closing, TunnelEnd, TunnelError};
use crate::gate::Gate;
use crate::hbone::authority::Authority;
use crate::hbone::keepalive::{until_idle, until_silent};
use crate::hbone::request::{ConnectRequest, answer};
use crate::hbone::tunnel::Places;
use crate::limits::Limits;
use crate::reject::RejectReason;
use crate::session::{HandshakeError, PeerChain, Session, TlsStream};
use crate::sidecar::{self, Opening, Sidecar, SidecarTls};
use crate::tls::{ALPN_H2, TlsIdentity};
use crate::trust::{TrustFeed, until_untrusted};
use crate::verify::{VerifyError, identity_of};

/// Why a connection was turned away or broke. Nobody retries: the peer dials again.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The handshake took too long.
    #[error("no handshake within its time")]
    HandshakeTimeout,
    /// The peer went away during the handshake.
    #[error("the peer went away during the handshake: {0}")]
    HandshakeAborted(io::Error),
    /// The handshake failed.
    #[error("TLS handshake failed: {0}")]
    Tls(rustls::Error),
    /// The peer does not ask for a protocol that is spoken here.
    #[error("the peer did not ask for a protocol of tunnels (ALPN mesh-tunnel/1 or h2)")]
    Alpn,
    /// The certificate names no workload.
    #[error(transparent)]
    Identity(#[from] VerifyError),
    /// HTTP/2's rules or our limits were broken, or the connection was.
    #[error("HTTP/2: {0}")]
    Http2(h2::Error),
    /// The same of `mesh-tunnel/1`.
    #[error(transparent)]
    Tunnel(#[from] TunnelError),
    /// A ping stayed without an answer.
    #[error("the peer fell silent")]
    Silent,
    /// The connection was ended while it might have gone on.
    #[error(transparent)]
    Ended(TunnelEnd),
}

impl ServeError {
    /// The reason for metrics; `None` for a connection that merely broke.
    #[must_use]
    pub fn reason(&self) -> Option<RejectReason> {
        match self {
            Self::HandshakeTimeout => Some(RejectReason::HandshakeTimeout),
            Self::HandshakeAborted(_) => Some(RejectReason::HandshakeAborted),
            Self::Tls(error) => Some(RejectReason::of_tls(error)),
            Self::Alpn => Some(RejectReason::Alpn),
            Self::Identity(error) => Some(error.reason()),
            Self::Http2(error) if error.is_library() && error.is_go_away() => Some(RejectReason::Http2),
            Self::Tunnel(error) if error.is_violation() => Some(RejectReason::Tunnel),
            Self::Http2(_) | Self::Tunnel(_) | Self::Silent | Self::Ended(_) => None,
        }
    }
}

/// Serves tunnel connections. Clones share the bound on handshakes; make one a process.
#[derive(Debug, Clone)]
pub struct Server {
    limits: Arc<Limits>,
    handshakes: Gate,
    /// HTTP/2 connections that are open, on all threads.
    connections: Arc<AtomicUsize>,
    /// Connections for direct tunnels that are, likewise.
    direct: Arc<AtomicUsize>,
    trust: TrustFeed,
    /// Whether Services may be asked for by name.
    names: bool,
}

impl Server {
    /// A server within `limits`. Its connections end when `trust` accepts their peers' certificates no more.
    #[must_use]
    pub fn new(limits: Limits, trust: TrustFeed) -> Self {
        Self {
            handshakes: Gate::new(&limits),
            limits: Arc::new(limits),
            connections: Arc::default(),
            direct: Arc::default(),
            trust,
            names: false,
        }
    }

    /// The same server for a waypoint, which may be asked for Services by name.
    #[must_use]
    pub fn taking_names(self) -> Self {
        Self { names: true, ..self }
    }

    /// Waits for the first bytes of a client that may not go on unless it proves who it is, for `most` and no longer than a
    /// handshake may take: whether it is a sidecar that has begun to.
    pub async fn awaits_sidecar(&self, stream: &TcpStream, most: Duration) -> bool {
        let stranger = self.handshakes.arrive();
        let limit = stranger.patience(&self.limits).min(most);
        let opening = timeout(limit, sidecar::opening(stream)).await;
        opening == Ok(Opening::Sidecar)
    }

    /// Shakes hands with a sidecar that has connected to an application's own port, within the bounds of all handshakes.
    ///
    /// # Errors
    /// See [`ServeError`].
    pub async fn accept_sidecar(
        &self,
        stream: TcpStream,
        tls: &TlsIdentity,
    ) -> Result<(Sidecar, SidecarTls), ServeError> {
        let stranger = self.handshakes.arrive();
        let identified = self.in_turn(stream, |stream| identify(stream, tls.server_for_sidecars()));
        let (identity, chain, session) =
            timeout(stranger.patience(&self.limits), identified).await.map_err(|_| ServeError::HandshakeTimeout)??;
        let (judge, trust) = (tls.peers().clone(), self.trust.clone());
        Ok((Sidecar { identity, chain, judge, trust }, SidecarTls { session }))
    }

    /// Serves one accepted connection until it ends.
    ///
    /// Each CONNECT goes to `handler`, whose future is spawned on this thread. Any other request, or a CONNECT to a target that is not
    /// served here, is answered here and told to `on_reject`. When `drain` turns true the peer is told to open no more (GOAWAY), and
    /// the call returns when its tunnels are done; dropping the future cuts them.
    /// `watch` is asked once the peer is known, and ends the connection when what it returns resolves.
    ///
    /// # Errors
    /// See [`ServeError`].
    pub async fn serve<H>(
        &self,
        stream: TcpStream,
        tls: &TlsIdentity,
        drain: watch::Receiver<bool>,
        watch: impl AsyncFnOnce(&SpiffeId) -> TunnelEnd,
        handler: impl FnMut(ConnectRequest) -> H,
        on_reject: impl FnMut(RejectReason),
    ) -> Result<(), ServeError>
    where
        H: Future<Output = ()> + 'static,
    {
        let stranger = self.handshakes.arrive();
        let limit = stranger.patience(&self.limits);
        let is_crowded = self.direct.load(Ordering::Relaxed) >= self.limits.direct_connections;
        let config = if is_crowded { tls.server_for_sharing() } else { tls.server.clone() };
        let shaken = self.in_turn(stream, |stream| self.authenticate(stream, config));
        let (peer, chain, accepted) = timeout(limit, shaken).await.map_err(|_| ServeError::HandshakeTimeout)??;
        drop(stranger);
        let closing = Rc::new(Closing::default());
        let (identity, why) = (peer.clone(), closing.clone());
        let ended = async {
            tokio::select! {
                error = until_untrusted(self.trust.clone(), tls.peers(), &chain) => TunnelEnd::Untrusted(error),
                end = watch(&identity) => end,
            }
        };
        // Boxed, so that a connection costs what its own kind needs.
        let served = async {
            match accepted {
                Accepted::Direct(session, _open) => {
                    Box::pin(direct::serve(session, peer, drain, self, closing, handler, on_reject)).await
                }
                Accepted::H2(connection, _open) => {
                    let server = self;
                    let streams = Streams { server, peer, tunnels: Places::default(), closing, handler, on_reject };
                    Box::pin(streams.run(*connection, drain)).await
                }
            }
        };
        tokio::select! {
            // An untrusted peer is not served a last request.
            biased;
            end = ended => {
                // Told before the tunnels are cut, which is what dropping does.
                why.end(end.clone());
                Err(ServeError::Ended(end))
            }
            result = served => result,
        }
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Whether such a target may be asked for.
    pub(crate) const fn takes(&self, authority: &Authority) -> bool {
        self.names || authority.address().is_some()
    }

    /// Shakes hands in one of the places for that.
    async fn in_turn<T>(
        &self,
        stream: TcpStream,
        shake_hands: impl AsyncFnOnce(TcpStream) -> Result<T, ServeError>,
    ) -> Result<T, ServeError> {
        // A connection that says nothing takes no place among the handshakes, and no memory.
        stream.peek(&mut [0]).await.map_err(ServeError::HandshakeAborted)?;
        let peer = stream.peer_addr().map_err(ServeError::HandshakeAborted)?.ip();
        // Boxed, so that idle and established connections hold no handshake's memory.
        Box::pin(self.handshakes.pass(peer, shake_hands(stream))).await.ok_or(ServeError::HandshakeTimeout)?
    }

    async fn authenticate(&self, stream: TcpStream, tls: Arc<ServerConfig>) -> Result<Shaken, ServeError> {
        let (peer, chain, session) = identify(stream, tls).await?;
        match session.alpn.as_deref() {
            Some(direct::ALPN) => {
                return Ok((peer, chain, Accepted::Direct(session, Open::one_more(&self.direct))));
            }
            Some(ALPN_H2) => {}
            _ => return Err(ServeError::Alpn),
        }
        let (limits, open) = (&self.limits, Open::one_more(&self.connections));
        let (stream_window, connection_window) = limits.windows(open.others);
        let connection = h2::server::Builder::new()
            .initial_window_size(stream_window)
            .initial_connection_window_size(connection_window)
            .max_frame_size(limits.max_frame_size)
            .max_header_list_size(limits.max_header_list)
            .max_concurrent_streams(limits.max_concurrent_streams)
            .max_send_buffer_size(limits.max_send_buffer)
            .handshake(TlsStream::from(session))
            .await
            .map_err(ServeError::Http2)?;
        Ok((peer, chain, Accepted::H2(Box::new(connection), open)))
    }
}

/// Shakes hands: who the peer is, what proved it, and the connection.
async fn identify(
    stream: TcpStream,
    tls: Arc<ServerConfig>,
) -> Result<(SpiffeId, Arc<PeerChain>, Box<Session>), ServeError> {
    let session = Session::accept(stream, tls).await?;
    let chain = session.peer.clone();
    let chain = chain.ok_or(ServeError::Tls(rustls::Error::NoCertificatesPresented))?;
    Ok((identity_of(chain.leaf())?, chain, session))
}

impl From<HandshakeError> for ServeError {
    fn from(error: HandshakeError) -> Self {
        match error {
            HandshakeError::Io(error) => Self::HandshakeAborted(error),
            HandshakeError::Tls(error) => Self::Tls(error),
            HandshakeError::Record(error) => Self::Tunnel(error.into()),
        }
    }
}

/// Who the peer is, what proved it, and the connection.
type Shaken = (SpiffeId, Arc<PeerChain>, Accepted);

/// An authenticated connection, by what it carries.
enum Accepted {
    Direct(Box<Session>, Open),
    H2(Box<H2Connection>, Open),
}

/// A connection in the count of those of its kind that are open.
struct Open {
    count: Arc<AtomicUsize>,
    /// How many there were before.
    others: usize,
}

impl Open {
    fn one_more(count: &Arc<AtomicUsize>) -> Self {
        Self { count: count.clone(), others: count.fetch_add(1, Ordering::Relaxed) }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

type H2Connection = Connection<TlsStream, Chunk>;

/// One authenticated HTTP/2 connection.
struct Streams<'a, F, R> {
    server: &'a Server,
    peer: SpiffeId,
    tunnels: Places,
    closing: Rc<Closing>,
    handler: F,
    on_reject: R,
}

impl<F, R, H> Streams<'_, F, R>
where
    F: FnMut(ConnectRequest) -> H,
    R: FnMut(RejectReason),
    H: Future<Output = ()> + 'static,
{
    async fn run(mut self, mut connection: H2Connection, mut drain: watch::Receiver<bool>) -> Result<(), ServeError> {
        let limits = self.server.limits.clone();
        let silent = until_silent(connection.ping_pong(), &limits);
        let tunnels = self.tunnels.clone();
        // Longer than the client's, which so gets to close first.
        let idle = until_idle(limits.idle_timeout * 2, move || tunnels.taken());
        tokio::pin!(silent, idle);
        let (mut draining, mut idling) = (false, false);
        loop {
            tokio::select! {
                next = poll_fn(|cx| connection.poll_accept(cx)) => match next {
                    // Streams that were taken back count no more for HTTP/2, but the work for them may go on.
                    Some(Ok((_, mut respond))) if self.tunnels.taken() >= limits.max_concurrent_streams as usize => {
                        respond.send_reset(Reason::REFUSED_STREAM);
                        (self.on_reject)(RejectReason::Http2);
                    }
                    Some(Ok((request, respond))) => self.request(request, respond),
                    Some(Err(error)) => return Err(ServeError::Http2(error)),
                    None => return Ok(()),
                },
                // A sender that is gone means that nobody will ever drain.
                Ok(_) = drain.wait_for(|&drain| drain), if !draining => {
                    draining = true;
                    connection.graceful_shutdown();
                }
                () = &mut idle, if !idling => {
                    idling = true;
                    connection.graceful_shutdown();
                }
                () = &mut silent => return Err(ServeError::Silent),
            }
        }
    }

    fn request(&mut self, request: Request<RecvStream>, respond: SendResponse<Chunk>) {
        let authority = request.uri().authority().map_or("", |a| a.as_str());
        let (status, reason) = if request.method() != Method::CONNECT {
            (StatusCode::METHOD_NOT_ALLOWED, RejectReason::Method)
        } else {
            match Authority::parse(authority) {
                Ok(authority) if self.server.takes(&authority) => {
                    let peer = self.peer.clone();
                    let place = self.tunnels.take();
                    let connect =
                        ConnectRequest::from_h2(peer, authority, request, respond, place, self.closing.clone());
                    spawn_local((self.handler)(connect));
                    return;
                }
                _ => (StatusCode::BAD_REQUEST, RejectReason::Authority),
            }
        };
        answer(respond, status);
        (self.on_reject)(reason);
    }
}
