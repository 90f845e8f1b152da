//! Whose the other end of a connection over loopback is: the kernel's word, by sock_diag.

use std::{
    io,
    net::{SocketAddr, SocketAddrV4},
    os::fd::OwnedFd,
    time::Duration,
};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with, sockopt};

/// The kernel answers before send() returns; this bounds the unforeseen.
const PATIENCE: Duration = Duration::from_secs(2);
/// `SOCK_DIAG_BY_FAMILY` (include/uapi/linux/sock_diag.h).
const BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const AF_INET: u8 = 2;
const IPPROTO_TCP: u8 = 6;
/// `TCP_ESTABLISHED` (include/net/tcp_states.h).
const ESTABLISHED: u8 = 1;
/// `struct nlmsghdr`
const HEADER: usize = 16;
/// `struct inet_diag_sockid`, within `struct inet_diag_msg`.
const SOCKET_ID: usize = 48;
/// `struct inet_diag_msg`: where `idiag_uid` and `idiag_inode` are, and its length.
const UID: usize = 64;
const INODE: usize = 68;
const MESSAGE: usize = 72;
/// `INET_DIAG_CGROUP_ID` (include/uapi/linux/inet_diag.h), which the kernel tells unasked since Linux 5.9.
const CGROUP: u16 = 21;
/// One answer.
const DATAGRAM: usize = 8 << 10;

/// The socket at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peer {
    /// Whose it is (`idiag_uid`).
    pub(crate) uid: u32,
    /// The cgroup (v2) that it was made in, by its inode; `None` where the kernel does not tell.
    pub(crate) cgroup: Option<u64>,
}

/// Who holds the other end of a connection between two ends of this network namespace, of which `ours` is this program's.
///
/// `None` where nobody does any more. The kernel shows a socket that its process has closed as root's: it is nobody's here, and
/// no answer has to go to it.
///
/// # Errors
/// The kernel gives no answer (it needs CONFIG_INET_DIAG).
pub(crate) fn of_loopback(ours: SocketAddrV4, theirs: SocketAddrV4) -> io::Result<Option<Peer>> {
    let protocol = Some(rustix::net::netlink::SOCK_DIAG);
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(PATIENCE))?;
    // As the other end has it: its own address first.
    let id = socket_id(theirs, ours);
    send(&socket, &question(&id)?, SendFlags::empty())?;
    match answer(&socket)? {
        Answer::Socket(payload) => Ok(read(&payload, &id)),
        Answer::Error(code) if code == rustix::io::Errno::NOENT.raw_os_error() => Ok(None),
        Answer::Error(code) => Err(io::Error::from_raw_os_error(code)),
    }
}

enum Answer {
    Socket(Vec<u8>),
    Error(i32),
}

/// `struct nlmsghdr` and `struct inet_diag_req_v2`
fn question(id: &[u8; SOCKET_ID]) -> io::Result<Vec<u8>> {
    let mut request = vec![AF_INET, IPPROTO_TCP, 0, 0];
    request.extend((1u32 << ESTABLISHED).to_ne_bytes());
    request.extend(id);
    let length = u32::try_from(HEADER + request.len()).map_err(io::Error::other)?;
    let mut message = Vec::from(length.to_ne_bytes());
    message.extend(BY_FAMILY.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    // The only question on this socket, and the kernel gives it its port.
    message.extend([0; 8]);
    message.extend(request);
    Ok(message)
}

fn answer(socket: &OwnedFd) -> io::Result<Answer> {
    let mut buffer = vec![0u8; DATAGRAM];
    let (_, length) = recv(socket, buffer.as_mut_slice(), RecvFlags::empty())?;
    let datagram = buffer.get(..length).unwrap_or_default();
    let cut = || io::Error::from(io::ErrorKind::UnexpectedEof);
    let header = datagram.first_chunk::<HEADER>().ok_or_else(cut)?;
    let end = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
    let payload = datagram.get(HEADER..end).ok_or_else(cut)?;
    if u16::from_ne_bytes([header[4], header[5]]) == BY_FAMILY {
        return Ok(Answer::Socket(payload.to_vec()));
    }
    // `struct nlmsgerr` begins with a negative number of an error.
    let code = payload.first_chunk().map(|code| i32::from_ne_bytes(*code)).ok_or_else(cut)?;
    Ok(Answer::Error(code.saturating_neg()))
}

/// Ports and addresses in network order, no interface, any cookie.
fn socket_id(local: SocketAddrV4, remote: SocketAddrV4) -> [u8; SOCKET_ID] {
    let mut id = [0; SOCKET_ID];
    id[..2].copy_from_slice(&local.port().to_be_bytes());
    id[2..4].copy_from_slice(&remote.port().to_be_bytes());
    id[4..8].copy_from_slice(&local.ip().octets());
    id[20..24].copy_from_slice(&remote.ip().octets());
    id[40..].fill(0xff);
    id
}

/// Reads a `struct inet_diag_msg`: of an open connection with these ends that a process still holds, or nothing.
fn read(payload: &[u8], asked: &[u8; SOCKET_ID]) -> Option<Peer> {
    let number = |at: usize| Some(u32::from_ne_bytes(*payload.get(at..)?.first_chunk()?));
    // The kernel looks among listeners and connections that are at their end as well.
    let (state, id) = (*payload.get(1)?, payload.get(4..4 + SOCKET_ID)?);
    let same_ends = id[..4] == asked[..4] && ends(id) == ends(asked);
    if state != ESTABLISHED || !same_ends || number(INODE)? == 0 {
        return None;
    }
    Some(Peer { uid: number(UID)?, cgroup: cgroup(payload.get(MESSAGE..)?) })
}

/// Both addresses; a socket of IPv6 that speaks IPv4 has them in the last of four words.
fn ends(id: &[u8]) -> [Option<&[u8]>; 2] {
    let address = |at: usize| {
        let words = id.get(at..at + 16)?;
        if words.starts_with(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]) { words.get(12..) } else { words.get(..4) }
    };
    [address(4), address(20)]
}

