//! What an HTTP/2 connection writes, gathered until its thread has nothing else to do.
//!
//! h2 writes each frame of data of 1 KiB or more by itself, and flushes whenever one stream has something to say. Of what several
//! streams say at once a write each is most of what a request costs; here it is one for all of them, and one record of TLS.

use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    pin::{Pin, pin},
    rc::{Rc, Weak},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker, ready},
};

use mesh_core::lock::UnpoisonedMutex as _;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    task::yield_now,
};

/// Octets that are gathered: more are written at once. It is the most that one record of TLS takes, and a frame of HTTP/2 that is
/// larger than nobody allowed.
const GATHERED: usize = 16 << 10;

/// A stream that is told a flush is done as long as little is gathered. [`Sending`] does it in its stead.
pub(crate) struct Gathered<S>(Rc<RefCell<Gather<S>>>);

/// The stream within a gathered one, for who does not keep it open.
pub(crate) struct Within<S>(Weak<RefCell<Gather<S>>>);

impl<S> Within<S> {
    /// What is found at it; none where it is gone.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&S) -> T) -> Option<T> {
        self.0.upgrade().map(|gather| look(&gather.borrow().stream))
    }
}

impl<S> Gathered<S> {
    /// The stream within.
    pub(crate) fn within(&self) -> Within<S> {
        Within(Rc::downgrade(&self.0))
    }
}

/// What is gathered, on its way to the other end.
pub(crate) struct Sending<S> {
    gather: Rc<RefCell<Gather<S>>>,
    turn: Arc<Turn>,
}

struct Gather<S> {
    stream: S,
    /// Empty, and without memory, as long as nothing waits.
    waiting: Vec<u8>,
    /// How many of those were written.
    written: usize,
    /// The other end has not taken all that was sent.
    is_blocked: bool,
    /// Who waits until it has.
    writer: Option<Waker>,
    /// Who is to be told when something is gathered, where it is another task than who writes.
    sender: Option<Waker>,
    /// Why nothing can be sent any more, for who writes next.
    failed: Option<io::Error>,
}

/// The moment at which a thread has nothing else to do.
#[derive(Default)]
struct Turn {
    is_asked_for: AtomicBool,
    has_come: AtomicBool,
    connection: Mutex<Option<Waker>>,
}

/// A stream of which small writes are gathered, and what sends them: poll it whenever whoever writes has nothing more to write, or
/// let it [run](Sending::run).
pub(crate) fn gathered<S>(stream: S) -> (Gathered<S>, Sending<S>) {
    let gather =
        Gather { stream, waiting: Vec::new(), written: 0, is_blocked: false, writer: None, sender: None, failed: None };
    let gather = Rc::new(RefCell::new(gather));
    (Gathered(gather.clone()), Sending { gather, turn: Arc::default() })
}

impl<S: AsyncWrite + Unpin> Sending<S> {
    /// Sends what is gathered, once the other tasks of this thread have had their turn. Ready only if that fails.
    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let mut gather = self.gather.borrow_mut();
        // What the other end does not take is tried again whenever it takes something.
        if !gather.is_blocked && (gather.waiting.is_empty() || !self.turn.comes(cx)) {
            return Poll::Pending;
        }
        match gather.poll_send(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(error),
            Poll::Ready(Ok(())) => {
                gather.writer.take().into_iter().for_each(Waker::wake);
                Poll::Pending
            }
            Poll::Pending => Poll::Pending,
        }
    }

    /// The same for a stream that other tasks write to, as long as they have it. They hear of what fails by their next write.
    pub(crate) async fn run(self) {
        poll_fn(|cx| {
            if Rc::strong_count(&self.gather) == 1 {
                // What was written last is sent if it can be; nobody is left who would wait for it.
                let _ = self.gather.borrow_mut().poll_send(cx);
                return Poll::Ready(());
            }
            self.gather.borrow_mut().sender = Some(cx.waker().clone());
            self.poll(cx).map(|error| self.gather.borrow_mut().fail(error))
        })
        .await;
    }
}

impl<S> Drop for Gathered<S> {
    fn drop(&mut self) {
        self.0.borrow_mut().sender.take().into_iter().for_each(Waker::wake);
    }
}

impl Turn {
    /// Whether the moment has come; if nobody asked for it yet, it is asked for.
    fn comes(self: &Arc<Self>, cx: &Context<'_>) -> bool {
        if self.has_come.swap(false, Ordering::AcqRel) {
            return true;
        }
        if !self.is_asked_for.swap(true, Ordering::AcqRel) {
            *self.connection.lock_unpoisoned() = Some(cx.waker().clone());
            let waker = Waker::from(self.clone());
            // The runtime keeps the waker of a task that yields until no other task is ready and the sockets were looked at.
            let _ = pin!(yield_now()).poll(&mut Context::from_waker(&waker));
        }
        false
    }
}

impl Wake for Turn {
    fn wake(self: Arc<Self>) {
        self.is_asked_for.store(false, Ordering::Release);
        self.has_come.store(true, Ordering::Release);
        let connection = self.connection.lock_unpoisoned().take();
        connection.into_iter().for_each(Waker::wake);
    }
}

