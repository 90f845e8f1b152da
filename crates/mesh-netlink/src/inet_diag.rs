//! What sock_diag is asked and what it answers of TCP sockets (include/uapi/linux/inet_diag.h).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::message::attribute;

pub(crate) const AF_INET: u8 = 2;
pub(crate) const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;
/// `TCP_ESTABLISHED` and `TCP_LISTEN` (include/net/tcp_states.h).
pub(crate) const ESTABLISHED: u8 = 1;
pub(crate) const LISTEN: u8 = 10;
/// A mask of states: ESTABLISHED to FIN_WAIT2, CLOSE_WAIT, LAST_ACK, CLOSING; neither TIME_WAIT, CLOSE nor LISTEN.
pub(crate) const CONNECTED: u32 = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 11;
/// `INET_DIAG_INFO`, as an attribute and as a bit of what is asked for.
const INFO: u16 = 2;
const WANT_INFO: u8 = 1 << (INFO - 1);
/// `INET_DIAG_CGROUP_ID`, which the kernel tells unasked since Linux 5.9.
const CGROUP: u16 = 21;
/// `struct inet_diag_msg`, after which attributes come, and where `idiag_uid` and `idiag_inode` are in it.
const ANSWER: usize = 72;
const UID: usize = 64;
const INODE: usize = 68;
/// Where `tcpi_bytes_acked` and `tcpi_bytes_received` are (include/uapi/linux/tcp.h; Linux 4.1).
const BYTES_ACKED: usize = 120;
const BYTES_RECEIVED: usize = 128;
/// The cookie that fits every socket.
const NO_COOKIE: [u8; 8] = [0xff; 8];

/// `struct inet_diag_sockid`: ports and addresses in network order, the interface, the cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SocketId([u8; Self::LENGTH]);

impl SocketId {
    const LENGTH: usize = 48;
    /// Of every socket, for lists.
    pub(crate) const ANY: Self = Self([0; Self::LENGTH]);

    /// The family and the name of the socket between these ends, whatever its cookie is.
    pub(crate) fn of(local: SocketAddr, remote: SocketAddr) -> (u8, Self) {
        let mut id = [0; Self::LENGTH];
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
        (if local.is_ipv4() { AF_INET } else { AF_INET6 }, Self(id))
    }

    /// Two words of which the first is the lower half.
    fn cookie(&self) -> u64 {
        let word = |at: usize| u64::from(u32::from_ne_bytes([0, 1, 2, 3].map(|byte| self.0[at + byte])));
        word(40) | word(44) << 32
    }

    /// Both ends, of a socket of this family.
    fn ends(&self, family: u8) -> Option<(SocketAddr, SocketAddr)> {
        let end = |port: usize, address: usize| {
            let port = u16::from_be_bytes([self.0[port], self.0[port + 1]]);
            let octets: [u8; 16] = *self.0[address..].first_chunk()?;
            let ip = match family {
                AF_INET => Ipv4Addr::from(*octets.first_chunk::<4>()?).into(),
                AF_INET6 => Ipv6Addr::from(octets).to_canonical(),
                _ => return None,
            };
            Some(SocketAddr::new(ip, port))
        };
        Some((end(0, 4)?, end(2, 20)?))
    }
}

/// What is asked (`struct inet_diag_req_v2`): of a single socket, or of all that are in one of these states.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    pub(crate) family: u8,
    /// A mask.
    pub(crate) states: u32,
    pub(crate) id: SocketId,
    pub(crate) with_counters: bool,
}

impl Request {
    pub(crate) fn all(family: u8, states: u32) -> Self {
        Self { family, states, id: SocketId::ANY, with_counters: false }
    }

    pub(crate) fn one(family: u8, id: SocketId) -> Self {
        Self { family, states: CONNECTED, id, with_counters: false }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![self.family, IPPROTO_TCP, if self.with_counters { WANT_INFO } else { 0 }, 0];
        bytes.extend(self.states.to_ne_bytes());
        bytes.extend(self.id.0);
        bytes
    }
}

/// One socket of an answer (`struct inet_diag_msg`).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer<'a> {
    family: u8,
    state: u8,
    id: SocketId,
    uid: u32,
    inode: u32,
    attributes: &'a [u8],
}

impl<'a> Answer<'a> {
    /// Reads one; `None` where it is cut short.
    pub(crate) fn parse(payload: &'a [u8]) -> Option<Self> {
        let (message, attributes) = payload.split_first_chunk::<ANSWER>()?;
        let (&[family, state, _, _], rest) = message.split_first_chunk()?;
        let word = |at: usize| Some(u32::from_ne_bytes(*message.get(at..)?.first_chunk()?));
        Some(Self {
            family,
            state,
            id: SocketId(*rest.first_chunk()?),
            uid: word(UID)?,
            inode: word(INODE)?,
            attributes,
        })
    }
}

/// A TCP connection as the kernel has it; addresses in IPv4-mapped form are shown as IPv4.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpConnection {
    /// The address and port of the namespace's own end.
    pub local: SocketAddr,
    /// Those of the other end.
    pub remote: SocketAddr,
    pub(crate) family: u8,
    pub(crate) state: u8,
    pub(crate) id: SocketId,
}

