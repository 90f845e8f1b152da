//! What the kernel says of a TCP connection that is this process's own (tcp(7), `TCP_INFO`).

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd as _};
use std::time::Duration;

/// How far a connection is with what it has to tell its peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpProgress {
    /// Segments that are out and not acknowledged.
    pub unacknowledged: u32,
    /// How often in a row the first of them was sent again.
    pub retransmits: u8,
    /// How often in a row a peer that takes nothing was asked whether it would, without an answer.
    pub probes: u8,
    /// Since the peer has acknowledged something last, or an acknowledgement that says nothing new.
    pub silence: Duration,
}

impl TcpProgress {
    /// Asks the kernel.
    ///
    /// # Errors
    /// It is no socket of TCP.
    pub fn of(socket: &impl AsFd) -> io::Result<Self> {
        let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
        let mut length = libc::socklen_t::try_from(size_of::<libc::tcp_info>()).map_err(io::Error::other)?;
        // SAFETY: the kernel writes no more than `length` octets, for which there is room.
        let result = unsafe {
            libc::getsockopt(
                socket.as_fd().as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                info.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: it is integers alone, and what the kernel did not write is zero.
        let info = unsafe { info.assume_init() };
        Ok(Self {
            unacknowledged: info.tcpi_unacked,
            retransmits: info.tcpi_retransmits,
            probes: info.tcpi_probes,
            silence: Duration::from_millis(info.tcpi_last_ack_recv.into()),
        })
    }

    /// Whether the peer was asked again and again, and has not answered. Keepalive asks where there is nothing to be said; a peer
    /// that merely takes nothing does answer.
    #[must_use]
    pub const fn is_unanswered(&self) -> bool {
        // What was just sent again may be answered in this moment.
        (self.unacknowledged > 0 && self.retransmits > 1) || self.probes > 1
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::{TcpListener, TcpStream, UdpSocket};

    use super::*;

    #[test]
    fn a_peer_that_merely_takes_nothing_has_not_gone() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        let mut stream = TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
        stream.set_nonblocking(true).expect("option");
        // Nobody accepts it, so that its window closes.
        while stream.write(&[0; 64 << 10]).is_ok() {}
        let progress = TcpProgress::of(&stream).expect("a connection");
        assert!(!progress.is_unanswered(), "{progress:?}");
        assert!(TcpProgress::of(&UdpSocket::bind("127.0.0.1:0").expect("bind")).is_err());
    }

    #[test]
    fn who_does_not_answer_is_asked_again_first() {
        let quiet = TcpProgress { unacknowledged: 0, retransmits: 0, probes: 0, silence: Duration::from_secs(50) };
        for (progress, unanswered) in [
            (quiet, false),
            (TcpProgress { unacknowledged: 3, ..quiet }, false),
            (TcpProgress { unacknowledged: 3, retransmits: 1, ..quiet }, false),
            (TcpProgress { unacknowledged: 3, retransmits: 2, ..quiet }, true),
            (TcpProgress { probes: 1, ..quiet }, false),
            (TcpProgress { probes: 2, ..quiet }, true),
        ] {
            assert_eq!(progress.is_unanswered(), unanswered, "{progress:?}");
        }
    }
}
