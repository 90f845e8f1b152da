//! Whether a client's connection is alive: neither idle for too long, nor taking for ever over the head of a request, and with
//! something moving in each of its exchanges.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    io,
    pin::Pin,
    rc::{Rc, Weak},
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Interval, MissedTickBehavior, interval, sleep},
};

use super::flow::{Flow, Stalled};
use crate::worker::Worker;

/// How often it is looked, where limits are long.
const LOOK: Duration = Duration::from_secs(5);
/// How often at most.
const LEAST_LOOK: Duration = Duration::from_millis(100);
/// How long the head of a request may take.
const HEAD: Duration = Duration::from_secs(15);
/// How long a client may take to end its side of a connection that was to end for idleness.
const PARTING: Duration = Duration::from_secs(5);
/// What clients have while there are too many of them, or while they leave too much untaken.
const HURRY: Duration = Duration::from_secs(10);
/// Connections of clients on one thread beyond which those that do nothing are too many. A gateway refuses more than 16,384 over
/// all its threads, and those that do nothing must not be what the others are refused for.
const MANY_CLIENTS: usize = 4096;
/// Octets of responses on one thread that clients have not taken beyond which those that take nothing are ended soon.
const MUCH_OWED: u64 = 128 << 20;

/// How long clients may do nothing. None is for ever.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// Without a request; and in a request in which nobody says anything.
    pub(crate) idle: Option<Duration>,
    /// While more of a request is waited for, or a response is not taken.
    pub(crate) stream_idle: Option<Duration>,
}

impl Patience {
    /// What is left of it on a thread.
    pub(super) fn now(self, worker: &Worker) -> Self {
        let hurried = |limit: Option<Duration>| Some(limit.unwrap_or(HURRY).min(HURRY));
        let (is_crowded, is_full) = (worker.clients.get() > MANY_CLIENTS, worker.owed.get() > MUCH_OWED);
        Self {
            idle: if is_crowded { hurried(self.idle) } else { self.idle },
            stream_idle: if is_crowded || is_full { hurried(self.stream_idle) } else { self.stream_idle },
        }
    }

    /// How often to look.
    pub(super) fn look(self) -> Duration {
        let shortest = [self.idle, self.stream_idle].into_iter().flatten().min().unwrap_or(LOOK);
        (shortest / 4).clamp(LEAST_LOOK, LOOK)
    }
}

/// Resolves when a client that has said nothing at all has been silent for too long.
pub(super) async fn silence(worker: &Worker) {
    let look = worker.shared.patience.look();
    let mut silent = Duration::ZERO;
    loop {
        sleep(look).await;
        silent += look;
        if worker.shared.patience.now(worker).idle.is_some_and(|limit| silent >= limit) {
            return worker.shared.telemetry.own.lifeless(Lifeless::Idle);
        }
    }
}

/// A client's connection, counted while it is there.
pub(super) struct ClientGuard(Rc<Worker>);

impl ClientGuard {
    /// One more.
    pub(super) fn one(worker: &Rc<Worker>) -> Self {
        worker.clients.set(worker.clients.get() + 1);
        Self(worker.clone())
    }
}

impl Drop for ClientGuard {
    fn drop(&mut self) {
        self.0.clients.set(self.0.clients.get() - 1);
    }
}

/// What a connection did last. One timer each connection, looked at seldom, costs less than one for each request.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    /// Exchanges under way.
    flows: RefCell<HashMap<u64, Weak<Flow>>>,
    /// Requests ever begun.
    begun: Cell<u64>,
    /// Bytes came since the last request began.
    head: Cell<bool>,
    /// What was written last waits for the client; and what TLS has made of it.
    writing: Cell<bool>,
    flushing: Cell<bool>,
    /// Bytes written.
    written: Cell<u64>,
}

impl Pulse {
    /// A request begins; it is under way until what is returned is dropped.
    pub(super) fn begin(self: &Rc<Self>) -> Rc<Flow> {
        let number = self.begun.get() + 1;
        self.begun.set(number);
        self.head.set(false);
        let flow = Rc::new(Flow::new(self, number));
        self.flows.borrow_mut().insert(number, Rc::downgrade(&flow));
        flow
    }

    /// A request is no longer under way.
    pub(super) fn end(&self, number: u64) {
        self.flows.borrow_mut().remove(&number);
    }
}

/// What is to be done with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It takes no more requests.
    Retire,
    /// It ends.
    End,
}

/// Why it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lifeless {
    /// No request came.
    Idle,
    /// The head of one does not end.
    Head,
    /// An exchange does not move.
    Stalled(Stalled),
}

impl Lifeless {
    /// As metrics have it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Head => "request_head",
            Self::Stalled(Stalled::Request) => "request_body",
            Self::Stalled(Stalled::Response) => "response",
            Self::Stalled(Stalled::Quiet) => "quiet",
        }
    }
}

