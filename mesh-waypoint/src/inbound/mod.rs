//! What nodes bring: tunnels, and in them HTTP or plain TCP.

pub(crate) mod admission;
mod arrival;
mod flow;
mod http;
mod parting;
mod pulse;
mod sniff;
pub(crate) mod tcp;
mod tcp_ledger;
mod watch;

use std::{net::SocketAddr, rc::Rc};

use ::http::StatusCode;
use mesh_core::SpiffeId;
use mesh_transport::hbone::{ConnectRequest, ServeError, TunnelEnd, TunnelStream};
use tokio::net::TcpStream;

pub(crate) use self::arrival::{Arrival, Client, Entrance, Target};
pub(crate) use self::flow::{Chunk, Flow, Stalled};
pub(crate) use self::http::{Connection, LocalExecutor};
pub(crate) use self::pulse::{Lifeless, Patience};
use self::{arrival::Declared, sniff::Sniffed};
use crate::{
    duplex::{Duplex, Prefixed},
    serve::ConnectionGuard,
    worker::Worker,
};

/// Serves one accepted tunnel connection until its end.
pub(crate) async fn serve(worker: Rc<Worker>, stream: TcpStream, peer: SocketAddr, counted: ConnectionGuard) {
    let shared = worker.shared.clone();
    let tls = match shared.identities.fetch(&shared.identity).await {
        Ok(tls) => tls,
        Err(error) => {
            tracing::error!(%peer, %error, "tunnel refused: no certificate");
            return;
        }
    };
    let handler = {
        let worker = worker.clone();
        move |request: ConnectRequest| carry(worker.clone(), peer, request)
    };
    let rejected = |reason| tracing::info!(%peer, ?reason, "tunnel rejected");
    let served = shared.server.serve(stream, &tls, shared.draining.subscribe(), never, handler, rejected).await;
    drop(counted);
    if let Err(error) = served {
        note(peer, &error);
    }
}

/// The waypoint ends no connection by who its peer is; each request is judged.
async fn never(_: &SpiffeId) -> TunnelEnd {
    std::future::pending().await
}

fn note(peer: SocketAddr, error: &ServeError) {
    match error.reason() {
        Some(reason) => tracing::info!(%peer, reason = reason.as_str(), %error, "tunnel connection rejected"),
        None => tracing::debug!(%peer, %error, "tunnel connection ended"),
    }
}

/// Carries one CONNECT.
async fn carry(worker: Rc<Worker>, peer: SocketAddr, request: ConnectRequest) {
    let arrival = match Arrival::of(&worker, peer, &request) {
        Ok(arrival) => arrival,
        Err(error) => {
            tracing::info!(%peer, client = %request.peer, target = %request.authority, %error, "connection refused");
            return request.refuse(StatusCode::BAD_REQUEST).await;
        }
    };
    match arrival.declared {
        // Whoever speaks first, and whatever: the destination is there before the client hears that it is connected.
        Declared::Tcp if !tcp::asks_for_tls(&worker, &arrival) => {
            tcp::connect_first(&worker, &arrival, request).await;
        }
        Declared::Tcp => {
            let Ok(tunnel) = request.accept().await else { return };
            Box::pin(tcp::carry(&worker, &arrival, TunnelStream::from(tunnel))).await;
        }
        Declared::Http | Declared::Unknown => {
            let Ok(tunnel) = request.accept().await else { return };
            speak(worker, arrival, TunnelStream::from(tunnel)).await;
        }
    }
}

/// Finds out what the client speaks, and takes part. Where HTTP is declared, its parser answers what is none.
pub(crate) async fn speak(worker: Rc<Worker>, arrival: Arrival, mut stream: impl Duplex + 'static) {
    let counted = pulse::ClientGuard::one(&worker);
    let Ok((sniffed, read)) = sniff::sniff(&mut stream, arrival.declared, pulse::silence(&worker)).await else {
        return;
    };
    drop(counted);
    let stream = Prefixed::new(read, stream);
    match sniffed {
        // On the heap each: a connection costs what its own kind needs, and one that has said nothing yet costs little.
        Sniffed::Http1 => Box::pin(http::serve_http1(worker, arrival, stream)).await,
        Sniffed::Http2 => Box::pin(http::serve_http2(worker, arrival, stream)).await,
        Sniffed::Proxied => http::refuse_proxied(&worker, &arrival, stream).await,
        Sniffed::NoHttp2 => http::refuse_http2(&worker, stream).await,
        Sniffed::Other => Box::pin(tcp::carry(&worker, &arrival, stream)).await,
    }
}
