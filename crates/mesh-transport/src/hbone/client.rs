//! The client's end of a connection: dialled, authenticated, driven, and asked for tunnels.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use h2::client::{Connection, SendRequest};
use http::StatusCode;
use mesh_core::SpiffeId;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::buffer::Chunk;
use crate::direct::{self, Closing, TunnelEnd, TunnelError};
use crate::hbone::connect_error::ConnectError;
use crate::hbone::keepalive::{until_idle, until_silent};
use crate::hbone::request::TunnelRequest;
use crate::hbone::tunnel::{H2Tunnel, Place, Places, Tunnel};
use crate::limits::Limits;
use crate::session::{PeerChain, Session, TlsStream, unheard};
use crate::tls::{ALPN_H2, Carriers, TlsIdentity};

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
    dial: &impl AsyncFn() -> io::Result<TcpStream>,
) -> Result<TcpStream, ConnectError> {
    let limit = limits.handshake_timeout;
    timeout(limit, dial())
        .await
        .map_err(|_| ConnectError::TimedOut { what: "connecting to", peer, limit })?
        .map_err(|e| ConnectError::Dial { peer, source: Arc::new(e) })
}

/// A new connection, by what it carries.
pub(super) enum Established {
    Direct(Box<Session>),
    H2(Rc<Link>, Driver),
}

/// What drives an HTTP/2 connection until its end.
pub(super) type Driver = Pin<Box<dyn Future<Output = ()>>>;

/// Shakes hands over a new connection that is to carry one of `offered`, within the limits' time.
pub(super) async fn establish(
    target: &Target<'_>,
    offered: Carriers,
    limits: &Limits,
    stream: TcpStream,
) -> Result<Established, ConnectError> {
    let limit = limits.handshake_timeout;
    let shaken = timeout(limit, shake_hands(target, offered, limits, stream)).await;
    shaken.map_err(|_| ConnectError::handshake_timeout(target.peer, limit))?
}

async fn shake_hands(
    target: &Target<'_>,
    offered: Carriers,
    limits: &Limits,
    stream: TcpStream,
) -> Result<Established, ConnectError> {
    let peer = target.peer;
    let config = target.tls.client_offering(target.expected, offered).map_err(Arc::new)?;
    let session = Session::connect(stream, config, peer).await;
    let session = session.map_err(|error| ConnectError::of_handshake((peer, target.expected), error))?;
    match session.alpn.as_deref() {
        Some(direct::ALPN) => Ok(Established::Direct(session)),
        Some(ALPN_H2) => {
            let (link, driver) = Link::start(target, limits, session).await?;
            Ok(Established::H2(link, driver))
        }
        _ => Err(ConnectError::Alpn(peer)),
    }
}

/// An authenticated HTTP/2 connection that tunnels can be opened on.
pub(super) struct Link {
    sender: SendRequest<Chunk>,
    peer: SocketAddr,
    /// Which of our certificates and trust bundles it was made with.
    pub(super) generation: u64,
    socket: Weak<TcpStream>,
    /// What the peer showed.
    pub(super) chain: Option<Arc<PeerChain>>,
    /// No new tunnels; those that are open go on.
    pub(super) retired: Cell<bool>,
    places: Places,
    closing: Rc<Closing>,
}

/// What became of asking a [`Link`] for a tunnel.
pub(super) enum OpenError {
    /// The peer has not processed the request: another connection may be asked.
    Unprocessed(ConnectError),
    /// It is settled.
    Settled(ConnectError),
}

impl Link {
    /// Starts HTTP/2. The returned future drives the connection until its end.
    async fn start(
        target: &Target<'_>,
        limits: &Limits,
        session: Box<Session>,
    ) -> Result<(Rc<Self>, Driver), ConnectError> {
        let peer = target.peer;
        let (chain, socket) = (session.peer.clone(), session.socket.downgrade());
        let (sender, connection) = h2::client::Builder::new()
            .enable_push(false)
            .initial_window_size(limits.stream_window)
            .initial_connection_window_size(limits.connection_window)
            .max_frame_size(limits.max_frame_size)
            .max_header_list_size(limits.max_header_list)
            .max_send_buffer_size(limits.max_send_buffer)
            .handshake(TlsStream::from(session))
            .await
            .map_err(|e| ConnectError::Broken { peer, source: Arc::new(e.into()) })?;
        let link = Rc::new(Self {
            sender,
            peer,
            generation: target.tls.generation,
            socket,
            chain,
            retired: Cell::new(false),
            places: Places::default(),
            closing: Rc::default(),
        });
        let driver = drive(connection, link.places.clone(), link.closing.clone(), limits.clone());
        Ok((link, Box::pin(driver)))
    }

    /// Tunnels open or being opened.
    pub(super) fn active(&self) -> usize {
        self.places.taken()
    }

    /// Ends the connection now; its tunnels are reset.
    pub(super) fn cut(&self) {
        self.retired.set(true);
        self.closing.close();
    }

    /// The same, for a reason that its tunnels are told.
    pub(super) fn end(&self, reason: TunnelEnd) {
        self.retired.set(true);
        self.closing.end(reason);
    }

    /// Sends a CONNECT and waits for its answer.
    pub(super) async fn open(&self, request: &TunnelRequest, limits: &Limits) -> Result<Tunnel, OpenError> {
        let place = self.places.take();
        let limit = limits.response_timeout;
        let answer = tokio::select! {
            answer = timeout(limit, self.exchange(request, place)) => answer,
            // It may lead to where nobody is any more.
            () = unheard(self.socket.clone()) => Ok(Err(self.gone())),
        };
        answer.unwrap_or_else(|_| {
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
        let (closing, socket) = (self.closing.clone(), self.socket.clone());
        Ok(Tunnel::H2(H2Tunnel { send, recv: response.into_body(), place, closing, socket }))
    }

    fn broken(&self, error: h2::Error) -> ConnectError {
        ConnectError::Broken { peer: self.peer, source: Arc::new(error.into()) }
    }

    /// The peer's host says nothing any more.
    fn gone(&self) -> OpenError {
        let error = TunnelError::from(io::Error::from(io::ErrorKind::TimedOut));
        OpenError::Unprocessed(ConnectError::Broken { peer: self.peer, source: Arc::new(error.into()) })
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

/// Drives a connection until it ends by itself, is cut, falls silent, or has been idle long enough.
async fn drive(mut connection: Connection<TlsStream, Chunk>, places: Places, closing: Rc<Closing>, limits: Limits) {
    let ping = connection.ping_pong();
    let idle = until_idle(limits.idle_timeout, || places.taken());
    tokio::select! {
        result = poll_fn(|cx| std::pin::Pin::new(&mut connection).poll(cx)) => {
            if let Err(error) = result {
                tracing::debug!(%error, "tunnel connection ended");
            }
        }
        () = closing.closed() => {}
        () = until_silent(ping, &limits) => tracing::debug!("tunnel connection fell silent"),
        () = idle => {}
    }
}
