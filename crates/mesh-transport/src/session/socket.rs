//! The sockets of a thread's sessions, so that those whose peers have gone without a word are ended.
//!
//! TCP sends again for a quarter of an hour what nobody acknowledges, and keepalive is silent meanwhile. TCP_USER_TIMEOUT would
//! end connections whose peers merely take nothing, too.

use std::cell::{Cell, RefCell};
use std::future::pending;
use std::ops::Deref;
use std::rc::{Rc, Weak};
use std::time::Duration;

use mesh_netlink::TcpProgress;
use slab::Slab;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::task::yield_now;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

/// How long a peer's host may leave a question without an acknowledgement.
const HEARD: Duration = Duration::from_secs(1);
/// How often that is looked for from then on.
const LISTEN: Duration = Duration::from_millis(250);
/// How often all are looked at.
const LOOK: Duration = Duration::from_secs(5);
/// How many are looked at before others of the thread get their turn.
const TURN: usize = 256;

thread_local! {
    static OPEN: RefCell<Slab<Watched>> = const { RefCell::new(Slab::new()) };
}

/// A session's socket, which its thread looks after while it is open.
pub(crate) struct SessionSocket {
    stream: Rc<TcpStream>,
    place: usize,
}

/// One of those that are open.
struct Watched {
    socket: Rc<TcpStream>,
    /// Since when each look has found that its peer does not answer.
    unanswered: Cell<Option<Instant>>,
    ended: Cell<bool>,
}

impl From<TcpStream> for SessionSocket {
    fn from(stream: TcpStream) -> Self {
        let stream = Rc::new(stream);
        let watched = Watched { socket: stream.clone(), unanswered: Cell::default(), ended: Cell::default() };
        let place = OPEN.with_borrow_mut(|open| open.insert(watched));
        Self { stream, place }
    }
}

impl SessionSocket {
    /// The socket, for who does not keep it open.
    pub(crate) fn downgrade(&self) -> Weak<TcpStream> {
        Rc::downgrade(&self.stream)
    }
}

impl Deref for SessionSocket {
    type Target = TcpStream;
    fn deref(&self) -> &TcpStream {
        &self.stream
    }
}

impl Drop for SessionSocket {
    fn drop(&mut self) {
        // While the thread ends they are gone already.
        let _ = OPEN.try_with(|open| open.borrow_mut().try_remove(self.place));
    }
}

/// Resolves when the peer's host leaves what is sent from now on without an acknowledgement. That its kernel gives at once, however
/// long the peer itself takes for an answer.
pub(crate) async fn unheard(socket: Weak<TcpStream>) {
    sleep(HEARD).await;
    while let Some(socket) = socket.upgrade() {
        if unheard_for(&socket).is_some_and(|silence| silence >= HEARD) {
            return;
        }
        drop(socket);
        sleep(LISTEN).await;
    }
    // Who reads or writes it is told of its end.
    pending().await
}

/// For how long the peer's host has acknowledged nothing, where it was asked again and again; none where it has, or was not asked.
#[must_use]
pub fn unheard_for(socket: &TcpStream) -> Option<Duration> {
    TcpProgress::of(socket).ok().filter(TcpProgress::is_unanswered).map(|progress| progress.silence)
}

/// Breaks a connection: whoever reads or writes it finds an end that the peer has not said, and nothing of what the peer has not
/// acknowledged is sent to it once it is closed.
pub fn break_off(socket: &TcpStream) {
    // What is broken already needs no end.
    let _ = socket.set_zero_linger();
    let _ = SockRef::from(socket).shutdown(std::net::Shutdown::Both);
}

/// Ends this thread's sessions whose peers have acknowledged nothing for so long, though there was something to. Runs until it is
/// dropped.
pub(crate) async fn end_abandoned(limit: Duration) {
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        let mut from = 0;
        while from < OPEN.with_borrow(Slab::capacity) {
            OPEN.with_borrow(|open| {
                let turn = (from..from + TURN).filter_map(|place| open.get(place));
                turn.filter(|watched| watched.is_abandoned(limit)).for_each(Watched::end);
            });
            from += TURN;
            yield_now().await;
        }
    }
}

impl Watched {
    fn is_abandoned(&self, limit: Duration) -> bool {
        if self.ended.get() {
            return false;
        }
        let Some(silence) = unheard_for(&self.socket) else {
            self.unanswered.set(None);
            return false;
        };
        // A connection that was idle has been silent for longer than it was asked.
        let since = self.unanswered.get().unwrap_or_else(Instant::now);
        self.unanswered.set(Some(since));
        silence.min(since.elapsed()) >= limit
    }

    fn end(&self) {
        self.ended.set(true);
        tracing::info!(peer = ?self.socket.peer_addr().ok(), "tunnel connection ended: its peer acknowledges nothing");
        break_off(&self.socket);
    }
}
