//! Reading and writing TCP without a buffer in hand while nothing comes, and with no system call that only says "not now".
//!
//! With epoll's edges a read or write that did less than it was asked has drained or filled the socket, so the readiness is
//! cleared there and then; a later edge sets it again. (tokio does the same in `poll_read`, which wants `&mut`.)

use std::future::poll_fn;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::task::{Context, Poll};

use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;

/// Reads what is there now: `None` when nothing is, `Some(0)` at the end of the stream.
pub(crate) fn read_now(socket: &TcpStream, into: &mut [u8]) -> io::Result<Option<usize>> {
    let asked = into.len();
    partial(socket, Interest::READABLE, || {
        let got = (&*SockRef::from(socket)).read(into)?;
        Ok((got, got > 0 && got < asked))
    })
}

/// Reads what is there now into several places; see [`read_now`].
pub(crate) fn read_vectored_now(socket: &TcpStream, into: &mut [IoSliceMut<'_>]) -> io::Result<Option<usize>> {
    let asked: usize = into.iter().map(|slice| slice.len()).sum();
    partial(socket, Interest::READABLE, || {
        let socket = SockRef::from(socket);
        let got = match &mut *into {
            [one] => (&*socket).read(one)?,
            many => (&*socket).read_vectored(many)?,
        };
        Ok((got, got > 0 && got < asked))
    })
}

/// Whether the peer has sent something or closed; leaves everything unread.
pub(crate) fn has_input(socket: &TcpStream) -> bool {
    let found =
        partial(socket, Interest::READABLE, || Ok((SockRef::from(socket).peek(&mut [MaybeUninit::uninit()])?, false)));
    !matches!(found, Ok(None))
}

/// Writes what fits now: `None` when nothing does.
pub(crate) fn write_now(socket: &TcpStream, slices: &[IoSlice<'_>]) -> io::Result<Option<usize>> {
    let asked: usize = slices.iter().map(|slice| slice.len()).sum();
    partial(socket, Interest::WRITABLE, || {
        let socket = SockRef::from(socket);
        let count = match slices {
            [one] => (&*socket).write(one)?,
            many => (&*socket).write_vectored(many)?,
        };
        Ok((count, count < asked))
    })
}

/// Runs `operation`, which says how much it did and whether the socket is now drained or full.
fn partial(
    socket: &TcpStream,
    interest: Interest,
    mut operation: impl FnMut() -> io::Result<(usize, bool)>,
) -> io::Result<Option<usize>> {
    let mut done = None;
    let result = socket.try_io(interest, || {
        loop {
            match operation() {
                Ok((count, exhausted)) => {
                    done = Some(count);
                    return if exhausted { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) };
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    });
    match (done, result) {
        (Some(count), _) => Ok(Some(count)),
        (None, Err(e)) if e.kind() != io::ErrorKind::WouldBlock => Err(e),
        (None, _) => Ok(None),
    }
}

/// Whether there is something to read: bytes, an end or an error.
pub(crate) fn poll_readable(socket: &TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
    socket.poll_read_ready(cx)
}

/// Writes everything.
pub(crate) async fn write_all(socket: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match write_now(socket, &[IoSlice::new(bytes)])? {
            Some(0) => return Err(io::ErrorKind::WriteZero.into()),
            Some(count) => bytes = &bytes[count..],
            None => poll_fn(|cx| socket.poll_write_ready(cx)).await?,
        }
    }
    Ok(())
}

/// Half-closes the socket: the peer reads an end, and may go on sending.
pub(crate) fn finish(socket: &TcpStream) -> io::Result<()> {
    SockRef::from(socket).shutdown(std::net::Shutdown::Write)
}

/// Waits until the socket has an error, such as a reset by its peer, even while nobody reads or writes it.
pub(crate) async fn broken(socket: &TcpStream) {
    loop {
        if socket.ready(Interest::ERROR).await.is_err() {
            return;
        }
        let found = socket.try_io(Interest::ERROR, || match socket.take_error()? {
            Some(_) => Ok(()),
            None => Err(io::ErrorKind::WouldBlock.into()),
        });
        match found {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            _ => return,
        }
    }
}
