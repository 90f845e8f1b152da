//! What moves of one exchange on its client's side, and how it is cut off where nothing does.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    pin::pin,
    rc::{Rc, Weak},
    task::{Context, Poll, Waker},
};

use bytes::{Buf, Bytes};
use tokio::task::spawn_local;

use super::pulse::Pulse;
use crate::{upstream::STREAM_WINDOW, worker::Worker};

tokio::task_local! {
    /// The stream of HTTP/2 that a task serves.
    static STREAM: Rc<Cut>;
}

/// Octets of a body of known length that have to move in the time that a client has: less is no progress. A client that sends
/// or takes less than four octets a second keeps something busy, and nothing else.
const LEAST: u64 = 1 << 10;

/// Octets that may wait on an endpoint's connection of HTTP/2 for a client that takes nothing.
const UNREAD: u64 = STREAM_WINDOW as u64;

/// Tasks that are told when a stream is cut off: others poll again when one more comes.
const MOST_WAITING: usize = 4;

/// An end from outside: a stream that its client does not read is polled by nobody, and cannot end itself.
#[derive(Debug, Default)]
pub(super) struct Cut {
    is: Cell<bool>,
    waiting: RefCell<Vec<Waker>>,
}

impl Cut {
    fn cut(&self) {
        self.is.set(true);
        self.waiting.take().into_iter().for_each(Waker::wake);
    }

    /// Ready once it is cut.
    fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        if self.is.get() {
            return Poll::Ready(());
        }
        let mut waiting = self.waiting.borrow_mut();
        if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            // Who polls are the stream and what sends its body on, of one attempt after another.
            if waiting.len() == MOST_WAITING {
                waiting.remove(0).wake();
            }
            waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }
}

/// Runs the streams of a client's HTTP/2 connection on this thread, each so that it can be cut off.
#[derive(Debug, Clone, Copy)]
pub(super) struct StreamExecutor;

impl<F> hyper::rt::Executor<F> for StreamExecutor
where
    F: Future + 'static,
{
    fn execute(&self, future: F) {
        let cut = Rc::<Cut>::default();
        spawn_local(STREAM.scope(cut.clone(), async move {
            let mut stream = pin!(future);
            poll_fn(|cx| {
                // The stream first: it may have something to say about being cut.
                if stream.as_mut().poll(cx).is_ready() { Poll::Ready(()) } else { cut.poll(cx) }
            })
            .await;
        }));
    }
}

/// Whom an exchange waits for too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stalled {
    /// The client does not send its request's body.
    Request,
    /// The client does not take the response.
    Response,
    /// Nobody says anything.
    Quiet,
}

/// How long a count has stood still, in looks.
#[derive(Debug, Default)]
struct Still {
    mark: Cell<u64>,
    looks: Cell<u32>,
}

impl Still {
    /// One look more: how many it has been since the count grew by `least`, while it could.
    fn look(&self, could: bool, count: u64, least: u64) -> u32 {
        if !could || count.saturating_sub(self.mark.get()) >= least {
            self.mark.set(count);
            self.looks.set(0);
        } else {
            self.looks.set(self.looks.get().saturating_add(1));
        }
        self.looks.get()
    }
}

/// What moves of one exchange. It is there until the exchange has ended and the client has been sent all of the response.
#[derive(Debug)]
pub(crate) struct Flow {
    pulse: Rc<Pulse>,
    number: u64,
    cut: Rc<Cut>,
    why: Cell<Option<Stalled>>,
    /// Octets of the request's body that came.
    came: Cell<u64>,
    /// More of it is waited for.
    awaited: Cell<bool>,
    /// It says how long it is.
    is_measured: Cell<bool>,
    /// Both sides speak when they have something to say, and may be silent for long.
    is_stream: Cell<bool>,
    /// Octets of the response that were handed on; those of them that the client has yet to take, and those that it took.
    given: Cell<u64>,
    owed: Cell<u64>,
    taken: Cell<u64>,
    /// While the client takes nothing.
    unread: RefCell<Option<Unread>>,
    still: [Still; 3],
}

/// What waits on an endpoint's connection, counted with what clients have yet to take.
#[derive(Debug)]
struct Unread(Weak<Worker>);

impl Unread {
    fn one(worker: &Rc<Worker>) -> Self {
        worker.owed.set(worker.owed.get() + UNREAD);
        Self(Rc::downgrade(worker))
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        if let Some(worker) = self.0.upgrade() {
            worker.owed.set(worker.owed.get().saturating_sub(UNREAD));
        }
    }
}

