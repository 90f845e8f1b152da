//! The TCP connections of a pod's network namespace, whoever made them, and their end by force (sock_diag(7)).

use std::{
    collections::HashSet,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use crate::{
    netlink::{NetlinkSocket, Subject},
    netns::{NetNamespace, NetnsError},
};

/// `SOCK_DIAG_BY_FAMILY` and `SOCK_DESTROY` (include/uapi/linux/sock_diag.h).
const BY_FAMILY: u16 = 20;
const DESTROY: u16 = 21;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;
/// `TCP_LISTEN` (include/net/tcp_states.h).
const LISTEN: u8 = 10;
/// A mask of states: ESTABLISHED to FIN_WAIT2, CLOSE_WAIT, LAST_ACK, CLOSING; neither TIME_WAIT, CLOSE nor LISTEN.
const CONNECTED: u32 = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 11;
const ESTABLISHED: u32 = 1 << 1;
/// `INET_DIAG_INFO` (include/uapi/linux/inet_diag.h), as an attribute and as a bit of what is asked for.
const INFO: u16 = 2;
const WANT_INFO: u8 = 1 << (INFO - 1);
/// `struct inet_diag_msg`, after which attributes come.
const MESSAGE: usize = 72;
/// Where `tcpi_bytes_acked` and `tcpi_bytes_received` are (include/uapi/linux/tcp.h; Linux 4.1).
const BYTES_ACKED: usize = 120;
const BYTES_RECEIVED: usize = 128;
/// `struct inet_diag_sockid`
const SOCKET_ID: usize = 48;
/// The cookie that fits every socket.
const NO_COOKIE: [u8; 8] = [0xff; 8];

/// Connections could not be listed or ended.
#[derive(Debug, thiserror::Error)]
pub enum SockDiagError {
    /// The namespace could not be entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// The kernel gives no answer.
    #[error("cannot list a pod's connections: {0}; the kernel needs CONFIG_INET_DIAG (module tcp_diag)")]
    List(io::Error),
    /// The kernel ends no connections on request.
    #[error("this kernel ends no connections on request: it lacks CONFIG_INET_DIAG_DESTROY")]
    CannotDestroy,
    /// It refused this one.
    #[error("cannot end the connection {local} - {remote}: {source}")]
    Destroy {
        /// The connection's own end.
        local: SocketAddr,
        /// The other end.
        remote: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

/// A TCP connection as the kernel has it; addresses in IPv4-mapped form are shown as IPv4.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpConnection {
    /// The address and port of the namespace's own end.
    pub local: SocketAddr,
    /// Those of the other end.
    pub remote: SocketAddr,
    family: u8,
    state: u8,
    id: [u8; SOCKET_ID],
}

impl TcpConnection {
    /// The kernel's name of the socket (`SO_COOKIE`).
    #[must_use]
    pub fn cookie(&self) -> u64 {
        cookie(&self.id)
    }
}

/// The TCP sockets of a network namespace.
#[derive(Clone, Debug, Default)]
pub struct Sockets {
    /// Connections, those included that are about to be: they keep their cookies.
    pub connections: Vec<TcpConnection>,
    /// The ports at which somebody listens.
    pub listening: HashSet<u16>,
}

/// What the kernel has counted of an open TCP connection (`struct tcp_info`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// The kernel's name of the socket (`SO_COOKIE`).
    pub cookie: u64,
    /// `tcpi_bytes_acked`: payload that the other end has acknowledged, and 1 for the SYN of the end that dialled.
    pub acknowledged: u64,
    /// `tcpi_bytes_received`
    pub received: u64,
}

/// A way to the sockets of one network namespace.
pub struct SockDiag(NetlinkSocket);

impl SockDiag {
    /// Opens it.
    ///
    /// # Errors
    /// See [`SockDiagError`].
    pub fn open(netns: &NetNamespace) -> Result<Self, SockDiagError> {
        netns.enter(|| NetlinkSocket::open(Subject::SockDiag))?.map(Self).map_err(SockDiagError::List)
    }

    /// What has been counted of every connection that is open in both directions, of both families.
    ///
    /// # Errors
    /// See [`SockDiagError`].
    pub fn counted(&mut self) -> Result<Vec<Counted>, SockDiagError> {
        let mut found = Vec::new();
        for family in [AF_INET, AF_INET6] {
            let mut request = request(family, ESTABLISHED, &[0; SOCKET_ID]);
            request[2] = WANT_INFO;
            let each = |_, payload: &[u8]| found.extend(Counted::parse(payload));
            self.0.dump(BY_FAMILY, &request, each).map_err(SockDiagError::List)?;
        }
        Ok(found)
    }

    /// Every TCP socket of both families that is connected, about to be, or listens.
    ///
    /// # Errors
    /// See [`SockDiagError`].
    pub fn all(&mut self) -> Result<Sockets, SockDiagError> {
        let mut found = Sockets::default();
        for family in [AF_INET, AF_INET6] {
            let request = request(family, CONNECTED | 1 << LISTEN, &[0; SOCKET_ID]);
            let each = |_, payload: &[u8]| match TcpConnection::parse(payload) {
                Some(socket) if socket.state == LISTEN => _ = found.listening.insert(socket.local.port()),
                Some(socket) => found.connections.push(socket),
                None => {}
            };
            self.0.dump(BY_FAMILY, &request, each).map_err(SockDiagError::List)?;
        }
        Ok(found)
    }

    /// Whether the kernel ends connections on request: asks it to end one that cannot be.
    ///
    /// # Errors
    /// It does not, or gives no answer.
    pub fn can_destroy(&mut self) -> Result<(), SockDiagError> {
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let (family, id) = socket_id(nowhere, nowhere);
        self.destroy(&TcpConnection { local: nowhere, remote: nowhere, family, state: 0, id }).map(drop)
    }

    /// The connection between these two ends, if there is one.
    ///
    /// # Errors
    /// See [`SockDiagError`].
    pub fn find(&mut self, local: SocketAddr, remote: SocketAddr) -> Result<Option<TcpConnection>, SockDiagError> {
        let (family, id) = socket_id(local, remote);
        match self.0.get(BY_FAMILY, &request(family, CONNECTED, &id)) {
            // The kernel looks among listeners as well, and takes one for an answer.
            Ok(payload) => Ok(TcpConnection::parse(&payload).filter(|found| found.state != LISTEN)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(SockDiagError::List(error)),
        }
    }

    /// Ends a connection: its socket fails with ECONNABORTED, the other end gets a reset. False if it was gone already.
    ///
    /// # Errors
    /// See [`SockDiagError`].
    pub fn destroy(&mut self, connection: &TcpConnection) -> Result<bool, SockDiagError> {
        // With the socket's cookie, so that none that took its place is meant.
        match self.0.order(DESTROY, &request(connection.family, CONNECTED, &connection.id)) {
            Ok(()) => Ok(true),
            Err(error) => match error.raw_os_error() {
                Some(libc::ENOENT | libc::ESTALE) => Ok(false),
                Some(libc::EOPNOTSUPP) => Err(SockDiagError::CannotDestroy),
                _ => Err(SockDiagError::Destroy { local: connection.local, remote: connection.remote, source: error }),
            },
        }
    }
}

/// `struct inet_diag_req_v2`
fn request(family: u8, states: u32, id: &[u8; SOCKET_ID]) -> Vec<u8> {
    let mut request = vec![family, IPPROTO_TCP, 0, 0];
    request.extend(states.to_ne_bytes());
    request.extend(id);
    request
}

/// The family and the name of a socket: ports and addresses in network order, no interface, any cookie.
fn socket_id(local: SocketAddr, remote: SocketAddr) -> (u8, [u8; SOCKET_ID]) {
    let mut id = [0; SOCKET_ID];
    id[..2].copy_from_slice(&local.port().to_be_bytes());
    id[2..4].copy_from_slice(&remote.port().to_be_bytes());
    let octets = |ip: IpAddr| match ip {
        // In the first of four words.
        IpAddr::V4(ip) => [ip.octets(), [0; 4], [0; 4], [0; 4]].concat(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let (local, remote) = (local.ip().to_canonical(), remote.ip().to_canonical());
    id[4..20].copy_from_slice(&octets(local));
    id[20..36].copy_from_slice(&octets(remote));
    id[40..].copy_from_slice(&NO_COOKIE);
    (if local.is_ipv4() { AF_INET } else { AF_INET6 }, id)
}

impl TcpConnection {
    /// Reads a `struct inet_diag_msg`.
    fn parse(message: &[u8]) -> Option<Self> {
        let (&[family, state, _, _], rest) = message.split_first_chunk()?;
        let id: [u8; SOCKET_ID] = *rest.first_chunk()?;
        let end = |port: usize, address: usize| {
            let port = u16::from_be_bytes([id[port], id[port + 1]]);
            let octets: [u8; 16] = *id[address..].first_chunk()?;
            let ip = match family {
                AF_INET => Ipv4Addr::from(*octets.first_chunk::<4>()?).into(),
                AF_INET6 => Ipv6Addr::from(octets).to_canonical(),
                _ => return None,
            };
            Some(SocketAddr::new(ip, port))
        };
        Some(Self { local: end(0, 4)?, remote: end(2, 20)?, family, state, id })
    }
}

impl Counted {
    /// Reads a `struct inet_diag_msg` with its attributes.
    fn parse(message: &[u8]) -> Option<Self> {
        let id: &[u8; SOCKET_ID] = message.get(4..)?.first_chunk()?;
        let mut rest = message.get(MESSAGE..)?;
        // `struct nlattr`: the length with the header's own four bytes, the kind; the next one begins at a multiple of four.
        while let Some(&[a, b, c, d]) = rest.first_chunk() {
            let length = usize::from(u16::from_ne_bytes([a, b]));
            let payload = rest.get(4..length)?;
            if u16::from_ne_bytes([c, d]) == INFO {
                let number = |at: usize| Some(u64::from_ne_bytes(*payload.get(at..)?.first_chunk()?));
                return Some(Self {
                    cookie: cookie(id),
                    acknowledged: number(BYTES_ACKED)?,
                    received: number(BYTES_RECEIVED)?,
                });
            }
            rest = rest.get(length.next_multiple_of(4)..)?;
        }
        None
    }
}

/// The socket's cookie: two words of which the first is the lower half.
fn cookie(id: &[u8; SOCKET_ID]) -> u64 {
    let word = |at: usize| u64::from(u32::from_ne_bytes([id[at], id[at + 1], id[at + 2], id[at + 3]]));
    word(40) | word(44) << 32
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::{TcpListener, TcpStream},
        path::Path,
    };

    use super::*;

    fn own() -> SockDiag {
        let netns = NetNamespace::open(Path::new("/proc/self/ns/net")).expect("own namespace");
        SockDiag::open(&netns).expect("sock_diag")
    }

    #[test]
    fn a_connection_is_found_and_ended_and_its_listener_stays() {
        for address in ["127.0.0.1:0", "[::1]:0", "[::]:0"] {
            let listener = TcpListener::bind(address).expect("a listener");
            let port = listener.local_addr().expect("bound").port();
            let ip: IpAddr =
                if address.starts_with("[::1]") { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() };
            let client = TcpStream::connect((ip, port)).expect("connected");
            let (mut server, _) = listener.accept().expect("accepted");
            let (local, remote) = (client.local_addr().expect("bound"), client.peer_addr().expect("connected"));
            let mut diag = own();
            let all = diag.all().expect("a list");
            let both = [(local, remote), (remote, local)];
            let is_there = |ends| all.connections.iter().any(|each| (each.local, each.remote) == ends);
            assert!(both.into_iter().all(is_there) && all.listening.contains(&port), "{address}");
            let found = diag.find(local, remote).expect("an answer").expect("the connection");
            assert_eq!((found.local, found.remote), (local, remote), "{address}");
            assert!(diag.destroy(&found).expect("ended"), "{address}");
            assert!(server.read(&mut [0]).is_err(), "{address}: a reset and no orderly end");
            assert!(!diag.destroy(&found).expect("an answer"), "{address}: it is gone");
            assert_eq!(diag.find(local, remote).expect("an answer"), None, "{address}: not the listener");
            TcpStream::connect((ip, port)).expect("the listener is still there");
        }
    }

    #[test]
    fn bytes_of_open_connections_are_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let mut client = TcpStream::connect(listener.local_addr().expect("bound")).expect("connected");
        let (mut server, _) = listener.accept().expect("accepted");
        client.write_all(&[0; 1000]).expect("written");
        server.read_exact(&mut [0; 1000]).expect("read");
        let mut diag = own();
        let (local, remote) = (client.local_addr().expect("bound"), client.peer_addr().expect("connected"));
        let found = diag.find(local, remote).expect("an answer").expect("the connection");
        let counted = diag.counted().expect("a list");
        let ours = counted.iter().find(|counted| counted.cookie == found.cookie()).expect("it is open");
        assert_eq!((ours.acknowledged, ours.received), (1001, 0));
        diag.can_destroy().expect("this kernel does");
    }

    #[test]
    fn what_is_cut_short_is_no_connection() {
        for length in 0..SOCKET_ID + 4 {
            assert_eq!(TcpConnection::parse(&vec![AF_INET; length]), None, "{length}");
        }
        assert!(TcpConnection::parse(&[AF_INET; SOCKET_ID + 4]).is_some());
        assert_eq!(TcpConnection::parse(&[0; 72]), None, "of no family");
    }
}
