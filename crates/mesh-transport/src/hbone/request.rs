//! A CONNECT as the client asks for it and as the server sees it.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};

use h2::server::SendResponse;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use mesh_core::SpiffeId;
use tokio::sync::oneshot;

use crate::buffer::Chunk;
use crate::direct::{Closing, DirectTunnel, Frame, Home, TunnelError, send};
use crate::hbone::authority::Authority;
use crate::hbone::headers::{forwarded_header, parse_forwarded};
use crate::hbone::server::ServeError;
use crate::hbone::tunnel::{H2Tunnel, Place, Tunnel};
use crate::session::Session;
use crate::socket::broken;

const BAGGAGE: HeaderName = HeaderName::from_static("baggage");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelRequest {
    /// The application to connect.
    pub authority: Authority,
    /// Who connects, for the far side's application to see.
    pub forwarded: Option<SocketAddr>,
    /// What the client's workload is called (W3C Baggage, with Istio's keys). Left out when it is no valid header value.
    pub baggage: Option<String>,
    /// W3C Trace Context. Left out when it is no valid header value.
    pub traceparent: Option<String>,
}

impl TunnelRequest {
    /// The CONNECT without `:scheme` and `:path` (RFC 9113, section 8.5).
    pub(super) fn to_http(&self) -> Result<Request<()>, http::Error> {
        let authority = self.authority.to_string();
        let uri = Uri::builder().authority(authority).build()?;
        let mut request = Request::builder().method(Method::CONNECT).uri(uri).body(())?;
        let forwarded = self.forwarded.map(forwarded_header);
        for (name, value) in
            [(http::header::FORWARDED, &forwarded), (BAGGAGE, &self.baggage), (TRACEPARENT, &self.traceparent)]
        {
            if let Some(value) = value.as_ref().and_then(|v| HeaderValue::from_str(v).ok()) {
                request.headers_mut().insert(name, value);
            }
        }
        Ok(request)
    }
}

/// A CONNECT from an authenticated peer, not yet answered. Dropping it unanswered resets the stream.
pub struct ConnectRequest {
    /// Who asks, by certificate.
    pub peer: SpiffeId,
    /// What the peer wants to be connected with.
    pub authority: Authority,
    /// Whom the peer says it asks for: advice from the peer, not proof.
    pub forwarded: Option<SocketAddr>,
    /// What the peer says its workload is called.
    pub baggage: Option<String>,
    /// W3C Trace Context.
    pub traceparent: Option<String>,
    answer: Answer,
}

/// How the answer travels.
enum Answer {
    Direct(Box<Session>, Rc<Closing>, oneshot::Sender<Box<Session>>),
    H2 { respond: SendResponse<Chunk>, recv: h2::RecvStream, place: Place, closing: Rc<Closing> },
}

impl std::fmt::Debug for ConnectRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConnectRequest")
            .field("peer", &self.peer.as_str())
            .field("authority", &self.authority.to_string())
            .field("forwarded", &self.forwarded)
            .finish_non_exhaustive()
    }
}

impl ConnectRequest {
    pub(super) fn from_h2(
        peer: SpiffeId,
        authority: Authority,
        request: Request<h2::RecvStream>,
        respond: SendResponse<Chunk>,
        place: Place,
        closing: Rc<Closing>,
    ) -> Self {
        let (parts, recv) = request.into_parts();
        let text = |name| text_header(&parts.headers, name);
        Self {
            peer,
            authority,
            forwarded: text(http::header::FORWARDED).as_deref().and_then(parse_forwarded),
            baggage: text(BAGGAGE),
            traceparent: text(TRACEPARENT),
            answer: Answer::H2 { respond, recv, place, closing },
        }
    }

    /// A REQUEST over `session`, which goes back to the server's loop through `back`.
    pub(crate) fn direct(
        peer: SpiffeId,
        request: TunnelRequest,
        session: Box<Session>,
        closing: Rc<Closing>,
        back: oneshot::Sender<Box<Session>>,
    ) -> Self {
        let TunnelRequest { authority, forwarded, baggage, traceparent } = request;
        let answer = Answer::Direct(session, closing, back);
        Self { peer, authority, forwarded, baggage, traceparent, answer }
    }

    /// Resolves when the peer has taken its request back, or has gone.
    pub async fn withdrawn(&mut self) {
        match &mut self.answer {
            Answer::Direct(session, closing, _) => tokio::select! {
                () = broken(&session.socket) => {}
                () = closing.closed() => {}
            },
            // A broken connection resolves it as well.
            Answer::H2 { respond, .. } => drop(poll_fn(|cx| respond.poll_reset(cx)).await),
        }
    }

    /// Answers 200; the application is connected already.
    ///
    /// # Errors
    /// When the peer has gone or taken its request back.
    pub async fn accept(self) -> Result<Tunnel, ServeError> {
        match self.answer {
            Answer::Direct(session, closing, back) => {
                respond(&session, StatusCode::OK).await?;
                let home = Home::Server(back);
                Ok(Tunnel::Direct(DirectTunnel { session, closing, home }))
            }
            Answer::H2 { mut respond, recv, place, closing } => {
                let send = respond.send_response(response(StatusCode::OK), false).map_err(ServeError::Http2)?;
                Ok(Tunnel::H2(H2Tunnel { send, recv, place, closing, socket: Weak::new() }))
            }
        }
    }

    /// Answers with a status that says why not: 400, 401, 503.
    pub async fn refuse(self, status: StatusCode) {
        match self.answer {
            Answer::Direct(session, _, back) => {
                // A peer that has gone needs no answer, and its connection no next tunnel.
                if respond(&session, status).await.is_ok() {
                    drop(back.send(session));
                }
            }
            Answer::H2 { respond, .. } => answer(respond, status),
        }
    }
}

async fn respond(session: &Session, status: StatusCode) -> Result<(), TunnelError> {
    send(session, Frame::Response, status.as_str().as_bytes()).await
}

/// Answers without a body. A peer that has gone needs no answer.
pub(super) fn answer(mut respond: SendResponse<Chunk>, status: StatusCode) {
    let _ = respond.send_response(response(status), true);
}

fn response(status: StatusCode) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = status;
    response
}

fn text_header(headers: &HeaderMap, name: HeaderName) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}