/// Feels the pulse of one connection.
pub(super) struct Watch {
    worker: Rc<Worker>,
    pulse: Rc<Pulse>,
    ticks: Interval,
    look: Duration,
    begun: u64,
    in_head: bool,
    /// Looks since anything of that changed.
    idle: u32,
    /// The same for what waits to be written.
    written: u64,
    blocked: u32,
    /// Looks since it takes no more requests.
    retired: Option<u32>,
}

impl Watch {
    pub(super) fn new(worker: &Rc<Worker>, pulse: &Rc<Pulse>) -> Self {
        let look = worker.shared.patience.look();
        let mut ticks = interval(look);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (worker, pulse) = (worker.clone(), pulse.clone());
        Self { worker, pulse, ticks, look, begun: 0, in_head: false, idle: 0, written: 0, blocked: 0, retired: None }
    }

    /// Resolves when something is to be done. Nothing is lost where it is dropped before.
    pub(super) async fn verdict(&mut self) -> Verdict {
        loop {
            self.ticks.tick().await;
            if let Some(verdict) = self.look() {
                return verdict;
            }
        }
    }

    /// So many looks, and one for what was there of the first.
    fn looks(&self, limit: Option<Duration>) -> u32 {
        let looks = |limit: Duration| limit.as_millis().div_ceil(self.look.as_millis().max(1)) + 1;
        limit.map_or(u32::MAX, |limit| u32::try_from(looks(limit)).unwrap_or(u32::MAX))
    }

    fn look(&mut self) -> Option<Verdict> {
        let patience = self.worker.shared.patience.now(&self.worker);
        let stream_idle = self.looks(patience.stream_idle);
        // Silence is no fault: it counts as it does where there are few clients.
        let (alive, dead) = self.look_at_flows((stream_idle, self.looks(self.worker.shared.patience.idle)));
        if self.is_blocked(stream_idle) {
            self.flows().iter().for_each(|flow| flow.ends_for(Stalled::Response));
            return Some(self.end(Lifeless::Stalled(Stalled::Response)));
        }
        if let Some(looks) = &mut self.retired {
            *looks += 1;
            let parted = *looks > self.looks(Some(PARTING));
            return (alive == 0 && parted).then_some(Verdict::End);
        }
        if dead > 0 {
            // What was cut off is still there: h2 resets no stream before what waits in it, and is not told to. Then the
            // connection ends, once all others have.
            return Some(self.retire());
        }
        let head = alive == 0 && self.pulse.head.get();
        if alive > 0 || self.pulse.begun.get() != self.begun || head != self.in_head {
            (self.begun, self.idle, self.in_head) = (self.pulse.begun.get(), 0, head);
            return None;
        }
        self.idle = self.idle.saturating_add(1);
        if self.in_head && self.idle >= self.looks(Some(HEAD)) {
            return Some(self.end(Lifeless::Head));
        }
        (self.idle >= self.looks(patience.idle)).then(|| {
            self.tell(Lifeless::Idle);
            self.retire()
        })
    }

    /// How many exchanges go on, and how many are there still that were cut off before.
    fn look_at_flows(&self, limits: (u32, u32)) -> (usize, usize) {
        let (mut alive, mut dead) = (0, 0);
        for flow in self.flows() {
            if flow.why_cut().is_some() {
                dead += 1;
                continue;
            }
            alive += 1;
            if let Some(why) = flow.look(&self.worker, limits) {
                self.tell(Lifeless::Stalled(why));
            }
        }
        (alive, dead)
    }

    fn flows(&self) -> Vec<Rc<Flow>> {
        self.pulse.flows.borrow().values().filter_map(Weak::upgrade).collect()
    }

    /// Whether what waits to be written has waited for so many looks.
    fn is_blocked(&mut self, limit: u32) -> bool {
        const LEAST: u64 = 1 << 10;
        let written = self.pulse.written.get();
        let is_waiting = self.pulse.writing.get() || self.pulse.flushing.get();
        if !is_waiting || written - self.written >= LEAST {
            (self.written, self.blocked) = (written, 0);
        } else {
            self.blocked = self.blocked.saturating_add(1);
        }
        self.blocked >= limit
    }

    fn retire(&mut self) -> Verdict {
        self.retired = Some(0);
        Verdict::Retire
    }

    fn end(&self, why: Lifeless) -> Verdict {
        self.tell(why);
        Verdict::End
    }

    fn tell(&self, why: Lifeless) {
        self.worker.shared.telemetry.own.lifeless(why);
    }
}

/// A stream whose reads and writes are noted.
pub(super) struct PulsedStream<S> {
    pub(super) stream: S,
    pub(super) pulse: Rc<Pulse>,
}

impl<S: AsyncRead + Unpin> AsyncRead for PulsedStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, into);
        if into.filled().len() > before {
            self.pulse.head.set(true);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for PulsedStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.pulse.writing.set(polled.is_pending());
        if let Poll::Ready(Ok(count)) = &polled {
            self.pulse.written.set(self.pulse.written.get() + *count as u64);
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        self.pulse.flushing.set(polled.is_pending());
        polled
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
