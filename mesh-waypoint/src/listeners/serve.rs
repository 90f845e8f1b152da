//! One connection from outside.

use std::{io, net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use bytes::Bytes;
use mesh_core::l7::{
    Topology,
    gateway::{Listener, Serves, Tls},
};
use tokio::{io::AsyncWriteExt as _, net::TcpStream, time::timeout};
use tokio_rustls::TlsAcceptor;

use super::{
    Port,
    client_certificate::{self, Shown},
    hello::{self, NoHello},
    proxied::{self, NotProxied},
};
use crate::{
    duplex::{Duplex, Prefixed},
    inbound::{self, Arrival, Entrance, Lifeless},
    serve::ConnectionGuard,
    telemetry::{BadInput, Sender},
    worker::Worker,
};

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// The fatal alert `unrecognized_name` (RFC 6066, section 3), in a record of TLS.
const NO_SUCH_SERVER: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// Who has connected, and for whom: another than itself where a balancer says so.
#[derive(Debug, Clone, Copy)]
struct From {
    peer: SocketAddr,
    client: SocketAddr,
    /// The address that it has connected to.
    to: Option<SocketAddr>,
}

/// Serves what came in at a port of the gateway, until its end.
pub(crate) async fn serve(
    worker: Rc<Worker>,
    mut stream: TcpStream,
    (peer, number): (SocketAddr, u16),
    _counted: ConnectionGuard,
) {
    let listeners = worker.listeners();
    // The configuration may have closed it meanwhile.
    let Some(port) = listeners.port(number).cloned() else { return };
    // Small answers must not wait for acknowledgements.
    let _ = stream.set_nodelay(true);
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    let to = stream.local_addr().ok().map(|to| SocketAddr::new(to.ip().to_canonical(), to.port()));
    let (mut from, mut read) = (From { peer, client: peer, to }, Bytes::new());
    if listeners.topology.proxy_protocol {
        match proxied::read(&mut stream).await {
            Ok((source, rest)) => (from.client, read) = (source.unwrap_or(peer), rest),
            Err(error) => return not_proxied(&worker, from, number, &error),
        }
    }
    let stream = Prefixed::new(read, stream);
    let topology = listeners.topology;
    let served = if port.listeners.is_tls() {
        Box::pin(secured(worker, stream, from, (&port, topology))).await
    } else {
        let address = from.to;
        let entrance = Entrance { port: number, server: None, address, tls: false, https: false, topology };
        match port.listeners.all().first().cloned() {
            Some(listener) => carry(worker, stream, (from, None), &listener, entrance).await,
            None => Ok(()),
        }
    };
    if let Err(error) = served {
        tracing::debug!(%peer, port = number, %error, "connection ended");
    }
}

/// Ends a connection that does not begin as it has to.
fn not_proxied(worker: &Worker, from: From, port: u16, error: &NotProxied) {
    match error {
        NotProxied::Silent => {}
        NotProxied::Late => worker.shared.telemetry.own.lifeless(Lifeless::Head),
        NotProxied::Malformed(_) | NotProxied::Broken(_) => refused(worker, from, port, &error),
    }
}

fn refused(worker: &Worker, from: From, port: u16, error: &dyn std::fmt::Display) {
    worker.shared.telemetry.bad_inputs.count(Sender::Client, BadInput::ProxyProtocol);
    tracing::info!(target: "access", client = %from.peer, port, %error, "connection refused");
}

/// Finds the listener by the name of the server that the client asks for.
async fn secured(
    worker: Rc<Worker>,
    mut stream: impl Duplex + 'static,
    from: From,
    (port, topology): (&Port, Topology),
) -> io::Result<()> {
    let hello = match hello::read(&mut stream).await {
        Ok(hello) => hello,
        Err(error @ NoHello::Proxied) => {
            refused(&worker, from, port.number, &error);
            return Ok(());
        }
        Err(NoHello::Other(error)) => return Err(error),
    };
    let listener = match hello.server.as_deref() {
        Some(server) => port.listeners.for_host(server),
        None => port.listeners.for_any_host(),
    };
    let server = hello.server.clone();
    let entrance = Entrance { port: port.number, server, address: from.to, tls: true, https: true, topology };
    let stream = Prefixed::new(hello.read, stream);
    let Some(listener) = listener else {
        tracing::info!(target: "access", client = %from.client, server = hello.server.as_deref(), port = port.number, "no listener for that server");
        // To whom bytes are carried, who might speak another version of TLS, an answer of our own would be one of theirs
        // (TLSRoute: the connection is closed).
        if port.listeners.all().iter().any(|known| matches!(known.serves, Serves::Connections(_))) {
            return Ok(());
        }
        return refuse(stream).await;
    };
    if listener.tls == Tls::Passthrough {
        return carry(worker, stream, (from, None), listener, entrance).await;
    }
    let Some(ending) = port.config(listener) else { return refuse(stream).await };
    let handshake = TlsAcceptor::from(ending.config.clone()).accept(stream);
    match timeout(HANDSHAKE, handshake).await? {
        Ok(stream) => {
            let shown = ending.client(stream.get_ref().1).and_then(client_certificate::describe);
            carry(worker, stream, (from, shown), listener, entrance).await
        }
        Err(error) => {
            tracing::info!(target: "access", client = %from.client, server = hello.server.as_deref(), %error, "handshake failed");
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
    (from, certificate): (From, Option<Shown>),
    listener: &Arc<Listener>,
    entrance: Entrance,
) -> io::Result<()> {
    let server = entrance.server.clone();
    let arrival = Arrival::from_outside((from.peer, from.client), certificate, entrance);
    match &listener.serves {
        Serves::Requests { .. } => inbound::speak(worker, arrival, stream).await,
        Serves::Connections(_) => {
            let route = listener.connection_route(server.as_deref());
            inbound::tcp::carry_by(&worker, &arrival, stream, route.map(|route| &*route.backends)).await;
        }
    }
    Ok(())
}
