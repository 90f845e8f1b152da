//! Netlink: questions to the kernel about the network namespace that a socket was opened in.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};

use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, bind, netlink::SocketAddrNetlink, recv,
    send, socket_with, sockopt,
};

/// Most bytes of one datagram: the kernel fills no more into one (`NLMSG_GOODSIZE` and the reader's own room).
const DATAGRAM: usize = 32 << 10;
/// The kernel answers before send() returns; this bounds the unforeseen.
const PATIENCE: Duration = Duration::from_secs(2);
/// `struct nlmsghdr`
const HEADER: usize = 16;

const NLM_F_REQUEST: u16 = 0x01;
const NLM_F_ACK: u16 = 0x04;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

/// Which part of the kernel is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// `NETLINK_ROUTE`: interfaces, addresses, traffic control.
    Route,
    /// `NETLINK_SOCK_DIAG`: sockets.
    SockDiag,
}

impl Subject {
    fn protocol(self) -> Option<Protocol> {
        match self {
            // Number 0, which is the family's default.
            Self::Route => None,
            Self::SockDiag => Some(rustix::net::netlink::SOCK_DIAG),
        }
    }
}

/// A netlink socket.
pub struct NetlinkSocket {
    socket: OwnedFd,
    sequence: u32,
}

impl NetlinkSocket {
    /// Opens one in the calling thread's namespace.
    ///
    /// # Errors
    /// The kernel does not speak of it.
    pub fn open(subject: Subject) -> io::Result<Self> {
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, subject.protocol())?;
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(PATIENCE))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Opens one that hears what the kernel says to `groups` (a mask) and never blocks.
    ///
    /// # Errors
    /// The kernel does not speak of it or a group.
    pub fn listen(subject: Subject, groups: u32) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, subject.protocol())?;
        bind(&socket, &SocketAddrNetlink::new(0, groups))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Asks for a list; `each` gets the type and the payload of each answer.
    ///
    /// # Errors
    /// The kernel's, by its number.
    pub fn dump(&mut self, kind: u16, payload: &[u8], mut each: impl FnMut(u16, &[u8])) -> io::Result<()> {
        self.ask(kind, NLM_F_DUMP, payload)?;
        self.answers(|kind, payload| {
            each(kind, payload);
            Answer::More
        })
    }

    /// Asks for one thing; the payload of the answer.
    ///
    /// # Errors
    /// The kernel's, by its number.
    pub fn get(&mut self, kind: u16, payload: &[u8]) -> io::Result<Vec<u8>> {
        self.ask(kind, 0, payload)?;
        let mut found = Vec::new();
        self.answers(|_, payload| {
            found = payload.to_vec();
            Answer::Last
        })?;
        Ok(found)
    }

    /// Tells the kernel to do something and waits until it has.
    ///
    /// # Errors
    /// The kernel's, by its number.
    pub fn order(&mut self, kind: u16, payload: &[u8]) -> io::Result<()> {
        self.ask(kind, NLM_F_ACK, payload)?;
        self.answers(|_, _| Answer::More)
    }

    /// Takes everything that was heard. True if there was something, or too much to be kept.
    pub fn take_heard(&mut self) -> bool {
        let mut buffer = [0u8; 4096];
        let mut heard = false;
        loop {
            match recv(&self.socket, &mut buffer, RecvFlags::empty()) {
                Ok(_) | Err(rustix::io::Errno::NOBUFS | rustix::io::Errno::INTR) => heard = true,
                Err(_) => return heard,
            }
        }
    }

    fn ask(&mut self, kind: u16, flags: u16, payload: &[u8]) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let length = u32::try_from(HEADER + payload.len()).map_err(io::Error::other)?;
        let mut message = Vec::with_capacity(HEADER + payload.len());
        message.extend(length.to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend((NLM_F_REQUEST | flags).to_ne_bytes());
        message.extend(self.sequence.to_ne_bytes());
        // The kernel gives the socket its port.
        message.extend(0u32.to_ne_bytes());
        message.extend(payload);
        send(&self.socket, &message, SendFlags::empty())?;
        Ok(())
    }

    /// Reads until the list, or the acknowledgement, is at its end.
    fn answers(&mut self, mut each: impl FnMut(u16, &[u8]) -> Answer) -> io::Result<()> {
        let mut buffer = vec![0u8; DATAGRAM];
        loop {
            let (_, length) = recv(&self.socket, buffer.as_mut_slice(), RecvFlags::empty())?;
            for message in messages(&buffer[..length.min(DATAGRAM)]) {
                // Left over from a question whose answer was given up.
                if message.sequence != self.sequence {
                    continue;
                }
                match message.kind {
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => return outcome(message.payload),
                    kind => match each(kind, message.payload) {
                        Answer::More => {}
                        Answer::Last => return Ok(()),
                    },
                }
            }
        }
    }
}

impl AsFd for NetlinkSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

enum Answer {
    More,
    Last,
}

/// `struct nlmsgerr` begins with a negative number of an error, or 0 for done.
fn outcome(payload: &[u8]) -> io::Result<()> {
    match payload.first_chunk().map(|bytes| i32::from_ne_bytes(*bytes)) {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(code.saturating_neg())),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

struct Message<'a> {
    kind: u16,
    sequence: u32,
    payload: &'a [u8],
}

fn messages(mut datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let header = datagram.first_chunk::<HEADER>()?;
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let message = Message {
            kind: u16::from_ne_bytes([header[4], header[5]]),
            sequence: u32::from_ne_bytes([header[8], header[9], header[10], header[11]]),
            payload: datagram.get(HEADER..length)?,
        };
        // Each begins at a multiple of four.
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// The payload of the first attribute of this type (`struct rtattr`).
pub fn attribute(mut attributes: &[u8], kind: u16) -> Option<&[u8]> {
    loop {
        let header = attributes.first_chunk::<4>()?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let payload = attributes.get(4..length)?;
        if u16::from_ne_bytes([header[2], header[3]]) == kind {
            return Some(payload);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_is_cut_into_messages_and_what_is_malformed_ends_it() {
        let message = |length: u32, kind: u16, payload: &[u8]| {
            let mut bytes = length.to_ne_bytes().to_vec();
            bytes.extend(kind.to_ne_bytes());
            bytes.extend([0; 10]);
            bytes.extend(payload);
            bytes
        };
        let datagram = [message(18, 7, &[1, 2, 0, 0]), message(16, 8, &[]), message(400, 9, &[1])].concat();
        let read: Vec<_> = messages(&datagram).map(|message| (message.kind, message.payload)).collect();
        assert_eq!(read, [(7, &[1, 2][..]), (8, &[])]);
        assert!(messages(&message(3, 1, &[])).next().is_none());
    }
}
