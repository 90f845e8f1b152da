//! Sockets that the daemon opens inside pods' namespaces.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use mesh_abi::ports;
use mesh_core::policy::Permit;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpSocket, TcpStream};

use crate::{
    bpf::{FlowTable, MapAccessError},
    netns::{NetNamespace, NetnsError},
};

/// Connections that may wait for accept(), each listener.
const BACKLOG: i32 = 4096;
/// How long a connection attempt may take, in whatever direction.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A listener could not be opened.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen on {address} in the pod's namespace: {source}; does the application use one of the mesh's ports (15001, 15006, 15008)?"
)]
pub struct ListenError {
    /// The address.
    pub address: SocketAddr,
    /// Why.
    pub source: io::Error,
}

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
    /// No answer within [`CONNECT_TIMEOUT`].
    #[error("no answer within {} s", CONNECT_TIMEOUT.as_secs())]
    TimedOut,
}

/// The listeners of one pod, open and not yet accepting.
pub struct PodListeners {
    /// On loopback, for redirected connections; one for each family that the namespace has.
    pub outbound: Vec<std::net::TcpListener>,
    /// For plaintext that TC steers here.
    pub plaintext: std::net::TcpListener,
    /// For HBONE.
    pub hbone: std::net::TcpListener,
}

impl PodListeners {
    /// Opens all of them in the calling thread's namespace.
    ///
    /// # Errors
    /// One of the ports is taken.
    pub fn open() -> Result<Self, ListenError> {
        let mut outbound = vec![listen((Ipv4Addr::LOCALHOST, ports::OUTBOUND).into())?];
        match listen((Ipv6Addr::LOCALHOST, ports::OUTBOUND).into()) {
            Ok(listener) => outbound.push(listener),
            Err(error) if lacks_ipv6(&error.source) => {}
            Err(error) => return Err(error),
        }
        Ok(Self { outbound, plaintext: listen_on_all(ports::PLAINTEXT_INBOUND)?, hbone: listen_on_all(ports::HBONE)? })
    }
}

/// Dual-stack, or IPv4 alone where the namespace has no IPv6.
fn listen_on_all(port: u16) -> Result<std::net::TcpListener, ListenError> {
    match listen((Ipv6Addr::UNSPECIFIED, port).into()) {
        Err(error) if lacks_ipv6(&error.source) => listen((Ipv4Addr::UNSPECIFIED, port).into()),
        other => other,
    }
}

fn lacks_ipv6(error: &io::Error) -> bool {
    let missing = [libc::EAFNOSUPPORT, libc::EADDRNOTAVAIL];
    error.raw_os_error().is_some_and(|code| missing.contains(&code))
}

fn listen(address: SocketAddr) -> Result<std::net::TcpListener, ListenError> {
    let open = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        if address.is_ipv6() {
            socket.set_only_v6(!address.ip().is_unspecified())?;
        }
        // Connections of an earlier daemon that linger do not hold the port.
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    open().map_err(|source| ListenError { address, source })
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
