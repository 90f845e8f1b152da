//! Sockets with the options that matter here.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use clap::ValueEnum;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;

/// Which kind of socket a client uses for an address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Family {
    /// That of the address.
    #[default]
    Auto,
    /// AF_INET6 with an IPv4-mapped address (RFC 4291, section 2.5.5.2) for an IPv4 one.
    V4Mapped,
}

/// Raises the limit of open files as far as it goes.
pub(crate) fn allow_many_files() -> io::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?)
}

/// A listener; one at an IPv6 wildcard address takes IPv4 too.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = bound(address, Type::STREAM, Protocol::TCP)?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// A UDP socket, dual-stack likewise.
pub(crate) fn datagrams(address: SocketAddr) -> io::Result<UdpSocket> {
    UdpSocket::from_std(bound(address, Type::DGRAM, Protocol::UDP)?.into())
}

fn bound(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// How a client connects.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dial {
    pub(crate) to: SocketAddr,
    pub(crate) from: Option<SocketAddr>,
    pub(crate) family: Family,
    /// connect() on a socket that is non-blocking already, as event loops do; else it blocks.
    pub(crate) nonblocking: bool,
}

impl Dial {
    /// Connects, with Nagle's algorithm off.
    pub(crate) async fn connect(self) -> io::Result<TcpStream> {
        let stream = if self.nonblocking {
            self.connect_nonblocking().await?
        } else {
            let connected = tokio::task::spawn_blocking(move || {
                let (socket, address) = self.socket()?;
                socket.connect(&address.into())?;
                socket.set_nonblocking(true)?;
                Ok::<_, io::Error>(socket)
            });
            TcpStream::from_std(connected.await.map_err(io::Error::other)??.into())?
        };
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    async fn connect_nonblocking(self) -> io::Result<TcpStream> {
        let (socket, address) = self.socket()?;
        socket.set_nonblocking(true)?;
        match socket.connect(&address.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(nix::errno::Errno::EINPROGRESS as i32) => {}
            Err(error) => return Err(error),
        }
        let stream = TcpStream::from_std(socket.into())?;
        stream.writable().await?;
        match stream.take_error()? {
            Some(error) => Err(error),
            None => Ok(stream),
        }
    }

    fn socket(self) -> io::Result<(Socket, SocketAddr)> {
        let mapped = self.family == Family::V4Mapped;
        let address = if mapped { mapped_address(self.to) } else { self.to };
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        if mapped {
            socket.set_only_v6(false)?;
        }
        if let Some(from) = self.from {
            let from = if mapped { mapped_address(from) } else { from };
            socket.set_reuse_address(true)?;
            socket.bind(&from.into())?;
        }
        Ok((socket, address))
    }
}

fn mapped_address(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    SocketAddr::new(Ipv6Addr::into(ip), address.port())
}

/// Closes a connection with RST: SO_LINGER with zero seconds.
pub(crate) fn reset(stream: TcpStream) -> io::Result<()> {
    stream.set_zero_linger()?;
    drop(stream);
    Ok(())
}
