//! The socket: a question, and what the kernel answers.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};

use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, bind, netlink::SocketAddrNetlink, recv,
    send, socket_with, sockopt,
};

use crate::message::{HEADER, messages};

/// Most bytes of one datagram: the kernel fills no more into one (`NLMSG_GOODSIZE` and the reader's own room).
const DATAGRAM: usize = 32 << 10;
/// The kernel answers before send() returns; this bounds the unforeseen.
const PATIENCE: Duration = Duration::from_secs(2);

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
#[derive(Debug)]
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
                    // A list that could not be finished ends like one that was, and says so here alone.
                    NLMSG_DONE | NLMSG_ERROR => return outcome(message.payload),
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

/// `struct nlmsgerr`, and the end of a list, begin with a negative number of an error, or 0 for done.
fn outcome(payload: &[u8]) -> io::Result<()> {
    match payload.first_chunk().map(|bytes| i32::from_ne_bytes(*bytes)) {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(code.saturating_neg())),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;

    /// What stands for the kernel, and a socket that has asked it once.
    fn asked() -> (UnixDatagram, NetlinkSocket) {
        let (kernel, ours) = UnixDatagram::pair().unwrap();
        ours.set_read_timeout(Some(PATIENCE)).unwrap();
        (kernel, NetlinkSocket { socket: ours.into(), sequence: 6 })
    }

    fn message(kind: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = u32::try_from(HEADER + payload.len()).unwrap().to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 2]);
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(payload);
        bytes
    }

    #[test]
    fn a_list_is_read_over_datagrams_and_what_an_earlier_question_left_is_passed_over() {
        let (kernel, mut socket) = asked();
        kernel.send(&[message(20, 6, &[9; 4]), message(20, 7, &[1; 4])].concat()).unwrap();
        kernel.send(&[message(20, 7, &[2; 4]), message(NLMSG_DONE, 7, &[0; 4])].concat()).unwrap();
        let mut found = Vec::new();
        socket.dump(20, &[], |kind, payload| found.push((kind, payload[0]))).unwrap();
        assert_eq!(found, [(20, 1), (20, 2)]);
    }

    /// The kernel says so in the message that ends the list, and had it been taken for whole, connections that are open would have
    /// counted as ended.
    #[test]
    fn a_list_that_broke_off_is_no_list() {
        let (kernel, mut socket) = asked();
        let out_of_memory = rustix::io::Errno::NOMEM.raw_os_error();
        let end = message(NLMSG_DONE, 7, &(-out_of_memory).to_ne_bytes());
        kernel.send(&[message(20, 7, &[1; 4]), end].concat()).unwrap();
        let error = socket.dump(20, &[], |_, _| {}).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(out_of_memory));
    }

    #[test]
    fn an_order_is_done_when_the_kernel_says_so() {
        let (kernel, mut socket) = asked();
        kernel.send(&message(NLMSG_ERROR, 7, &[0; 4])).unwrap();
        socket.order(21, &[]).unwrap();
        kernel.send(&message(NLMSG_ERROR, 8, &[])).unwrap();
        assert_eq!(socket.order(21, &[]).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
