//! Connections that the daemon opens inside pods' namespaces.

use std::{io, net::SocketAddr, time::Duration};

use mesh_core::policy::Permit;
use tokio::net::{TcpSocket, TcpStream};

use crate::{
    bpf::{FlowTable, MapAccessError},
    netns::{NetNamespace, NetnsError},
};

/// How long a connection attempt may take, in whatever direction.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The namespace is gone.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// The kernel's record of the client could not be written.
    #[error(transparent)]
    Announce(#[from] MapAccessError),
    /// The other end refused or cannot be reached.
    #[error("{0}")]
    Connect(#[from] io::Error),
    /// No answer for a while, where there is another endpoint to ask.
    #[error("no answer; another endpoint is asked")]
    Unanswered,
    /// No answer within [`CONNECT_TIMEOUT`].
    #[error("no answer within {} s", CONNECT_TIMEOUT.as_secs())]
    TimedOut,
}

/// Connects from inside a pod's namespace, with the pod's address as the source.
///
/// # Errors
/// See [`DialError`].
pub async fn dial(netns: &NetNamespace, to: SocketAddr) -> Result<TcpStream, DialError> {
    connect(open(netns, to)?, to).await
}

/// Connects to an application inside its pod's namespace, as the permit says that it may be; the application sees
/// `client` as its peer.
///
/// # Errors
/// See [`DialError`].
pub async fn dial_application(
    netns: &NetNamespace,
    to: SocketAddr,
    client: SocketAddr,
    flows: &FlowTable,
    _permit: &Permit,
) -> Result<TcpStream, DialError> {
    let socket = open(netns, to)?;
    flows.announce_client(&socket, client)?;
    connect(socket, to).await
}

fn open(netns: &NetNamespace, to: SocketAddr) -> Result<TcpSocket, DialError> {
    let socket = netns.enter(|| match to {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    })??;
    socket.set_nodelay(true)?;
    Ok(socket)
}

async fn connect(socket: TcpSocket, to: SocketAddr) -> Result<TcpStream, DialError> {
    match tokio::time::timeout(CONNECT_TIMEOUT, socket.connect(to)).await {
        Ok(connected) => Ok(connected?),
        Err(_elapsed) => Err(DialError::TimedOut),
    }
}

/// Ends a connection with a reset, so that the other end learns that it was cut and not finished.
pub fn reset(stream: TcpStream) {
    let socket = socket2::SockRef::from(&stream);
    // Without the option the kernel sends a FIN if nothing was lost: the best that is left.
    let _ = socket.set_linger(Some(Duration::ZERO));
    drop(stream);
}