fn cgroup(mut attributes: &[u8]) -> Option<u64> {
    // `struct nlattr`: the length with the header's own four bytes, the kind; the next begins at a multiple of four.
    while let Some(&[a, b, c, d]) = attributes.first_chunk() {
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let payload = attributes.get(4..length)?;
        if u16::from_ne_bytes([c, d]) == CGROUP {
            return payload.first_chunk().map(|id| u64::from_ne_bytes(*id));
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
    None
}

/// The ends of a connection by IPv4.
pub(crate) fn v4(address: SocketAddr) -> Option<SocketAddrV4> {
    match address {
        SocketAddr::V4(address) => Some(address),
        SocketAddr::V6(address) => Some(SocketAddrV4::new(address.ip().to_ipv4_mapped()?, address.port())),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener, TcpStream};

    use super::*;

    fn both(listener: &TcpListener, stream: &TcpStream) -> (SocketAddrV4, SocketAddrV4) {
        (v4(listener.local_addr().unwrap()).unwrap(), v4(stream.local_addr().unwrap()).unwrap())
    }

    #[test]
    fn a_client_is_who_the_kernel_says() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (ours, theirs) = both(&listener, &client);
        let peer = of_loopback(ours, theirs).unwrap().expect("it is there");
        assert_eq!(peer.uid, rustix::process::geteuid().as_raw());
        // Linux 5.9 has come long before what the mesh needs.
        assert!(peer.cgroup.is_some());
    }

    /// Of a socket that its process has closed, the kernel says that it is root's.
    #[test]
    fn whoever_has_closed_is_nobody_and_not_root() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (ours, theirs) = both(&listener, &client);
        let (held, _) = listener.accept().unwrap();
        drop(client);
        assert_eq!(of_loopback(ours, theirs).unwrap(), None, "in FIN_WAIT2, without a process");
        drop(held);
        assert_eq!(of_loopback(ours, theirs).unwrap(), None, "in TIME_WAIT");
        // A listener is no client, though the kernel finds it for any end that nobody has.
        assert_eq!(of_loopback(theirs, ours).unwrap(), None);
    }

    #[test]
    fn what_is_cut_short_is_nobody() {
        let id = socket_id(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1), SocketAddrV4::new(Ipv4Addr::LOCALHOST, 2));
        let mut whole = vec![AF_INET, ESTABLISHED, 0, 0];
        whole.extend(id);
        whole.extend([1; MESSAGE - 4 - SOCKET_ID]);
        assert!(read(&whole, &id).is_some());
        for length in 0..MESSAGE {
            assert_eq!(read(&whole[..length], &id), None, "{length}");
        }
        let mut other = id;
        other[3] = 9;
        assert_eq!(read(&whole, &other), None, "another connection");
    }
}
