//! An authenticated TLS connection whose records we protect ourselves.

mod byte_stream;
mod handshake;
mod input;
mod peer;
mod socket;
mod stream;

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

pub(crate) use self::byte_stream::{ByteStream, Came};
pub(crate) use self::input::Input;
pub(crate) use self::peer::PeerChain;
pub(crate) use self::socket::{SessionSocket, end_abandoned, unheard};
pub use self::socket::{break_off, unheard_for};
pub use self::stream::TlsStream;
use crate::record::{Keys, RecordError};

/// How often a silent peer is asked whether it is there; three times without an answer, and it is not.
const PROBE_EVERY: Duration = Duration::from_secs(15);

/// Why a handshake failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Tls(#[from] rustls::Error),
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// What a handshake ends with.
pub(crate) struct Session {
    pub(crate) socket: SessionSocket,
    pub(crate) keys: RefCell<Keys>,
    /// Bytes that came behind the handshake.
    pub(crate) input: Input,
    /// The protocol that both sides chose.
    pub(crate) alpn: Option<Vec<u8>>,
    /// The peer's verified certificates.
    pub(crate) peer: Option<Arc<PeerChain>>,
}

impl Session {
    /// Shakes hands as the client. `peer` names the server to TLS alone; nothing is sent or verified by it.
    pub(crate) async fn connect(
        socket: TcpStream,
        config: Arc<ClientConfig>,
        peer: SocketAddr,
    ) -> Result<Box<Self>, HandshakeError> {
        tune(&socket);
        let name = ServerName::IpAddress(peer.ip().into());
        // Boxed, so that what a handshake needs is gone after it.
        Box::pin(handshake::run(socket, UnbufferedClientConnection::new(config, name)?)).await
    }

    /// Shakes hands as the server.
    pub(crate) async fn accept(socket: TcpStream, config: Arc<ServerConfig>) -> Result<Box<Self>, HandshakeError> {
        tune(&socket);
        Box::pin(handshake::run(socket, UnbufferedServerConnection::new(config)?)).await
    }
}

/// Options of a tunnel's socket. Failing costs latency, or time until a dead peer is noticed.
///
/// TCP_USER_TIMEOUT is not among them: since Linux 5.11 it also ends connections whose reader is merely slow.
fn tune(socket: &TcpStream) {
    let _ = socket.set_nodelay(true);
    let socket = SockRef::from(socket);
    let keepalive = TcpKeepalive::new().with_time(PROBE_EVERY).with_interval(PROBE_EVERY).with_retries(3);
    let _ = socket.set_tcp_keepalive(&keepalive);
}
