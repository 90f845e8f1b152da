//! Packets with descriptors between two processes of this node, each of which knows who the other one is. What they say is their own
//! business: it is JSON.

use std::{
    fs,
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{fs::PermissionsExt as _, net},
    },
    path::Path,
};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, recvmsg, sendmsg,
    socket_with, socketpair,
};
use serde::{Serialize, de::DeserializeOwned, de::IgnoredAny};
use tokio::{
    io::Interest,
    net::{UnixListener, UnixStream},
};

/// Descriptors in one packet; the kernel allows 253 (`SCM_MAX_FD`).
pub const MAX_DESCRIPTORS: usize = 64;
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
    #[error("the socket between two daemons failed: {0}")]
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
pub struct Channel(UnixStream);

impl Channel {
    /// Connects to whoever listens at `path`; in a runtime.
    pub fn connect(path: &Path) -> Result<Self, ChannelError> {
        let socket = packet_socket()?;
        connect(&socket, &SocketAddrUnix::new(path).map_err(io::Error::from)?).map_err(io::Error::from)?;
        Self::over(UnixStream::from_std(net::UnixStream::from(socket))?)
    }

    /// Accepts the next one.
    pub async fn accept(listener: &UnixListener) -> Result<Self, ChannelError> {
        let (stream, _) = listener.accept().await?;
        Self::over(stream)
    }

    /// Both ends of a conversation with a child: this process's, and the one that the child gets.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (own, childs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        Ok((Self(UnixStream::from_std(net::UnixStream::from(own))?), childs))
    }

    /// A socket that another process passed on.
    pub fn passed_on(socket: OwnedFd) -> Result<Self, ChannelError> {
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
    pub async fn send(&self, message: &impl Serialize, descriptors: &[BorrowedFd<'_>]) -> Result<(), ChannelError> {
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

    /// Sends any number of descriptors, in as many packets as that takes; `message` is told whether it is the last one's.
    pub async fn send_all<M: Serialize>(
        &self,
        descriptors: &[BorrowedFd<'_>],
        message: impl Fn(bool) -> M,
    ) -> Result<(), ChannelError> {
        let mut rest = descriptors;
        loop {
            let (batch, further) = rest.split_at(rest.len().min(MAX_DESCRIPTORS));
            self.send(&message(further.is_empty()), batch).await?;
            if further.is_empty() {
                return Ok(());
            }
            rest = further;
        }
    }

    /// Waits for the next message, and the descriptors beside it.
    pub async fn receive<M: DeserializeOwned>(&self) -> Result<(M, Vec<OwnedFd>), ChannelError> {
        let (text, descriptors) = self.0.async_io(Interest::READABLE, || receive(&self.0)).await?;
        if text.is_empty() {
            return Err(ChannelError::Closed);
        }
        let message = serde_json::from_slice(&text).map_err(|error| ChannelError::Malformed(error.to_string()))?;
        Ok((message, descriptors))
    }

    /// Waits until the other end is gone, whatever it says until then.
    pub async fn closed(&self) {
        while self.receive::<IgnoredAny>().await.is_ok() {}
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

/// Listens at `path`, in the place of whoever did before.
pub fn listen_at(path: &Path) -> io::Result<UnixListener> {
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
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Word {
        last: bool,
    }

    #[tokio::test]
    async fn descriptors_pass_and_an_end_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.handover");
        let listener = listen_at(&path).unwrap();
        let (one, other) = (Channel::connect(&path).unwrap(), Channel::accept(&listener).await.unwrap());
        let (mut near, far) = net::UnixStream::pair().unwrap();
        let many = vec![far.as_fd(); MAX_DESCRIPTORS];
        one.send(&Word { last: true }, &many).await.unwrap();
        drop(far);
        let (message, got) = other.receive::<Word>().await.unwrap();
        assert_eq!((message, got.len()), (Word { last: true }, MAX_DESCRIPTORS));
        net::UnixStream::from(got.into_iter().next().unwrap()).write_all(b"through").unwrap();
        let mut text = String::new();
        near.read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
        drop(one);
        assert!(matches!(other.receive::<Word>().await, Err(ChannelError::Closed)));
    }

    #[tokio::test]
    async fn what_is_no_message_is_malformed_and_not_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.handover");
        let listener = listen_at(&path).unwrap();
        let (one, other) = (Channel::connect(&path).unwrap(), Channel::accept(&listener).await.unwrap());
        for packet in [&b"{"[..], b"{\"first\":true}", &[0xff; 100]] {
            rustix::io::write(one.as_fd(), packet).unwrap();
            assert!(matches!(other.receive::<Word>().await, Err(ChannelError::Malformed(_))));
        }
        rustix::io::write(one.as_fd(), &[b' '; MAX_MESSAGE + 1]).unwrap();
        assert!(matches!(other.receive::<Word>().await, Err(ChannelError::Io(_))));
        one.send(&Word { last: false }, &[]).await.unwrap();
        assert_eq!(other.receive::<Word>().await.unwrap().0, Word { last: false });
    }
}
