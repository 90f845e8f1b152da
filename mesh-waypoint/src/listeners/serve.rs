//! One connection from outside.

use std::{io, net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use bytes::Bytes;
use mesh_core::l7::gateway::{Listener, Serves, Tls};
use tokio::{io::AsyncWriteExt as _, net::TcpStream, time::timeout};
use tokio_rustls::TlsAcceptor;

use super::{Port, hello};
use crate::{
    duplex::{Duplex, Prefixed},
    inbound::{self, Arrival, Entrance},
    worker::Worker,
};

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// The fatal alert `unrecognized_name` (RFC 6066, section 3), in a record of TLS.
const NO_SUCH_SERVER: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// Serves what came in at a port of the gateway, until its end.
pub(crate) async fn serve(worker: Rc<Worker>, stream: TcpStream, peer: SocketAddr, number: u16) {
    let _counted = worker.shared.count_connection();
    // The configuration may have closed it meanwhile.
    let Some(port) = worker.listeners().port(number).cloned() else { return };
    // Small answers must not wait for acknowledgements.
    let _ = stream.set_nodelay(true);
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    let served = if port.listeners.is_tls() {
        Box::pin(secured(worker, stream, peer, &port)).await
    } else {
        let entrance = Entrance { port: number, server: None, tls: false };
        match port.listeners.all().first().cloned() {
            Some(listener) => carry(worker, Prefixed::new(Bytes::new(), stream), peer, &listener, entrance).await,
            None => Ok(()),
        }
    };
    if let Err(error) = served {
        tracing::debug!(%peer, port = number, %error, "connection ended");
    }
}

/// Finds the listener by the name of the server that the client asks for.
async fn secured(worker: Rc<Worker>, mut stream: TcpStream, peer: SocketAddr, port: &Port) -> io::Result<()> {
    let hello = hello::read(&mut stream).await?;
    let listener = match hello.server.as_deref() {
        Some(server) => port.listeners.for_host(server),
        None => port.listeners.for_any_host(),
    };
    let entrance = Entrance { port: port.number, server: hello.server.clone(), tls: true };
    let stream = Prefixed::new(hello.read, stream);
    let Some(listener) = listener else {
        tracing::info!(target: "access", client = %peer, server = hello.server.as_deref(), port = port.number, "no listener for that server");
        // To whom bytes are carried, who might speak another version of TLS, an answer of our own would be one of theirs
        // (TLSRoute: the connection is closed).
        if port.listeners.all().iter().any(|known| matches!(known.serves, Serves::Connections(_))) {
            return Ok(());
        }
        return refuse(stream).await;
    };
    if listener.tls == Tls::Passthrough {
        return carry(worker, stream, peer, listener, entrance).await;
    }
    let Some(config) = port.config(listener) else { return refuse(stream).await };
    let handshake = TlsAcceptor::from(config.clone()).accept(stream);
    match timeout(HANDSHAKE, handshake).await? {
        Ok(stream) => carry(worker, stream, peer, listener, entrance).await,
        Err(error) => {
            tracing::info!(target: "access", client = %peer, server = hello.server.as_deref(), %error, "handshake failed");
            Ok(())
        }
    }
}

async fn refuse(mut stream: impl Duplex) -> io::Result<()> {
    stream.write_all(&NO_SUCH_SERVER).await?;
    stream.shutdown().await
}

async fn carry(
    worker: Rc<Worker>,
    stream: impl Duplex + 'static,
    peer: SocketAddr,
    listener: &Arc<Listener>,
    entrance: Entrance,
) -> io::Result<()> {
    let server = entrance.server.clone();
    let arrival = Arrival::from_outside(peer, entrance);
    match &listener.serves {
        Serves::Requests { .. } => inbound::speak(worker, arrival, stream).await,
        Serves::Connections(_) => match listener.connection_route(server.as_deref()) {
            Some(route) => inbound::tcp::carry_by(&worker, &arrival, stream, &route.backends).await,
            None => tracing::info!(
                target: "access", client = %peer, server = server.as_deref(), port = listener.port, "no route for the connection"
            ),
        },
    }
    Ok(())
}