impl Flow {
    pub(super) fn new(pulse: &Rc<Pulse>, number: u64) -> Self {
        Self {
            pulse: pulse.clone(),
            number,
            cut: STREAM.try_with(Rc::clone).unwrap_or_default(),
            why: Cell::default(),
            came: Cell::default(),
            awaited: Cell::default(),
            is_measured: Cell::default(),
            is_stream: Cell::default(),
            given: Cell::default(),
            owed: Cell::default(),
            taken: Cell::default(),
            unread: RefCell::default(),
            still: Default::default(),
        }
    }

    /// Both sides may be silent for long: gRPC's messages come when there are any.
    pub(crate) fn is_stream(&self) {
        self.is_stream.set(true);
    }

    /// The request's body is waited for.
    pub(crate) fn awaits(&self, is_measured: bool) {
        self.awaited.set(true);
        self.is_measured.set(is_measured);
    }

    /// Octets of the request's body came, or its end.
    pub(crate) fn came(&self, octets: usize) {
        self.awaited.set(false);
        self.came.set(self.came.get() + octets as u64);
    }

    /// The response has begun: a body of no known length that still comes is one side of a conversation.
    pub(crate) fn answered(&self) {
        if !self.is_measured.get() {
            self.is_stream();
        }
    }

    /// Why it was cut off, if it was.
    pub(crate) fn why_cut(&self) -> Option<Stalled> {
        self.why.get()
    }

    /// It ends with its connection, for that reason.
    pub(super) fn ends_for(&self, why: Stalled) {
        self.why.set(Some(why));
    }

    /// Resolves once it is cut off.
    pub(crate) async fn cut(&self) -> Stalled {
        poll_fn(|cx| self.cut.poll(cx)).await;
        self.why.get().unwrap_or(Stalled::Quiet)
    }

    /// Ready once it is cut off.
    pub(crate) fn poll_cut(&self, cx: &Context<'_>) -> Poll<()> {
        self.cut.poll(cx)
    }

    /// One look more, by which it may be cut off: `limits` are those of who is waited for, and of silence, in looks.
    pub(super) fn look(&self, worker: &Rc<Worker>, limits: (u32, u32)) -> Option<Stalled> {
        let [request, response, quiet] = &self.still;
        let of_request = if self.is_stream.get() { limits.1 } else { limits.0 };
        let least = if self.is_measured.get() { LEAST } else { 1 };
        let moved = self.came.get() + self.given.get();
        let stalled = [
            (request.look(self.awaited.get(), self.came.get(), least) >= of_request, Stalled::Request),
            (response.look(self.owed.get() > 0, self.taken.get(), LEAST) >= limits.0, Stalled::Response),
            (quiet.look(true, moved, 1) >= limits.1, Stalled::Quiet),
        ];
        if response.looks.get() == 0 {
            self.unread.take();
        } else if self.unread.borrow().is_none() {
            self.unread.replace(Some(Unread::one(worker)));
        }
        let (_, why) = stalled.into_iter().find(|(is, _)| *is)?;
        self.why.set(Some(why));
        self.cut.cut();
        Some(why)
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.pulse.end(self.number);
    }
}

/// Octets of a response on their way to a client. Of HTTP/2, they are counted until they are written, however long the client has
/// them wait.
#[derive(Debug)]
pub(crate) struct Chunk {
    octets: Bytes,
    owed: Option<(Rc<Flow>, Weak<Worker>)>,
}

impl Chunk {
    /// Octets that leave as soon as there is room for them: HTTP/1 has no other place for them to wait in.
    pub(crate) fn free(octets: Bytes, flow: &Flow) -> Self {
        flow.given.set(flow.given.get() + octets.len() as u64);
        Self { octets, owed: None }
    }

    /// Octets that may have to wait.
    pub(crate) fn owed(octets: Bytes, flow: &Rc<Flow>, worker: &Rc<Worker>) -> Self {
        flow.given.set(flow.given.get() + octets.len() as u64);
        flow.owed.set(flow.owed.get() + octets.len() as u64);
        worker.owed.set(worker.owed.get() + octets.len() as u64);
        Self { octets, owed: Some((flow.clone(), Rc::downgrade(worker))) }
    }

    fn gone(&self, count: usize, is_taken: bool) {
        let Some((flow, worker)) = &self.owed else { return };
        let count = count as u64;
        flow.owed.set(flow.owed.get().saturating_sub(count));
        if is_taken {
            flow.taken.set(flow.taken.get() + count);
        }
        if let Some(worker) = worker.upgrade() {
            worker.owed.set(worker.owed.get().saturating_sub(count));
        }
    }
}

impl Buf for Chunk {
    fn remaining(&self) -> usize {
        self.octets.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.octets
    }

    fn advance(&mut self, count: usize) {
        self.octets.advance(count);
        self.gone(count, true);
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        self.gone(self.octets.len(), false);
    }
}