impl TcpConnection {
    pub(crate) fn of(answer: &Answer<'_>) -> Option<Self> {
        let &Answer { family, state, id, .. } = answer;
        let (local, remote) = id.ends(family)?;
        Some(Self { local, remote, family, state, id })
    }

    /// The kernel's name of the socket (`SO_COOKIE`).
    #[must_use]
    pub fn cookie(&self) -> u64 {
        self.id.cookie()
    }
}

/// What the kernel has counted of an open TCP connection (`struct tcp_info`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpCounters {
    /// The kernel's name of the socket (`SO_COOKIE`).
    pub cookie: u64,
    /// `tcpi_bytes_acked`: payload that the other end has acknowledged, and 1 for the SYN of the end that dialled.
    pub acknowledged: u64,
    /// `tcpi_bytes_received`
    pub received: u64,
}

impl TcpCounters {
    pub(crate) fn of(answer: &Answer<'_>) -> Option<Self> {
        let info = attribute(answer.attributes, INFO)?;
        let number = |at: usize| Some(u64::from_ne_bytes(*info.get(at..)?.first_chunk()?));
        Some(Self { cookie: answer.id.cookie(), acknowledged: number(BYTES_ACKED)?, received: number(BYTES_RECEIVED)? })
    }
}

/// Whose a socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The user's number (`idiag_uid`).
    pub uid: u32,
    /// The cgroup (v2) that the socket was made in, by its inode; `None` where the kernel does not tell.
    pub cgroup: Option<u64>,
}

impl Holder {
    /// Who holds the open connection with these ends, if a process still does.
    ///
    /// The kernel looks among listeners and connections that are at their end as well, and shows a socket that its process has
    /// closed as root's; that one has no inode.
    pub(crate) fn of(answer: &Answer<'_>, local: SocketAddr, remote: SocketAddr) -> Option<Self> {
        let asked = (canonical(local), canonical(remote));
        if answer.state != ESTABLISHED || answer.inode == 0 || answer.id.ends(answer.family)? != asked {
            return None;
        }
        let cgroup = attribute(answer.attributes, CGROUP).and_then(<[u8]>::first_chunk);
        Some(Self { uid: answer.uid, cgroup: cgroup.map(|id| u64::from_ne_bytes(*id)) })
    }
}

/// An address in IPv4-mapped form as IPv4.
fn canonical(end: SocketAddr) -> SocketAddr {
    SocketAddr::new(end.ip().to_canonical(), end.port())
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn ends() -> (SocketAddr, SocketAddr) {
        (SocketAddr::from(([127, 0, 0, 1], 1)), SocketAddr::from(([127, 0, 0, 1], 2)))
    }

    /// An answer about the connection between [`ends`], without attributes.
    fn whole() -> Vec<u8> {
        let (local, remote) = ends();
        let mut bytes = vec![AF_INET, ESTABLISHED, 0, 0];
        bytes.extend(SocketId::of(local, remote).1.0);
        bytes.resize(ANSWER, 1);
        bytes
    }

    #[test]
    fn what_is_cut_short_is_nothing() {
        let whole = whole();
        assert!((0..ANSWER).all(|length| Answer::parse(&whole[..length]).is_none()));
        let answer = Answer::parse(&whole).unwrap();
        assert_eq!(TcpCounters::of(&answer), None, "without attributes nothing is counted");
        assert_eq!(TcpConnection::of(&Answer::parse(&[0; ANSWER]).unwrap()), None, "of no family");
    }

    #[test]
    fn somebody_holds_what_is_open_between_the_asked_ends_alone() {
        let (local, remote) = ends();
        let holder = |bytes: &[u8], local, remote| Holder::of(&Answer::parse(bytes).unwrap(), local, remote);
        let expected = Some(Holder { uid: 0x0101_0101, cgroup: None });
        assert_eq!(holder(&whole(), local, remote), expected);
        let mapped = |end: SocketAddr| SocketAddr::from((Ipv4Addr::LOCALHOST.to_ipv6_mapped(), end.port()));
        assert_eq!(holder(&whole(), mapped(local), mapped(remote)), expected);
        assert_eq!(holder(&whole(), remote, local), None, "the other end");
        let changed = |at: usize, to: [u8; 4]| {
            let mut bytes = whole();
            bytes[at..at + 4].copy_from_slice(&to);
            bytes
        };
        assert_eq!(holder(&changed(INODE, [0; 4]), local, remote), None, "closed by its process");
        assert_eq!(holder(&changed(0, [AF_INET, LISTEN, 0, 0]), local, remote), None, "a listener");
    }

    proptest! {
        #[test]
        fn whatever_the_kernel_says_nothing_panics(bytes in vec(any::<u8>(), 0..400)) {
            let (local, remote) = ends();
            if let Some(answer) = Answer::parse(&bytes) {
                TcpConnection::of(&answer);
                TcpCounters::of(&answer);
                Holder::of(&answer, local, remote);
            }
        }

        #[test]
        fn an_id_says_which_ends_it_was_made_of(local: SocketAddr, remote: SocketAddr) {
            let ends = (canonical(local), canonical(remote));
            prop_assume!(ends.0.is_ipv4() == ends.1.is_ipv4());
            let (family, id) = SocketId::of(local, remote);
            prop_assert_eq!(id.ends(family), Some(ends));
        }
    }
}
