//! The TCP sockets of a network namespace, whoever made them, and their end by force (sock_diag(7)).

use std::{collections::HashSet, io, net::SocketAddr};

use rustix::io::Errno;

use crate::{
    inet_diag::{
        AF_INET, AF_INET6, Answer, CONNECTED, ESTABLISHED, Holder, LISTEN, Request, SocketId, TcpConnection,
        TcpCounters,
    },
    socket::{NetlinkSocket, Subject},
};

/// `SOCK_DIAG_BY_FAMILY` and `SOCK_DESTROY` (include/uapi/linux/sock_diag.h).
const BY_FAMILY: u16 = 20;
const DESTROY: u16 = 21;

/// Connections could not be looked at or ended.
#[derive(Debug, thiserror::Error)]
pub enum SockDiagError {
    /// The kernel gives no answer.
    #[error("cannot look at TCP connections: {0}; the kernel needs CONFIG_INET_DIAG (module tcp_diag)")]
    Ask(io::Error),
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

/// The TCP sockets of a network namespace.
#[derive(Clone, Debug, Default)]
pub struct TcpSockets {
    /// Connections, those included that are about to be: they keep their cookies.
    pub connections: Vec<TcpConnection>,
    /// The ports at which somebody listens.
    pub listening: HashSet<u16>,
}

/// A way to the TCP sockets of one network namespace.
#[derive(Debug)]
pub struct SockDiag(NetlinkSocket);

impl SockDiag {
    /// Opens it in the calling thread's namespace.
    ///
    /// # Errors
    /// See [`SockDiagError`].
    pub fn open() -> Result<Self, SockDiagError> {
        NetlinkSocket::open(Subject::SockDiag).map(Self).map_err(SockDiagError::Ask)
    }

    /// What has been counted of every connection that is open in both directions, of both families.
    ///
    /// # Errors
    /// See [`SockDiagError`].
    pub fn counters(&mut self) -> Result<Vec<TcpCounters>, SockDiagError> {
        let mut found = Vec::new();
        for family in [AF_INET, AF_INET6] {
            let request = Request { with_counters: true, ..Request::all(family, 1 << ESTABLISHED) };
            self.list(&request, |answer| found.extend(TcpCounters::of(answer)))?;
        }
        Ok(found)
    }

    /// Every TCP socket of both families that is connected, about to be, or listens.
    ///
    /// # Errors
    /// See [`SockDiagError`].
    pub fn all(&mut self) -> Result<TcpSockets, SockDiagError> {
        let mut found = TcpSockets::default();
        for family in [AF_INET, AF_INET6] {
            let request = Request::all(family, CONNECTED | 1 << LISTEN);
            self.list(&request, |answer| match TcpConnection::of(answer) {
                Some(socket) if socket.state == LISTEN => _ = found.listening.insert(socket.local.port()),
                Some(socket) => found.connections.push(socket),
                None => {}
            })?;
        }
        Ok(found)
    }

    /// The connection between these two ends, if there is one.
    ///
    /// # Errors
    /// See [`SockDiagError`].
    pub fn find(&mut self, local: SocketAddr, remote: SocketAddr) -> Result<Option<TcpConnection>, SockDiagError> {
        let found = self.one(local, remote, TcpConnection::of)?;
        // The kernel looks among listeners as well, and takes one for an answer.
        Ok(found.filter(|found| found.state != LISTEN))
    }

    /// Who holds the socket at `local` of the open connection between these two ends. `None` where nobody does any more: no
    /// answer has to go to it.
    ///
    /// # Errors
    /// See [`SockDiagError`].
    pub fn holder(&mut self, local: SocketAddr, remote: SocketAddr) -> Result<Option<Holder>, SockDiagError> {
        self.one(local, remote, |answer| Holder::of(answer, local, remote))
    }

    /// Whether the kernel ends connections on request: asks it to end one that cannot be.
    ///
    /// # Errors
    /// It does not, or gives no answer.
    pub fn can_destroy(&mut self) -> Result<(), SockDiagError> {
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let (family, id) = SocketId::of(nowhere, nowhere);
        self.destroy(&TcpConnection { local: nowhere, remote: nowhere, family, state: 0, id }).map(drop)
    }

    /// Ends a connection: its socket fails with ECONNABORTED, the other end gets a reset. False if it was gone already.
    ///
    /// # Errors
    /// See [`SockDiagError`].
    pub fn destroy(&mut self, connection: &TcpConnection) -> Result<bool, SockDiagError> {
        // With the socket's cookie, so that none that took its place is meant.
        match self.0.order(DESTROY, &Request::one(connection.family, connection.id).bytes()) {
            Ok(()) => Ok(true),
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::NOENT | Errno::STALE) => Ok(false),
                Some(Errno::OPNOTSUPP) => Err(SockDiagError::CannotDestroy),
                _ => Err(SockDiagError::Destroy { local: connection.local, remote: connection.remote, source: error }),
            },
        }
    }

    fn list(&mut self, request: &Request, mut each: impl FnMut(&Answer<'_>)) -> Result<(), SockDiagError> {
        let each = |_, payload: &[u8]| {
            if let Some(answer) = Answer::parse(payload) {
                each(&answer);
            }
        };
        self.0.dump(BY_FAMILY, &request.bytes(), each).map_err(SockDiagError::Ask)
    }

    /// What `read` makes of the kernel's answer about one socket, if there is one.
    fn one<T>(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
        read: impl FnOnce(&Answer<'_>) -> Option<T>,
    ) -> Result<Option<T>, SockDiagError> {
        let (family, id) = SocketId::of(local, remote);
        match self.0.get(BY_FAMILY, &Request::one(family, id).bytes()) {
            Ok(payload) => Ok(Answer::parse(&payload).as_ref().and_then(read)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(SockDiagError::Ask(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream},
    };

    use super::*;

    fn own() -> SockDiag {
        SockDiag::open().expect("sock_diag")
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
        let counters = diag.counters().expect("a list");
        let ours = counters.iter().find(|counters| counters.cookie == found.cookie()).expect("it is open");
        assert_eq!((ours.acknowledged, ours.received), (1001, 0));
        diag.can_destroy().expect("this kernel does");
    }

    #[test]
    fn a_clients_socket_is_held_by_who_has_made_it() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a listener");
        let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("connected");
        let (theirs, ours) = (client.local_addr().expect("bound"), client.peer_addr().expect("connected"));
        let holder = own().holder(theirs, ours).expect("an answer").expect("it is open");
        assert_eq!(holder.uid, rustix::process::geteuid().as_raw());
        // Linux 5.9 has come long before what the mesh needs.
        assert!(holder.cgroup.is_some());
    }

    /// Of a socket that its process has closed, the kernel says that it is root's.
    #[test]
    fn whoever_has_closed_is_nobody_and_not_root() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a listener");
        let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("connected");
        let (theirs, ours) = (client.local_addr().expect("bound"), client.peer_addr().expect("connected"));
        let (held, _) = listener.accept().expect("accepted");
        let mut diag = own();
        drop(client);
        assert_eq!(diag.holder(theirs, ours).expect("an answer"), None, "in FIN_WAIT2, without a process");
        drop(held);
        assert_eq!(diag.holder(theirs, ours).expect("an answer"), None, "in TIME_WAIT");
        // A listener is no client, though the kernel finds it for any end that nobody has.
        assert_eq!(diag.holder(ours, theirs).expect("an answer"), None);
    }
}
