//! The server's loop over one connection: a tunnel, then the next.

use std::rc::Rc;
use std::time::Duration;

use http::StatusCode;
use mesh_core::SpiffeId;
use tokio::sync::{oneshot, watch};
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};

use super::frame::{Frame, receive, send};
use super::{CloseOnDrop, Closing, TunnelError, parse_request};
use crate::hbone::{ConnectRequest, ServeError, Server};
use crate::reject::RejectReason;
use crate::session::Session;
use crate::socket::write_all;

/// How long a peer that has just shaken hands may take for its first REQUEST where no more are wanted.
const LAST_CHANCE: Duration = Duration::from_secs(1);

/// Serves tunnels until the peer closes, falls idle, or `drain` turns true. The first one is served even then: its client
/// has connected for it, and could not know.
pub(crate) async fn serve<H>(
    mut session: Box<Session>,
    peer: SpiffeId,
    mut drain: watch::Receiver<bool>,
    server: &Server,
    closing: Rc<Closing>,
    mut handler: impl FnMut(ConnectRequest) -> H,
    mut on_reject: impl FnMut(RejectReason),
) -> Result<(), ServeError>
where
    H: Future<Output = ()> + 'static,
{
    // Whoever drops this future cuts the tunnel that runs.
    let _cut = CloseOnDrop(closing.clone());
    let mut grace = LAST_CHANCE;
    loop {
        let next = tokio::select! {
            biased;
            () = draining(&mut drain, grace) => None,
            // Longer than the client's time, which so gets to close first.
            next = timeout(server.limits().idle_timeout * 2, receive(&mut session)) => next.unwrap_or(Ok(None))?,
        };
        let Some((frame, payload)) = next else { return close(&session).await };
        grace = Duration::ZERO;
        match frame {
            Frame::Request => {}
            // The client reset a tunnel that had just ended here.
            Frame::Reset => return Ok(()),
            other => return Err(TunnelError::Frame(other as u8).into()),
        }
        let request = parse_request(&payload).ok().filter(|request| server.takes(&request.authority));
        let Some(request) = request else {
            on_reject(RejectReason::Authority);
            send(&session, Frame::Response, StatusCode::BAD_REQUEST.as_str().as_bytes()).await?;
            continue;
        };
        let (home, back) = oneshot::channel();
        let request = ConnectRequest::direct(peer.clone(), request, session, closing.clone(), home);
        spawn_local(handler(request));
        match back.await {
            Ok(returned) => session = returned,
            // The tunnel did not end in order, and its connection went with it.
            Err(_) => return Ok(()),
        }
    }
}

/// Resolves `grace` after `drain` has turned true.
async fn draining(drain: &mut watch::Receiver<bool>, grace: Duration) {
    if drain.wait_for(|&drain| drain).await.is_err() {
        // A sender that is gone means that nobody will ever drain.
        std::future::pending::<()>().await;
    }
    if !grace.is_zero() {
        sleep(grace).await;
    }
}

async fn close(session: &Session) -> Result<(), ServeError> {
    let record = session.keys.borrow_mut().close_notify().map_err(TunnelError::from)?;
    // A peer that has gone needs no goodbye.
    let _ = write_all(&session.socket, &record).await;
    Ok(())
}