impl<S: AsyncWrite + Unpin> Gather<S> {
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.is_blocked = true;
        while self.written < self.waiting.len() {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, &self.waiting[self.written..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.written += count,
            }
        }
        (self.waiting, self.written) = (Vec::new(), 0);
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.is_blocked = false;
        Poll::Ready(Ok(()))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Err(error));
        }
        if self.waiting.len() + bytes.len() > GATHERED && !self.waiting.is_empty() {
            ready!(self.poll_send(cx))?;
        }
        if bytes.len() >= GATHERED {
            return Pin::new(&mut self.stream).poll_write(cx, bytes);
        }
        if self.waiting.capacity() == 0 {
            self.waiting.reserve_exact(GATHERED);
        }
        self.waiting.extend_from_slice(bytes);
        self.sender.take().into_iter().for_each(Waker::wake);
        Poll::Ready(Ok(bytes.len()))
    }

    fn fail(&mut self, error: io::Error) {
        self.failed = Some(error);
        self.writer.take().into_iter().for_each(Waker::wake);
    }

    /// Notes whom the other end lets wait.
    fn noted<T>(&mut self, result: Poll<T>, cx: &Context<'_>) -> Poll<T> {
        if result.is_pending() {
            self.writer = Some(cx.waker().clone());
        }
        result
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gathered<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.borrow_mut().stream).poll_read(cx, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gathered<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let gather = &mut *self.0.borrow_mut();
        let written = gather.poll_write(cx, bytes);
        gather.noted(written, cx)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let gather = &mut *self.0.borrow_mut();
        if gather.waiting.is_empty() {
            return Pin::new(&mut gather.stream).poll_flush(cx);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let gather = &mut *self.0.borrow_mut();
        let sent = gather.poll_send(cx);
        ready!(gather.noted(sent, cx))?;
        Pin::new(&mut gather.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
        join, select,
        task::{LocalSet, spawn_local},
    };

    use super::*;

    /// Counts what is written to it.
    struct Counting(Rc<Cell<usize>>, Vec<u8>);

    impl AsyncWrite for Counting {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.0.set(self.0.get() + 1);
            self.1.extend_from_slice(bytes);
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn what_is_written_and_flushed_by_turns_leaves_by_one_write() {
        let count = Rc::new(Cell::new(0));
        let (mut gathered, sending) = gathered(Counting(count.clone(), Vec::new()));
        let written = async {
            for part in [b"one", b"two", b"six"] {
                gathered.write_all(part).await.unwrap();
                gathered.flush().await.unwrap();
            }
            assert_eq!(count.get(), 0);
            while count.get() == 0 {
                yield_now().await;
            }
        };
        select! {
            biased;
            () = written => {}
            error = poll_fn(|cx| sending.poll(cx)) => panic!("{error}"),
        }
        assert_eq!((count.get(), &*sending.gather.borrow().stream.1), (1, &b"onetwosix"[..]));
        assert_eq!(sending.gather.borrow().waiting.capacity(), 0);
    }

    async fn carried(mut gathered: Gathered<DuplexStream>, sending: Sending<DuplexStream>, mut client: DuplexStream) {
        let sent: Vec<u8> = (0..100_000_u32).flat_map(u32::to_be_bytes).collect();
        let write = async {
            for part in sent.chunks(1_500) {
                gathered.write_all(part).await.unwrap();
                gathered.flush().await.unwrap();
                assert!(gathered.0.borrow().waiting.len() <= GATHERED);
            }
            gathered.shutdown().await.unwrap();
            drop(gathered);
        };
        let send = async {
            select! {
                biased;
                () = write => {}
                error = poll_fn(|cx| sending.poll(cx)) => panic!("{error}"),
            }
            drop(sending);
        };
        let mut came = Vec::new();
        let (_, read) = join!(send, client.read_to_end(&mut came));
        assert!(read.is_ok() && came == sent);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn what_another_task_writes_is_sent_and_what_fails_is_told() {
        LocalSet::new()
            .run_until(async {
                for room in [7, 1 << 10, 1 << 20] {
                    let (ours, mut client) = duplex(room);
                    let (mut gathered, sending) = gathered(ours);
                    let sending = spawn_local(sending.run());
                    let sent: Vec<u8> = (0..50_000_u32).flat_map(u32::to_be_bytes).collect();
                    let write = async {
                        for part in sent.chunks(1_500) {
                            gathered.write_all(part).await.unwrap();
                            gathered.flush().await.unwrap();
                        }
                    };
                    let mut came = vec![0; sent.len()];
                    let (_, read) = join!(write, client.read_exact(&mut came));
                    assert!(read.is_ok() && came == sent);
                    gathered.write_all(b"the end").await.unwrap();
                    drop(gathered);
                    sending.await.unwrap();
                    let mut end = Vec::new();
                    client.read_to_end(&mut end).await.unwrap();
                    assert_eq!(end, b"the end");
                }
                let (ours, client) = duplex(16);
                let (mut gathered, sending) = gathered(ours);
                let sending = spawn_local(sending.run());
                drop(client);
                gathered.write_all(b"anybody there").await.unwrap();
                sending.await.unwrap();
                let error = gathered.write_all(b"anybody").await.unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
            })
            .await;
    }

    #[tokio::test]
    async fn all_arrives_in_order_however_little_the_client_takes_at_once() {
        for room in [7, 1 << 10, 1 << 20] {
            let (ours, client) = duplex(room);
            let (gathered, sending) = gathered(ours);
            carried(gathered, sending, client).await;
        }
    }

    #[tokio::test]
    async fn a_client_that_is_gone_is_an_error_of_who_sends() {
        let (ours, client) = duplex(16);
        let (mut gathered, sending) = gathered(ours);
        drop(client);
        gathered.write_all(b"anybody there").await.unwrap();
        let error = poll_fn(|cx| sending.poll(cx)).await;
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
