//! The sockets of a thread's sessions, so that those whose peers have gone without a word are ended.
//!
//! TCP sends again for a quarter of an hour what nobody acknowledges, and keepalive is silent meanwhile. TCP_USER_TIMEOUT would
//! end connections whose peers merely take nothing, too.

use std::cell::RefCell;
use std::ops::Deref;
use std::rc::Rc;
use std::time::Duration;

use mesh_netlink::TcpProgress;
use slab::Slab;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::task::yield_now;
use tokio::time::{MissedTickBehavior, interval, sleep};

/// How long a peer's host may leave a question without an acknowledgement.
const HEARD: Duration = Duration::from_secs(1);
/// How often that is looked for.
const LISTEN: Duration = Duration::from_millis(250);
/// How often all are looked at.
const LOOK: Duration = Duration::from_secs(5);
/// How many are looked at before others of the thread get their turn.
const TURN: usize = 256;

thread_local! {
    static OPEN: RefCell<Slab<Rc<TcpStream>>> = const { RefCell::new(Slab::new()) };
}

/// A session's socket, which its thread looks after while it is open.
pub(crate) struct SessionSocket {
    stream: Rc<TcpStream>,
    place: usize,
}

impl From<TcpStream> for SessionSocket {
    fn from(stream: TcpStream) -> Self {
        let stream = Rc::new(stream);
        let place = OPEN.with_borrow_mut(|open| open.insert(stream.clone()));
        Self { stream, place }
    }
}

impl SessionSocket {
    /// Resolves when the peer's host leaves what was sent without an acknowledgement. That its kernel gives at once, however long
    /// the peer itself takes for an answer.
    pub(crate) fn unheard(&self) -> impl Future<Output = ()> + use<> {
        let socket = self.stream.clone();
        async move {
            loop {
                sleep(LISTEN).await;
                if is_abandoned(&socket, HEARD) {
                    return;
                }
            }
        }
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
                turn.filter(|socket| is_abandoned(socket, limit)).for_each(|socket| end(socket));
            });
            from += TURN;
            yield_now().await;
        }
    }
}

fn is_abandoned(socket: &TcpStream, limit: Duration) -> bool {
    TcpProgress::of(socket).is_ok_and(|progress| progress.is_abandoned(limit))
}

/// Whoever reads or writes finds an end that the peer has not said, which is a break.
fn end(socket: &TcpStream) {
    tracing::info!(peer = ?socket.peer_addr().ok(), "tunnel connection ended: its peer acknowledges nothing");
    // What is broken already needs no end.
    let _ = SockRef::from(socket).shutdown(std::net::Shutdown::Both);
}
