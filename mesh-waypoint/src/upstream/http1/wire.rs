//! What a connection is made of: the stream, and what has come by it.

use std::{
    cell::{Cell, RefCell},
    io,
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll, Waker, ready},
    time::Instant,
};

use bytes::BytesMut;
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio_util::io::poll_read_buf;

use super::{Look, LookedAfter, SILENCE, SILENCE_OF_SHARED, Stream};

/// Octets that are read at once, and kept in as much room as they need.
const READ: usize = 16 << 10;
/// The same where they come faster than that.
const BULK: usize = 64 << 10;

/// A connection, as the one who asks and the one who sends the rest of the request share it.
pub(super) struct Wire {
    /// None once it is another protocol's.
    pub(super) stream: RefCell<Option<Stream>>,
    /// What has come and was not taken.
    pub(super) read: RefCell<BytesMut>,
    /// A request is still on its way.
    pub(super) is_writing: Cell<bool>,
    /// Its answer is.
    pub(super) is_reading: Cell<bool>,
    /// Another request may follow.
    pub(super) is_kept: Cell<bool>,
    /// Nobody wants the rest of the answer.
    pub(super) is_abandoned: Cell<bool>,
    /// The client's body broke off while the answer was on its way.
    pub(super) is_broken: Cell<bool>,
    /// Who is to hear of it: who reads, and who writes.
    pub(super) reader: Cell<Option<Waker>>,
    pub(super) writer: Cell<Option<Waker>>,
    is_bulk: Cell<bool>,
    look: Cell<Look>,
}

impl LookedAfter for Wire {
    fn is_lost(&self, now: Instant) -> bool {
        let mut look = self.look.get();
        let unheard_for = || self.stream.borrow().as_ref().and_then(Stream::unheard_for);
        let is_shared = || self.stream.borrow().as_ref().is_some_and(Stream::is_shared);
        let limit = if is_shared() { SILENCE_OF_SHARED } else { SILENCE };
        let is_lost = self.is_busy() && look.again(now, limit, unheard_for);
        self.look.set(look);
        is_lost
    }

    fn give_up(&self) {
        // An answer that is cut off is none that ends with its connection.
        self.is_broken.set(true);
        self.stream.borrow().iter().for_each(Stream::break_off);
    }
}

impl Wire {
    pub(super) fn new(stream: Stream) -> Self {
        Self {
            stream: RefCell::new(Some(stream)),
            read: RefCell::default(),
            is_writing: Cell::new(false),
            is_reading: Cell::new(false),
            is_kept: Cell::new(true),
            is_abandoned: Cell::new(false),
            is_broken: Cell::new(false),
            reader: Cell::default(),
            writer: Cell::default(),
            is_bulk: Cell::new(false),
            look: Cell::default(),
        }
    }

    /// A request begins.
    pub(super) fn begin(&self) {
        self.is_writing.set(true);
        self.is_reading.set(true);
        self.is_bulk.set(false);
        self.look.set(Look::Unseen);
    }

    /// Whether a request, or its answer, is on its way.
    pub(super) fn is_busy(&self) -> bool {
        self.is_writing.get() || self.is_reading.get()
    }

    /// Whether another request may follow: the last one and its answer are over, and nothing has come behind that.
    pub(super) fn is_over(&self) -> bool {
        !self.is_busy() && self.is_kept.get() && self.read.borrow().is_empty()
    }

    /// Whether nothing has come since: what comes while nobody asks, be it the end, is no answer to a request.
    pub(super) fn is_silent(&self) -> bool {
        let mut octet = [0];
        let mut octet = ReadBuf::new(&mut octet);
        let mut cx = Context::from_waker(Waker::noop());
        let mut stream = self.stream.borrow_mut();
        stream.as_mut().is_some_and(|stream| Pin::new(stream).poll_read(&mut cx, &mut octet).is_pending())
    }

    /// Reads what has come; zero is the end.
    pub(super) fn poll_read(&self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let (mut stream, mut read) = (self.stream.borrow_mut(), self.read.borrow_mut());
        let Some(stream) = stream.as_mut() else { return Poll::Ready(Ok(0)) };
        let count = if self.is_bulk.get() {
            read.reserve(BULK);
            let polled = poll_read_buf(Pin::new(stream), cx, &mut *read);
            if polled.is_pending() && read.is_empty() {
                *read = BytesMut::new();
            }
            ready!(polled)?
        } else {
            let mut room = [const { MaybeUninit::uninit() }; READ];
            let mut came = ReadBuf::uninit(&mut room);
            ready!(Pin::new(stream).poll_read(cx, &mut came))?;
            read.extend_from_slice(came.filled());
            came.filled().len()
        };
        self.is_bulk.set(count >= READ);
        Poll::Ready(Ok(count))
    }

    /// Writes some of it.
    pub(super) fn poll_write(&self, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        let mut stream = self.stream.borrow_mut();
        let Some(stream) = stream.as_mut() else { return Poll::Ready(Err(io::ErrorKind::NotConnected.into())) };
        match ready!(Pin::new(stream).poll_write(cx, octets))? {
            0 => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            count => Poll::Ready(Ok(count)),
        }
    }

    /// Sends what TLS or a tunnel has kept of that.
    pub(super) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut stream = self.stream.borrow_mut();
        stream.as_mut().map_or(Poll::Ready(Ok(())), |stream| Pin::new(stream).poll_flush(cx))
    }
}
