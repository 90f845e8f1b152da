//! Packets with descriptors between two processes of this node, each of which knows who the other one is.

use std::{
    fs,
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{fs::PermissionsExt as _, net},
    },
    path::{Path, PathBuf},
};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, recvmsg, sendmsg,
    socket_with,
};
use tokio::{
    io::Interest,
    net::{UnixListener, UnixStream},
};

use super::message::Message;

/// Descriptors in one packet; the kernel allows 253 (`SCM_MAX_FD`).
pub(super) const MAX_DESCRIPTORS: usize = 64;
/// Octets of one message.
const MAX_MESSAGE: usize = 16 * 1024;
/// Daemons that may wait to be heard.
const BACKLOG: i32 = 8;
/// The socket: root and the daemon's own user.
const SOCKET_MODE: u32 = 0o600;

/// A conversation broke off.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The socket failed.
    #[error("the handover's socket failed: {0}")]
    Io(#[from] io::Error),
    /// The other daemon is gone, or will say no more.
    #[error("the other daemon has broken off")]
    Closed,
    /// It runs as a user who has no say.
    #[error("the other end runs as {0}, which may neither take over nor hand over")]
    Stranger(String),
    /// A message that cannot be understood.
    #[error("malformed message: {0}")]
    Malformed(String),
}

/// One conversation.
#[derive(Debug)]
pub(super) struct Channel(UnixStream);

impl Channel {
    /// Connects to whoever listens at `path`; in a runtime.
    pub(super) fn connect(path: &Path) -> Result<Self, ChannelError> {
        let socket = packet_socket()?;
        connect(&socket, &SocketAddrUnix::new(path).map_err(io::Error::from)?).map_err(io::Error::from)?;
        Self::over(UnixStream::from_std(net::UnixStream::from(socket))?)
    }

    /// Accepts the next one.
    pub(super) async fn accept(listener: &UnixListener) -> Result<Self, ChannelError> {
        let (stream, _) = listener.accept().await?;
        Self::over(stream)
    }

    /// A socket that another daemon passed on.
    pub(super) fn passed_on(socket: OwnedFd) -> Result<Self, ChannelError> {
        let stream = net::UnixStream::from(socket);
        stream.set_nonblocking(true)?;
        Ok(Self(UnixStream::from_std(stream)?))
    }

    /// `SO_PEERCRED`, the kernel's word for who is at the other end: root, or the user of this process.
    fn over(stream: UnixStream) -> Result<Self, ChannelError> {
        let uid = stream.peer_cred()?.uid();
        if uid != 0 && uid != rustix::process::geteuid().as_raw() {
            return Err(ChannelError::Stranger(format!("user {uid}")));
        }
        Ok(Self(stream))
    }

    /// Sends a message with descriptors, at most [`MAX_DESCRIPTORS`]; the other end gets duplicates.
    pub(super) async fn send(&self, message: &Message, descriptors: &[BorrowedFd<'_>]) -> Result<(), ChannelError> {
        let text = serde_json::to_vec(message).map_err(|error| ChannelError::Malformed(error.to_string()))?;
        let send = || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
            let mut beside = SendAncillaryBuffer::new(&mut space);
            if !descriptors.is_empty() && !beside.push(SendAncillaryMessage::ScmRights(descriptors)) {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors for one packet"));
            }
            Ok(sendmsg(&self.0, &[IoSlice::new(&text)], &mut beside, SendFlags::NOSIGNAL)?)
        };
        self.0.async_io(Interest::WRITABLE, send).await?;
        Ok(())
    }

    /// Waits for the next message, and the descriptors beside it.
    pub(super) async fn receive(&self) -> Result<(Message, Vec<OwnedFd>), ChannelError> {
        let (text, descriptors) = self.0.async_io(Interest::READABLE, || receive(&self.0)).await?;
        if text.is_empty() {
            return Err(ChannelError::Closed);
        }
        let message = serde_json::from_slice(&text).map_err(|error| ChannelError::Malformed(error.to_string()))?;
        Ok((message, descriptors))
    }

    /// Waits until the other end is gone, whatever it says until then.
    pub(super) async fn closed(&self) {
        while self.receive().await.is_ok() {}
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// One packet; no octets are the end.
fn receive(socket: &UnixStream) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut text = vec![0; MAX_MESSAGE];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let got = recvmsg(socket, &mut [IoSliceMut::new(&mut text)], &mut beside, RecvFlags::CMSG_CLOEXEC)?;
    let descriptors = beside
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        })
        .flatten()
        .collect();
    if got.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        let problem = "a packet was cut short: it is too long, or there are no descriptors left";
        return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
    }
    text.truncate(got.bytes);
    Ok((text, descriptors))
}

fn packet_socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

/// The handover's socket could not be opened.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen on {path}, for handovers: {source}; it stands beside --admin-socket, in a directory that can be written to"
)]
pub struct HandoverSocketError {
    path: PathBuf,
    source: io::Error,
}

/// Listens at `path`, in the place of whoever did before: successors reach this daemon from now on, and no earlier one.
pub(super) fn publish(path: &Path) -> Result<UnixListener, HandoverSocketError> {
    let open = || {
        let unpublished = path.with_file_name(format!(".{}h", std::process::id()));
        match fs::remove_file(&unpublished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let socket = packet_socket()?;
        bind(&socket, &SocketAddrUnix::new(&unpublished)?)?;
        fs::set_permissions(&unpublished, fs::Permissions::from_mode(SOCKET_MODE))?;
        listen(&socket, BACKLOG)?;
        fs::rename(&unpublished, path)?;
        UnixListener::from_std(net::UnixListener::from(socket))
    };
    open().map_err(|source| HandoverSocketError { path: path.into(), source })
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    #[tokio::test]
    async fn descriptors_pass_and_an_end_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.handover");
        let listener = publish(&path).unwrap();
        let (one, other) = (Channel::connect(&path).unwrap(), Channel::accept(&listener).await.unwrap());
        let (mut near, far) = net::UnixStream::pair().unwrap();
        let many = vec![far.as_fd(); MAX_DESCRIPTORS];
        one.send(&Message::Lent { last: true }, &many).await.unwrap();
        drop(far);
        let (message, got) = other.receive().await.unwrap();
        assert_eq!((message, got.len()), (Message::Lent { last: true }, MAX_DESCRIPTORS));
        net::UnixStream::from(got.into_iter().next().unwrap()).write_all(b"through").unwrap();
        let mut text = String::new();
        near.read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
        drop(one);
        assert!(matches!(other.receive().await, Err(ChannelError::Closed)));
    }

    #[tokio::test]
    async fn what_is_no_message_is_malformed_and_not_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.handover");
        let listener = publish(&path).unwrap();
        let (one, other) = (Channel::connect(&path).unwrap(), Channel::accept(&listener).await.unwrap());
        for packet in [&b"{"[..], b"{\"type\":\"conquer\"}", &[0xff; 100]] {
            rustix::io::write(one.as_fd(), packet).unwrap();
            assert!(matches!(other.receive().await, Err(ChannelError::Malformed(_))));
        }
        rustix::io::write(one.as_fd(), &[b' '; MAX_MESSAGE + 1]).unwrap();
        assert!(matches!(other.receive().await, Err(ChannelError::Io(_))));
        one.send(&Message::Lend, &[]).await.unwrap();
        assert_eq!(other.receive().await.unwrap().0, Message::Lend);
    }
}
