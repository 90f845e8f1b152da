//! Connections that stop being HTTP's: WebSocket and other upgrades, and CONNECT.

use std::rc::Rc;

use http::{Method, Response, StatusCode};
use hyper::{Request, body::Incoming};
use hyper_util::rt::TokioIo;
use tokio::{sync::oneshot, task::spawn_local};

use super::fields;
use crate::{
    duplex::{Duplex, Upgrade},
    inbound::Connection,
};

/// A request that asks for it, by what carries the client's side.
pub(super) enum Upgrading {
    /// The whole connection.
    Http1 { connection: Rc<Connection>, is_connect: bool },
    /// One stream.
    Http2 { connection: Rc<Connection>, client: hyper::upgrade::OnUpgrade },
}

impl Upgrading {
    /// What a request asks for; none for one that stays HTTP.
    pub(super) fn of(connection: &Rc<Connection>, request: &mut Request<Incoming>) -> Option<Self> {
        let is_connect = request.method() == Method::CONNECT;
        if request.version() == http::Version::HTTP_2 {
            let connection = connection.clone();
            return is_connect.then(|| Self::Http2 { connection, client: hyper::upgrade::on(request) });
        }
        let asks = request.version() == http::Version::HTTP_11 && fields::keep_protocols(request.headers_mut());
        (is_connect || asks).then(|| Self::Http1 { connection: connection.clone(), is_connect })
    }

    /// Whether the endpoint agreed; then bytes pass both ways once the response is out.
    pub(super) fn agreed(self, response: &mut Response<Incoming>, upgrade: Option<Upgrade>) -> bool {
        let is_connect = self.is_connect();
        let agreed =
            response.status() == StatusCode::SWITCHING_PROTOCOLS || (is_connect && response.status().is_success());
        if !agreed {
            return false;
        }
        let upstream = upgrade.unwrap_or_else(|| of_http2(response));
        match self {
            Self::Http1 { connection, .. } => connection.upgrade_to(upstream),
            Self::Http2 { connection, client } => {
                spawn_local(async move {
                    if let Ok(client) = client.await {
                        connection.become_other(upstream, TokioIo::new(client)).await;
                    }
                });
            }
        }
        true
    }

    const fn is_connect(&self) -> bool {
        match self {
            Self::Http1 { is_connect, .. } => *is_connect,
            Self::Http2 { .. } => true,
        }
    }
}

/// The stream of an HTTP/2 response.
fn of_http2(response: &mut Response<Incoming>) -> Upgrade {
    let (sender, receiver) = oneshot::channel();
    let upgrade = hyper::upgrade::on(response);
    spawn_local(async move {
        if let Ok(upgraded) = upgrade.await {
            // Whoever wanted it may have gone.
            let _ = sender.send(Box::new(TokioIo::new(upgraded)) as Box<dyn Duplex>);
        }
    });
    receiver
}
