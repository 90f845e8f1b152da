//! The daemon's listeners inside pods' namespaces.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
};

use mesh_abi::ports;
use rustix::net::sockopt;
use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};

use crate::proxy::Kind;

/// Connections that may wait for accept(), each listener.
const BACKLOG: i32 = 4096;

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

/// What a pod's listener is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Redirected IPv4 connections, on loopback.
    OutboundV4,
    /// Redirected IPv6 connections, on loopback.
    OutboundV6,
    /// Plaintext that TC steers here.
    Plaintext,
    /// Tunnels.
    Hbone,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 4] = [Self::OutboundV4, Self::OutboundV6, Self::Plaintext, Self::Hbone];

    /// What is done with the connections.
    #[must_use]
    pub const fn kind(self) -> Kind {
        match self {
            Self::OutboundV4 | Self::OutboundV6 => Kind::Outbound,
            Self::Plaintext => Kind::Plaintext,
            Self::Hbone => Kind::Hbone,
        }
    }

    /// The name in logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::OutboundV4 => "outbound IPv4",
            Self::OutboundV6 => "outbound IPv6",
            Self::Plaintext => "plaintext",
            Self::Hbone => "HBONE",
        }
    }

    /// What a listener is for, by its address; `None` where it is none of a pod's, or does not listen.
    #[must_use]
    pub fn of(listener: &TcpListener) -> Option<Self> {
        let address = listener.local_addr().ok().filter(|_| sockopt::socket_acceptconn(listener).unwrap_or(false))?;
        match (address.port(), address.ip()) {
            (ports::OUTBOUND, ip) if ip == Ipv4Addr::LOCALHOST => Some(Self::OutboundV4),
            (ports::OUTBOUND, ip) if ip == Ipv6Addr::LOCALHOST => Some(Self::OutboundV6),
            (ports::PLAINTEXT_INBOUND, ip) if ip.is_unspecified() => Some(Self::Plaintext),
            (ports::HBONE, ip) if ip.is_unspecified() => Some(Self::Hbone),
            _ => None,
        }
    }

    /// Opens the listener in the calling thread's namespace; `None` where the namespace has no IPv6 and it is for that.
    ///
    /// # Errors
    /// The port is taken.
    pub fn open(self) -> Result<Option<TcpListener>, ListenError> {
        match self {
            Self::OutboundV4 => listen((Ipv4Addr::LOCALHOST, ports::OUTBOUND).into()).map(Some),
            Self::OutboundV6 => match listen((Ipv6Addr::LOCALHOST, ports::OUTBOUND).into()) {
                Err(error) if lacks_ipv6(&error.source) => Ok(None),
                other => other.map(Some),
            },
            Self::Plaintext => listen_on_all(ports::PLAINTEXT_INBOUND).map(Some),
            Self::Hbone => listen_on_all(ports::HBONE).map(Some),
        }
    }
}

/// Opens the listeners in the calling thread's namespace of those roles that none was `inherited` for, and returns all.
///
/// # Errors
/// One of the ports is taken.
pub fn open_all(mut inherited: Vec<(Role, TcpListener)>) -> Result<Vec<(Role, TcpListener)>, ListenError> {
    for role in Role::ALL {
        if !inherited.iter().any(|(known, _)| *known == role)
            && let Some(listener) = role.open()?
        {
            inherited.push((role, listener));
        }
    }
    Ok(inherited)
}

/// Dual-stack, or IPv4 alone where the namespace has no IPv6.
fn listen_on_all(port: u16) -> Result<TcpListener, ListenError> {
    match listen((Ipv6Addr::UNSPECIFIED, port).into()) {
        Err(error) if lacks_ipv6(&error.source) => listen((Ipv4Addr::UNSPECIFIED, port).into()),
        other => other,
    }
}

fn lacks_ipv6(error: &io::Error) -> bool {
    let missing = [libc::EAFNOSUPPORT, libc::EADDRNOTAVAIL];
    error.raw_os_error().is_some_and(|code| missing.contains(&code))
}

fn listen(address: SocketAddr) -> Result<TcpListener, ListenError> {
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
